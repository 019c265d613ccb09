// SPDX-License-Identifier: GPL-2.0

//! A vector of pinned elements.

use core::{
    convert::Infallible,
    mem::MaybeUninit, //
};
use kernel::prelude::*;
use pin_init::InPlaceWrite;

/// A vector in place, of up to `N` elements that never move, not even when others are removed.
///
/// An element gets the next index, and keeps it. The index of an element that was removed is not used
/// again, so the order of indices is the order in which elements came.
///
/// # Invariants
///
/// - Bit `i` of `occupied` is set if and only if `slots[i]` is initialised.
/// - `len` is at most `N`, and above all bits of `occupied` that are set.
#[pin_data(PinnedDrop)]
pub(crate) struct PinVec<T: 'static, const N: usize> {
    occupied: u64,
    len: usize,
    #[pin]
    slots: [MaybeUninit<T>; N],
    #[pin]
    _pin: core::marker::PhantomPinned,
}

impl<T: 'static, const N: usize> PinVec<T, N> {
    /// Creates an empty vector.
    pub(crate) fn new() -> impl PinInit<Self> {
        const { assert!(N <= u64::BITS as usize) };
        // INVARIANT: No bit is set.
        pin_init!(Self {
            occupied: 0,
            len: 0,
            slots <- pin_init::init_array_from_fn(|_| pin_init::uninit::<T, Infallible>()),
            _pin: core::marker::PhantomPinned,
        })
    }

    /// Returns how many more elements can be added.
    pub(crate) fn room(&self) -> usize {
        N - self.len
    }

    /// Returns how many indices have been used.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there is no element.
    pub(crate) fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// Returns the element with this index, unless it has been removed or never was.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        let slot = self.slots.get(index)?;
        // SAFETY: By the invariant the slot is initialised if its bit is set.
        (self.occupied & (1 << index) != 0).then(|| unsafe { slot.assume_init_ref() })
    }

    /// Adds an element at the end.
    ///
    /// # Errors
    ///
    /// - [`ENOSPC`] if there is no room.
    /// - Those of `init`. Then there is no new element, and its index is still free.
    pub(crate) fn push(self: Pin<&mut Self>, init: impl PinInit<T, Error>) -> Result {
        // SAFETY: Nothing is moved out of it.
        let this = unsafe { self.get_unchecked_mut() };
        let slot: *mut MaybeUninit<T> = this.slots.get_mut(this.len).ok_or(ENOSPC)?;
        // SAFETY: The reference is used for this call alone. By the invariant the slot is not
        // initialised, and it is pinned, as `self` is.
        let slot: &'static mut MaybeUninit<T> = unsafe { &mut *slot };
        slot.write_pin_init(init)?;
        // INVARIANT: The slot has just been initialised.
        this.occupied |= 1 << this.len;
        this.len += 1;
        Ok(())
    }

    /// Drops the element with this index, and returns whether there was one.
    pub(crate) fn remove(self: Pin<&mut Self>, index: usize) -> bool {
        if index >= N || self.occupied & (1 << index) == 0 {
            return false;
        }
        // SAFETY: Nothing is moved out of it.
        let this = unsafe { self.get_unchecked_mut() };
        // INVARIANT: The slot is dropped next.
        this.occupied &= !(1 << index);
        // SAFETY: By the invariant the slot was initialised; the bit says that it is not any more.
        unsafe { this.slots[index].assume_init_drop() };
        true
    }

    /// Returns the elements from the index `start` on, with their indices.
    #[inline]
    pub(crate) fn iter_from(&self, start: usize) -> impl Iterator<Item = (usize, &T)> {
        let before = u32::try_from(start).map_or(u64::MAX, |start| {
            1u64.checked_shl(start).map_or(u64::MAX, |bit| bit - 1)
        });
        let mut left = self.occupied & !before;
        core::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let index = left.trailing_zeros() as usize;
            left &= left - 1;
            // SAFETY: By the invariants the bits that are set are below `N`, and their slots are
            // initialised.
            Some((index, unsafe {
                self.slots.get_unchecked(index).assume_init_ref()
            }))
        })
    }
}

#[pinned_drop]
impl<T: 'static, const N: usize> PinnedDrop for PinVec<T, N> {
    fn drop(mut self: Pin<&mut Self>) {
        for index in 0..N {
            self.as_mut().remove(index);
        }
    }
}
