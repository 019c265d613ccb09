// SPDX-License-Identifier: GPL-2.0

//! A callback at the exit of a process.
//!
//! An [`ExitWatch`] is an entry on the wait queue of a `struct pid` on which a poll of a pidfd sleeps.
//! The kernel wakes that queue when the process exits, and so calls the entry's function.
//!
//! C headers: [`include/linux/wait.h`](srctree/include/linux/wait.h),
//! [`include/linux/pid.h`](srctree/include/linux/pid.h).

use crate::{
    list_head::list_del_init,
    process::{
        ExitedGroup,
        Process, //
    }, //
};
use core::{
    marker::PhantomData,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    }, //
};
use kernel::{
    bindings,
    container_of,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};

/// What to do when a watched process exits.
pub(crate) trait ExitHandler: Send + Sync + Sized + 'static {
    /// Called once for each watch, when its process exits.
    ///
    /// Context: called with `tasklist_lock` held for writing and with the lock of a wait queue held, and
    /// with interrupts disabled unless the kernel has `PREEMPT_RT`. It must not sleep, nor take a lock
    /// that others hold with interrupts enabled, nor drop an [`ExitWatch`]. Forks and exits on all CPUs
    /// wait for it: its time must be short, and must not depend on what users do.
    fn exited(this: ArcBorrow<'_, Self>, process: &Process, group: ExitedGroup<'_>);
}

/// A watched process. Dropping it ends the watch: after that, the handler is not called any more.
///
/// # Invariants
///
/// - `entry.entry` is on the wait queue of `process`, or linked to nothing but itself.
/// - `entry.private` comes from `Arc::<H>::into_raw()`, and `self` owns that reference.
#[pin_data(PinnedDrop)]
pub(crate) struct ExitWatch<H: ExitHandler> {
    process: Process,
    exited: AtomicBool,
    #[pin]
    entry: Opaque<bindings::wait_queue_entry>,
    _handler: PhantomData<Arc<H>>,
}

// SAFETY: A wait queue entry may be removed by any thread; the rest is `Send`.
unsafe impl<H: ExitHandler> Send for ExitWatch<H> {}
// SAFETY: `&self` gives access to the process and an atomic variable only.
unsafe impl<H: ExitHandler> Sync for ExitWatch<H> {}

impl<H: ExitHandler> ExitWatch<H> {
    /// Watches `process` for `handler`.
    ///
    /// The handler may be called before this returns.
    ///
    /// Context: does not sleep. Takes the lock of a wait queue with interrupts disabled.
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if the process is watched already, be it by another module.
    /// - [`ESRCH`] if it has exited.
    pub(crate) fn new(process: Process, handler: Arc<H>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            process,
            exited: AtomicBool::new(false),
            _handler: PhantomData,
            // Fields are initialised in this order. All others are there when the callback can come.
            entry <- Opaque::try_ffi_init(|entry: *mut bindings::wait_queue_entry| {
                // SAFETY: `entry` is a field of a pinned watch whose other fields are initialised.
                unsafe { Self::add(entry, handler) }
            }),
        }? Error)
    }

    /// Puts `entry` on the queue.
    ///
    /// # Safety
    ///
    /// `entry` is the field of a pinned watch, of which the other fields are initialised.
    unsafe fn add(entry: *mut bindings::wait_queue_entry, handler: Arc<H>) -> Result {
        // SAFETY: By the caller's promise.
        let watch = unsafe { &*container_of!(Opaque::cast_from(entry), ExitWatch<H>, entry) };
        let queue = watch.process.exit_queue();
        let private = Arc::into_raw(handler);

        // SAFETY: By the caller's promise `entry` is valid for writes, and on no queue yet.
        unsafe {
            (*entry).flags = 0;
            (*entry).private = private.cast_mut().cast();
            (*entry).func = Some(Self::wake);
        }
        // The kernel refuses a second entry with priority. No other code of it adds such entries
        // to this queue, so this is the test for a watch that there is already.
        // SAFETY: `watch.process` keeps the queue, and the entry stays until `drop` or until it is
        // removed below.
        if unsafe { bindings::add_wait_queue_priority_exclusive(queue, entry) } != 0 {
            // SAFETY: It comes from `into_raw()`, and no queue has got the entry.
            drop(unsafe { Arc::from_raw(private) });
            return Err(EBUSY);
        }

        // An exit first changes what `has_exited()` reads and then takes the lock of the queue
        // (`do_notify_pidfd()`). We took that lock first and read now. So one side sees the other:
        // either the callback comes, or we see that the process has exited.
        if !watch.process.has_exited() {
            return Ok(());
        }
        // SAFETY: The entry is on this queue, or was and is linked to itself.
        unsafe { bindings::remove_wait_queue(queue, entry) };
        // No callback runs any more, nor will one.
        // SAFETY: The entry is ours alone. INVARIANT: It is linked to itself.
        unsafe { bindings::INIT_LIST_HEAD(&raw mut (*entry).entry) };
        if watch.has_exited() {
            // It exited after it was watched.
            return Ok(());
        }
        // SAFETY: It comes from `into_raw()`, and the entry is on no queue.
        drop(unsafe { Arc::from_raw(private) });
        Err(ESRCH)
    }

    /// Returns the process.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Returns whether the handler was called.
    ///
    /// Context: any.
    pub(crate) fn has_exited(&self) -> bool {
        // Pairs with the store in `wake()`.
        self.exited.load(Ordering::Acquire)
    }

    /// Called by the kernel when it wakes the queue.
    ///
    /// # Safety
    ///
    /// `entry` is that of a watch, which is on the queue of its process.
    unsafe extern "C" fn wake(
        entry: *mut bindings::wait_queue_entry,
        _mode: c_uint,
        _flags: c_int,
        key: *mut c_void,
    ) -> c_int {
        // `__unhash_process()` wakes the queue without a key, inside the write section of
        // `stats_lock`, where nothing may be read that this lock protects. It is no exit, but what
        // follows one.
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
        // SAFETY: By the type's invariant, and the watch keeps its reference until it is off the
        // queue, for which its lock is needed, which is held now.
        let handler = unsafe { ArcBorrow::<H>::from_raw((*entry).private.cast_const().cast()) };
        H::exited(handler, &watch.process, group);
        watch.exited.store(true, Ordering::Release);
        // It leaves the queue, like that of `autoremove_wake_function()`: there is nothing more to
        // come. From now on a watch of this process is refused because it has exited.
        // SAFETY: The entry is on the queue, and the lock of that is held.
        // INVARIANT: The entry is linked to itself.
        unsafe { list_del_init(&raw mut (*entry).entry) };
        0
    }
}

#[pinned_drop]
impl<H: ExitHandler> PinnedDrop for ExitWatch<H> {
    fn drop(self: Pin<&mut Self>) {
        let entry = self.entry.get();
        // SAFETY: By the type's invariant the entry is on this queue or linked to itself. This waits
        // for a callback that runs, since that holds the lock.
        unsafe { bindings::remove_wait_queue(self.process.exit_queue(), entry) };
        // SAFETY: By the type's invariant, and no callback will use it any more.
        drop(unsafe { Arc::<H>::from_raw((*entry).private.cast_const().cast()) });
    }
}
