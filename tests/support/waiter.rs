// SPDX-License-Identifier: GPL-2.0

//! The ways in which a program can wait on an open file.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::{IoUring, opcode, types};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::select::{FdSet, select};
use nix::unistd;

use crate::aio::Aio;
use crate::child::Child;
use crate::wait;

/// The position of a call that uses that of the open file.
const CURRENT: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    Read,
    Write,
    Except,
}

/// A way to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `read`, which blocks.
    Read,
    Poll(PollFlags),
    /// `select`, with the file in one of the three sets.
    Select(Set),
    /// `epoll`; edge-triggered or once, if the flags say so.
    Epoll(EpollFlags),
    /// io_uring's `IORING_OP_POLL_ADD`.
    UringPoll(PollFlags),
    /// io_uring's `IORING_OP_READ`, of [`URING_READ_LEN`] bytes.
    UringRead,
    /// `IOCB_CMD_POLL` of `io_submit`.
    AioPoll(PollFlags),
}

/// Less than the shortest line. io_uring takes a file in `/proc` for one on a disk, and so
/// `IORING_OP_READ` waits until all bytes that were asked for have come (`need_complete_io()`).
pub const URING_READ_LEN: usize = 4;

/// All ways to wait for something to read.
pub const FOR_INPUT: [Way; 9] = [
    Way::Read,
    Way::Poll(PollFlags::POLLIN),
    Way::Select(Set::Read),
    Way::Epoll(EpollFlags::EPOLLIN),
    Way::Epoll(EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET)),
    Way::Epoll(EpollFlags::EPOLLIN.union(EpollFlags::EPOLLONESHOT)),
    Way::UringPoll(PollFlags::POLLIN),
    Way::UringRead,
    Way::AioPoll(PollFlags::POLLIN),
];

/// All ways to wait for what is out of the ordinary.
pub const FOR_PRIORITY: [Way; 7] = [
    Way::Poll(PollFlags::POLLPRI),
    Way::Select(Set::Except),
    Way::Epoll(EpollFlags::EPOLLPRI),
    Way::Epoll(EpollFlags::EPOLLPRI.union(EpollFlags::EPOLLET)),
    Way::Epoll(EpollFlags::EPOLLPRI.union(EpollFlags::EPOLLONESHOT)),
    Way::UringPoll(PollFlags::POLLPRI),
    Way::AioPoll(PollFlags::POLLPRI),
];

/// All ways to wait for room to write.
pub const FOR_OUTPUT: [Way; 5] = [
    Way::Poll(PollFlags::POLLOUT),
    Way::Select(Set::Write),
    Way::Epoll(EpollFlags::EPOLLOUT),
    Way::UringPoll(PollFlags::POLLOUT),
    Way::AioPoll(PollFlags::POLLOUT),
];

impl Way {
    /// Waits. Returns the number of bytes read, or the events, or for `select` the number of
    /// members of its set.
    pub fn wait(self, file: &File) -> Result<i32, Errno> {
        match self {
            Self::Read => unistd::read(file, &mut [0; 4096]).map(|len| len as i32),
            Self::Poll(events) => {
                let mut fds = [PollFd::new(file.as_fd(), events)];
                poll(&mut fds, PollTimeout::NONE)?;
                Ok(fds[0].revents().expect("no unknown event").bits().into())
            }
            Self::Select(set) => {
                let mut fds = FdSet::new();
                fds.insert(file.as_fd());
                let nothing = None::<&mut FdSet>;
                let fds = Some(&mut fds);
                match set {
                    Set::Read => select(None, fds, nothing, None, None),
                    Set::Write => select(None, None, fds, nothing, None),
                    Set::Except => select(None, None, None, fds, None),
                }
            }
            Self::Epoll(events) => {
                let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
                epoll.add(file, EpollEvent::new(events, 0))?;
                let mut ready = [EpollEvent::empty()];
                epoll.wait(&mut ready, EpollTimeout::NONE)?;
                Ok(ready[0].events().bits())
            }
            Self::UringPoll(events) => {
                let fd = types::Fd(file.as_raw_fd());
                let poll = opcode::PollAdd::new(fd, events.bits() as u32).build();
                // SAFETY: The operation has no memory of ours.
                unsafe { submit_and_wait(&poll) }
            }
            Self::UringRead => {
                let fd = types::Fd(file.as_raw_fd());
                let mut buffer = [0; URING_READ_LEN];
                let read = opcode::Read::new(fd, buffer.as_mut_ptr(), buffer.len() as u32)
                    .offset(CURRENT)
                    .build();
                // SAFETY: The buffer lives until the operation is complete.
                unsafe { submit_and_wait(&read) }
            }
            Self::AioPoll(events) => {
                let aio = Aio::new()?;
                aio.submit_poll(file, events)?;
                // A wake-up reports all events that it is for.
                let asked = events | PollFlags::POLLERR | PollFlags::POLLHUP;
                Ok(aio.wait()? & i32::from(asked.bits()))
            }
        }
    }

    /// Starts a child that waits on the file, and returns once it sleeps. It tells what
    /// [`wait`](Self::wait) returns, an error as a negative number.
    pub fn start(self, file: &File) -> Child {
        let child = Child::start(|parent| {
            parent.tell(0);
            parent.tell(number(self.wait(file)));
        });
        child.hear();
        child.await_sleep();
        child
    }

    /// Returns what [`wait`](Self::wait) returns in a child, so that a wait that does not end fails
    /// the test.
    pub fn wait_in_child(self, file: &File) -> Result<i32, Errno> {
        let child = Child::start(|parent| parent.tell(number(self.wait(file))));
        wait::readable(&format!("{self:?} to return"), child.ear());
        match child.hear() as i32 {
            error @ ..0 => Err(Errno::from_raw(-error)),
            told => Ok(told),
        }
    }
}

fn number(result: Result<i32, Errno>) -> i64 {
    result.unwrap_or_else(|errno| -(errno as i32)).into()
}

/// Does one operation of io_uring.
///
/// # Safety
///
/// Memory that the operation uses must stay valid until this returns.
unsafe fn submit_and_wait(operation: &io_uring::squeue::Entry) -> Result<i32, Errno> {
    let mut ring = IoUring::new(1).map_err(errno)?;
    // SAFETY: Required of the caller.
    unsafe { ring.submission().push(operation) }.expect("room for one");
    while ring.submit_and_wait(1).map_err(errno)? == 0 && ring.completion().is_empty() {}
    let result = ring.completion().next().expect("one completion").result();
    if result < 0 {
        return Err(Errno::from_raw(-result));
    }
    Ok(result)
}

fn errno(e: std::io::Error) -> Errno {
    Errno::from_raw(e.raw_os_error().expect("an error of the system"))
}
