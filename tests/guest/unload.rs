// SPDX-License-Identifier: GPL-2.0

//! Loading and unloading, at any moment and with nothing left.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;

use support::child::{self, Child};
use support::crowd::Crowd;
use support::kernel_log::{KernelLog, LOST};
use support::module::{Machine, Module, insmod, is_loaded, rmmod};
use support::status;
use support::trace;
use support::wait;

/// Returns what the kernel's log has said of the module since it was last asked.
fn lines_of_module(log: &mut KernelLog) -> Vec<String> {
    let mut messages = log.messages();
    assert!(!messages.iter().any(|message| message == LOST));
    messages.retain(|message| message.contains("mp1"));
    messages
}

fn assert_nothing_left() {
    assert!(!is_loaded());
    assert!(!Path::new(status::DIRECTORY).exists());
    assert!(!Path::new("/sys/module/mp1").exists());
}

/// Expects an open file to answer as one whose module has gone.
fn assert_dead(file: &mut File) {
    let mut buffer = [0; 16];
    let errno =
        |result: std::io::Result<usize>| result.map_err(|e| e.raw_os_error().map(Errno::from_raw));
    let dead = Err(Some(Errno::EIO));
    assert_eq!(errno(file.read(&mut buffer)), dead, "read");
    assert_eq!(errno(file.read_at(&mut buffer, 0)), dead, "pread");
    assert_eq!(
        errno(file.read_at(&mut buffer, 5)),
        dead,
        "pread behind the start"
    );
    assert_eq!(nix::unistd::write(&*file, b"1\n"), Err(Errno::EIO), "write");
}

#[test]
fn load_and_unload_leave_nothing() {
    let machine = Machine::take();
    assert_nothing_left();
    insmod(&[]).expect("insmod");
    assert!(Path::new(status::PATH).exists() && is_loaded());
    rmmod().expect("rmmod");
    assert_nothing_left();
    drop(machine);
}

#[test]
fn its_version_is_that_of_dkms_conf() {
    let version = include_str!("../../dkms.conf")
        .lines()
        .find_map(|line| line.strip_prefix("PACKAGE_VERSION="))
        .expect("a version")
        .trim_matches('"');
    let _module = Module::load(&[]);
    let shown = fs::read_to_string("/sys/module/mp1/version").expect("a version in sysfs");
    assert_eq!(shown.trim_end(), version);
}

#[test]
fn load_and_unload_100_times() {
    let _machine = Machine::take();
    for round in 0..100 {
        insmod(&[("interval_ms", "10")]).expect("insmod");
        if round % 2 == 0 {
            status::register(1);
        }
        rmmod().expect("rmmod");
    }
    assert_nothing_left();
}

#[test]
fn one_line_in_the_log_at_load_and_one_at_unload() {
    let _machine = Machine::take();
    // At its first load the kernel says that it is tainted.
    insmod(&[]).expect("insmod");
    rmmod().expect("rmmod");

    let mut log = KernelLog::from_now();
    insmod(&[]).expect("insmod");
    let lines = lines_of_module(&mut log);
    assert!(
        matches!(&lines[..], [line] if line.starts_with("mp1: ")),
        "{lines:?}"
    );
    rmmod().expect("rmmod");
    let lines = lines_of_module(&mut log);
    assert!(
        matches!(&lines[..], [line] if line.starts_with("mp1: ")),
        "{lines:?}"
    );
}

#[test]
fn no_line_in_the_log_for_registrations_updates_and_refusals() {
    let _module = Module::with_interval(10);
    let mut log = KernelLog::from_now();
    let child = Child::sleeper();
    status::register(child.pid());
    status::register(child.pid());
    for text in ["abc", "99999999999", "2147483647", "", "1,2"] {
        let _ = status::write(text);
    }
    drop(child);
    status::await_update();
    wait::until("nothing to be registered", || status::text().is_empty());
    assert_eq!(lines_of_module(&mut log), Vec::<String>::new());
}

#[test]
fn the_bounds_of_interval_ms_are_10_and_3600000() {
    let _machine = Machine::take();
    for value in ["10", "11", "3599999", "3600000"] {
        insmod(&[("interval_ms", value)]).unwrap_or_else(|e| panic!("{value}: {e}"));
        status::register(1);
        rmmod().expect("rmmod");
    }
}

#[test]
fn beyond_the_bounds_insmod_fails_with_einval_and_one_line_that_says_why() {
    let _machine = Machine::take();
    for value in [
        "9",
        "3600001",
        "0",
        "-1",
        "-5000",
        "2147483648",
        "4294967306",
        "9223372036854775807",
    ] {
        let mut log = KernelLog::from_now();
        assert_eq!(
            insmod(&[("interval_ms", value)]),
            Err(Errno::EINVAL),
            "{value}"
        );
        assert_nothing_left();
        let lines = lines_of_module(&mut log);
        let [line] = &lines[..] else {
            panic!("{value}: {lines:?}")
        };
        for word in ["mp1: ", "interval_ms", value, "10", "3600000"] {
            assert!(line.contains(word), "{word:?} is not in {line:?}");
        }
    }
}

#[test]
fn an_interval_ms_that_is_no_number_fails_with_einval_and_one_line_that_says_why() {
    let _machine = Machine::take();
    for value in ["abc", "", "5s", "1.5", "99999999999999999999"] {
        let mut log = KernelLog::from_now();
        assert_eq!(
            insmod(&[("interval_ms", value)]),
            Err(Errno::EINVAL),
            "{value:?}"
        );
        assert_nothing_left();
        // These the kernel refuses, before the module has a say.
        let lines = lines_of_module(&mut log);
        let [line] = &lines[..] else {
            panic!("{value:?}: {lines:?}")
        };
        assert!(line.contains("interval_ms"), "{line:?}");
    }
}

#[test]
fn a_failed_load_leaves_nothing_and_the_next_works() {
    let _machine = Machine::take();
    for _ in 0..20 {
        assert_eq!(insmod(&[("interval_ms", "9")]), Err(Errno::EINVAL));
        assert_nothing_left();
    }
    insmod(&[]).expect("insmod");
    status::register(1);
    assert_eq!(status::text(), "1: 0\n");
}

#[test]
fn unloading_forgets_all_registrations() {
    let _machine = Machine::take();
    insmod(&[]).expect("insmod");
    status::register(1);
    rmmod().expect("rmmod");
    insmod(&[]).expect("insmod");
    assert_eq!(status::text(), "");
}

#[test]
fn with_a_file_open_for_reading() {
    let _machine = Machine::take();
    insmod(&[]).expect("insmod");
    status::register_all(&[1, 2]);
    let (mut fresh, mut begun) = (status::reader(), status::reader());
    begun.read_exact(&mut [0; 3]).expect("read");
    rmmod().expect("rmmod");
    assert_nothing_left();
    let mut buffer = [0; 16];
    for file in [&mut fresh, &mut begun] {
        for _ in 0..2 {
            let error = file.read(&mut buffer).expect_err("the module is gone");
            assert_eq!(error.raw_os_error(), Some(libc::EIO));
        }
    }
}

#[test]
fn with_a_file_open_for_writing() {
    let _machine = Machine::take();
    insmod(&[]).expect("insmod");
    let (fresh, used) = (status::writer(), status::writer());
    assert_eq!(nix::unistd::write(&used, b"1\n"), Ok(2));
    rmmod().expect("rmmod");
    assert_nothing_left();
    for file in [&fresh, &used] {
        assert_eq!(nix::unistd::write(file, b"1\n"), Err(Errno::EIO));
        assert_eq!(nix::unistd::write(file, b"abc"), Err(Errno::EIO));
    }
}

#[test]
fn with_a_file_open_for_both() {
    let _machine = Machine::take();
    insmod(&[]).expect("insmod");
    let mut file = status::reader_and_writer();
    assert_eq!(nix::unistd::write(&file, b"1\n"), Ok(2));
    file.read_at(&mut [0; 3], 0).expect("read");
    rmmod().expect("rmmod");
    assert_nothing_left();
    assert_dead(&mut file);

    // Nor does the next module know it.
    insmod(&[]).expect("insmod");
    assert_dead(&mut file);
    assert_eq!(status::text(), "");
}

#[test]
fn an_old_open_file_can_be_closed_after_the_next_unload() {
    let _machine = Machine::take();
    let mut files = Vec::new();
    for _ in 0..5 {
        insmod(&[]).expect("insmod");
        files.push(status::reader_and_writer());
        rmmod().expect("rmmod");
    }
    files.iter_mut().for_each(assert_dead);
    drop(files);
    insmod(&[]).expect("insmod");
}

#[test]
fn with_readers_and_writers_inside() {
    let _machine = Machine::take();
    for round in 0..10 {
        insmod(&[("interval_ms", "10")]).expect("insmod");
        status::register_all(&[1, 2, child::getpid()]);
        let own = child::getpid();
        let users: Vec<_> = (0..4)
            .map(|i| {
                Child::start(move |parent| {
                    let file = status::reader_and_writer();
                    let mut some = [0; 4096];
                    parent.tell(0);
                    // Until the module goes: reads and writes must work, and then be EIO.
                    loop {
                        let result = match i % 2 {
                            0 => nix::sys::uio::pread(&file, &mut some, 0),
                            _ => nix::unistd::write(&file, format!("1 {own}\n").as_bytes()),
                        };
                        match result {
                            Ok(length) => assert!(length > 0),
                            Err(errno) => {
                                assert_eq!(errno, Errno::EIO);
                                return;
                            }
                        }
                    }
                })
            })
            .collect();
        for user in &users {
            user.hear();
        }
        rmmod().unwrap_or_else(|e| panic!("rmmod in round {round}: {e}"));
        users.into_iter().for_each(Child::finish);
        assert_nothing_left();
    }
}

#[test]
fn with_an_update_running() {
    let _machine = Machine::take();
    let crowd = Crowd::of(3000);
    for _ in 0..10 {
        insmod(&[("interval_ms", "10")]).expect("insmod");
        status::register_all(crowd.pids());
        let child = Child::burnt(2);
        status::register(child.pid());
        wait::until("an update", || status::ms_of(child.pid()) > 0);
        rmmod().expect("rmmod");
        assert_nothing_left();
    }
}

#[test]
fn with_the_timer_armed_and_far_away() {
    let _machine = Machine::take();
    insmod(&[("interval_ms", "3600000")]).expect("insmod");
    status::register(1);
    wait::until("the timer to be armed", || trace::armed_timers() == 1);
    rmmod().expect("rmmod");
    assert_nothing_left();
    assert_eq!(trace::orphaned_timers(), 0);
}

#[test]
fn with_exited_processes_still_registered() {
    let _machine = Machine::take();
    insmod(&[("interval_ms", "3600000")]).expect("insmod");
    let crowd = Crowd::of(500);
    status::register_all(crowd.pids());
    drop(crowd);
    rmmod().expect("rmmod");
    assert_nothing_left();
}

#[test]
fn while_others_open_and_close() {
    let _machine = Machine::take();
    let opener = Child::start(|_| {
        loop {
            // Most of the time there is a file, and sometimes there is none.
            if let Ok(text) = fs::read(status::PATH) {
                assert!(text.is_empty() || text == b"1: 0\n");
            }
        }
    });
    for _ in 0..30 {
        insmod(&[("interval_ms", "3600000")]).expect("insmod");
        status::register(1);
        rmmod().expect("rmmod");
    }
    drop(opener);
}
