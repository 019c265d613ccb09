// SPDX-License-Identifier: GPL-2.0

//! Waiting for updates of the status file: always readable and writable, with priority data after
//! an update.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::select::{FdSet, select};
use nix::sys::time::{TimeVal, TimeValLike};

use support::child::{self, Child};
use support::exits::events;
use support::module::Module;
use support::status;
use support::wait;
use support::waiter::{FOR_OUTPUT, FOR_PRIORITY, Set, URING_READ_LEN, Way};

const ALWAYS: PollFlags = PollFlags::POLLIN
    .union(PollFlags::POLLOUT)
    .union(PollFlags::POLLRDNORM)
    .union(PollFlags::POLLWRNORM);
const UPDATED: PollFlags = PollFlags::POLLPRI.union(PollFlags::POLLERR);

fn now(file: impl AsFd) -> PollFlags {
    events(file, ALWAYS | UPDATED)
}

/// Waits for an update, but no longer.
fn is_told_within(ms: u16, file: impl AsFd) -> bool {
    poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)], ms).expect("poll") > 0
}

/// Takes a snapshot.
fn read_anew(file: &File) -> String {
    let mut file = file;
    let mut text = String::new();
    file.rewind().expect("seek");
    file.read_to_string(&mut text).expect("read");
    text
}

#[test]
fn before_the_first_snapshot_there_is_something_new() {
    let _module = Module::without_updates();
    for file in [status::reader(), status::reader_and_writer()] {
        for _ in 0..2 {
            assert_eq!(now(&file), ALWAYS | UPDATED);
        }
        read_anew(&file);
        assert_eq!(now(&file), ALWAYS);
    }
    assert!(now(status::writer()).contains(PollFlags::POLLOUT));
}

#[test]
fn a_registration_is_no_update() {
    let _module = Module::without_updates();
    let file = status::reader();
    read_anew(&file);
    status::register(child::getpid());
    assert_eq!(now(&file), ALWAYS);
}

#[test]
fn an_update_is_something_new_until_the_next_snapshot() {
    let _module = Module::with_interval(100);
    let file = status::reader();
    for _ in 0..3 {
        status::register(child::getpid());
        read_anew(&file);
        wait::until("an update", || now(&file) == ALWAYS | UPDATED);
        // Another file has nothing to do with it.
        read_anew(&status::reader());
        assert_eq!(now(&file), ALWAYS | UPDATED);
        // Nor has a read that takes no snapshot.
        nix::sys::uio::pread(&file, &mut [0; 10], 1).expect("pread");
        assert_eq!(now(&file), ALWAYS | UPDATED);
    }
}

#[test]
fn with_nothing_registered_there_is_nothing_new() {
    let _module = Module::with_interval(10);
    let file = status::reader();
    let child = Child::sleeper();
    status::register(child.pid());
    drop(child);
    // A snapshot may lack the process before the update that drops it has ended, and been told.
    wait::until("nothing, and no update in ten intervals", || {
        read_anew(&file).is_empty() && !is_told_within(100, &file)
    });
    assert_eq!(now(&file), ALWAYS);
}

#[test]
fn who_has_seen_an_update_sees_its_times() {
    let _module = Module::with_interval(50);
    let child = Child::burnt(20);
    let file = status::reader();
    read_anew(&file);
    status::register(child.pid());
    let told = Way::Poll(PollFlags::POLLPRI)
        .wait_in_child(&file)
        .expect("poll");
    assert_eq!(told, i32::from(UPDATED.bits()));
    let lines = status::parse(&read_anew(&file));
    assert!(
        matches!(lines[..], [line] if line.pid == child.pid() && line.ms >= 20),
        "{lines:?}"
    );
}

#[test]
fn every_way_to_wait_for_an_update_wakes_at_one() {
    let _module = Module::with_interval(300);
    for way in FOR_PRIORITY {
        let file = status::reader();
        status::register(child::getpid());
        // Not in the middle of an interval that ends before the waiter sleeps.
        let waiter = loop {
            read_anew(&file);
            let waiter = way.start(&file);
            if now(&file) == ALWAYS {
                break waiter;
            }
        };
        let told = waiter.hear();
        let expected = match way {
            Way::Select(_) => 1,
            // An error is reported whether it was asked for or not.
            _ => UPDATED.bits().into(),
        };
        assert_eq!(told, expected, "{way:?}");
    }
}

#[test]
fn all_who_wait_for_an_update_are_woken() {
    let _module = Module::with_interval(500);
    let file = status::reader();
    status::register(child::getpid());
    read_anew(&file);
    let waiters: Vec<_> = FOR_PRIORITY
        .into_iter()
        .cycle()
        .take(12)
        .map(|way| {
            Child::start(|parent| {
                parent.tell(way.wait(&file).expect("waiting").into());
            })
        })
        .collect();
    for waiter in waiters {
        assert!(waiter.hear() > 0);
    }
}

#[test]
fn select_reports_all_three_sets() {
    let _module = Module::with_interval(100);
    let file = status::reader_and_writer();
    let ready = || {
        let mut sets = [FdSet::new(), FdSet::new(), FdSet::new()];
        sets.iter_mut().for_each(|set| set.insert(file.as_fd()));
        let [read, write, except] = &mut sets;
        let mut now = TimeVal::zero();
        select(None, &mut *read, &mut *write, &mut *except, &mut now).expect("select");
        sets.map(|set| set.contains(file.as_fd()))
    };
    assert_eq!(ready(), [true, true, true]);
    read_anew(&file);
    assert_eq!(ready(), [true, true, false]);
    status::register(child::getpid());
    wait::until("an update", || ready() == [true, true, true]);
}

#[test]
fn edge_triggered_epoll_reports_each_update() {
    let _module = Module::with_interval(100);
    let file = status::reader();
    read_anew(&file);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll_create1");
    let flags = EpollFlags::EPOLLPRI | EpollFlags::EPOLLET;
    epoll
        .add(&file, EpollEvent::new(flags, 0))
        .expect("EPOLL_CTL_ADD");
    let mut ready = [EpollEvent::empty()];
    assert_eq!(epoll.wait(&mut ready, EpollTimeout::ZERO), Ok(0));
    status::register(child::getpid());
    for round in 0..4 {
        assert_eq!(epoll.wait(&mut ready, 60_000u16), Ok(1));
        assert!(ready[0].events().contains(EpollFlags::EPOLLPRI));
        // Read or not, the next update is reported.
        if round % 2 == 0 {
            read_anew(&file);
        }
    }
}

#[test]
fn who_waits_for_input_or_room_never_waits() {
    let _module = Module::without_updates();
    let file = status::reader_and_writer();
    read_anew(&file);
    for way in FOR_OUTPUT.into_iter().chain([
        Way::Poll(PollFlags::POLLIN),
        Way::Select(Set::Read),
        Way::Epoll(EpollFlags::EPOLLIN),
        Way::UringPoll(PollFlags::POLLIN),
    ]) {
        assert!(
            way.wait_in_child(&file).is_ok_and(|told| told > 0),
            "{way:?}"
        );
    }
}

#[test]
fn io_uring_reads_the_file() {
    let _module = Module::without_updates();
    status::register(1);
    let file = status::reader();
    assert_eq!(
        Way::UringRead.wait_in_child(&file),
        Ok(URING_READ_LEN as i32)
    );
}
