// SPDX-License-Identifier: GPL-2.0

//! The reader's side of sequence locks.
//!
//! A reader of a `seqlock_t` first tries without the lock, and only if a writer interfered takes
//! the lock, so that it cannot be kept out for ever by writers that follow each other closely. This
//! is what C does with `scoped_seqlock_read(lock, ss_lock_irqsave)`.
//!
//! C header: [`include/linux/seqlock.h`](srctree/include/linux/seqlock.h).

use core::sync::atomic::{
    fence,
    Ordering, //
};
use kernel::bindings;

/// Runs `section` on data that `lock` protects, and returns what it saw at one consistent moment.
///
/// `section` runs once without the lock, and if a writer was active meanwhile, a second time with
/// the lock held; only the last result is returned. It must not sleep.
///
/// Context: any in which a spin lock may be taken.
///
/// # Safety
///
/// - `lock` points at an initialised `seqlock_t` that lives until this function returns.
/// - What `section` reads stays allocated while writers are active.
#[inline]
pub(crate) unsafe fn read<R>(lock: *mut bindings::seqlock_t, mut section: impl FnMut() -> R) -> R {
    // SAFETY: By the caller's promise the count is valid until we return; this computes an address.
    let sequence = unsafe { &raw const (*lock).seqcount.seqcount.sequence };

    // The loads and fences are those of C's `read_seqbegin()` and `read_seqretry()`, without the
    // function call that each one of `kernel::sync` costs where helpers are not inlined.
    // SAFETY: The count is valid, see above, and writers change it with single stores.
    let begin = unsafe { sequence.read_volatile() };
    // An odd count means that a writer is active: waiting for it is what the lock is for.
    if begin % 2 == 0 {
        fence(Ordering::Acquire);
        let result = section();
        fence(Ordering::Acquire);
        // SAFETY: As above.
        if unsafe { sequence.read_volatile() } == begin {
            return result;
        }
    }

    // SAFETY: The caller's promises are the same.
    unsafe { read_locked(lock, section) }
}

/// The second attempt of [`read`]: keeps writers out.
///
/// Writers hold the lock under others that interrupts take, so interrupts must be off here.
///
/// # Safety
///
/// As for [`read`].
#[cold]
unsafe fn read_locked<R>(lock: *mut bindings::seqlock_t, section: impl FnMut() -> R) -> R {
    // SAFETY: By the caller's promise the lock is valid until we return.
    unsafe { with_lock_irqsave(&raw mut (*lock).lock, section) }
}

/// Runs `section` with `lock` held and interrupts off.
///
/// # Safety
///
/// `lock` points at an initialised `spinlock_t` that lives until this function returns.
#[cfg(all(CONFIG_SMP, not(CONFIG_PREEMPT_RT)))]
unsafe fn with_lock_irqsave<R>(
    lock: *mut bindings::spinlock_t,
    mut section: impl FnMut() -> R,
) -> R {
    // CAST: Without `PREEMPT_RT` a `spinlock_t` begins with its `raw_spinlock_t`.
    let lock = lock.cast::<bindings::raw_spinlock_t>();

    // SAFETY: By the caller's promise the lock is initialised and alive.
    let flags = unsafe { bindings::_raw_spin_lock_irqsave(lock) };
    let result = section();
    // SAFETY: We took the lock above, and `flags` is what that returned.
    unsafe { bindings::_raw_spin_unlock_irqrestore(lock, flags) };
    result
}

/// Runs `section` with `lock` held.
///
/// With `PREEMPT_RT` the lock is one that sleeps and leaves interrupts alone in C, too. On a single
/// CPU, holding it means that nothing preempts us, and writers do not run in interrupts.
///
/// # Safety
///
/// `lock` points at an initialised `spinlock_t` that lives until this function returns.
#[cfg(not(all(CONFIG_SMP, not(CONFIG_PREEMPT_RT))))]
unsafe fn with_lock_irqsave<R>(
    lock: *mut bindings::spinlock_t,
    mut section: impl FnMut() -> R,
) -> R {
    // SAFETY: By the caller's promise the lock is initialised and alive.
    unsafe { bindings::spin_lock(lock) };
    let result = section();
    // SAFETY: We took the lock above.
    unsafe { bindings::spin_unlock(lock) };
    result
}
