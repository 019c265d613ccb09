// SPDX-License-Identifier: GPL-2.0

//! `ThreadGroup::cpu_time()` under the sequence lock, against a thread that ends: its time moves
//! from the thread to the sum of those that have ended.

use crate::{
    at_once,
    bindings::{Group, let_find},
    once::leave_out_barrier,
    process::Process,
    sync::rcu,
};
use loom::sync::{Arc, atomic::Ordering::Relaxed};

const LEADER: u64 = 3;
const THREAD: u64 = 40;

fn sums_up_meanwhile(left_out: Option<usize>) {
    loom::model(move || {
        let group = Arc::new(Group::new());
        group.start_thread();
        group.leader.se.sum_exec_runtime.store(LEADER, Relaxed);
        group.thread.se.sum_exec_runtime.store(THREAD, Relaxed);
        let_find(&group);
        let [process] = Process::find_many::<1>(&[1]);
        let process = process.unwrap();
        let sum_up = move || {
            leave_out_barrier(left_out);
            process.threads(&rcu::read_lock()).unwrap().cpu_time()
        };
        let (time, ()) = at_once(sum_up, move || group.release_thread());
        assert_eq!(time, Some(LEADER + THREAD));
    });
}

#[test]
fn a_thread_that_ends_counts_once() {
    sums_up_meanwhile(None);
}

/// The count of after, and the list of before.
#[test]
#[should_panic = "left: Some"]
fn not_without_the_first_barrier() {
    sums_up_meanwhile(Some(0));
}

/// The list of after, and the count of before.
#[test]
#[should_panic = "left: Some"]
fn not_without_the_second_barrier() {
    sums_up_meanwhile(Some(1));
}
