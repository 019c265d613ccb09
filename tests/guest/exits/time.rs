// SPDX-License-Identifier: GPL-2.0

//! The time in a line of exits is final: it is what `wait4` reports, whatever way a process takes
//! to its end.
//!
//! Three clocks of the kernel's own are compared with the line, all made of the same nanoseconds:
//!
//! - The CPU clock of the zombie, which is exact, once its last thread has left its processor
//!   ([`cputime::final_ns`]). The line must be this, cut to ms.
//! - `wait4`, called after that. It cuts user and system time to microseconds each, so that its sum
//!   is up to 2 us less; only where these 2 us cross a millisecond, the line may be one more.
//! - The `cpu.stat` of a cgroup in which the process has spent its whole life, where no parent
//!   calls `wait4`. It is cut to a microsecond, and so gives exactly the milliseconds of the line.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use nix::poll::PollFlags;
use nix::sys::ptrace;
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::client;
use support::cgroup::Cgroup;
use support::child::{self, Child, Parent};
use support::cputime;
use support::exits::{Stream, events};
use support::module::Module;
use support::status;
use support::wait;

const MS: u64 = 1_000_000;

/// What a process may use besides what the test makes it use.
const ALL_ELSE_MS: u64 = 2000;

/// Waits for the exit of a child, reads its line after `wait4` has returned, and compares it.
/// Returns its milliseconds.
fn expect_final(stream: &mut Stream, child: &Child) -> u64 {
    child.await_zombie();
    let clock_ns = cputime::final_ns(child.pid());
    let waited_us = child.reap();
    let ms = stream.ms_of(child.pid());
    compare(ms, clock_ns, waited_us);
    ms
}

fn compare(ms: u64, clock_ns: u64, waited_us: u64) {
    assert_eq!(
        ms,
        clock_ns / MS,
        "the line, and the zombie's clock of {clock_ns} ns"
    );
    let least_ns = waited_us * 1000;
    let possible = least_ns / MS..=(least_ns + 2 * 999) / MS;
    assert!(
        possible.contains(&ms),
        "the line says {ms} ms, wait4 {waited_us} us"
    );
}

/// Registers a child that waits, lets it run `body` to its end, and compares its line.
fn check(body: impl FnOnce(&mut Parent)) -> u64 {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let child = Child::start(|parent| {
        parent.tell(0);
        parent.wait();
        body(parent);
    });
    child.hear();
    status::register(child.pid());
    child.go();
    expect_final(&mut stream, &child)
}

/// The same, for a child that uses about that much.
fn check_about(ms: u64, body: impl FnOnce(&mut Parent)) {
    let got = check(body);
    assert!(
        (ms..ms + ALL_ELSE_MS).contains(&got),
        "{got} ms, not about {ms}"
    );
}

/// Compares processes of some lengths, which run on the processor `of`, with the test on the
/// processor `ours`.
fn check_lengths(of: usize, ours: usize) {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let before = cputime::cpus();
    cputime::pin(ours);
    for (ms, rounds) in [(0, 60), (3, 40), (50, 10)] {
        for _ in 0..rounds {
            let child = Child::start(|parent| {
                parent.wait();
                child::burn_ms(ms);
            });
            cputime::pin_process(child.pid(), of);
            status::register(child.pid());
            child.go();
            let got = expect_final(&mut stream, &child);
            assert!(got >= ms, "{got} ms, not {ms}");
        }
    }
    cputime::unpin(&before);
}

#[test]
fn of_processes_of_0_3_and_50_ms_on_one_processor() {
    check_lengths(0, 0);
}

#[test]
fn of_processes_of_0_3_and_50_ms_on_another_processor() {
    check_lengths(*cputime::cpus().last().expect("a processor"), 0);
}

/// The line is read as early as it can be, while the last thread may still be on its way off its
/// processor. A host that gives the thread no time for 20 ms lets the reader give up.
#[test]
fn a_line_that_is_read_at_once_is_final_already() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let before = cputime::cpus();
    let mut given_up = Vec::new();
    for round in 0..100 {
        cputime::pin(0);
        let child = Child::start(|parent| {
            parent.wait();
            child::burn_ms(3);
        });
        cputime::pin_process(child.pid(), *before.last().expect("a processor"));
        status::register(child.pid());
        child.go();
        let ms = stream.await_ms_of(child.pid());
        let clock_ns = cputime::final_ns(child.pid());
        let waited_us = child.reap();
        assert!(ms <= clock_ns / MS, "in round {round}: {clock_ns} ns");
        if ms == clock_ns / MS {
            compare(ms, clock_ns, waited_us);
        } else {
            given_up.push((ms, clock_ns));
        }
    }
    assert!(given_up.len() < 10, "{given_up:?}");
    cputime::unpin(&before);
}

/// The exit wakes the reader, whose priority is higher. So the last thread is preempted right
/// there, if the kernel is preemptible.
#[test]
fn a_read_waits_for_a_last_thread_that_it_has_preempted() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let before = cputime::cpus();
    cputime::pin(0);
    let mut given_up = Vec::new();
    for _ in 0..50 {
        let child = Child::start(|parent| parent.wait());
        status::register(child.pid());
        let pidfd = pidfd_open(child.pid());
        cputime::set_policy(0, libc::SCHED_FIFO, 1);
        child.go();
        wait::readable("the exit", &pidfd);
        stream.ms_of(child.pid());
        let clock_ns = cputime::clock_ns(child.pid());
        // If there is anything left to run for the thread, it preempts us until it is done.
        cputime::set_policy(child.pid(), libc::SCHED_FIFO, 2);
        cputime::set_policy(0, libc::SCHED_OTHER, 0);
        if clock_ns != cputime::final_ns(child.pid()) {
            given_up.push(clock_ns);
        }
        child.reap();
    }
    assert!(given_up.len() < 5, "{given_up:?}");
    cputime::unpin(&before);
}

/// `wait4` can return before the last thread has left its processor, and then does not know what
/// that has run since the latest tick. The line does.
#[test]
fn it_is_no_less_than_what_wait4_reports_at_once() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    for round in 0..200 {
        let child = Child::start(|parent| {
            parent.wait();
            child::burn_ms(2);
        });
        status::register(child.pid());
        child.go();
        let waited_us = child.reap();
        let ms = stream.ms_of(child.pid());
        assert!(
            ms >= waited_us / 1000 && ms >= 2,
            "in round {round}: {ms} ms, wait4: {waited_us} us"
        );
    }
}

#[test]
fn what_was_used_before_the_registration_counts() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let child = Child::burnt(30);
    status::register(child.pid());
    child.signal(Signal::SIGKILL);
    assert!(expect_final(&mut stream, &child) >= 30);
}

#[test]
fn system_time_counts() {
    check_about(20, |_| child::burn_system_ms(20));
}

#[test]
fn it_is_no_less_than_status_ever_showed() {
    let _module = Module::with_interval(10);
    let child = Child::burnt(20);
    status::register(child.pid());
    status::await_update();
    let shown = status::ms_of(child.pid());
    let mut stream = Stream::open();
    child.signal(Signal::SIGKILL);
    assert!(expect_final(&mut stream, &child) >= shown);
}

#[test]
fn threads_that_end_before_the_first_count() {
    check_about(40, |_| {
        for _ in 0..4 {
            thread::spawn(|| child::burn_ms(10))
                .join()
                .expect("a thread");
        }
    });
}

#[test]
fn threads_that_run_at_the_end_count() {
    check_about(20, |_| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (tell, told) = std::sync::mpsc::channel();
                thread::spawn(move || {
                    child::burn_ms(5);
                    tell.send(()).expect("the first thread listens");
                    child::burn_ms(u64::MAX);
                });
                told
            })
            .collect();
        child::burn_ms(5);
        threads
            .iter()
            .for_each(|told| told.recv().expect("a thread"));
        // They are killed while they run.
        child::end_this_process();
    });
}

#[test]
fn a_last_thread_that_is_not_the_first_counts() {
    check_about(30, |parent| {
        // SAFETY: It lies on the stack of the first thread, which never goes on nor frees it: it
        // stays valid.
        let parent: &'static mut Parent = unsafe { &mut *std::ptr::from_mut(parent) };
        let own = child::getpid();
        thread::spawn(move || {
            wait::until("the first thread to end", || child::state_of(own) == 'Z');
            child::burn_ms(20);
            parent.tell(0);
            child::end_this_thread()
        });
        child::burn_ms(10);
        child::end_this_thread()
    });
}

#[test]
fn threads_that_end_one_by_one_after_the_first_count() {
    check_about(40, |_| {
        for ms in [5, 10, 15] {
            thread::spawn(move || {
                child::burn_ms(ms);
                child::end_this_thread()
            });
        }
        child::burn_ms(10);
        child::end_this_thread()
    });
}

#[test]
fn exec_keeps_what_was_used_before() {
    // The new program uses as much again, and then waits for its end.
    check_exec(|path| {
        panic!("exec: {}", Command::new(path).arg("20").exec());
    });
}

#[test]
fn exec_by_another_thread_keeps_what_was_used_before() {
    check_exec(|path| {
        thread::spawn(move || {
            child::burn_ms(10);
            panic!("exec: {}", Command::new(path).arg("20").exec())
        });
        child::burn_ms(u64::MAX);
    });
}

#[test]
fn exec_by_another_thread_after_the_first_has_ended_keeps_what_was_used_before() {
    check_exec(|path| {
        thread::spawn(move || panic!("exec: {}", Command::new(path).arg("20").exec()));
        child::end_this_thread()
    });
}

fn check_exec(exec: impl FnOnce(std::path::PathBuf)) {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let path = client::BURN.path();
    let child = Child::start(|parent| {
        parent.tell(0);
        parent.wait();
        child::burn_ms(20);
        exec(path);
    });
    child.hear();
    status::register(child.pid());
    child.go();
    wait::until("exec", || {
        std::fs::read_to_string(format!("/proc/{}/comm", child.pid())).expect("comm") == "burn\n"
    });
    wait::until("the new program to use some", || {
        cputime::clock_ms(child.pid()) >= 40
    });
    stream.expect_nothing();
    child.signal(Signal::SIGKILL);
    assert!(expect_final(&mut stream, &child) >= 40);
}

#[test]
fn a_process_that_is_killed_while_all_its_threads_run_counts() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    for _ in 0..10 {
        let child = Child::start(|_| {
            for _ in 0..3 {
                thread::spawn(|| child::burn_ms(u64::MAX));
            }
            child::burn_ms(u64::MAX)
        });
        status::register(child.pid());
        wait::until("some time to be used", || {
            cputime::clock_ms(child.pid()) >= 10
        });
        child.signal(Signal::SIGKILL);
        assert!(expect_final(&mut stream, &child) >= 10);
    }
}

#[test]
fn a_process_that_dies_of_a_fault_counts() {
    check_about(10, |_| {
        // No core, whose time would be counted as well.
        child::burn_ms(10);
        // SAFETY: The call takes an integer. The signal ends the process.
        unsafe { libc::raise(libc::SIGSEGV) };
    });
}

#[test]
fn reaped_children_do_not_count() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let child = Child::start(|parent| {
        parent.wait();
        let grandchild = Child::burnt(300);
        grandchild.signal(Signal::SIGKILL);
        grandchild.reap();
    });
    status::register(child.pid());
    child.go();
    child.await_zombie();
    let clock_ns = cputime::final_ns(child.pid());
    let waited_us = child.reap();
    let ms = stream.ms_of(child.pid());
    assert_eq!(ms, clock_ns / MS);
    assert!(
        waited_us >= 300_000 + ms * 1000,
        "wait4 counts the grandchild as well: {waited_us} us, and the line says {ms} ms"
    );
}

#[test]
fn a_zombie_whose_parent_waits_much_later() {
    let _module = Module::with_interval(10);
    let mut stream = Stream::open();
    let child = Child::burnt(20);
    status::register(child.pid());
    child.signal(Signal::SIGKILL);
    let ms = stream.await_ms_of(child.pid());
    status::await_gone(child.pid());
    let clock_ns = cputime::final_ns(child.pid());
    compare(ms, clock_ns, child.reap());
    stream.expect_nothing();
}

/// A parent that never waits, and exits. Its child then is another's, which waits for it.
#[test]
fn a_process_that_is_reparented() {
    for exits_first in [true, false] {
        let _module = Module::without_updates();
        let mut stream = Stream::open();
        // SAFETY: The call takes integers only. Orphans among our descendants become our children.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
        let parent = Child::start(|parent| {
            let orphan = Child::start(|orphan| {
                child::burn_ms(20);
                // It is to outlive its parent.
                // SAFETY: The call takes integers only.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
                orphan.tell(0);
                orphan.wait_forever()
            });
            orphan.hear();
            parent.tell(orphan.pid().into());
            parent.wait();
            child::end_this_process();
        });
        let pid = parent.hear() as i32;
        let orphan = Child::adopt(pid);
        status::register(pid);
        let end_parent = || {
            parent.go();
            parent.reap();
        };
        if exits_first {
            orphan.signal(Signal::SIGKILL);
            let ms = stream.await_ms_of(pid);
            end_parent();
            orphan.await_zombie();
            compare(ms, cputime::final_ns(pid), orphan.reap());
            stream.expect_nothing();
        } else {
            end_parent();
            stream.expect_nothing();
            orphan.signal(Signal::SIGKILL);
            assert!(expect_final(&mut stream, &orphan) >= 20);
        }
        // SAFETY: As above.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 0) };
    }
}

/// Registers a child of a child in a cgroup, ends it as told, and compares its line with the
/// cgroup's time.
fn check_in_cgroup(prepare: impl FnOnce(), end: impl FnOnce(Child)) {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let cgroup = Cgroup::new("mp1-exits");
    let directory = cgroup.directory();
    let parent = Child::start(|parent| {
        prepare();
        let child = Child::start_in_cgroup(&directory, |child| {
            child::burn_ms(20);
            child.tell(0);
            child.wait();
        });
        child.hear();
        parent.tell(child.pid().into());
        parent.wait();
        end(child);
        parent.tell(0);
        parent.wait_forever()
    });
    let pid = parent.hear() as i32;
    status::register(pid);
    parent.go();
    parent.hear();
    let ms = stream.await_ms_of(pid);
    cputime::visit_all_cpus();
    assert_eq!(ms, cgroup.cpu_us() / 1000, "the line, and the cgroup");
    assert!(ms >= 20);
    stream.expect_nothing();
}

#[test]
fn a_cgroup_knows_the_same_time() {
    check_in_cgroup(
        || (),
        |child| {
            child.go();
            child.reap();
        },
    );
}

#[test]
fn a_process_whose_parent_ignores_sigchld() {
    check_in_cgroup(
        // SAFETY: No handler is installed.
        || _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.expect("signal"),
        |child| {
            // Nobody waits for it: it goes by itself.
            child.is_reaped_by_another();
            child.go();
            wait::until("the process to go", || {
                kill(Pid::from_raw(child.pid()), None).is_err()
            });
        },
    );
}

#[test]
fn a_killed_namespace_tells_of_each_of_its_processes() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let cgroup = Cgroup::new("mp1-exits");
    let directory = cgroup.directory();
    let init = Child::start_in_new_pid_namespace(|parent| {
        child::burn_ms(10);
        let other = Child::start_in_cgroup(&directory, |other| {
            child::burn_ms(20);
            other.tell(0);
            other.wait_forever()
        });
        other.hear();
        status::register_all(&[1, 2]);
        parent.tell(0);
        parent.wait_forever()
    });
    init.hear();
    let pids = status::pids();
    assert_eq!(pids.len(), 2);
    init.signal(Signal::SIGKILL);
    init.await_zombie();
    let clock_ns = cputime::final_ns(init.pid());
    // What it has waited for, the kernel counts as its children.
    init.reap();
    let lines = stream.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!((lines[0].pid, lines[1].pid), (pids[1], pids[0]));
    assert_eq!(lines[0].ms, cgroup.cpu_us() / 1000, "the other");
    assert_eq!(lines[1].ms, clock_ns / MS, "the first process");
}

/// Starts a process that traces a thread. It lets go of the tracee, which has exited then, when
/// told, and tells so.
fn tracer_of(thread: i32) -> Child {
    let tracer = Child::start(|parent| {
        let thread = Pid::from_raw(thread);
        ptrace::seize(thread, ptrace::Options::empty()).expect("ptrace");
        parent.tell(0);
        parent.wait();
        let status = waitpid(thread, Some(WaitPidFlag::__WALL)).expect("waitpid");
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
        parent.tell(0);
        parent.wait_forever()
    });
    tracer.hear();
    tracer
}

fn pidfd_open(pid: i32) -> OwnedFd {
    // SAFETY: The call takes integers, and returns a new descriptor.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        assert!(fd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd as i32)
    }
}

/// Opens a pidfd, and returns whether it reports the exit.
fn pidfd_reports(pid: i32) -> bool {
    events(pidfd_open(pid).as_fd(), PollFlags::POLLIN).contains(PollFlags::POLLIN)
}

#[test]
fn a_process_that_another_traces() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let child = Child::start(|parent| {
        parent.wait();
        child::burn_ms(20);
    });
    status::register(child.pid());
    let tracer = tracer_of(child.pid());
    child.go();
    wait::until("the exit", || child::state_of(child.pid()) == 'Z');
    // Its parent is told only after the tracer, but the process has exited, as a pidfd says.
    assert!(!child.can_be_reaped());
    wait::until("the pidfd", || pidfd_reports(child.pid()));
    let ms = stream.await_ms_of(child.pid());
    let clock_ns = cputime::final_ns(child.pid());
    assert_eq!(ms, clock_ns / MS);
    tracer.go();
    tracer.hear();
    child.await_zombie();
    compare(ms, clock_ns, child.reap());
    stream.expect_nothing();
}

#[test]
fn a_process_whose_last_thread_is_a_zombie_of_its_tracer() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let child = Child::start(|parent| {
        // SAFETY: It lies on the stack of the first thread, which never goes on nor frees it: it
        // stays valid.
        let parent: &'static mut Parent = unsafe { &mut *std::ptr::from_mut(parent) };
        thread::spawn(|| {
            parent.tell(child::gettid().into());
            parent.wait();
            child::burn_ms(20);
            child::end_this_thread()
        });
        child::end_this_thread()
    });
    let last = child.hear() as i32;
    wait::until("the first thread to end", || {
        child::state_of(child.pid()) == 'Z'
    });
    status::register(child.pid());
    let tracer = tracer_of(last);
    child.go();
    wait::until("the last thread to end", || {
        child::state_of_thread(child.pid(), last) == 'Z'
    });
    assert!(!pidfd_reports(child.pid()));
    assert!(!child.can_be_reaped());
    stream.expect_nothing();

    tracer.go();
    tracer.hear();
    assert!(expect_final(&mut stream, &child) >= 20);
    stream.expect_nothing();
}

#[test]
fn a_process_that_its_own_parent_traces() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let child = Child::start(|parent| {
        parent.wait();
        child::burn_ms(20);
    });
    status::register(child.pid());
    ptrace::seize(Pid::from_raw(child.pid()), ptrace::Options::empty()).expect("ptrace");
    child.go();
    assert!(expect_final(&mut stream, &child) >= 20);
}

#[test]
fn processes_that_share_memory_have_a_time_each() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let crowd = support::crowd::Crowd::of(3);
    status::register_all(crowd.pids());
    drop(crowd);
    assert_eq!(stream.lines().len(), 3);
}
