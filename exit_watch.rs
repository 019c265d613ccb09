// SPDX-License-Identifier: GPL-2.0

//! A callback at the exit of a process.
//!
//! An [`ExitWatch`] is an entry on the wait queue of a `struct pid` on which a poll of a pidfd
//! sleeps. The kernel wakes that queue when the process exits, and so calls the entry's function.
//!
//! C headers: [`include/linux/wait.h`](srctree/include/linux/wait.h),
//! [`include/linux/pid.h`](srctree/include/linux/pid.h).

use crate::{
    list_head::list_del_init,
    process::{
        ExitedGroup,
        Process, //
    },
    spinlock_irqsave::{
        lock_irqsave,
        unlock_irqrestore, //
    }, //
};
use core::{
    marker::PhantomData,
    sync::atomic::{
        AtomicU8,
        Ordering, //
    }, //
};
use kernel::{
    bindings,
    container_of,
    prelude::*,
    processor::cpu_relax,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};

/// What to do when a watched process exits.
pub(crate) trait ExitHandler: Send + Sync + Sized + 'static {
    /// Called once for each watch that was started, when its process exits.
    ///
    /// Context: called with `tasklist_lock` held for writing and with the lock of a wait queue
    /// held, and with interrupts disabled unless the kernel has `PREEMPT_RT`. It must not sleep,
    /// nor take a lock that others hold with interrupts enabled, nor drop an [`ExitWatch`]. Forks
    /// and exits on all CPUs wait for it, so it must be short, whatever users do. `current` may
    /// have been reaped: then it has no PID namespace.
    fn exited(this: ArcBorrow<'_, Self>, process: &Process, group: ExitedGroup<'_>);
}

/// What has become of a watch.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum WatchState {
    /// It has not been started, or was refused.
    Idle,
    /// The handler will be called.
    Watching,
    /// The handler has been called, and will not be called any more.
    Exited,
}

/// The handler is being called. To callers, this is [`WatchState::Watching`].
const CALLING: u8 = WatchState::Exited as u8 + 1;

/// A watch on a process. Dropping it ends the watch: after that, the handler is not called any
/// more.
///
/// # Invariants
///
/// - `entry.entry` is on the wait queue of `process`, or linked to nothing but itself.
/// - `state` is a [`WatchState`] or [`CALLING`]. It changes under the lock of that queue: to
///   [`WatchState::Watching`] when the entry is put on it, to [`CALLING`] before the handler is
///   called, and to [`WatchState::Exited`] after the entry has left it, as the last use of the
///   watch by its callback.
/// - It is pinned: only [`new`](Self::new) makes one.
/// - `entry.private` comes from `Arc::<H>::into_raw()`, and `self` owns that reference.
#[pin_data(PinnedDrop)]
pub(crate) struct ExitWatch<H: ExitHandler> {
    process: Process,
    state: AtomicU8,
    #[pin]
    entry: Opaque<bindings::wait_queue_entry>,
    _handler: PhantomData<Arc<H>>,
}

// SAFETY: A wait queue entry may be removed by any thread; the rest is `Send`.
unsafe impl<H: ExitHandler> Send for ExitWatch<H> {}
// SAFETY: `&self` gives access to the process and an atomic variable, and to the entry under the
// lock of the queue.
unsafe impl<H: ExitHandler> Sync for ExitWatch<H> {}

impl<H: ExitHandler> ExitWatch<H> {
    /// Prepares a watch on `process` for `handler`, to be started by [`start`](Self::start).
    ///
    /// Context: any.
    pub(crate) fn new(process: Process, handler: Arc<H>) -> impl PinInit<Self> {
        pin_init!(Self {
            process,
            state: AtomicU8::new(WatchState::Idle as u8),
            // INVARIANT: The entry is linked to itself, and owns the reference.
            entry <- Opaque::ffi_init(|entry: *mut bindings::wait_queue_entry| {
                // SAFETY: The slot is valid for writes.
                unsafe {
                    (*entry).flags = bindings::WQ_FLAG_EXCLUSIVE | bindings::WQ_FLAG_PRIORITY;
                    (*entry).private = Arc::into_raw(handler).cast_mut().cast();
                    (*entry).func = Some(Self::wake);
                    bindings::INIT_LIST_HEAD(&raw mut (*entry).entry);
                }
            }),
            _handler: PhantomData,
        })
    }

    /// Starts the watch. The handler may be called before this returns.
    ///
    /// Context: any but interrupts. Takes the lock of a wait queue, so it may sleep on a kernel
    /// with `PREEMPT_RT`.
    ///
    /// # Errors
    ///
    /// - [`ESRCH`] if the process has exited.
    /// - [`EBUSY`] if it is watched already, perhaps by another module. If the caller has access to
    ///   that watch, it sees the state [`WatchState::Watching`] or a later one.
    pub(crate) fn start(&self) -> Result {
        let queue = self.process.exit_queue();
        // SAFETY: The process keeps its queue. Interrupts must be off: the kernel wakes the queue
        // under `tasklist_lock`, which interrupt handlers take.
        let flags = unsafe { lock_irqsave(&raw mut (*queue).lock) };
        // SAFETY: We have just locked the queue.
        let result = unsafe { self.add() };
        // SAFETY: As above.
        unsafe { unlock_irqrestore(&raw mut (*queue).lock, flags) };
        result
    }

    /// Puts the entry on the queue, unless the process has exited or is watched.
    ///
    /// # Safety
    ///
    /// The caller holds the lock of the queue.
    unsafe fn add(&self) -> Result {
        // An exit first changes what this reads and then takes the lock of the queue
        // (`do_notify_pidfd()`). We hold that lock. So either we see that the process has exited,
        // or its exit is going to find the entry.
        if self.process.has_exited() {
            return Err(ESRCH);
        }
        let head = self.process.exit_queue();
        // As in `add_wait_queue_priority_exclusive()`, which would take the lock. It allows one
        // entry with priority, at the head of the queue. No other kernel code adds such an entry to
        // this queue, so if there is one, the process is watched already.
        // SAFETY: The queue is locked. Its entries are valid; ours is linked to itself, since the
        // queue does not begin with an entry with priority, and stays until `drop`.
        // INVARIANT: The entry is on the queue, and the queue is locked.
        unsafe {
            let head = &raw mut (*head).head;
            let first = (*head).next;
            if !core::ptr::eq(first, head) {
                let first = container_of!(first, bindings::wait_queue_entry, entry);
                if (*first).flags & bindings::WQ_FLAG_PRIORITY != 0 {
                    return Err(EBUSY);
                }
            }
            // At the head: before the first one.
            bindings::list_add_tail(&raw mut (*self.entry.get()).entry, first);
        }
        // A writer that is refused because of this watch takes the lock later, and so sees the
        // state.
        self.state
            .store(WatchState::Watching as u8, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the process.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Returns what has become of the watch.
    ///
    /// Context: any.
    pub(crate) fn state(&self) -> WatchState {
        const IDLE: u8 = WatchState::Idle as u8;
        const EXITED: u8 = WatchState::Exited as u8;
        // Pairs with the store in `wake()`.
        match self.state.load(Ordering::Acquire) {
            IDLE => WatchState::Idle,
            EXITED => WatchState::Exited,
            _ => WatchState::Watching,
        }
    }

    /// Called by the kernel when it wakes the queue.
    ///
    /// # Safety
    ///
    /// `entry` belongs to a watch, and is on the queue of the watched process.
    unsafe extern "C" fn wake(
        entry: *mut bindings::wait_queue_entry,
        _mode: c_uint,
        _flags: c_int,
        key: *mut c_void,
    ) -> c_int {
        // `__unhash_process()` wakes the queue without a key, inside the write section of
        // `stats_lock`. There, we must not read what this lock protects. This wake-up is not an
        // exit, but follows one.
        if key.is_null() {
            return 0;
        }
        // SAFETY: By the caller's promise. An entry leaves the queue before its watch goes.
        let watch = unsafe { &*container_of!(Opaque::cast_from(entry), ExitWatch<H>, entry) };
        // SAFETY: Only `do_notify_pidfd()` wakes the queue with a key; its callers hold
        // `tasklist_lock` for writing.
        let Some(group) = (unsafe { ExitedGroup::new(&watch.process) }) else {
            // The leader exits while other threads run, and its tracer hears of it.
            return 0;
        };
        // SAFETY: By the type's invariant `private` comes from `into_raw()`. The watch keeps the
        // reference until the entry is off the queue. That takes the queue's lock, which is held
        // now.
        let handler = unsafe { ArcBorrow::<H>::from_raw((*entry).private.cast_const().cast()) };
        watch.state.store(CALLING, Ordering::Relaxed);
        H::exited(handler, &watch.process, group);
        // Take the entry off the queue, since no more calls are needed. From now on, a new watch of
        // this process fails because the process has exited.
        // SAFETY: The entry is on the queue, which is locked.
        // INVARIANT: The entry is linked to itself before the state says so.
        unsafe { list_del_init(&raw mut (*entry).entry) };
        // After this store, the watch may be gone. `__wake_up_common()` does not touch an entry
        // after calling its function, either: `autoremove_wake_function()` relies on that, too. The
        // queue stays: the kernel puts its own reference to the `struct pid` only after
        // `release_task()`, which needs `tasklist_lock`.
        watch
            .state
            .store(WatchState::Exited as u8, Ordering::Release);
        0
    }
}

#[pinned_drop]
impl<H: ExitHandler> PinnedDrop for ExitWatch<H> {
    fn drop(self: Pin<&mut Self>) {
        let entry = self.entry.get();
        // A watch that is over does not take the lock: pollers of a pidfd take it, too, and on a
        // kernel with `PREEMPT_RT` they can be preempted while they hold it. The callback may still
        // be returning from the module's code. It holds a spin lock, so the `synchronize_rcu()` in
        // `free_module()` waits for it.
        if self.state() == WatchState::Watching {
            // A handler that drops its own watch would go on with a freed one. Taking the lock
            // makes it spin for ever. On a kernel for one CPU without `PREEMPT_RT`, a `spinlock_t`
            // has no state, so this loop spins instead.
            const HAS_STATE: bool = cfg!(any(CONFIG_SMP, CONFIG_PREEMPT_RT));
            while !HAS_STATE && self.state.load(Ordering::Relaxed) == CALLING {
                cpu_relax();
            }
            // SAFETY: By the type's invariant the entry is on this queue or, if the process is
            // exiting right now, linked to itself. This waits for a running callback, which holds
            // the lock.
            unsafe { bindings::remove_wait_queue(self.process.exit_queue(), entry) };
        }
        // SAFETY: By the type's invariants no callback uses the handler any more, and the reference
        // is ours.
        drop(unsafe { Arc::<H>::from_raw((*entry).private.cast_const().cast()) });
    }
}
