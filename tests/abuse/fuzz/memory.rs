// SPDX-License-Identifier: GPL-2.0

//! A buffer that ends where an inaccessible page begins.

use std::ffi::c_void;
use std::num::NonZero;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use support::PAGE;

/// The part that can be used.
pub const USABLE: usize = PAGE;

pub struct Edge(NonNull<c_void>);

impl Edge {
    pub fn new() -> Self {
        let len = NonZero::new(USABLE + PAGE).expect("not zero");
        let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: A new mapping, and the protection of its last page, which nothing uses yet.
        unsafe {
            let start = mmap_anonymous(None, len, both, MapFlags::MAP_PRIVATE).expect("mmap");
            mprotect(start.byte_add(USABLE), PAGE, ProtFlags::PROT_NONE).expect("mprotect");
            Self(start)
        }
    }

    /// Returns the address from which on `usable` bytes can be used.
    pub fn before(&self, usable: usize) -> *mut u8 {
        assert!(usable <= USABLE);
        // SAFETY: It is within the mapping.
        unsafe { self.0.as_ptr().byte_add(USABLE - usable).cast() }
    }

    /// Puts the first bytes of `bytes` before the edge, as many as `usable`.
    pub fn fill(&self, usable: usize, bytes: &[u8]) {
        let len = usable.min(bytes.len());
        // SAFETY: The target is in the usable part, which nothing else refers to.
        unsafe {
            self.before(usable)
                .copy_from_nonoverlapping(bytes.as_ptr(), len)
        };
    }

    /// Returns `len` bytes from `usable` bytes before the edge on.
    pub fn copy(&self, usable: usize, len: usize) -> Vec<u8> {
        assert!(len <= usable);
        // SAFETY: As for `fill`; the mapping was zeroed at first.
        unsafe { std::slice::from_raw_parts(self.before(usable), len) }.to_vec()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // SAFETY: It is ours, and nothing refers to it any more.
        unsafe { munmap(self.0, USABLE + PAGE) }.expect("munmap");
    }
}
