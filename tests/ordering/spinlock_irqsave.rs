// SPDX-License-Identifier: GPL-2.0

//! `spinlock_irqsave.rs` for models: a lock of loom behind the same functions.

use crate::bindings::spinlock_t;
use core::ffi::c_ulong;

pub(crate) unsafe fn lock_irqsave(lock: *mut spinlock_t) -> c_ulong {
    // SAFETY: By the caller's promise.
    unsafe { &*lock }.lock();
    0
}

pub(crate) unsafe fn unlock_irqrestore(lock: *mut spinlock_t, _flags: c_ulong) {
    // SAFETY: By the caller's promise.
    unsafe { &*lock }.unlock();
}
