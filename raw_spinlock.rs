// SPDX-License-Identifier: GPL-2.0

//! Raw spin locks. Their holder is not preempted, even on a kernel with `PREEMPT_RT`, unless that
//! is for one CPU.
//!
//! There a [`kernel::sync::SpinLock`] is a mutex that sleeps. Its holder is preempted like any
//! task, and only real-time and deadline waiters boost it. So a caller can wait until the scheduler
//! runs a holder of the lowest priority. Without `PREEMPT_RT`, both kinds are the same lock.
//!
//! Under a raw spin lock, code must not take a `spinlock_t`, allocate or free.
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

/// A lock that is taken like `raw_spin_lock()`: with preemption disabled.
pub(crate) type RawSpinLock<T> = Lock<T, RawSpinLockBackend>;

/// A lock that is taken like `raw_spin_lock_irqsave()`: with interrupts disabled, too. For data
/// that is used by a callback which the kernel calls with interrupts disabled.
pub(crate) type RawSpinLockIrqSave<T> = Lock<T, RawSpinLockIrqSaveBackend>;

/// Creates a [`RawSpinLock`] or [`RawSpinLockIrqSave`] with the given name and a lock class of its
/// own.
macro_rules! new_raw_spinlock {
    ($inner:expr, $name:literal) => {
        ::kernel::sync::lock::Lock::new(
            $inner,
            ::kernel::optional_name!($name),
            ::kernel::static_lock_class!(),
        )
    };
}
pub(crate) use new_raw_spinlock;

/// The backend of [`RawSpinLock`].
pub(crate) struct RawSpinLockBackend;

/// The backend of [`RawSpinLockIrqSave`].
pub(crate) struct RawSpinLockIrqSaveBackend;

// The functions that the macros of C call.
#[cfg(all(CONFIG_SMP, CONFIG_UNINLINE_SPIN_UNLOCK))]
mod c {
    use super::*;
    // The kernel exports these if both symbols are set.
    pub(super) use bindings::{
        _raw_spin_lock as lock,
        _raw_spin_lock_irqsave as lock_irqsave,
        _raw_spin_unlock as unlock,
        _raw_spin_unlock_irqrestore as unlock_irqrestore,
        raw_spinlock_t as RawLock, //
    };

    /// `raw_spin_lock_init()`.
    ///
    /// # Safety
    ///
    /// `lock` is valid for writes; `name` and `key` are valid as long as it is used.
    pub(super) unsafe fn init(
        lock: *mut RawLock,
        name: *const c_char,
        key: *mut bindings::lock_class_key,
    ) {
        #[cfg(CONFIG_DEBUG_SPINLOCK)]
        // SAFETY: By the caller's promise.
        unsafe {
            let context = bindings::lockdep_wait_type_LD_WAIT_SPIN as c_short;
            bindings::__raw_spin_lock_init(lock, name, key, context);
        }
        #[cfg(not(CONFIG_DEBUG_SPINLOCK))]
        // SAFETY: By the caller's promise it is valid for writes. `layout.c` has checked that a
        // lock without debugging is an integer.
        unsafe {
            let _ = (name, key);
            lock.cast::<u32>()
                .write(crate::layout::SPIN_UNLOCKED as u32);
        }
    }

    /// `lockdep_assert_held()`.
    ///
    /// # Safety
    ///
    /// `lock` is initialised.
    pub(super) unsafe fn assert_is_held(lock: *mut RawLock) {
        #[cfg(CONFIG_LOCKDEP)]
        // SAFETY: By the caller's promise. -1 asks for any way of holding it.
        kernel::warn_on!(unsafe { bindings::lock_is_held_type(&raw mut (*lock).dep_map, -1) } == 0);
        #[cfg(not(CONFIG_LOCKDEP))]
        let _ = lock;
    }
}

// Unless both symbols are set, a lock is a `spinlock_t`, which helpers of the kernel crate take and
// release. It sleeps only on a kernel with `PREEMPT_RT` for one CPU: with `CONFIG_SMP`,
// `PREEMPT_RT` sets the other symbol, through `PREEMPT_BUILD`.
//
// On a kernel for one CPU, a `spinlock_t` has no state, so its holder could take it a second time.
// `is_held` makes that spin, as with more CPUs.
#[cfg(not(all(CONFIG_SMP, CONFIG_UNINLINE_SPIN_UNLOCK)))]
mod c {
    use super::*;
    use crate::spinlock_irqsave;
    use core::sync::atomic::{
        AtomicBool,
        Ordering, //
    };
    use kernel::processor::cpu_relax;

    pub(crate) struct RawLock {
        lock: bindings::spinlock_t,
        is_held: AtomicBool,
    }

    /// `spin_lock_init()`.
    ///
    /// # Safety
    ///
    /// `lock` is valid for writes; `name` and `key` are valid as long as it is used.
    pub(super) unsafe fn init(
        lock: *mut RawLock,
        name: *const c_char,
        key: *mut bindings::lock_class_key,
    ) {
        // SAFETY: By the caller's promise.
        unsafe {
            bindings::__spin_lock_init(&raw mut (*lock).lock, name, key);
            (&raw mut (*lock).is_held).write(AtomicBool::new(false));
        }
    }

    /// `spin_lock()`.
    ///
    /// # Safety
    ///
    /// `lock` is initialised.
    pub(super) unsafe fn lock(lock: *mut RawLock) {
        // SAFETY: By the caller's promise.
        unsafe {
            bindings::spin_lock(&raw mut (*lock).lock);
            hold(lock);
        }
    }

    /// `spin_unlock()`.
    ///
    /// # Safety
    ///
    /// The caller holds `lock`.
    pub(super) unsafe fn unlock(lock: *mut RawLock) {
        // SAFETY: By the caller's promise the lock is initialised and held.
        unsafe {
            (*lock).is_held.store(false, Ordering::Release);
            bindings::spin_unlock(&raw mut (*lock).lock);
        }
    }

    /// `spin_lock_irqsave()`.
    ///
    /// # Safety
    ///
    /// `lock` is initialised.
    pub(super) unsafe fn lock_irqsave(lock: *mut RawLock) -> c_ulong {
        // SAFETY: By the caller's promise. The lock does not go while it is held.
        let flags = unsafe { spinlock_irqsave::lock_irqsave(&raw mut (*lock).lock) };
        // SAFETY: We have just taken the lock.
        unsafe { hold(lock) };
        flags
    }

    /// `spin_unlock_irqrestore()`.
    ///
    /// # Safety
    ///
    /// The caller holds `lock`, and `flags` is what [`lock_irqsave`] returned for it.
    pub(super) unsafe fn unlock_irqrestore(lock: *mut RawLock, flags: c_ulong) {
        // SAFETY: By the caller's promise.
        unsafe {
            (*lock).is_held.store(false, Ordering::Release);
            spinlock_irqsave::unlock_irqrestore(&raw mut (*lock).lock, flags);
        }
    }

    /// Marks a lock as held, and spins if it is marked already.
    ///
    /// # Safety
    ///
    /// The caller has taken the `spinlock_t`.
    unsafe fn hold(lock: *mut RawLock) {
        // SAFETY: By the caller's promise the lock is initialised.
        while unsafe { (*lock).is_held.swap(true, Ordering::Acquire) } {
            cpu_relax();
        }
    }

    /// `lockdep_assert_held()`.
    ///
    /// # Safety
    ///
    /// `lock` is initialised.
    pub(super) unsafe fn assert_is_held(lock: *mut RawLock) {
        // SAFETY: By the caller's promise.
        unsafe { bindings::spin_assert_is_held(&raw mut (*lock).lock) };
    }
}

// SAFETY: A spin lock excludes all others while it is held. `relock` uses the default, which takes
// the lock as `lock` does.
unsafe impl Backend for RawSpinLockBackend {
    type State = c::RawLock;
    type GuardState = ();

    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut bindings::lock_class_key) {
        // SAFETY: By the caller's promise `ptr` is valid for writes, and the name and the key stay.
        unsafe { c::init(ptr, name, key) }
    }

    unsafe fn lock(ptr: *mut Self::State) {
        // SAFETY: By the caller's promise the lock is initialised.
        unsafe { c::lock(ptr) }
    }

    unsafe fn try_lock(_ptr: *mut Self::State) -> Option<()> {
        // `raw_spin_trylock()` is a macro without a helper. To fail is always allowed.
        None
    }

    unsafe fn unlock(ptr: *mut Self::State, (): &()) {
        // SAFETY: By the caller's promise the lock is held.
        unsafe { c::unlock(ptr) }
    }

    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // SAFETY: By the caller's promise the lock is initialised.
        unsafe { c::assert_is_held(ptr) }
    }
}

// SAFETY: As above.
unsafe impl Backend for RawSpinLockIrqSaveBackend {
    type State = c::RawLock;
    /// The interrupt flags before the lock was taken.
    type GuardState = c_ulong;

    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut bindings::lock_class_key) {
        // SAFETY: By the caller's promise `ptr` is valid for writes, and the name and the key stay.
        unsafe { c::init(ptr, name, key) }
    }

    unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
        // SAFETY: By the caller's promise the lock is initialised.
        unsafe { c::lock_irqsave(ptr) }
    }

    unsafe fn try_lock(_ptr: *mut Self::State) -> Option<Self::GuardState> {
        // As above.
        None
    }

    unsafe fn unlock(ptr: *mut Self::State, flags: &Self::GuardState) {
        // SAFETY: By the caller's promise the lock is held; `flags` is what taking it returned.
        unsafe { c::unlock_irqrestore(ptr, *flags) }
    }

    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // SAFETY: By the caller's promise the lock is initialised.
        unsafe { c::assert_is_held(ptr) }
    }
}
