// SPDX-License-Identifier: GPL-2.0

//! Polls of the old asynchronous I/O, for which libc has no functions: `io_submit()` and its
//! relatives.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr;

use nix::errno::Errno;
use nix::poll::PollFlags;

/// `struct iocb` of `<linux/aio_abi.h>`.
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    lio_opcode: u16,
    reqprio: i16,
    fildes: u32,
    buf: u64,
    nbytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

/// `struct io_event` of the same.
#[repr(C)]
#[derive(Default)]
struct IoEvent {
    data: u64,
    obj: u64,
    res: i64,
    res2: i64,
}

const IOCB_CMD_POLL: u16 = 5;

/// A context, with room for one request.
pub struct Aio(libc::c_ulong);

impl Aio {
    pub fn new() -> Result<Self, Errno> {
        let mut context = 0;
        // SAFETY: The kernel writes the context to a valid place.
        Errno::result(unsafe { libc::syscall(libc::SYS_io_setup, 1, &mut context) })?;
        Ok(Self(context))
    }

    /// Starts a poll of a file for `events`: `IOCB_CMD_POLL`.
    pub fn submit_poll(&self, file: &File, events: PollFlags) -> Result<(), Errno> {
        let poll = Iocb {
            lio_opcode: IOCB_CMD_POLL,
            fildes: file.as_raw_fd() as u32,
            buf: events.bits() as u64,
            ..Iocb::default()
        };
        let polls = [&raw const poll];
        // SAFETY: The pointers are valid, and the kernel has copied the request when the call
        // returns.
        Errno::result(unsafe { libc::syscall(libc::SYS_io_submit, self.0, 1, &polls) }).map(drop)
    }

    /// Waits until the poll has ended, and returns its events.
    pub fn wait(&self) -> Result<i32, Errno> {
        let mut event = IoEvent::default();
        let no_timeout = ptr::null_mut::<libc::timespec>();
        // SAFETY: There is room for one event.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_io_getevents, self.0, 1, 1, &mut event, no_timeout)
        })?;
        Ok(event.res as i32)
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        // SAFETY: The call takes integers only.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}
