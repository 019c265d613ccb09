// SPDX-License-Identifier: GPL-2.0

//! Work queues that end with a module.
//!
//! The `kernel` crate has work items and the system's queues. A module that can be unloaded needs
//! more: work must not run once its code is gone.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h).

use core::ptr::NonNull;
use kernel::{
    bindings,
    prelude::*,
    sync::Arc,
    workqueue::{
        HasWork,
        Queue,
        RawWorkItem,
        Work,
        WorkItem, //
    }, //
};

/// A work queue that is destroyed when it is dropped. All work that was queued runs before that.
///
/// It gives no access to [`Queue`], which has delayed work: `destroy_workqueue()` does not wait for
/// delayed work.
///
/// Context: created and dropped where sleeping is allowed. A work item of the queue must not drop
/// the queue, since it would wait for itself: see [`disable_sync`].
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
        // INVARIANT: What is not null is a new queue, and no other code has it.
        Ok(Self(NonNull::new(queue).ok_or(ENOMEM)?))
    }

    /// Queues a work item. Returns the item if it is queued already, or disabled.
    ///
    /// Context: any.
    pub(crate) fn enqueue<W, const ID: u64>(&self, work: W) -> W::EnqueueOutput
    where
        W: RawWorkItem<ID> + Send + 'static,
    {
        // SAFETY: By the type's invariant the queue is valid as long as `self` is borrowed.
        unsafe { Queue::from_raw(self.0.as_ptr()) }.enqueue(work)
    }
}

impl Drop for OwnedQueue {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the queue is valid, and by ownership this is its last
        // use.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

/// Ends a work item: cancels it if it is queued, waits until it runs no more, and makes later
/// attempts to queue it fail.
///
/// Context: sleeps. The work item must not call this for itself.
pub(crate) fn disable_sync<T, const ID: u64>(owner: &Arc<T>)
where
    T: HasWork<T, ID> + WorkItem<ID, Pointer = Arc<T>>,
{
    let owner = Arc::as_ptr(owner);
    // SAFETY: `owner` is alive, and so is its field. From now on, `queue_work_on()` returns false
    // although the item is not queued. Then an `Arc` comes back to the caller; the bound excludes a
    // `KBox`, which could not.
    let was_queued = unsafe {
        let work = Work::raw_get(T::raw_get_work(owner.cast_mut()));
        bindings::disable_work_sync(work)
    };
    if was_queued {
        // SAFETY: By the bound on `Pointer`, what was queued was an `Arc` of the owner. Its
        // reference was for the run that will not come now.
        drop(unsafe { Arc::from_raw(owner) });
    }
}
