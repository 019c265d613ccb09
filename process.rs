// SPDX-License-Identifier: GPL-2.0

//! Processes: their identity, their number, and their CPU time.
//!
//! [`kernel::task::Task`] is one thread, and it pins all of its `task_struct`. A [`Process`] is a
//! whole thread group and pins only the `struct pid` that names it, as a pidfd does: neither `exec`
//! by any thread nor the end of the first thread changes it, and a later owner of the same number
//! has another.
//!
//! C headers: [`include/linux/pid.h`](srctree/include/linux/pid.h),
//! [`include/linux/sched/signal.h`](srctree/include/linux/sched/signal.h).

use crate::seqlock;
use core::ptr::NonNull;
use kernel::{
    bindings,
    container_of,
    pid_namespace::PidNamespace,
    sync::rcu, //
};

/// A counted reference to the identity of a process.
///
/// It says nothing of whether the process still runs, and keeps about as much memory as a
/// `struct pid` has.
///
/// # Invariants
///
/// `0` points at a `struct pid` that is or was the thread group ID of a process, and `self` owns
/// one reference to it.
pub(crate) struct Process(NonNull<bindings::pid>);

// SAFETY: A reference to a `struct pid` may be dropped by another thread than took it.
unsafe impl Send for Process {}
// SAFETY: What `&self` methods read is constant, atomic, or protected by RCU and a sequence lock.
unsafe impl Sync for Process {}

impl Process {
    /// Looks up the running process that has, or has a thread with, the number `nr` in the PID
    /// namespace of `current`.
    ///
    /// Returns [`None`] where there is none, and where it has exited (a zombie has).
    ///
    /// Context: process context; does not sleep.
    #[inline]
    pub(crate) fn find(nr: i32) -> Option<Self> {
        let rcu = rcu::read_lock();

        // SAFETY: The RCU read lock is held until the end of this function.
        let thread = NonNull::new(unsafe { bindings::find_vpid(nr) })?;
        // SAFETY: `thread` was found under the RCU read lock that is still held.
        let signal = unsafe { live_signal(thread, bindings::pid_type_PIDTYPE_PID, &rcu) }?;

        // SAFETY: `signal` is valid as long as `rcu` is. The entry is cleared by a single store when
        // the last thread is released.
        let tgid = unsafe {
            (&raw const (*signal.as_ptr()).pids[bindings::pid_type_PIDTYPE_TGID as usize])
                .read_volatile()
        };
        let tgid = NonNull::new(tgid)?;

        // SAFETY: A `struct pid` that is found under the RCU read lock has a reference count that
        // is not zero until after the grace period.
        unsafe { bindings::refcount_inc(&raw mut (*tgid.as_ptr()).count) };
        // INVARIANT: It is a thread group ID, and we have just taken the reference.
        Some(Self(tgid))
    }

    /// Returns the CPU time, user and system, that the process has used in all of its threads, live
    /// and ended, in nanoseconds; or [`None`] if it has exited.
    ///
    /// This is the sum to which the kernel scales `utime` and `stime` of `/proc/PID/stat`. A thread
    /// that runs at this moment was last accounted for at the latest scheduler tick.
    ///
    /// Context: any but interrupts; the time grows with the number of threads.
    #[inline]
    pub(crate) fn cpu_time(&self, rcu: &rcu::Guard) -> Option<u64> {
        // SAFETY: By the type's invariant the `struct pid` is valid.
        let signal = unsafe { live_signal(self.0, bindings::pid_type_PIDTYPE_TGID, rcu) }?;
        let signal = signal.as_ptr();

        // SAFETY: `signal` is valid as long as `rcu` is, and initialised before a process becomes
        // visible. Threads that leave the list meanwhile stay allocated as long as `rcu` does.
        Some(unsafe { seqlock::read(&raw mut (*signal).stats_lock, || sum_exec_runtime(signal)) })
    }

    /// Returns the process's number in `ns`, or [`None`] where `ns` does not see the process.
    #[inline]
    pub(crate) fn number_in(&self, ns: &PidNamespace) -> Option<u32> {
        // SAFETY: By the type's invariant the `struct pid` is valid, and `ns` is by its type.
        let nr = unsafe { bindings::pid_nr_ns(self.0.as_ptr(), ns.as_ptr()) };
        u32::try_from(nr).ok().filter(|nr| *nr != 0)
    }

    /// Returns a number that no other process has as long as this reference lives.
    #[inline]
    pub(crate) fn key(&self) -> usize {
        self.0.as_ptr() as usize
    }
}

impl Drop for Process {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type's invariant we own the reference that is given back here.
        unsafe { bindings::put_pid(self.0.as_ptr()) };
    }
}

/// Returns the `signal_struct` of the process that `pid` names by the type of ID `kind`, or [`None`]
/// if it names none, or one all of whose threads have exited.
///
/// It is valid as long as `_rcu` is.
///
/// # Safety
///
/// `pid` is valid, and `kind` is one of the types of which a `struct pid` has a list of tasks.
#[inline]
unsafe fn live_signal(
    pid: NonNull<bindings::pid>,
    kind: bindings::pid_type,
    _rcu: &rcu::Guard,
) -> Option<NonNull<bindings::signal_struct>> {
    // What `pid_task()` does. It is done here since an update does it for each process.
    let kind = kind as usize;
    // SAFETY: `pid` is valid by the caller's promise. The list is one for RCU: its links are changed
    // by single stores.
    let link = unsafe { (&raw const (*pid.as_ptr()).tasks[kind].first).read_volatile() };
    if link.is_null() {
        return None;
    }
    // SAFETY: The nodes of this list are the entries `kind` of the `pid_links` of tasks.
    let task = unsafe {
        let links = link.sub(kind).cast::<[bindings::hlist_node; 4]>();
        container_of!(links, bindings::task_struct, pid_links)
    };

    // SAFETY: The task was found under the RCU read lock, so it stays allocated as long as that is
    // held, and with it the `signal_struct` that it points at all its life.
    let signal = NonNull::new(unsafe { (*task).signal })?;
    // SAFETY: As just said, `signal` is valid. The count is changed atomically.
    let live = unsafe { (&raw const (*signal.as_ptr()).live.counter).read_volatile() };
    // A thread leaves this count early in its exit: zombies are not in it.
    (live > 0).then_some(signal)
}

/// Returns the nanoseconds that all threads of `signal` have run: those that have ended, and those
/// in the list.
///
/// # Safety
///
/// `signal` is valid, and the RCU read lock is held.
#[inline]
unsafe fn sum_exec_runtime(signal: *mut bindings::signal_struct) -> u64 {
    // SAFETY: `signal` is valid by the caller's promise. A torn or old value cannot be returned to
    // anybody, as the sequence lock makes the reader try again.
    let mut sum = unsafe { (&raw const (*signal).sum_sched_runtime).read_volatile() };

    // SAFETY: As above; this only computes an address.
    let head = unsafe { &raw mut (*signal).thread_head };
    // SAFETY: The list is one for RCU: its links are changed by single stores, and lead to tasks
    // that stay allocated as long as the RCU read lock is held.
    let mut node = unsafe { (&raw const (*head).next).read_volatile() };
    while !core::ptr::eq(node, head) {
        // SAFETY: All nodes but the head are the `thread_node` of a task.
        let task = unsafe { container_of!(node, bindings::task_struct, thread_node) };
        // SAFETY: The task is allocated, see above. Its time is a single 64-bit variable.
        let time = unsafe { (&raw const (*task).se.sum_exec_runtime).read_volatile() };
        // This wraps around as in C, but not within 500 years of CPU time.
        sum = sum.wrapping_add(time);
        // SAFETY: As for the first node.
        node = unsafe { (&raw const (*node).next).read_volatile() };
    }
    sum
}
