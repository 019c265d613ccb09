// SPDX-License-Identifier: GPL-2.0

//! Work queues of one's own.
//!
//! The `kernel` crate has work items and the system's queues. A module that may be unloaded needs
//! more: an end of the queue that waits for all work, since work that runs later would run code
//! that is no longer there.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h).

use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    prelude::*,
    workqueue::Queue, //
};

/// A work queue that is destroyed with its owner.
///
/// That must not be a work item that runs on the queue itself, since it would wait for its own end:
/// where work items own the queue, it is drained before its other owners go.
///
/// Context: created, flushed and dropped where sleeping is allowed.
///
/// # Invariants
///
/// `0` points at a work queue that `alloc_workqueue()` made and that only `drop` destroys.
pub(crate) struct OwnedQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A work queue may be used and destroyed by any thread.
unsafe impl Send for OwnedQueue {}
// SAFETY: The functions that `&self` gives access to do their own locking.
unsafe impl Sync for OwnedQueue {}

impl OwnedQueue {
    /// Creates a queue whose workers are bound to no CPU.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory.
    #[inline]
    pub(crate) fn new_unbound(name: &CStr) -> Result<Self> {
        // SAFETY: The format takes exactly one string, and both end with NUL. 0 is the default for
        // how much may run at once.
        let queue = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                bindings::wq_flags_WQ_UNBOUND,
                0,
                name.as_char_ptr(),
            )
        };
        // INVARIANT: What is not null is a new queue, and nobody else knows of it.
        Ok(Self(NonNull::new(queue).ok_or(ENOMEM)?))
    }

    /// Waits until all work that is queued now has run.
    #[inline]
    pub(crate) fn flush(&self) {
        // SAFETY: By the type's invariant the queue is valid.
        unsafe { bindings::__flush_workqueue(self.0.as_ptr()) };
    }

    /// Waits until the queue is empty, also of work that its work items queue.
    #[inline]
    pub(crate) fn drain(&self) {
        // SAFETY: By the type's invariant the queue is valid.
        unsafe { bindings::drain_workqueue(self.0.as_ptr()) };
    }
}

impl Deref for OwnedQueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        // SAFETY: By the type's invariant the queue is valid as long as `self` is borrowed.
        unsafe { Queue::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for OwnedQueue {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the queue is valid, and by ownership this is its last
        // use. Work that is still queued runs before this returns.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}
