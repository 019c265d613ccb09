// SPDX-License-Identifier: GPL-2.0

//! Thousands of processes at little cost: they share the memory of one, and none of them ever runs after its start.

use std::ffi::c_void;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::child::{Child, Parent};

const STACK: usize = 4096;

/// Processes that do nothing; gone when it goes out of scope.
pub struct Crowd {
    pids: Vec<i32>,
    holder: Child,
}

impl Crowd {
    pub fn of(size: usize) -> Self {
        let holder = Child::start(|parent| hold(parent, size));
        let pids = (0..size).map(|_| holder.hear() as i32).collect();
        Self { pids, holder }
    }

    /// Their numbers, in the order of their start.
    pub fn pids(&self) -> &[i32] {
        &self.pids
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // With the holder die all: each of them asked for that.
        self.holder.signal(Signal::SIGKILL);
    }
}

/// Starts the crowd and tells their numbers.
fn hold(parent: &mut Parent, size: usize) -> ! {
    let mut stacks = vec![0u128; size * STACK / size_of::<u128>()];
    for stack in stacks.chunks_exact_mut(STACK / size_of::<u128>()) {
        let flags = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND;
        // SAFETY: The new process has a stack of its own, which lives as long as this function, which never returns.
        let pid =
            unsafe { libc::clone(idle, stack.as_mut_ptr_range().end.cast(), flags, std::ptr::null_mut::<c_void>()) };
        parent.tell(Errno::result(pid).expect("clone").into());
    }
    parent.wait_forever()
}

extern "C" fn idle(_: *mut c_void) -> libc::c_int {
    // SAFETY: The calls take integers only. Nothing here writes memory that the processes share, but the one `errno`, which nobody reads.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        loop {
            libc::pause();
        }
    }
}

/// Runs `body` in that many processes, one after the other, each of which exits then.
///
/// They use the memory of the caller, who sleeps meanwhile, and not a copy: that makes thousands cheap.
pub fn each_in_passing<F: Fn()>(count: usize, body: F) {
    let mut stack = vec![0u128; 4 * STACK];
    for _ in 0..count {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let body = std::ptr::from_ref(&body).cast_mut().cast();
        // SAFETY: The process has a stack of its own, and with `CLONE_VFORK` it has ended when the call returns, so all outlive it.
        let pid = unsafe { libc::clone(run::<F>, stack.as_mut_ptr_range().end.cast(), flags, body) };
        let pid = Pid::from_raw(Errno::result(pid).expect("clone"));
        assert_eq!(waitpid(pid, None), Ok(WaitStatus::Exited(pid, 0)));
    }
}

extern "C" fn run<F: Fn()>(body: *mut c_void) -> libc::c_int {
    // SAFETY: It is what `each_in_passing` gave.
    unsafe { (*body.cast::<F>())() };
    0
}
