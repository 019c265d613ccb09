// SPDX-License-Identifier: GPL-2.0

//! How memory is allocated that a user asks for.
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

/// `__GFP_RETRY_MAYFAIL`, which the `kernel` crate has no constant for: the allocation tries hard,
/// but fails rather than have the OOM killer make room for it.
const __GFP_RETRY_MAYFAIL: Flags = {
    let raw: bindings::gfp_t = 1 << bindings::___GFP_RETRY_MAYFAIL_BIT;
    // SAFETY: `Flags` is a `gfp_t` and nothing else, of which all bit patterns are valid; had it
    // another size, this would not compile.
    unsafe { core::mem::transmute::<bindings::gfp_t, Flags>(raw) }
};

/// Returns the flags for memory that belongs to `current`: charged to its cgroup, and if there is
/// none, or no more for the cgroup, that is an error like another: nobody is killed for it, and
/// nothing is logged.
///
/// Context: an allocation with these flags may sleep.
#[inline]
pub(crate) fn for_user() -> Flags {
    GFP_KERNEL_ACCOUNT | __GFP_NOWARN | __GFP_RETRY_MAYFAIL
}
