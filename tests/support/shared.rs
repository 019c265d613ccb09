// SPDX-License-Identifier: GPL-2.0

//! Memory that child processes share with the process that starts them.

use std::sync::atomic::AtomicU32;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

/// Returns so many numbers, which are 0 at first, and which all children that are started later see
/// change.
pub fn atomics<const COUNT: usize>() -> &'static [AtomicU32; COUNT] {
    let len = size_of::<[AtomicU32; COUNT]>()
        .try_into()
        .expect("not zero");
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: A new mapping, which is never unmapped, large enough, aligned to a page, and full of
    // zeroes.
    unsafe {
        mmap_anonymous(None, len, access, MapFlags::MAP_SHARED)
            .expect("mmap")
            .cast()
            .as_ref()
    }
}
