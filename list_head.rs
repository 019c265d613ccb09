// SPDX-License-Identifier: GPL-2.0

//! The parts of `struct list_head` that are inline code in C and have no helper for Rust.
//!
//! C header: [`include/linux/list.h`](srctree/include/linux/list.h).

use kernel::bindings;

/// `list_del_init()`: takes `entry` out of its list and links it to itself.
///
/// # Safety
///
/// `entry` is in a list or linked to itself, and the caller holds the lock of that list.
pub(crate) unsafe fn list_del_init(entry: *mut bindings::list_head) {
    // SAFETY: By the caller's promise `entry` and its neighbours are valid, and ours.
    unsafe {
        let (next, prev) = ((*entry).next, (*entry).prev);
        (*next).prev = prev;
        // `waitqueue_active()` and the like read this without the lock.
        (&raw mut (*prev).next).write_volatile(next);
        bindings::INIT_LIST_HEAD(entry);
    }
}
