// SPDX-License-Identifier: GPL-2.0

//! `Process::has_exited()`, as a registration calls it, against a first thread that starts another
//! one and then exits. The process runs on.

use crate::{
    at_once,
    bindings::{Group, let_find},
    once::leave_out_barrier,
    process::Process,
};
use loom::sync::Arc;

fn asks_meanwhile(left_out: Option<usize>) {
    loom::model(move || {
        let group = Arc::new(Group::new());
        let_find(&group);
        let [process] = Process::find_many::<1>(&[1]);
        let process = process.unwrap();
        let ask = move || {
            leave_out_barrier(left_out);
            process.has_exited()
        };
        let kernel = move || {
            group.start_thread();
            group.exit_leader();
        };
        let (has_exited, ()) = at_once(ask, kernel);
        assert!(!has_exited, "it runs on");
    });
}

#[test]
fn a_process_that_runs_on_has_not_exited() {
    asks_meanwhile(None);
}

#[test]
#[should_panic = "it runs on"]
fn not_without_the_barrier() {
    asks_meanwhile(Some(0));
}

#[test]
fn a_process_has_exited_with_its_last_thread() {
    loom::model(|| {
        let group = Arc::new(Group::new());
        let_find(&group);
        let [process] = Process::find_many::<1>(&[1]);
        let process = process.unwrap();
        group.start_thread();
        group.exit_leader();
        assert!(!process.has_exited());
        group.release_thread();
        assert!(process.has_exited());
    });
}
