// SPDX-License-Identifier: GPL-2.0

//! The reader's side of sequence locks.
//!
//! A reader of a `seqlock_t` first tries without the lock. If a writer interfered, it takes the
//! lock for a second try, so that a stream of writers cannot starve it. C spells this
//! `scoped_seqlock_read(lock, ss_lock_irqsave)`.
//!
//! C header: [`include/linux/seqlock.h`](srctree/include/linux/seqlock.h).

use crate::{
    once::{
        read_barrier,
        read_once, //
    },
    spinlock_irqsave::{
        lock_irqsave,
        unlock_irqrestore, //
    }, //
};
use kernel::bindings;

/// Runs `section` on data that `lock` protects, and returns what it saw at one consistent moment.
///
/// `section` runs without the lock, unless a writer is active. If a writer is or becomes active,
/// `section` runs with the lock held. Only the last result is returned. `section` must not sleep.
///
/// Context: any in which a spin lock may be taken, and not inside a write section of `lock`.
///
/// # Safety
///
/// - `lock` points at an initialised `seqlock_t` that lives until this function returns.
/// - What `section` reads stays allocated while writers are active.
#[inline]
pub(crate) unsafe fn read<R>(lock: *mut bindings::seqlock_t, mut section: impl FnMut() -> R) -> R {
    // SAFETY: By the caller's promise the lock is valid until we return; this computes an address.
    let sequence = unsafe { &raw const (*lock).seqcount.seqcount.sequence };

    // These are `read_seqbegin()` and `read_seqretry()`. A writer does a plain `sequence++` before
    // its first `smp_wmb()` and after its second (`do_raw_write_seqcount_begin()`,
    // `do_raw_write_seqcount_end()`). Nothing else writes the count, which is a machine word, and
    // writers hold the lock. The kernel tells KCSAN so (`kcsan_nestable_atomic_begin()`) and reads
    // the count by `READ_ONCE()` here, too. The barriers pair with the `smp_wmb()`: a reader that
    // saw any of a writer's changes sees its count, too, and retries.
    // SAFETY: The count is valid, see above.
    let begin = unsafe { read_once(sequence) };
    // While the count is odd, a writer is active: wait for it by taking the lock.
    if begin % 2 == 0 {
        read_barrier();
        let result = section();
        read_barrier();
        // SAFETY: As above.
        if unsafe { read_once(sequence) } == begin {
            return result;
        }
    }

    // SAFETY: By the caller's promise the lock is initialised and lives until we return. Writers
    // hold it under locks that interrupt handlers take, so interrupts are off here as well.
    let flags = unsafe { lock_irqsave(&raw mut (*lock).lock) };
    let result = section();
    // SAFETY: We took the lock above.
    unsafe { unlock_irqrestore(&raw mut (*lock).lock, flags) };
    result
}
