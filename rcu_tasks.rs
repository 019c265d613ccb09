// SPDX-License-Identifier: GPL-2.0

//! Waiting for tasks that are preempted inside the kernel: RCU-tasks, with a limit.
//!
//! `synchronize_rcu_tasks()` has none. It waits until each task has slept, or was seen in user
//! mode. A task of the lowest priority, on a busy processor, can take minutes for that.
//!
//! C headers: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h),
//! [`include/linux/rcupdate_wait.h`](srctree/include/linux/rcupdate_wait.h).

use crate::layout;
use core::mem::{
    offset_of,
    ManuallyDrop, //
};
use kernel::{
    bindings,
    prelude::*,
    time::Jiffies,
    types::Opaque, //
};

/// `struct rcu_synchronize` of C, up to the last member that `wakeme_after_rcu()` uses.
#[repr(C)]
struct RcuSynchronize {
    head: bindings::callback_head,
    completion: bindings::completion,
}

#[cfg(CONFIG_TASKS_RCU)]
extern "C" {
    // The kernel exports it, and its crate has no binding of it.
    fn wakeme_after_rcu(head: *mut bindings::callback_head);
}

/// The memory for a wait, so that the wait itself cannot fail for lack of it.
///
/// # Invariants
///
/// The completion is initialised.
pub(crate) struct TasksGracePeriod(Pin<KBox<Opaque<RcuSynchronize>>>);

// SAFETY: It belongs to no task, and its memory is freed by `kfree()`, which any task may call.
unsafe impl Send for TasksGracePeriod {}
// SAFETY: A shared reference gives access to nothing.
unsafe impl Sync for TasksGracePeriod {}

impl TasksGracePeriod {
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory.
    pub(crate) fn new() -> Result<Self> {
        const {
            assert!(offset_of!(RcuSynchronize, head) == layout::OFFSET_rcu_head);
            assert!(offset_of!(RcuSynchronize, completion) == layout::OFFSET_rcu_completion);
        }
        let init = Opaque::ffi_init(|slot: *mut RcuSynchronize| {
            // SAFETY: The slot is valid for writes.
            unsafe { bindings::init_completion(&raw mut (*slot).completion) }
        });
        // INVARIANT: The completion was initialised.
        Ok(Self(KBox::pin_init(init, GFP_KERNEL)?))
    }

    /// Waits until each task that is preempted inside the kernel now has run on, to where it sleeps
    /// or leaves the kernel. Returns false if that takes longer than `limit`, or if the kernel
    /// cannot tell. Its memory, less than a hundred bytes, is leaked then.
    ///
    /// Context: sleeps. The caller has called `synchronize_rcu()`, which is enough for kernels that
    /// do not preempt kernel code.
    pub(crate) fn wait(self, limit: Jiffies) -> bool {
        let wait = ManuallyDrop::new(self.0);
        #[cfg(CONFIG_TASKS_RCU)]
        {
            let wait = wait.get();
            // SAFETY: By the invariant the completion is initialised. The memory stays until the
            // callback has completed it: it is dropped after that, or never.
            let left = unsafe {
                bindings::call_rcu_tasks(&raw mut (*wait).head, Some(wakeme_after_rcu));
                bindings::wait_for_completion_timeout(&raw mut (*wait).completion, limit)
            };
            if left == 0 {
                return false;
            }
        }
        #[cfg(not(CONFIG_TASKS_RCU))]
        let _ = limit;
        drop(ManuallyDrop::into_inner(wait));
        cfg!(any(CONFIG_TASKS_RCU, not(CONFIG_PREEMPTION)))
    }
}
