// SPDX-License-Identifier: GPL-2.0

//! Waiting for tasks that are preempted inside the kernel: RCU-tasks, with a timeout.
//!
//! `synchronize_rcu_tasks()` has no timeout. It returns once each task that was runnable has slept,
//! or was seen in user mode. A task of the lowest priority, on a busy processor, can take minutes
//! for that.
//!
//! C headers: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h),
//! [`include/linux/rcupdate_wait.h`](srctree/include/linux/rcupdate_wait.h).

use crate::{
    layout,
    lock_class::LockClass, //
};
use core::mem::offset_of;
#[cfg(CONFIG_TASKS_RCU)]
use core::mem::ManuallyDrop;
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
    // The kernel exports it, but its bindings lack it.
    fn wakeme_after_rcu(head: *mut bindings::callback_head);
}

/// What `wakeme_after_rcu()` uses. It may do so after the module has gone.
#[pin_data]
struct Waiter {
    #[pin]
    rcu: Opaque<RcuSynchronize>,
    _class: LockClass,
}

/// One wait for a grace period of RCU-tasks. It has its memory before it begins, so the wait cannot
/// fail for lack of memory.
///
/// # Invariants
///
/// The completion is initialised.
pub(crate) struct TasksGracePeriod(Pin<KBox<Waiter>>);

// SAFETY: It belongs to no task, and any task may free its memory.
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
        let class = LockClass::new(c"TasksGracePeriod")?;
        let (name, key) = (class.name(), class.key());
        let waiter = pin_init!(Waiter {
            // As `init_completion()` does.
            rcu <- Opaque::ffi_init(|slot: *mut RcuSynchronize| {
                // SAFETY: The slot is valid for writes; name and key go with it.
                unsafe {
                    (&raw mut (*slot).completion.done).write(0);
                    bindings::__init_swait_queue_head(
                        &raw mut (*slot).completion.wait,
                        name,
                        key,
                    );
                }
            }),
            _class: class,
        });
        // INVARIANT: The completion was initialised.
        Ok(Self(KBox::pin_init(waiter, GFP_KERNEL)?))
    }

    /// Waits for a grace period: until each task that is preempted inside the kernel now has slept,
    /// or was seen in user mode. On a kernel with `PREEMPT_RT`, a task that waits for a
    /// `spinlock_t` sleeps.
    ///
    /// Returns false if that takes more than `timeout`, or if the kernel is preemptible and has no
    /// RCU-tasks. After a timeout the memory of the wait is leaked.
    ///
    /// Context: process context; sleeps.
    pub(crate) fn wait(self, timeout: Jiffies) -> bool {
        #[cfg(CONFIG_TASKS_RCU)]
        {
            let waiter = ManuallyDrop::new(self.0);
            let rcu = waiter.rcu.get();
            // SAFETY: By the invariant the completion is initialised. The memory stays until the
            // callback has completed it: it is dropped after that, or never.
            let left = unsafe {
                bindings::call_rcu_tasks(&raw mut (*rcu).head, Some(wakeme_after_rcu));
                bindings::wait_for_completion_timeout(&raw mut (*rcu).completion, timeout)
            };
            if left == 0 {
                return false;
            }
            drop(ManuallyDrop::into_inner(waiter));
            true
        }
        #[cfg(not(CONFIG_TASKS_RCU))]
        {
            let _ = timeout;
            drop(self.0);
            if cfg!(CONFIG_PREEMPTION) {
                return false;
            }
            // SAFETY: Process context, and no lock is held. Without preemption, a task is in the
            // kernel with a CPU or asleep, so this waits for it.
            unsafe { bindings::synchronize_rcu() };
            true
        }
    }
}
