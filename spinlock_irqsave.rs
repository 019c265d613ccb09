// SPDX-License-Identifier: GPL-2.0

//! Spin locks that callers with interrupts disabled take, too.
//!
//! The `kernel` crate has `SpinLockIrq` from Linux 7.3 on. This one serves 7.2 as well, and locks
//! that C code owns.
//!
//! C header: [`include/linux/spinlock.h`](srctree/include/linux/spinlock.h).

use kernel::{
    bindings,
    prelude::*,
    sync::lock::{
        Backend,
        Lock, //
    }, //
};

/// A spin lock that is taken like `spin_lock_irqsave()`.
pub(crate) type SpinLockIrqSave<T> = Lock<T, SpinLockIrqSaveBackend>;

/// Creates a [`SpinLockIrqSave`] with the given name and a lock class of its own.
macro_rules! new_spinlock_irqsave {
    ($inner:expr, $name:literal) => {
        $crate::spinlock_irqsave::SpinLockIrqSave::new(
            $inner,
            ::kernel::optional_name!($name),
            ::kernel::static_lock_class!(),
        )
    };
}
pub(crate) use new_spinlock_irqsave;

/// The backend of [`SpinLockIrqSave`].
pub(crate) struct SpinLockIrqSaveBackend;

// SAFETY: A `spinlock_t` excludes everybody else while it is held. `relock` uses the default, which
// takes the lock as `lock` does.
unsafe impl Backend for SpinLockIrqSaveBackend {
    type State = bindings::spinlock_t;
    /// The interrupt flags before the lock was taken.
    type GuardState = c_ulong;

    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut bindings::lock_class_key) {
        // SAFETY: By the caller's promise `ptr` is valid for writes, and the name and the key stay.
        unsafe { bindings::__spin_lock_init(ptr, name, key) }
    }

    #[inline]
    unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
        // SAFETY: By the caller's promise the lock is initialised.
        unsafe { lock_irqsave(ptr) }
    }

    unsafe fn try_lock(_ptr: *mut Self::State) -> Option<Self::GuardState> {
        // `spin_trylock_irqsave()` is a macro without a helper. To fail is always allowed.
        None
    }

    #[inline]
    unsafe fn unlock(ptr: *mut Self::State, flags: &Self::GuardState) {
        // SAFETY: By the caller's promise the lock is held; `flags` is what taking it returned.
        unsafe { unlock_irqrestore(ptr, *flags) }
    }

    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // SAFETY: By the caller's promise the lock is initialised.
        unsafe { bindings::spin_assert_is_held(ptr) }
    }
}

/// `spin_lock_irqsave()`, a macro in C.
///
/// Returns the flags for [`unlock_irqrestore`].
///
/// With `PREEMPT_RT` a `spinlock_t` sleeps and leaves interrupts enabled, as in C. On a kernel for one CPU
/// there is no other CPU, and no interrupt handler takes a lock that this module takes: it is enough to
/// disable preemption.
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
    #[cfg(not(all(CONFIG_SMP, not(CONFIG_PREEMPT_RT))))]
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
    #[cfg(not(all(CONFIG_SMP, not(CONFIG_PREEMPT_RT))))]
    // SAFETY: By the caller's promise the lock is held.
    unsafe {
        let _ = flags;
        bindings::spin_unlock(lock)
    }
}
