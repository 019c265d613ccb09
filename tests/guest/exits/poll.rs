// SPDX-License-Identifier: GPL-2.0

//! Waiting for exits: `poll`, `select`, `epoll` and io_uring.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::{IoUring, opcode, types};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::select::{FdSet, select};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd;

use super::{end, end_and_measure, registered};
use support::child::{self, Child};
use support::exits::{self, Stream, events};
use support::module::Module;
use support::waiter::{FOR_INPUT, FOR_OUTPUT, FOR_PRIORITY, URING_READ_LEN, Way};

/// All that can be asked for.
const ALL: PollFlags = PollFlags::POLLIN
    .union(PollFlags::POLLPRI)
    .union(PollFlags::POLLOUT)
    .union(PollFlags::POLLRDNORM)
    .union(PollFlags::POLLRDBAND)
    .union(PollFlags::POLLWRNORM)
    .union(PollFlags::POLLWRBAND);
const READABLE: PollFlags = PollFlags::POLLIN.union(PollFlags::POLLRDNORM);

fn read_some(file: &File, len: usize) -> usize {
    unistd::read(file, &mut vec![0; len]).expect("read")
}

#[test]
fn poll_tells_of_something_to_read_while_there_is_something() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    assert_eq!(events(&file, ALL), PollFlags::empty());
    let children = [registered(), registered()];
    assert_eq!(events(&file, ALL), PollFlags::empty());
    let mut stream = Stream::open();
    let lens = children.map(|child| end_and_measure(child, &mut stream));
    let all = lens[0] + lens[1];
    for _ in 0..3 {
        assert_eq!(events(&file, ALL), READABLE);
    }
    let mut left = all - read_some(&file, 3);
    assert_eq!(events(&file, ALL), READABLE, "half a line is left");
    while left > 0 {
        assert_eq!(events(&file, ALL), READABLE, "{left} bytes are left");
        left -= read_some(&file, 1);
    }
    assert_eq!(events(&file, ALL), PollFlags::empty());
    assert_eq!(unistd::read(&file, &mut [0]), Err(Errno::EAGAIN));
}

#[test]
fn poll_does_not_tell_of_what_was_before_the_open() {
    let _module = Module::without_updates();
    let earlier = exits::open_nonblocking();
    end(registered());
    let file = exits::open_nonblocking();
    assert_eq!(events(&file, ALL), PollFlags::empty());
    assert_eq!(events(&earlier, ALL), READABLE);
}

#[test]
fn every_way_to_wait_for_input_wakes_at_an_exit() {
    let _module = Module::without_updates();
    for way in FOR_INPUT {
        let file = exits::open();
        let child = registered();
        let waiter = way.start(&file);
        assert_eq!(child::state_of(waiter.pid()), 'S', "{way:?}");
        let len = end_and_measure(child, &mut Stream::open());
        // One set, or EPOLLIN, which alone was asked for.
        let expected = match way {
            Way::Read => len as i64,
            Way::UringRead => URING_READ_LEN as i64,
            _ => 1,
        };
        assert_eq!(waiter.hear(), expected, "{way:?}");
    }
}

#[test]
fn every_way_to_wait_for_input_returns_at_once_where_there_is_something() {
    let _module = Module::without_updates();
    for way in FOR_INPUT {
        let file = exits::open();
        end(registered());
        assert!(
            way.wait_in_child(&file).is_ok_and(|told| told > 0),
            "{way:?}"
        );
    }
}

#[test]
fn no_way_to_wait_for_anything_else_wakes_at_an_exit() {
    let module = Module::without_updates();
    let file = exits::open();
    let ways: Vec<Way> = FOR_PRIORITY.into_iter().chain(FOR_OUTPUT).collect();
    let waiters: Vec<Child> = ways.iter().map(|way| way.start(&file)).collect();
    let mut stream = Stream::open();
    for _ in 0..5 {
        let pid = end(registered());
        stream.await_ms_of(pid);
    }
    for (way, waiter) in ways.iter().zip(&waiters) {
        waiter.await_sleep();
        assert_eq!(
            events(waiter.ear(), PollFlags::POLLIN),
            PollFlags::empty(),
            "{way:?} returned"
        );
    }
    drop((waiters, module));
}

#[test]
fn all_who_wait_on_a_file_are_woken() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    // Those that read would leave nothing for the others.
    let waiters: Vec<_> = FOR_INPUT
        .into_iter()
        .filter(|way| !matches!(way, Way::Read | Way::UringRead))
        .flat_map(|way| [way.start(&file), way.start(&file)])
        .collect();
    end(registered());
    for waiter in &waiters {
        assert_eq!(waiter.hear(), 1);
    }
}

#[test]
fn select_reports_the_read_set_alone() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let ready = || {
        let mut sets = [FdSet::new(), FdSet::new(), FdSet::new()];
        sets.iter_mut().for_each(|set| set.insert(file.as_fd()));
        let [read, write, except] = &mut sets;
        let mut now = TimeVal::zero();
        let count = select(None, &mut *read, &mut *write, &mut *except, &mut now).expect("select");
        (count, sets.map(|set| set.contains(file.as_fd())))
    };
    assert_eq!(ready(), (0, [false, false, false]));
    end(registered());
    assert_eq!(ready(), (1, [true, false, false]));
    read_some(&file, 64);
    assert_eq!(ready(), (0, [false, false, false]));
}

/// An epoll with one file in it.
struct Watch<'a> {
    epoll: Epoll,
    file: &'a File,
}

impl<'a> Watch<'a> {
    fn new(file: &'a File, flags: EpollFlags) -> Self {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll_create1");
        epoll
            .add(file, EpollEvent::new(flags, 7))
            .expect("EPOLL_CTL_ADD");
        Self { epoll, file }
    }

    /// Returns the events that there are now, and takes them.
    fn now(&self) -> Option<EpollFlags> {
        self.within(EpollTimeout::ZERO)
    }

    /// Waits for events, and takes them.
    fn next(&self) -> EpollFlags {
        self.within(60_000u16.into()).expect("an event")
    }

    fn within(&self, timeout: EpollTimeout) -> Option<EpollFlags> {
        let mut ready = [EpollEvent::empty(); 4];
        match self.epoll.wait(&mut ready, timeout) {
            Ok(0) => None,
            Ok(1) => {
                assert_eq!(ready[0].data(), 7);
                Some(ready[0].events())
            }
            other => panic!("epoll_wait: {other:?}"),
        }
    }

    fn rearm(&self, flags: EpollFlags) {
        self.epoll
            .modify(self.file, &mut EpollEvent::new(flags, 7))
            .expect("EPOLL_CTL_MOD");
    }
}

#[test]
fn level_triggered_epoll_reports_again_until_all_is_read() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let watch = Watch::new(&file, EpollFlags::EPOLLIN);
    assert_eq!(watch.now(), None);
    end(registered());
    for _ in 0..3 {
        assert_eq!(watch.next(), EpollFlags::EPOLLIN);
    }
    read_some(&file, 3);
    assert_eq!(watch.now(), Some(EpollFlags::EPOLLIN));
    read_some(&file, 64);
    assert_eq!(watch.now(), None);
}

#[test]
fn edge_triggered_epoll_reports_once_for_what_comes() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let watch = Watch::new(&file, EpollFlags::EPOLLIN | EpollFlags::EPOLLET);
    assert_eq!(watch.now(), None);
    for round in 0..5 {
        end(registered());
        assert_eq!(watch.next(), EpollFlags::EPOLLIN, "in round {round}");
        assert_eq!(watch.now(), None, "in round {round}");
        // Whether it was read or not: what comes next is reported.
        if round % 2 == 0 {
            read_some(&file, 64);
        }
    }
}

#[test]
fn edge_triggered_epoll_reports_what_was_there_when_it_was_added() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let earlier = Watch::new(&file, EpollFlags::EPOLLIN);
    end(registered());
    earlier.next();
    let watch = Watch::new(&file, EpollFlags::EPOLLIN | EpollFlags::EPOLLET);
    assert_eq!(watch.now(), Some(EpollFlags::EPOLLIN));
    assert_eq!(watch.now(), None);
}

#[test]
fn one_shot_epoll_reports_once_until_it_is_armed_again() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
    let watch = Watch::new(&file, flags);
    end(registered());
    assert_eq!(watch.next(), EpollFlags::EPOLLIN);
    end(registered());
    assert_eq!(watch.now(), None);
    watch.rearm(flags);
    assert_eq!(watch.now(), Some(EpollFlags::EPOLLIN));
    assert_eq!(watch.now(), None);
}

#[test]
fn a_file_can_leave_an_epoll_and_come_back() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let watch = Watch::new(&file, EpollFlags::EPOLLIN);
    watch.epoll.delete(&file).expect("EPOLL_CTL_DEL");
    end(registered());
    assert_eq!(watch.now(), None);
    watch
        .epoll
        .add(&file, EpollEvent::new(EpollFlags::EPOLLIN, 7))
        .expect("EPOLL_CTL_ADD");
    assert_eq!(watch.now(), Some(EpollFlags::EPOLLIN));
}

#[test]
fn a_file_that_is_closed_leaves_its_epoll() {
    let _module = Module::without_updates();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll_create1");
    for _ in 0..10 {
        let file = exits::open_nonblocking();
        epoll
            .add(&file, EpollEvent::new(EpollFlags::EPOLLIN, 0))
            .expect("EPOLL_CTL_ADD");
        end(registered());
        drop(file);
        let mut ready = [EpollEvent::empty()];
        assert_eq!(epoll.wait(&mut ready, EpollTimeout::ZERO), Ok(0));
    }
}

#[test]
fn an_exit_that_cannot_be_seen_is_no_event() {
    let _module = Module::without_updates();
    let mut outside = Stream::open();
    let child = Child::start_in_new_pid_namespace(|parent| {
        let file = exits::open_nonblocking();
        let watch = Watch::new(&file, EpollFlags::EPOLLIN | EpollFlags::EPOLLET);
        parent.tell(0);
        parent.wait();
        assert_eq!(events(&file, ALL), PollFlags::empty());
        assert_eq!(watch.now(), None);
        assert_eq!(unistd::read(&file, &mut [0; 64]), Err(Errno::EAGAIN));
        end(registered());
        assert_eq!(watch.next(), EpollFlags::EPOLLIN);
    });
    child.hear();
    let pid = end(registered());
    outside.await_ms_of(pid);
    child.go();
    child.finish();
}

#[test]
fn io_uring_reports_once_for_each_that_comes_if_it_is_asked_to() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let mut ring = IoUring::new(4).expect("io_uring_setup");
    let poll = opcode::PollAdd::new(types::Fd(file.as_raw_fd()), libc::POLLIN as u32)
        .multi(true)
        .build();
    // SAFETY: The operation has no memory of ours.
    unsafe { ring.submission().push(&poll) }.expect("room for one");
    ring.submit().expect("io_uring_enter");
    assert!(ring.completion().next().is_none(), "nothing has come");
    for _ in 0..5 {
        end(registered());
        ring.submit_and_wait(1).expect("io_uring_enter");
        let done = ring.completion().next().expect("one completion");
        assert_eq!(done.result(), i32::from(libc::POLLIN));
        assert!(io_uring::cqueue::more(done.flags()), "it goes on");
        read_some(&file, 64);
    }
}

#[test]
fn io_uring_reads_lines_as_they_come_if_it_is_asked_for_each_of_many_reads() {
    const GROUP: u16 = 7;
    const LEN: usize = 64;
    const BUFFERS: u16 = 16;

    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let mut stream = Stream::open();
    let mut ring = IoUring::new(4).expect("io_uring_setup");
    let mut buffers = vec![0; LEN * usize::from(BUFFERS)];
    let provide =
        opcode::ProvideBuffers::new(buffers.as_mut_ptr(), LEN as i32, BUFFERS, GROUP, 0).build();
    let read = opcode::ReadMulti::new(types::Fd(file.as_raw_fd()), 0, GROUP)
        .build()
        .user_data(1);
    // SAFETY: The buffers outlive the ring's use of them, which ends with the ring.
    unsafe { ring.submission().push_multiple(&[provide, read]) }.expect("room for two");
    ring.submit_and_wait(1).expect("io_uring_enter");
    let done = ring.completion().next().expect("one completion");
    assert_eq!((done.user_data(), done.result()), (0, 0), "the buffers");
    for _ in 0..5 {
        let pid = end(registered());
        let ms = stream.ms_of(pid);
        ring.submit_and_wait(1).expect("io_uring_enter");
        let done = ring.completion().next().expect("one completion");
        assert!(done.result() > 0, "{}", done.result());
        assert!(io_uring::cqueue::more(done.flags()), "it goes on");
        let buffer = io_uring::cqueue::buffer_select(done.flags()).expect("a buffer");
        let bytes = &buffers[LEN * usize::from(buffer)..][..done.result() as usize];
        assert_eq!(bytes, format!("{pid}: {ms}\n").as_bytes());
    }
    drop(ring);
    drop(buffers);
}

#[test]
fn io_uring_forgets_a_poll_that_is_cancelled() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let mut ring = IoUring::new(4).expect("io_uring_setup");
    let poll = opcode::PollAdd::new(types::Fd(file.as_raw_fd()), libc::POLLIN as u32)
        .build()
        .user_data(1);
    let remove = opcode::PollRemove::new(1).build().user_data(2);
    // SAFETY: The operations have no memory of ours.
    unsafe { ring.submission().push_multiple(&[poll, remove]) }.expect("room for two");
    ring.submit_and_wait(2).expect("io_uring_enter");
    let mut results: Vec<_> = ring
        .completion()
        .map(|done| (done.user_data(), done.result()))
        .collect();
    results.sort_unstable();
    assert_eq!(results, [(1, -libc::ECANCELED), (2, 0)]);
    end(registered());
    assert!(ring.completion().next().is_none());
}

#[test]
fn a_signal_interrupts_who_polls() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    for way in [
        Way::Poll(PollFlags::POLLIN),
        Way::Epoll(EpollFlags::EPOLLIN),
    ] {
        let waiter = way.start(&file);
        waiter.kill();
        drop(waiter);
    }
    end(registered());
    assert_eq!(events(&file, ALL), READABLE);
}
