// SPDX-License-Identifier: GPL-2.0

//! Processes: their identity, their numbers, and their CPU time.
//!
//! [`kernel::task::Task`] is one thread and pins its whole `task_struct`. A [`Process`] is a thread
//! group and pins only its `struct pid`, as a pidfd does. It stays the same when any thread calls
//! `exec` or the first thread ends. A later process with the same number has a different `struct
//! pid`.
//!
//! C headers: [`include/linux/pid.h`](srctree/include/linux/pid.h),
//! [`include/linux/sched/signal.h`](srctree/include/linux/sched/signal.h).

use crate::{
    once::{
        read_barrier,
        read_once, //
    },
    prefetch::prefetch,
    seqlock, //
};
use core::{
    marker::PhantomData,
    ptr::{
        null_mut,
        NonNull, //
    }, //
};
use kernel::{
    bindings,
    container_of,
    current,
    pid_namespace::PidNamespace,
    sync::{
        aref::ARef,
        rcu, //
    },
    task::Task, //
};

/// About how many bytes a PID namespace pins if nothing else holds it: its caches, its user
/// namespace and the like.
const NAMESPACE_SIZE: usize = 4096;

/// A counted reference to the identity of a process.
///
/// It does not keep the process alive, nor its `task_struct`.
///
/// # Invariants
///
/// `0` points at a `struct pid` that is or was the thread group ID of a process, and `self` owns
/// one reference to it.
pub(crate) struct Process(NonNull<bindings::pid>);

// SAFETY: A reference to a `struct pid` may be dropped by any thread.
unsafe impl Send for Process {}
// SAFETY: What `&self` methods read is constant, atomic, or protected by RCU and a sequence lock.
unsafe impl Sync for Process {}

impl Process {
    /// Looks up the processes with these `numbers` in the PID namespace of `current`. A number of
    /// a thread names its process.
    ///
    /// The result has [`None`] for each number that is not in use, for each process that has exited
    /// (a zombie has), and in the places after the last number. Numbers after the first `N` are
    /// ignored. If `current` has been reaped, nothing is found.
    ///
    /// Each step is done for all numbers before the next one, so that the CPU waits for many cache
    /// lines at once.
    ///
    /// Context: process context; does not sleep.
    pub(crate) fn find_many<const N: usize>(numbers: &[i32]) -> [Option<Self>; N] {
        // A task that has been reaped has none.
        let task = current!();
        let Some(ns) = task.active_pid_ns() else {
            return [const { None }; N];
        };
        let rcu = rcu::read_lock();
        let count = numbers.len().min(N);

        let mut pids = [None; N];
        for (slot, nr) in pids.iter_mut().zip(numbers) {
            // SAFETY: `ns` is valid, and the RCU read lock is held to the end of this function.
            *slot = NonNull::new(unsafe { bindings::find_pid_ns(*nr, ns.as_ptr()) });
            if let Some(pid) = *slot {
                // SAFETY: `pid` is valid; this computes addresses.
                unsafe {
                    prefetch(&raw const (*pid.as_ptr()).tasks);
                    prefetch(&raw const (*pid.as_ptr()).wait_pidfd);
                }
            }
        }
        let mut signals = [null_mut::<bindings::signal_struct>(); N];
        for (slot, pid) in signals.iter_mut().zip(pids).take(count) {
            let Some(pid) = pid else {
                continue;
            };
            // SAFETY: `pid` was found under the RCU read lock that is still held.
            let task = unsafe { first_task(pid, bindings::pid_type_PIDTYPE_PID) };
            let Some(task) = task else {
                continue;
            };
            // SAFETY: The task is valid as long as `rcu`, and points at the same `signal_struct`
            // all its life. The rest computes addresses.
            unsafe {
                *slot = (*task.as_ptr()).signal;
                prefetch(&raw const (*task.as_ptr()).exit_state);
                prefetch(&raw const (**slot).live);
                prefetch(&raw const (**slot).pids);
            }
        }
        let mut found = [const { None }; N];
        for (slot, signal) in found.iter_mut().zip(signals).take(count) {
            let Some(signal) = NonNull::new(signal) else {
                continue;
            };
            // SAFETY: The `signal_struct` is valid as long as one of its tasks.
            *slot = unsafe { Self::of_live_group(signal, &rcu) };
        }
        found
    }

    /// Returns the process of `signal`, unless all of its threads have exited.
    ///
    /// # Safety
    ///
    /// `signal` is valid as long as `_rcu`.
    unsafe fn of_live_group(
        signal: NonNull<bindings::signal_struct>,
        _rcu: &rcu::Guard,
    ) -> Option<Self> {
        let signal = signal.as_ptr();
        // SAFETY: By the caller's promise `signal` is valid.
        unsafe { has_live_threads(signal) }.then_some(())?;
        // SAFETY: As above. C code reads the entry without a lock, too (`task_pid_ptr()`); it is
        // cleared when the last thread is released.
        let tgid = unsafe {
            read_once(&raw const (*signal).pids[bindings::pid_type_PIDTYPE_TGID as usize])
        };
        let tgid = NonNull::new(tgid)?;

        // SAFETY: The count of a `struct pid` that is found under the RCU read lock is not zero
        // until after the grace period: `free_pid()` drops its reference by `call_rcu()`.
        unsafe { bindings::refcount_inc(&raw mut (*tgid.as_ptr()).count) };
        // INVARIANT: It is a thread group ID, and we have just taken the reference.
        Some(Self(tgid))
    }

    /// Returns the threads of the process, or [`None`] if it has been reaped.
    ///
    /// Context: any but interrupts.
    #[inline]
    pub(crate) fn threads<'rcu>(&self, _rcu: &'rcu rcu::Guard) -> Option<ThreadGroup<'rcu>> {
        // SAFETY: By the type's invariant the `struct pid` is valid.
        let leader = unsafe { first_task(self.0, bindings::pid_type_PIDTYPE_TGID) }?;
        // INVARIANT: The task was found under the RCU read lock, which is held during `'rcu`.
        Some(ThreadGroup {
            leader,
            _rcu: PhantomData,
        })
    }

    /// Returns whether the process has exited, in the sense of a pidfd: its last thread has exited,
    /// whether it has been reaped or not. A thread other than the first that stays a zombie for its
    /// tracer delays this.
    ///
    /// Context: any but interrupts.
    pub(crate) fn has_exited(&self) -> bool {
        let rcu = rcu::read_lock();
        match self.threads(&rcu) {
            // SAFETY: By the type's invariant the task is valid.
            Some(threads) => unsafe { is_last_and_dead(threads.leader) },
            None => true,
        }
    }

    /// Returns the process's number in the initial PID namespace.
    ///
    /// Context: any.
    pub(crate) fn number(&self) -> u32 {
        self.upids()[0].nr as u32
    }

    /// Returns the process's number in `ns`, or [`None`] if it is not visible there: what
    /// `pid_nr_ns()` does, in line, since a reader does it for each process.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn number_in(&self, ns: &PidNamespace) -> Option<u32> {
        let ns = ns.as_ptr();
        // SAFETY: `ns` is valid by its type; its level is constant.
        let level = unsafe { (*ns).level };
        let upid = self.upids().get(level as usize)?;
        core::ptr::eq(upid.ns, ns).then_some(upid.nr as u32)
    }

    /// Returns whether `nr`, which was this process's number in `ns`, is in use again.
    ///
    /// Context: any but interrupts.
    pub(crate) fn is_replaced_in(&self, ns: &PidNamespace, nr: u32) -> bool {
        let _rcu = rcu::read_lock();
        // SAFETY: The RCU read lock is held, and `ns` is valid by its type.
        let pid = unsafe { bindings::find_pid_ns(nr as i32, ns.as_ptr()) };
        !pid.is_null() && pid != self.0.as_ptr()
    }

    /// Returns the PID namespaces that see the process, from the initial one on.
    ///
    /// Context: any.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = NamespaceId> + '_ {
        self.upids().iter().map(|upid| NamespaceId(upid.ns))
    }

    /// Returns the PID namespace that the process was born in.
    ///
    /// Context: any.
    pub(crate) fn namespace(&self) -> NamespaceId {
        let upids = self.upids();
        NamespaceId(upids[upids.len() - 1].ns)
    }

    /// Returns the size in bytes of the `struct pid`, which may stay allocated only for this
    /// reference once the process has been reaped. The namespace that it pins is not included.
    ///
    /// Context: any.
    pub(crate) fn pid_size(&self) -> usize {
        size_of::<bindings::pid>() + size_of_val(self.upids())
    }

    /// Returns [`pid_size`](Self::pid_size) for a PID namespace that is `level` levels below the
    /// initial one.
    pub(crate) const fn pid_size_at(level: usize) -> usize {
        size_of::<bindings::pid>() + (level + 1) * size_of::<bindings::upid>()
    }

    /// Returns the size in bytes of the PID namespace that the `struct pid` pins: none for the
    /// initial one.
    ///
    /// Context: any.
    pub(crate) fn namespace_size(&self) -> usize {
        if self.upids().len() > 1 {
            NAMESPACE_SIZE
        } else {
            0
        }
    }

    /// The numbers of the process, from the initial PID namespace on.
    #[inline]
    fn upids(&self) -> &[bindings::upid] {
        let pid = self.0.as_ptr();
        // SAFETY: By the type's invariant the `struct pid` is valid. It has `level + 1` numbers,
        // which stay as they are from `alloc_pid()` on.
        unsafe {
            let first = (&raw const (*pid).numbers).cast();
            core::slice::from_raw_parts(first, (*pid).level as usize + 1)
        }
    }

    /// Returns the wait queue on which the kernel announces the exit of the process.
    pub(crate) fn exit_queue(&self) -> *mut bindings::wait_queue_head {
        // SAFETY: By the type's invariant the `struct pid` is valid; this computes an address.
        unsafe { &raw mut (*self.0.as_ptr()).wait_pidfd }
    }
}

impl Clone for Process {
    /// Context: any.
    fn clone(&self) -> Self {
        // SAFETY: By the type's invariant the `struct pid` is valid and its count not zero.
        unsafe { bindings::refcount_inc(&raw mut (*self.0.as_ptr()).count) };
        // INVARIANT: We have just taken the reference.
        Self(self.0)
    }
}

impl Drop for Process {
    /// Context: any but interrupts.
    fn drop(&mut self) {
        // This may free the `struct pid` at once. RCU readers that found it have left: `free_pid()`
        // keeps a reference of its own until after a grace period (`delayed_put_pid()`, which calls
        // the same function in a softirq).
        // SAFETY: By the type's invariant we own the reference that is given back here.
        unsafe { bindings::put_pid(self.0.as_ptr()) };
    }
}

/// The identity of a PID namespace, for comparisons. It pins nothing: once the namespace is gone, a
/// new one may have the same identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NamespaceId(*mut bindings::pid_namespace);

// SAFETY: The pointer is never followed.
unsafe impl Send for NamespaceId {}

impl NamespaceId {
    /// Returns the identity of `ns`.
    pub(crate) fn of(ns: &PidNamespace) -> Self {
        Self(ns.as_ptr())
    }

    /// Returns whether this is the initial PID namespace.
    pub(crate) fn is_initial(self) -> bool {
        core::ptr::eq(self.0, &raw const bindings::init_pid_ns)
    }

    /// Returns a number to hash by.
    pub(crate) fn key(self) -> usize {
        // All namespaces come from one slab cache, so the lower bits are alike.
        self.0 as usize >> 6
    }
}

/// The threads of a process.
///
/// # Invariants
///
/// `leader` is, or was before an `exec`, the first thread of a process. The RCU read lock is held
/// during `'rcu`, and keeps the thread valid.
pub(crate) struct ThreadGroup<'rcu> {
    leader: NonNull<bindings::task_struct>,
    _rcu: PhantomData<&'rcu rcu::Guard>,
}

impl ThreadGroup<'_> {
    /// Prefetches what [`prefetch_signal`](Self::prefetch_signal) and [`cpu_time`](Self::cpu_time)
    /// read of the first thread.
    #[inline]
    pub(crate) fn prefetch_leader(&self) {
        let leader = self.leader.as_ptr();
        // SAFETY: By the type's invariant the task is valid; this computes addresses.
        unsafe {
            prefetch(&raw const (*leader).signal);
            prefetch(&raw const (*leader).se.sum_exec_runtime);
        }
    }

    /// Prefetches what [`cpu_time`](Self::cpu_time) reads of the data that all threads share.
    #[inline]
    pub(crate) fn prefetch_signal(&self) {
        let signal = self.signal();
        // SAFETY: `signal` is valid; this computes addresses.
        unsafe {
            prefetch(&raw const (*signal).thread_head);
            prefetch(&raw const (*signal).stats_lock);
            prefetch(&raw const (*signal).sum_sched_runtime);
        }
    }

    /// Returns the `signal_struct`, which is valid as long as `self`.
    #[inline]
    fn signal(&self) -> *mut bindings::signal_struct {
        // SAFETY: By the type's invariant the task is valid. It points at the same `signal_struct`
        // all its life, which lives as long as each of its tasks.
        unsafe { (*self.leader.as_ptr()).signal }
    }

    /// Returns the CPU time, user and system, of all threads, live and ended, in nanoseconds; or
    /// [`None`] if all have exited.
    ///
    /// This is the sum to which the kernel scales `utime` and `stime` of `/proc/PID/stat`. A thread
    /// that runs at this moment was last accounted for at the latest scheduler tick.
    ///
    /// Context: any but interrupts; the time grows with the number of threads.
    #[inline]
    pub(crate) fn cpu_time(&self) -> Option<u64> {
        let signal = self.signal();
        // SAFETY: `signal` is valid.
        unsafe { has_live_threads(signal) }.then_some(())?;
        // SAFETY: `signal` is valid, and initialised before its process becomes visible. Threads
        // that leave the list meanwhile stay allocated as long as `'rcu`.
        Some(unsafe {
            seqlock::read(&raw mut (*signal).stats_lock, || {
                sum_exec_runtime(signal, self.leader)
            })
        })
    }
}

/// A process at the moment of its exit. Nothing in it changes any more, except the CPU time of its
/// first thread if that is the thread that is exiting.
///
/// # Invariants
///
/// - `leader` points at the `task_struct` of a process all of whose other threads have been
///   released.
/// - `tasklist_lock` is held for writing as long as `'a`.
pub(crate) struct ExitedGroup<'a>(NonNull<bindings::task_struct>, PhantomData<&'a ()>);

impl<'a> ExitedGroup<'a> {
    /// Returns `process` if it has exited, in the sense of [`Process::has_exited`].
    ///
    /// # Safety
    ///
    /// The caller holds `tasklist_lock` for writing as long as `'a`.
    pub(crate) unsafe fn new(process: &'a Process) -> Option<Self> {
        // SAFETY: The task is not released while `tasklist_lock` is held for writing.
        unsafe {
            let leader = first_task(process.0, bindings::pid_type_PIDTYPE_TGID)?;
            // INVARIANT: As promised by the caller, and as just looked at.
            is_last_and_dead(leader).then_some(Self(leader, PhantomData))
        }
    }

    /// Returns the CPU time of the process at its end.
    ///
    /// The exiting thread is the first one, unless that ended before, and still runs for some
    /// microseconds. If `may_pin`, the result pins the thread to get its final time later.
    /// Otherwise the result lacks what the thread has run since it was last accounted for.
    ///
    /// Context: any.
    pub(crate) fn final_time(&self, may_pin: bool) -> FinalTime {
        let task = self.0.as_ptr();
        // SAFETY: By the type's invariants the task and its `signal_struct` are valid, and no other
        // thread is left to change the sum: it changes under `tasklist_lock` (`__exit_signal()`).
        let others = unsafe { (*(*task).signal).sum_sched_runtime };
        let mut time = FinalTime {
            nsec: others,
            // SAFETY: The task is valid; `Task` is transparent to it.
            leader: Some(ARef::from(unsafe { &*task.cast::<Task>() })),
        };
        if !may_pin || !time.is_ending() {
            time.settle();
        }
        time
    }
}

/// The CPU time of a process that has exited.
pub(crate) struct FinalTime {
    /// In nanoseconds, without the time of `leader`.
    nsec: u64,
    /// The first thread, until it is accounted for.
    leader: Option<ARef<Task>>,
}

impl FinalTime {
    /// Returns whether the first thread has yet to run its last instruction: it is on its CPU, or
    /// was preempted. If not, `wait4()` reports the same time as we do.
    ///
    /// Context: any.
    pub(crate) fn is_ending(&self) -> bool {
        let Some(leader) = &self.leader else {
            return false;
        };
        // SAFETY: We have a reference to the task.
        let state = unsafe { read_once(&raw const (*leader.as_ptr()).__state) };
        // Pairs with the lock that `do_task_dead()` takes to set this state. The thread is on its
        // CPU then, and is not preempted any more. So `on_cpu` is read after the state: a 0 that is
        // read before it may be from a preemption.
        read_barrier();
        state != bindings::TASK_DEAD || self.is_running()
    }

    /// Returns whether the first thread is on its CPU, so that its time is not up to date.
    ///
    /// Context: any.
    pub(crate) fn is_running(&self) -> bool {
        let Some(leader) = &self.leader else {
            return false;
        };
        // SAFETY: We have a reference to the task.
        let on_cpu = unsafe { read_once(&raw const (*leader.as_ptr()).on_cpu) };
        // Pairs with the `smp_store_release()` in `finish_task()`, before which the time of the
        // thread is accounted for.
        read_barrier();
        on_cpu != 0
    }

    /// Returns whether a thread is pinned.
    ///
    /// Context: any.
    pub(crate) fn is_settled(&self) -> bool {
        self.leader.is_none()
    }

    /// Takes the time of the first thread as it is now, and unpins the thread. Returns whether it
    /// was pinned.
    ///
    /// Context: any.
    pub(crate) fn settle(&mut self) -> bool {
        // Dropped at the end. `put_task_struct()` is for any context.
        let Some(leader) = self.leader.take() else {
            return false;
        };
        // SAFETY: We have a reference to the task; the time is a single 64-bit variable.
        let time = unsafe { read_once(&raw const (*leader.as_ptr()).se.sum_exec_runtime) };
        self.nsec = self.nsec.wrapping_add(time);
        true
    }

    /// Returns the time in nanoseconds, as far as it is settled.
    ///
    /// Context: any.
    pub(crate) fn nsec(&self) -> u64 {
        self.nsec
    }
}

/// Returns the first task of `pid` by the type of ID `kind`. This is `pid_task()`, but inline,
/// since an update calls it for each process.
///
/// # Safety
///
/// - `pid` is valid, and `kind` is one of the types of which a `struct pid` has a list of tasks.
/// - The RCU read lock or `tasklist_lock` is held, as long as the result is used.
#[inline]
unsafe fn first_task(
    pid: NonNull<bindings::pid>,
    kind: bindings::pid_type,
) -> Option<NonNull<bindings::task_struct>> {
    let kind = kind as usize;
    // SAFETY: By the caller's promise `pid` is valid. The list is an RCU list.
    let link = unsafe { read_once(&raw const (*pid.as_ptr()).tasks[kind].first) };
    if link.is_null() {
        return None;
    }
    // SAFETY: The nodes of this list are the entries `kind` of the `pid_links` of tasks.
    NonNull::new(unsafe {
        let links = link.sub(kind).cast::<[bindings::hlist_node; 4]>();
        container_of!(links, bindings::task_struct, pid_links)
    })
}

/// Returns whether the leader has exited and no other thread is left, as `pidfd_poll()` checks it.
///
/// # Safety
///
/// `leader` is valid.
unsafe fn is_last_and_dead(leader: NonNull<bindings::task_struct>) -> bool {
    let leader = leader.as_ptr();
    // SAFETY: By the caller's promise the task is valid, and so is its `signal_struct`.
    // `pidfd_poll()` reads both without a lock, too (`delay_group_leader()`).
    unsafe {
        if read_once(&raw const (*leader).exit_state) == 0 {
            return false;
        }
        // Read the list after the state. A leader that starts a thread and then exits does both
        // under `tasklist_lock`, so the list that we read now has the thread. In the other order,
        // we could see the old list and the new state, and take a running process for one that has
        // exited.
        read_barrier();
        let next_thread = read_once(&raw const (*leader).thread_node.next);
        core::ptr::eq(next_thread, &raw const (*(*leader).signal).thread_head)
    }
}

/// Returns whether `signal` has a thread that has not begun to exit.
///
/// # Safety
///
/// `signal` is valid.
#[inline]
unsafe fn has_live_threads(signal: *mut bindings::signal_struct) -> bool {
    // A thread leaves this count early in its exit: zombies are not in it.
    // SAFETY: By the caller's promise `signal` is valid; the count is atomic.
    unsafe { read_once(&raw const (*signal).live.counter) > 0 }
}

/// Returns the nanoseconds that all threads of `signal` have run: those that have ended, and those
/// in the list.
///
/// # Safety
///
/// `signal` is valid, `leader` was one of its tasks, and the RCU read lock has been held since.
#[inline]
unsafe fn sum_exec_runtime(
    signal: *mut bindings::signal_struct,
    leader: NonNull<bindings::task_struct>,
) -> u64 {
    // SAFETY: By the caller's promise `signal` is valid. A stale value is never returned,
    // since the sequence lock makes the reader retry.
    let mut sum = unsafe { read_once(&raw const (*signal).sum_sched_runtime) };

    // SAFETY: As above; this only computes an address.
    let head = unsafe { &raw mut (*signal).thread_head };
    // SAFETY: The list is an RCU list: its tasks stay allocated as long as the RCU read lock is
    // held.
    let (mut node, last) = unsafe {
        (
            read_once(&raw const (*head).next),
            read_once(&raw const (*head).prev),
        )
    };
    // Most processes have one thread. Its place in memory is known, so there is no need to wait for
    // the list to be read.
    // SAFETY: By the caller's promise the task is allocated; this only computes an address.
    let only = unsafe { &raw mut (*leader.as_ptr()).thread_node };
    if core::ptr::eq(node, only) && core::ptr::eq(last, only) {
        // SAFETY: The task is allocated. Its time is read as below.
        let time = unsafe { read_once(&raw const (*leader.as_ptr()).se.sum_exec_runtime) };
        return sum.wrapping_add(time);
    }
    while !core::ptr::eq(node, head) {
        // SAFETY: All nodes but the head are the `thread_node` of a task.
        let task = unsafe { container_of!(node, bindings::task_struct, thread_node) };
        // SAFETY: The task is allocated, see above. Its time is a single 64-bit variable, which the
        // scheduler writes under the lock of its run queue and C reads without it, too
        // (`thread_group_cputime()`).
        let time = unsafe { read_once(&raw const (*task).se.sum_exec_runtime) };
        // This wraps around as in C, but not within 500 years of CPU time.
        sum = sum.wrapping_add(time);
        // SAFETY: As for the first node.
        node = unsafe { read_once(&raw const (*node).next) };
    }
    sum
}
