// SPDX-License-Identifier: GPL-2.0

//! Reads of variables that other CPUs write at the same time.
//!
//! C headers: [`include/asm-generic/rwonce.h`](srctree/include/asm-generic/rwonce.h),
//! [`include/asm-generic/barrier.h`](srctree/include/asm-generic/barrier.h).

use core::sync::atomic::{
    fence,
    Ordering, //
};

/// Reads `*ptr` in one access, as `READ_ONCE()` of C does.
///
/// `kernel::sync::atomic` has the same, but only for variables that Rust owns, and as a call of a C
/// function on kernels without inlined helpers. A volatile read of a machine word is what
/// `READ_ONCE()` compiles to, and what the kernel's memory model calls a marked access
/// (`tools/memory-model/Documentation/access-marking.txt`): it is not torn, not repeated, and not
/// fused with another. It orders nothing by itself, but reads through a pointer that it returned
/// come after it (address dependency).
///
/// # Safety
///
/// `ptr` is aligned and valid for reads. Other CPUs may write the variable meanwhile, provided that
/// the kernel's own code also reads it without a lock.
#[inline]
pub(crate) unsafe fn read_once<T: Copy>(ptr: *const T) -> T {
    const { assert!(size_of::<T>() <= size_of::<usize>()) };
    // SAFETY: By the caller's promise `ptr` is valid. A race with a writer is no data race, as
    // argued above.
    unsafe { ptr.read_volatile() }
}

/// Keeps reads in order: all reads before it come before all reads and writes after it.
///
/// This orders what `smp_rmb()` orders, and later writes as well: it makes an `smp_load_acquire()`
/// of each [`read_once`] before it. On arm64 it is the same instruction as `smp_rmb()`, `dmb
/// ishld`, and on x86 it only holds the compiler back. It is not `smp_rmb()` itself because that is
/// a call of a C function on kernels without inlined helpers.
#[inline]
pub(crate) fn read_barrier() {
    fence(Ordering::Acquire);
}
