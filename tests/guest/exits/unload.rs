// SPDX-License-Identifier: GPL-2.0

//! Unloading while others wait on the files: all of them are woken at once.

use std::fs::File;
use std::io::Read;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::signal::Signal;

use super::{end, registered};
use support::child::Child;
use support::exits::{self, events};
use support::module::{Machine, insmod, is_loaded, rmmod};
use support::status;
use support::wait;
use support::waiter::{FOR_INPUT, FOR_OUTPUT, FOR_PRIORITY, Way};

/// Every way to wait on exits.
fn all_ways() -> impl Iterator<Item = Way> {
    FOR_INPUT.into_iter().chain(FOR_PRIORITY).chain(FOR_OUTPUT)
}

/// What a waiter may be told when the module goes: `EIO` for what reads, and the event that it
/// waits for. io_uring ends what waits for a file that goes as cancelled.
fn expect_woken(way: Way, told: i64) {
    let good = match way {
        Way::Read => told == -i64::from(libc::EIO),
        Way::UringRead => [-libc::EIO, -libc::ECANCELED]
            .map(i64::from)
            .contains(&told),
        Way::Select(_) => told == 1,
        Way::Poll(flags) => told & i64::from(flags.bits()) != 0,
        Way::Epoll(flags) => told & i64::from(flags.bits() & 0xffff) != 0,
        Way::UringPoll(flags) => {
            told == -i64::from(libc::ECANCELED) || told & i64::from(flags.bits()) != 0
        }
        // One that is cancelled ends without an event.
        Way::AioPoll(flags) => told == 0 || told & i64::from(flags.bits()) != 0,
    };
    assert!(good, "{way:?} was told {told}");
}

/// Unloads the module while children wait in these ways on a file.
fn unload_with(open: impl Fn() -> File, ways: impl IntoIterator<Item = Way>) {
    insmod(&[("interval_ms", "3600000")]).expect("insmod");
    let file = open();
    let waiters: Vec<_> = ways
        .into_iter()
        .map(|way| (way, way.start(&file)))
        .collect();
    rmmod().expect("rmmod");
    assert!(!is_loaded());
    for (way, waiter) in waiters {
        wait::readable(&format!("{way:?} to return"), waiter.ear());
        expect_woken(way, waiter.hear());
        waiter.finish();
    }
}

#[test]
fn one_who_waits_on_exits_is_woken_whatever_the_way() {
    let _machine = Machine::take();
    for way in all_ways() {
        unload_with(exits::open, [way]);
    }
}

#[test]
fn all_who_wait_on_exits_are_woken() {
    let _machine = Machine::take();
    for _ in 0..3 {
        unload_with(exits::open, all_ways().chain(all_ways()));
    }
}

#[test]
fn each_of_many_files_of_exits_wakes_its_own() {
    let _machine = Machine::take();
    insmod(&[]).expect("insmod");
    let child = registered();
    let waiters: Vec<_> = all_ways()
        .map(|way| (way, way.start(&exits::open())))
        .collect();
    rmmod().expect("rmmod");
    for (way, waiter) in waiters {
        wait::readable(&format!("{way:?} to return"), waiter.ear());
        expect_woken(way, waiter.hear());
        waiter.finish();
    }
    drop(child);
}

#[test]
fn one_who_waits_for_an_update_of_status_is_woken_whatever_the_way() {
    let _machine = Machine::take();
    let read_already = || {
        let file = status::reader();
        (&file).read_to_string(&mut String::new()).expect("read");
        file
    };
    for way in FOR_PRIORITY {
        unload_with(read_already, [way]);
    }
    unload_with(read_already, FOR_PRIORITY.into_iter().chain(FOR_PRIORITY));
}

#[test]
fn nothing_is_left_of_waiters_that_were_killed() {
    let _machine = Machine::take();
    insmod(&[]).expect("insmod");
    let file = exits::open();
    for way in all_ways() {
        way.start(&file).kill();
    }
    rmmod().expect("rmmod");
}

#[test]
fn waiters_that_are_stopped_do_not_hold_it_up() {
    let _machine = Machine::take();
    insmod(&[]).expect("insmod");
    let file = exits::open();
    let waiters: Vec<_> = all_ways()
        .map(|way| {
            let waiter = way.start(&file);
            waiter.stop();
            (way, waiter)
        })
        .collect();
    rmmod().expect("rmmod");
    // What they find on their way back is what procfs says of a file that has gone. Some calls
    // start again, and one that asks for nothing that procfs reports then waits on: it is the stop
    // that it met, not the unload.
    for (_, waiter) in &waiters {
        waiter.signal(Signal::SIGCONT);
    }
}

#[test]
fn an_open_file_of_exits_then_gives_eio_and_is_always_ready() {
    let _machine = Machine::take();
    for nonblocking in [false, true] {
        insmod(&[]).expect("insmod");
        let file = if nonblocking {
            exits::open_nonblocking()
        } else {
            exits::open()
        };
        end(registered());
        rmmod().expect("rmmod");
        for _ in 0..2 {
            assert_eq!(nix::unistd::read(&file, &mut [0; 64]), Err(Errno::EIO));
        }
        let now = events(&file, PollFlags::POLLIN | PollFlags::POLLOUT);
        assert!(now.contains(PollFlags::POLLIN), "{now:?}");

        // Nor does the next module know it.
        insmod(&[]).expect("insmod");
        end(registered());
        assert_eq!(nix::unistd::read(&file, &mut [0; 64]), Err(Errno::EIO));
        rmmod().expect("rmmod");
    }
}

#[test]
fn with_registered_processes_that_exit_afterwards() {
    let _machine = Machine::take();
    for round in 0..20 {
        insmod(&[("interval_ms", "3600000")]).expect("insmod");
        let stream = (round % 2 == 0).then(exits::open);
        let children: Vec<Child> = (0..20).map(|_| registered()).collect();
        rmmod().expect("rmmod");
        // Nothing of the module may be called now.
        drop(children);
        drop(stream);
    }
}

#[test]
fn with_exits_that_nobody_has_read() {
    let _machine = Machine::take();
    for _ in 0..10 {
        insmod(&[("interval_ms", "3600000")]).expect("insmod");
        let files: Vec<File> = (0..5).map(|_| exits::open()).collect();
        for _ in 0..20 {
            end(registered());
        }
        drop(registered());
        rmmod().expect("rmmod");
        drop(files);
    }
}

#[test]
fn the_next_module_tells_of_its_own_registrations_only() {
    let _machine = Machine::take();
    insmod(&[]).expect("insmod");
    let (old, new) = (registered(), Child::sleeper());
    rmmod().expect("rmmod");
    insmod(&[]).expect("insmod");
    let mut stream = exits::Stream::open();
    status::register(new.pid());
    end(old);
    let pid = end(new);
    assert_eq!(stream.pids(), [pid]);
}
