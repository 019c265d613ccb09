// SPDX-License-Identifier: GPL-2.0

//! Requests to have memory in the cache before it is read.
//!
//! They pay off where pointers are followed for many objects: first request all of them, then read
//! them, so that the CPU waits for many cache lines at once.
//!
//! C header: [`include/linux/prefetch.h`](srctree/include/linux/prefetch.h).

/// Has the CPU fetch the cache line of `address` for a read: `prefetch()` in C.
///
/// Any address will do: no access happens, so none can fault. Architectures whose instruction is
/// not named here do nothing.
///
/// Context: any.
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: The instruction changes nothing but caches, and ignores an address that is not
    // mapped.
    unsafe {
        core::arch::asm!(
            "prefetcht0 [{}]",
            in(reg) address,
            options(readonly, nostack, preserves_flags),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: As above.
    unsafe {
        core::arch::asm!(
            "prfm pldl1keep, [{}]",
            in(reg) address,
            options(readonly, nostack, preserves_flags),
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}
