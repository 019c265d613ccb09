// SPDX-License-Identifier: GPL-2.0

//! MS: user plus system, of all threads, live and ended, and of no other process.

use std::sync::Barrier;
use std::thread;

use nix::sys::signal::Signal;

use support::child::{self, Child, Parent};
use support::cputime::{self, TICK_MS};
use support::module::Module;
use support::status;
use support::wait;

/// Registers a child that tells when it has used its time, and checks the time once it stands
/// still. Returns it in ms.
fn check(body: impl FnOnce(&mut Parent)) -> u64 {
    let _module = Module::with_interval(10);
    let child = Child::start(|parent| {
        parent.wait();
        body(parent);
        parent.tell(0);
        parent.wait_forever()
    });
    status::register(child.pid());
    child.go();
    child.hear();
    child.stop();
    status::await_update();
    agrees_with_the_kernel(child.pid())
}

/// Expects the time of a process that stands still to be what the kernel itself tells of it.
/// Returns it in ms.
fn agrees_with_the_kernel(pid: i32) -> u64 {
    let shown = status::ms_of(pid);
    assert_eq!(
        shown,
        cputime::clock_ms(pid),
        "the CPU clock of the process"
    );
    // `stat` rounds down twice: its user time, and its system time.
    let stat = cputime::stat_ms(pid);
    assert!(
        (stat..stat + 2 * TICK_MS).contains(&shown),
        "shown {shown}, stat {stat}"
    );
    shown
}

#[test]
fn it_is_0_from_registration_to_the_first_update() {
    let _module = Module::without_updates();
    let child = Child::burnt(50);
    status::register(child.pid());
    assert_eq!(status::ms_of(child.pid()), 0);
}

#[test]
fn it_holds_what_was_used_before_registration() {
    let _module = Module::with_interval(10);
    let child = Child::burnt(50);
    status::register(child.pid());
    child.stop();
    status::await_update();
    assert!(agrees_with_the_kernel(child.pid()) >= 50);
}

#[test]
fn user_time_counts() {
    assert!(check(|_| child::burn_ms(60)) >= 60);
}

#[test]
fn system_time_counts() {
    assert!(check(|_| child::burn_system_ms(60)) >= 60);
}

#[test]
fn a_process_that_only_sleeps_uses_next_to_nothing() {
    assert!(check(|_| ()) < 50);
}

#[test]
fn many_live_threads_count() {
    let ms = check(|_| {
        let burnt: &'static Barrier = Box::leak(Box::new(Barrier::new(9)));
        for _ in 0..8 {
            thread::spawn(|| {
                child::burn_ms(10);
                burnt.wait();
                loop {
                    thread::park();
                }
            });
        }
        burnt.wait();
    });
    assert!(ms >= 80);
}

#[test]
fn threads_that_have_ended_count() {
    let ms = check(|_| {
        for _ in 0..8 {
            thread::spawn(|| child::burn_ms(10))
                .join()
                .expect("the thread");
        }
    });
    assert!(ms >= 80);
}

#[test]
fn live_and_ended_threads_count_together() {
    let ms = check(|parent| {
        thread::spawn(|| child::burn_ms(30))
            .join()
            .expect("the thread");
        child::burn_ms(30);
        thread::spawn(|| child::burn_system_ms(30))
            .join()
            .expect("the thread");
        let _ = parent;
    });
    assert!(ms >= 90);
}

#[test]
fn reaped_children_do_not_count() {
    let ms = check(|_| {
        for _ in 0..4 {
            Child::start(|_| child::burn_ms(100)).finish();
        }
    });
    assert!(ms < 400, "{ms} ms, with the 400 of the children");
}

#[test]
fn time_used_before_exec_counts() {
    use crate::client;
    use std::os::unix::process::CommandExt;

    let _module = Module::with_interval(10);
    let child = Child::start(|_| {
        thread::spawn(|| child::burn_ms(30))
            .join()
            .expect("the thread");
        panic!(
            "exec: {}",
            std::process::Command::new(client::BURN.path())
                .arg("30")
                .exec()
        );
    });
    status::register(child.pid());
    wait::until("its time", || cputime::clock_ms(child.pid()) >= 60);
    wait::until("exec", || {
        std::fs::read_to_string(format!("/proc/{}/comm", child.pid())).expect("comm") == "burn\n"
    });
    child.stop();
    status::await_update();
    assert!(agrees_with_the_kernel(child.pid()) >= 60);
}

#[test]
fn at_an_update_it_lies_between_stat_before_and_stat_after() {
    let _module = Module::with_interval(20);
    let child = Child::burner();
    status::register(child.pid());
    for _ in 0..5 {
        let before = cputime::stat_ms(child.pid());
        status::await_update();
        let shown = status::ms_of(child.pid());
        let after = cputime::stat_ms(child.pid());
        // The kernel accounts for a running thread at each scheduler tick of 4 ms.
        assert!(
            before <= shown + TICK_MS && shown <= after + 2 * TICK_MS,
            "{before} <= {shown} <= {after}"
        );
    }
}

#[test]
fn of_several_processes_each_has_its_own() {
    let _module = Module::with_interval(10);
    let children: Vec<_> = [20, 60, 5, 40].into_iter().map(Child::burnt).collect();
    status::register_all(&children.iter().map(Child::pid).collect::<Vec<_>>());
    children.iter().for_each(Child::stop);
    status::await_update();
    let times: Vec<_> = children
        .iter()
        .map(|child| agrees_with_the_kernel(child.pid()))
        .collect();
    assert!(
        times[0] >= 20 && times[1] >= 60 && times[2] >= 5 && times[3] >= 40,
        "{times:?}"
    );
}

#[test]
fn it_never_goes_down_over_50_updates() {
    let _module = Module::with_interval(10);
    // Threads come and go, as their time moves from the thread to the process when they end.
    let child = Child::start(|_| {
        loop {
            let thread = thread::spawn(|| child::burn_ms(3));
            child::burn_ms(3);
            thread.join().expect("the thread");
        }
    });
    status::register(child.pid());
    let mut last = 0;
    for _ in 0..50 {
        last = wait::until_some("the next update", || {
            let ms = status::ms_of(child.pid());
            assert!(ms >= last, "{ms} after {last}");
            (ms > last).then_some(ms)
        });
    }
    child.stop();
    status::await_update();
    agrees_with_the_kernel(child.pid());
}

#[test]
fn it_stands_still_while_the_process_does() {
    let _module = Module::with_interval(10);
    let child = Child::burner();
    status::register(child.pid());
    child.stop();
    status::await_update();
    let still = agrees_with_the_kernel(child.pid());
    status::await_update();
    assert_eq!(status::ms_of(child.pid()), still);
    child.signal(Signal::SIGCONT);
    wait::until("it to go on", || status::ms_of(child.pid()) > still);
}
