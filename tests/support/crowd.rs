// SPDX-License-Identifier: GPL-2.0

//! Thousands of processes at little cost: they share the memory of one, and none of them ever runs
//! after its start.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::child::{Child, Parent};

const STACK: usize = 4096;

/// Processes that do nothing; they have exited when it has gone out of scope.
pub struct Crowd {
    pids: Vec<i32>,
    holder: Child,
    ending: Cell<bool>,
}

impl Crowd {
    pub fn of(size: usize) -> Self {
        let holder = Child::start(|parent| hold(parent, size));
        let pids = (0..size).map(|_| holder.hear() as i32).collect();
        Self {
            pids,
            holder,
            ending: Cell::new(false),
        }
    }

    /// Their numbers, in the order of their start.
    pub fn pids(&self) -> &[i32] {
        &self.pids
    }

    /// Begins to end them, one after the other, and does not wait for it.
    pub fn begin_to_end(&self) {
        if !self.ending.replace(true) {
            self.holder.go();
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.begin_to_end();
        self.holder.await_zombie();
    }
}

/// Starts the crowd, tells their numbers, and ends them when told.
fn hold(parent: &mut Parent, size: usize) {
    let mut stacks = vec![0u128; size * STACK / size_of::<u128>()];
    let pids: Vec<_> = stacks
        .chunks_exact_mut(STACK / size_of::<u128>())
        .map(start)
        .collect();
    pids.iter().for_each(|pid| parent.tell(pid.as_raw().into()));
    parent.wait();
    pids.iter()
        .for_each(|pid| kill(*pid, Signal::SIGKILL).expect("kill"));
    for pid in pids {
        waitpid(pid, Some(WaitPidFlag::__WALL)).expect("waitpid");
    }
}

fn start(stack: &mut [u128]) -> Pid {
    let flags = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND;
    // SAFETY: The new process has a stack of its own, and has ended when `hold` frees it.
    let pid = unsafe {
        libc::clone(
            idle,
            stack.as_mut_ptr_range().end.cast(),
            flags,
            ptr::null_mut(),
        )
    };
    Pid::from_raw(Errno::result(pid).expect("clone"))
}

extern "C" fn idle(_: *mut c_void) -> libc::c_int {
    // SAFETY: The calls take integers only. Nothing here writes memory that the processes share,
    // except `errno`, which is never read.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        loop {
            libc::pause();
        }
    }
}
