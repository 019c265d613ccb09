// SPDX-License-Identifier: GPL-2.0

//! `once.rs` for models: reads of variables of loom, and a barrier that can be left out.

use crate::bindings::signal_struct;
use loom::sync::atomic::{
    AtomicI32, AtomicPtr, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed},
    fence,
};
use std::cell::Cell;

/// A variable that threads of a model share.
pub(crate) trait Shared {
    type Value;

    /// # Safety
    ///
    /// `this` is valid.
    unsafe fn read(this: *const Self) -> Self::Value;
}

macro_rules! shared {
    ($($type:ty => $value:ty),*) => {
        $(impl Shared for $type {
            type Value = $value;

            unsafe fn read(this: *const Self) -> $value {
                // SAFETY: By the caller's promise.
                unsafe { &*this }.load(Relaxed)
            }
        })*
    };
}
shared!(AtomicI32 => i32, AtomicU32 => u32, AtomicU64 => u64);

impl<T> Shared for AtomicPtr<T> {
    type Value = *mut T;

    unsafe fn read(this: *const Self) -> *mut T {
        // SAFETY: By the caller's promise.
        unsafe { &*this }.load(Relaxed)
    }
}

/// `sum_sched_runtime`, which is also read plainly where nothing can change it, and so cannot be
/// one of loom's variables: that is beside it.
impl Shared for u64 {
    type Value = u64;

    unsafe fn read(this: *const Self) -> u64 {
        // SAFETY: By the caller's promise, and there is no other one.
        unsafe {
            let signal = crate::container_of!(this, signal_struct, sum_sched_runtime);
            (*signal).sum_shared.load(Relaxed)
        }
    }
}

/// `READ_ONCE()`: it orders nothing.
pub(crate) unsafe fn read_once<T: Shared>(ptr: *const T) -> T::Value {
    // SAFETY: By the caller's promise.
    unsafe { T::read(ptr) }
}

thread_local! {
    /// How many barriers there are before the one that is left out, if one is. loom's threads share
    /// this: they are coroutines of one thread.
    static UNTIL_LEFT_OUT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Has the barrier number `which` from now on be left out.
pub(crate) fn leave_out_barrier(which: Option<usize>) {
    UNTIL_LEFT_OUT.set(which);
}

/// `smp_rmb()`, and later writes as well.
pub(crate) fn read_barrier() {
    let left = UNTIL_LEFT_OUT.get();
    UNTIL_LEFT_OUT.set(left.and_then(|left| left.checked_sub(1)));
    if left != Some(0) {
        fence(Acquire);
    }
}
