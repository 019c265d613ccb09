// SPDX-License-Identifier: GPL-2.0

//! Allocation flags.
//!
//! C header: [`include/linux/gfp_types.h`](srctree/include/linux/gfp_types.h).

use kernel::{
    alloc::{
        flags::__GFP_NOWARN,
        Flags, //
    },
    bindings,
    prelude::*, //
};

/// `__GFP_RETRY_MAYFAIL`: the allocation tries hard, but fails rather than call the OOM killer.
///
/// The `kernel` crate has no constant for it, and no way to make one: `Flags` is a `gfp_t` with
/// private fields.
const __GFP_RETRY_MAYFAIL: Flags = {
    const {
        assert!(size_of::<Flags>() == size_of::<bindings::gfp_t>());
        assert!(align_of::<Flags>() == align_of::<bindings::gfp_t>());
    };
    let raw: bindings::gfp_t = 1 << bindings::___GFP_RETRY_MAYFAIL_BIT;
    // SAFETY: `Flags` has one field, an integer with the size and alignment of `Flags`. So the
    // field is at offset 0 and there is no padding, whatever the representation. All values of a
    // `gfp_t` are valid.
    unsafe { core::mem::transmute::<bindings::gfp_t, Flags>(raw) }
};

/// Returns the flags for memory that a user makes the kernel allocate: it is charged to the cgroup
/// of `current`. If there is no memory, or the cgroup is at its limit, the allocation fails: no
/// process is killed for it, and nothing is logged.
///
/// Context: an allocation with these flags may sleep.
pub(crate) fn user_account() -> Flags {
    GFP_KERNEL_ACCOUNT | __GFP_NOWARN | __GFP_RETRY_MAYFAIL
}
