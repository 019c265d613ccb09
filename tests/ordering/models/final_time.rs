// SPDX-License-Identifier: GPL-2.0

//! `FinalTime`, as a reader settles it, against the first thread that leaves its CPU for the last
//! time.

use crate::{
    at_once,
    bindings::{Group, TASK_DEAD, let_find, smp_wmb},
    once::leave_out_barrier,
    process::{ExitedGroup, Process},
};
use loom::sync::{
    Arc,
    atomic::Ordering::{Relaxed, Release},
};

const TIME: u64 = 7;

fn settles_meanwhile(left_out: Option<usize>) {
    loom::model(move || {
        let group = Arc::new(Group::new());
        group.exit_leader();
        let_find(&group);
        let [process] = Process::find_many::<1>(&[1]);
        let process = process.unwrap();
        // SAFETY: Nothing changes what is read here.
        let mut time = unsafe { ExitedGroup::new(&process) }
            .unwrap()
            .final_time(true);
        assert!(!time.is_settled());

        let settle = move || {
            leave_out_barrier(left_out);
            if !time.is_ending() {
                time.settle();
            }
            (time.is_settled(), time.nsec())
        };
        let kernel = move || {
            // It is preempted: `finish_task()`
            group.leader.on_cpu.store(0, Release);
            // It runs again: `prepare_task()`. The unlock of the run queue and the lock of
            // `pi_lock` order what is before the one and what is after the other.
            group.leader.on_cpu.store(1, Relaxed);
            smp_wmb();
            // `do_task_dead()`
            group.leader.__state.store(TASK_DEAD, Relaxed);
            // `update_curr()` in `__schedule()`, and `finish_task()`
            group.leader.se.sum_exec_runtime.store(TIME, Relaxed);
            group.leader.on_cpu.store(0, Release);
        };
        let ((is_settled, nsec), ()) = at_once(settle, kernel);
        assert_eq!(nsec, if is_settled { TIME } else { 0 });
    });
}

#[test]
fn a_thread_after_its_last_instruction_is_accounted_for() {
    settles_meanwhile(None);
}

#[test]
#[should_panic = "left: 0"]
fn not_without_the_first_barrier() {
    settles_meanwhile(Some(0));
}

#[test]
#[should_panic = "left: 0"]
fn not_without_the_second_barrier() {
    settles_meanwhile(Some(1));
}
