// SPDX-License-Identifier: GPL-2.0

//! A registration belongs to a process, not to a number.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Barrier;
use std::thread;

use nix::errno::Errno;

use crate::client;
use support::child::{self, Child, Parent};
use support::cputime;
use support::crowd::Crowd;
use support::module::Module;
use support::status;
use support::wait;

/// Ends the calling thread alone, as `pthread_exit` in `main` does.
/// Starts a child that has a second thread, and returns the number of that thread as well.
fn with_second_thread() -> (Child, i32) {
    let child = Child::start(|parent| {
        let (tell, told) = std::sync::mpsc::channel();
        thread::spawn(move || {
            tell.send(child::gettid())
                .expect("the first thread listens");
            loop {
                thread::park();
            }
        });
        parent.tell(told.recv().expect("the second thread speaks").into());
        parent.wait_forever()
    });
    let thread = child.hear() as i32;
    assert_ne!(thread, child.pid());
    (child, thread)
}

/// Starts a child whose first thread has returned while a second waits for `go`, then uses some CPU
/// time and waits for another `go` to end.
fn without_first_thread() -> Child {
    let child = Child::start(|parent| {
        // SAFETY: It lies on the stack of the first thread, which never goes on nor frees it: it
        // stays valid.
        let parent: &'static mut Parent = unsafe { &mut *std::ptr::from_mut(parent) };
        thread::spawn(move || {
            parent.wait();
            child::burn_ms(30);
            parent.tell(0);
            parent.wait();
            // SAFETY: The call takes an integer.
            unsafe { libc::_exit(0) };
        });
        child::end_this_thread()
    });
    wait::until("the first thread to return", || {
        child::state_of(child.pid()) == 'Z'
    });
    child
}

/// So long that, just after an update, a number changes hands before the next one.
const TIME_TO_REUSE_MS: u32 = 500;
/// More than a process takes to do nothing.
const BURNT_MS: u64 = 100;

/// Registers a process that has used some time, ends it right after an update, and returns its
/// number.
fn number_of_one_that_was_registered() -> i32 {
    let old = Child::burnt(BURNT_MS);
    status::register(old.pid());
    status::await_update();
    assert!(status::ms_of(old.pid()) >= BURNT_MS);
    old.end()
}

#[test]
fn a_reused_number_does_not_inherit() {
    let _module = Module::with_interval(TIME_TO_REUSE_MS);
    let number = number_of_one_that_was_registered();
    let new = Child::start_numbered(number, |parent| parent.wait_forever());
    assert_eq!(new.pid(), number);

    status::await_update();
    assert!(
        !status::pids().contains(&number),
        "the new owner has not been registered"
    );
}

#[test]
fn a_number_reused_through_ns_last_pid_does_not_inherit() {
    let _module = Module::with_interval(TIME_TO_REUSE_MS);
    let number = number_of_one_that_was_registered();
    fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).expect("ns_last_pid");
    let new = Child::sleeper();
    assert_eq!(new.pid(), number, "nobody else forks here");

    status::await_update();
    assert!(
        !status::pids().contains(&number),
        "the new owner has not been registered"
    );
}

#[test]
fn the_new_owner_of_a_number_can_be_registered_before_the_next_update() {
    let _module = Module::with_interval(TIME_TO_REUSE_MS);
    let number = number_of_one_that_was_registered();
    let _new = Child::start_numbered(number, |parent| parent.wait_forever());
    status::register(number);
    let time = status::lines()
        .into_iter()
        .rfind(|line| line.pid == number)
        .map(|line| line.ms);
    assert!(
        time.is_some_and(|ms| ms < BURNT_MS),
        "its own time, not that of the old owner: {time:?}"
    );
    status::await_update();
    assert!(status::ms_of(number) < BURNT_MS);
}

#[test]
fn the_line_of_a_number_that_somebody_else_has_by_now_is_left_out() {
    let _module = Module::without_updates();
    let (first, old, last) = (Child::sleeper(), Child::sleeper(), Child::sleeper());
    status::register_all(&[first.pid(), old.pid(), last.pid()]);
    let number = old.end();
    let reader = status::reader();
    let new = Child::start_numbered(number, |parent| parent.wait_forever());
    assert_eq!(new.pid(), number);
    // No update comes, and none is needed.
    assert_eq!(status::pids(), [first.pid(), last.pid()]);
    let mut text = String::new();
    (&reader).read_to_string(&mut text).expect("read");
    assert_eq!(status::parse(&text).len(), 2, "a file that was open before");

    status::register(number);
    assert_eq!(status::pids(), [first.pid(), last.pid(), number]);
    drop(new);
    let _newest = Child::start_numbered(number, |parent| parent.wait_forever());
    assert_eq!(status::pids(), [first.pid(), last.pid()]);
    status::register(number);
    assert_eq!(status::pids(), [first.pid(), last.pid(), number]);
}

#[test]
fn a_number_that_a_thread_has_by_now_is_somebody_elses_too() {
    let _module = Module::without_updates();
    let old = Child::sleeper();
    status::register(old.pid());
    let number = old.end();
    let new = Child::start(|parent| {
        fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).expect("ns_last_pid");
        let thread = thread::spawn(move || {
            assert_eq!(child::gettid(), number, "nobody else forks here");
            loop {
                thread::park();
            }
        });
        wait::until("the thread", || {
            std::path::Path::new(&format!("/proc/self/task/{number}")).exists()
        });
        parent.tell(thread.is_finished().into());
        parent.wait_forever()
    });
    assert_eq!(new.hear(), 0);
    assert_eq!(status::pids(), []);
    status::register(number);
    assert_eq!(status::pids(), [new.pid()], "it names its process");
}

#[test]
fn a_thread_id_names_its_process() {
    let _module = Module::without_updates();
    let (child, thread) = with_second_thread();
    status::register(thread);
    assert_eq!(status::pids(), [child.pid()]);
    status::register(child.pid());
    assert_eq!(status::pids(), [child.pid()], "the same process");
}

#[test]
fn exec_keeps_the_registration() {
    let _module = Module::with_interval(10);
    let child = Child::start(|parent| {
        child::burn_ms(30);
        parent.tell(0);
        parent.wait();
        panic!(
            "exec: {}",
            Command::new(client::BURN.path()).arg("40").exec()
        );
    });
    child.hear();
    check_exec(&child);
}

#[test]
fn exec_by_another_thread_keeps_the_registration() {
    check_exec_by_another_thread(|parent| parent.wait_forever());
}

#[test]
fn exec_by_another_thread_after_the_first_has_returned_keeps_the_registration() {
    check_exec_by_another_thread(|_| child::end_this_thread());
}

/// Lets the second thread of a process call `exec`, while the first does as told.
fn check_exec_by_another_thread(first: impl FnOnce(&mut Parent)) {
    let _module = Module::with_interval(10);
    let child = Child::start(|parent| {
        child::burn_ms(30);
        parent.tell(0);
        parent.wait();
        let path = client::BURN.path();
        thread::spawn(move || panic!("exec: {}", Command::new(path).arg("40").exec()));
        first(parent);
    });
    child.hear();
    check_exec(&child);
}

/// Registers a child that has used some CPU time, lets it `exec` a program that uses more, and
/// expects one line all the while.
fn check_exec(child: &Child) {
    status::register(child.pid());
    status::await_update();
    let before = status::ms_of(child.pid());
    assert!(before >= 30);

    child.go();
    wait::until("exec", || {
        fs::read_to_string(format!("/proc/{}/comm", child.pid())).expect("comm") == "burn\n"
    });
    status::await_update();
    assert!(status::ms_of(child.pid()) >= before, "the time is kept");

    status::register(child.pid());
    wait::until("time to be added", || {
        status::ms_of(child.pid()) >= before + 40
    });
    assert_eq!(
        status::pids()
            .iter()
            .filter(|pid| **pid == child.pid())
            .count(),
        1
    );
}

#[test]
fn a_zombie_has_exited_and_is_dropped() {
    let _module = Module::with_interval(10);
    let child = Child::sleeper();
    status::register(child.pid());
    child.kill();
    status::await_update();
    assert_eq!(child::state_of(child.pid()), 'Z');
    assert!(!status::pids().contains(&child.pid()));
}

#[test]
fn a_zombie_cannot_be_registered() {
    let _module = Module::without_updates();
    let child = Child::sleeper();
    child.kill();
    assert_eq!(status::write(child.pid().to_string()), Err(Errno::ESRCH));
    assert_eq!(status::text(), "");
}

#[test]
fn an_ended_process_is_dropped_at_the_next_update() {
    let _module = Module::with_interval(10);
    let (stays, goes) = (Child::sleeper(), Child::sleeper());
    status::register_all(&[goes.pid(), stays.pid()]);
    let gone = goes.end();
    status::await_update();
    let pids = status::pids();
    assert!(pids.contains(&stays.pid()) && !pids.contains(&gone));
}

#[test]
fn a_process_whose_first_thread_has_returned_has_not_exited() {
    let _module = Module::with_interval(10);
    let child = without_first_thread();
    status::register(child.pid());
    status::await_update();
    let before = status::ms_of(child.pid());

    child.go();
    child.hear();
    status::await_update();
    assert!(
        status::ms_of(child.pid()) >= before + 30,
        "the other thread's time"
    );

    child.go();
    child.await_zombie();
    status::await_update();
    assert!(
        !status::pids().contains(&child.pid()),
        "its last thread has ended"
    );
}

#[test]
fn a_registered_process_whose_first_thread_returns_stays() {
    let _module = Module::with_interval(10);
    let child = Child::start(|parent| {
        parent.tell(0);
        parent.wait();
        thread::spawn(|| {
            loop {
                thread::park();
            }
        });
        child::end_this_thread()
    });
    child.hear();
    status::register(child.pid());
    child.go();
    wait::until("the first thread to return", || {
        child::state_of(child.pid()) == 'Z'
    });
    status::await_update();
    assert!(status::pids().contains(&child.pid()));
}

#[test]
fn registering_again_succeeds_and_keeps_the_time() {
    let _module = Module::with_interval(1000);
    let child = Child::burnt(20);
    status::register(child.pid());
    wait::until("an update", || status::ms_of(child.pid()) > 0);
    child.stop();
    let before = status::text();
    for _ in 0..3 {
        status::register(child.pid());
        assert_eq!(status::text(), before, "no update has come in between");
    }
}

#[test]
fn registering_again_keeps_the_place() {
    let _module = Module::without_updates();
    let (first, second) = (Child::sleeper(), Child::sleeper());
    status::register_all(&[first.pid(), second.pid()]);
    status::register(first.pid());
    assert_eq!(status::pids(), [first.pid(), second.pid()]);
}

#[test]
fn each_of_two_who_register_it_at_once_sees_it() {
    const PROCESSES: usize = 500;
    let _module = Module::without_updates();
    let crowd = Crowd::of(PROCESSES);
    let pids = crowd.pids();
    let start = Barrier::new(2);
    let register = |cpu: usize| {
        cputime::pin(cpu);
        // Both go on to the end, since each waits for the other.
        let missed = pids.iter().filter(|pid| {
            start.wait();
            status::register(**pid);
            !status::pids().contains(pid)
        });
        missed.count()
    };
    let cpus = cputime::cpus();
    let missed = thread::scope(|scope| {
        [cpus[0], cpus[cpus.len() - 1]]
            .map(|cpu| scope.spawn(move || register(cpu)))
            .map(|writer| writer.join().expect("a writer"))
    });
    assert_eq!(missed, [0; 2], "processes that their writer did not see");
    assert_eq!(status::pids(), pids, "each once, in their order");
}

#[test]
fn one_that_was_dropped_does_not_come_back() {
    let _module = Module::with_interval(10);
    let child = Child::sleeper();
    status::register(child.pid());
    child.kill();
    status::await_gone(child.pid());
    assert_eq!(status::write(child.pid().to_string()), Err(Errno::ESRCH));
    status::await_update();
    assert!(!status::pids().contains(&child.pid()));
}

#[test]
fn processes_that_share_memory_are_processes_of_their_own() {
    let _module = Module::without_updates();
    let crowd = support::crowd::Crowd::of(3);
    status::register_all(crowd.pids());
    assert_eq!(status::pids(), crowd.pids());
}

#[test]
fn kernel_threads_and_pid_1_are_processes_too() {
    let _module = Module::with_interval(10);
    status::register_all(&[1, 2]);
    status::await_update();
    assert_eq!(status::pids()[..2], [1, 2]);
    assert!(cputime::clock_ms(1) >= status::ms_of(1) && status::ms_of(1) > 0);
}
