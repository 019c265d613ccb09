// SPDX-License-Identifier: GPL-2.0

//! The exercises of `docs/tour.md`: these tests fail until they are solved, so they run only when
//! asked for.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use nix::poll::PollFlags;

use support::child;
use support::exits::events;
use support::module::Module;
use support::status;
use support::trace;
use support::wait;
use support::waiter::FOR_PRIORITY;

/// The file to add: the number of updates since the load, and a newline.
const UPDATES: &str = "/proc/mp1/updates";

fn open() -> File {
    File::open(UPDATES).expect("opening the file of the exercise")
}

fn text(file: &mut File) -> String {
    let mut text = String::new();
    file.rewind().expect("seek");
    file.read_to_string(&mut text).expect("read");
    text
}

fn updates() -> u64 {
    let text = text(&mut open());
    let number = text.strip_suffix('\n').expect("a newline at the end");
    number.parse().expect("a number")
}

#[test]
#[ignore = "an exercise of docs/tour.md"]
fn the_updates_file_counts_updates() {
    let _module = Module::with_interval(10);
    let mode = fs::metadata(UPDATES).expect("the file of the exercise");
    assert_eq!(mode.permissions().mode() & 0o7777, 0o444);
    assert_eq!(text(&mut open()), "0\n");
    status::register(child::getpid());
    wait::until("some updates", || updates() > 3);
}

#[test]
#[ignore = "an exercise of docs/tour.md"]
fn the_updates_file_is_a_snapshot() {
    let _module = Module::with_interval(10);
    status::register(child::getpid());
    wait::until("ten updates", || updates() >= 10);

    let mut file = open();
    let before = text(&mut file);
    status::await_update();
    // At offset 0 a read would look again.
    let mut rest = vec![0; 100];
    let length = file.read_at(&mut rest, 1).expect("pread");
    assert_eq!(&rest[..length], &before.as_bytes()[1..]);
    assert_ne!(text(&mut file), before);
}

#[test]
#[ignore = "an exercise of docs/tour.md"]
fn the_updates_file_gives_eio_after_the_unload() {
    let module = Module::without_updates();
    let mut file = open();
    assert_eq!(text(&mut file), "0\n");
    drop(module);
    assert!(!Path::new(UPDATES).exists());
    let error = file.read(&mut [0; 10]).expect_err("the module is gone");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
}

#[test]
#[ignore = "an exercise of docs/tour.md"]
fn the_updates_file_wakes_pollers() {
    const UPDATED: PollFlags = PollFlags::POLLPRI.union(PollFlags::POLLERR);

    let _module = Module::with_interval(100);
    let mut file = open();
    text(&mut file);
    assert!(!events(file.as_fd(), UPDATED).contains(UPDATED));
    for way in FOR_PRIORITY {
        // No update may come before the waiter sleeps.
        wait::until("nothing to be registered", || {
            status::text().is_empty() && trace::armed_timers() == 0
        });
        text(&mut file);
        let waiter = way.start(&file);
        status::register(waiter.pid());
        wait::readable("the next update", waiter.ear());
        assert!(waiter.hear() > 0, "{way:?}");
    }
    assert!(events(file.as_fd(), UPDATED).contains(UPDATED));
}
