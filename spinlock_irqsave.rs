// SPDX-License-Identifier: GPL-2.0

//! `spin_lock_irqsave()` for locks that C code owns.
//!
//! C header: [`include/linux/spinlock.h`](srctree/include/linux/spinlock.h).

use kernel::{
    bindings,
    prelude::*, //
};

/// `spin_lock_irqsave()`, a macro in C.
///
/// Returns the flags for [`unlock_irqrestore`].
///
/// With `PREEMPT_RT` a `spinlock_t` sleeps and leaves interrupts enabled, as in C. A kernel for one
/// CPU must be Linux 7.3 or newer: before that, the kernel crate has no function that disables
/// interrupts.
///
/// # Safety
///
/// `lock` points at an initialised `spinlock_t` that lives until it is unlocked.
#[inline]
pub(crate) unsafe fn lock_irqsave(lock: *mut bindings::spinlock_t) -> c_ulong {
    #[cfg(all(CONFIG_SMP, not(CONFIG_PREEMPT_RT)))]
    // SAFETY: By the caller's promise the lock is initialised. CAST: Without `PREEMPT_RT` a
    // `spinlock_t` begins with its `raw_spinlock_t`.
    unsafe {
        bindings::_raw_spin_lock_irqsave(lock.cast())
    }
    #[cfg(not(any(CONFIG_SMP, CONFIG_PREEMPT_RT)))]
    // SAFETY: By the caller's promise the lock is initialised.
    unsafe {
        // It saves the flags itself.
        bindings::spin_lock_irq_disable(lock);
        0
    }
    #[cfg(CONFIG_PREEMPT_RT)]
    // SAFETY: By the caller's promise the lock is initialised.
    unsafe {
        bindings::spin_lock(lock);
        0
    }
}

/// `spin_unlock_irqrestore()`.
///
/// # Safety
///
/// The caller holds `lock`, and `flags` is what [`lock_irqsave`] returned for it.
#[inline]
pub(crate) unsafe fn unlock_irqrestore(lock: *mut bindings::spinlock_t, flags: c_ulong) {
    #[cfg(all(CONFIG_SMP, not(CONFIG_PREEMPT_RT)))]
    // SAFETY: By the caller's promise the lock is held. CAST: as above.
    unsafe {
        bindings::_raw_spin_unlock_irqrestore(lock.cast(), flags)
    }
    #[cfg(not(any(CONFIG_SMP, CONFIG_PREEMPT_RT)))]
    // SAFETY: By the caller's promise the lock is held.
    unsafe {
        let _ = flags;
        bindings::spin_unlock_irq_enable(lock)
    }
    #[cfg(CONFIG_PREEMPT_RT)]
    // SAFETY: By the caller's promise the lock is held.
    unsafe {
        let _ = flags;
        bindings::spin_unlock(lock)
    }
}
