// SPDX-License-Identifier: GPL-2.0

//! A list of blocks of elements, which is walked block by block.
//!
//! [`kernel::list::List`] has no way to drop the lock in the middle of a walk and to find the place
//! again. A [`Walk`] over a [`BlockList`] takes the lock once for each block, and pins its current
//! block to keep it in the list. The lock is a raw one. It is held for one block at most, and
//! nothing is freed or dropped under it. So no caller waits for another that can be preempted: any
//! number of callers and walks can add and remove elements at any time.
//!
//! An element never moves. It can be used while its block is pinned, by shared reference.
//!
//! C header: [`include/linux/list.h`](srctree/include/linux/list.h).

use crate::{
    list_head::list_del_init,
    raw_spinlock::{
        new_raw_spinlock,
        RawSpinLock,
        RawSpinLockBackend, //
    }, //
};
use core::{
    cell::UnsafeCell,
    marker::{
        PhantomData,
        PhantomPinned, //
    },
    mem::MaybeUninit,
    ptr::NonNull, //
};
use kernel::{
    alloc::Flags,
    bindings,
    container_of,
    prelude::*,
    sync::lock::Guard,
    types::Opaque, //
};
use pin_init::InPlaceWrite;

/// A list of elements in blocks of up to `N`, under a raw spin lock of its own.
///
/// # Invariants
///
/// - `head` is the head of a list of blocks, each of which comes from `KBox::into_raw()` and is
///   owned by the list.
/// - Only the holder of the lock uses the links and the state of a block.
/// - Each pin of a block belongs to a walk of this list that is at the block, or to an [`Added`] of
///   the block, which may have been forgotten. A block without elements has at least one pin.
#[pin_data(PinnedDrop)]
pub(crate) struct BlockList<T: 'static, const N: usize> {
    #[pin]
    head: RawSpinLock<Head<T, N>>,
}

struct Head<T: 'static, const N: usize> {
    /// The links, allocated separately, since a `struct list_head` must not move.
    links: Pin<KBox<Opaque<bindings::list_head>>>,
    /// The number of the next block: blocks are numbered in their order.
    next_number: u64,
    /// How many elements there are.
    len: usize,
    _blocks: PhantomData<*mut Block<T, N>>,
}

// SAFETY: The blocks are sent with the head, and pointers to them are used by its owner alone.
unsafe impl<T: Send + Sync, const N: usize> Send for Head<T, N> {}

/// Elements that lie together in memory.
#[pin_data]
struct Block<T: 'static, const N: usize> {
    #[pin]
    links: Opaque<bindings::list_head>,
    state: UnsafeCell<State>,
    /// Slot `i` has an element if bit `i` of [`State::occupied`] is set.
    #[pin]
    slots: [Opaque<T>; N],
    #[pin]
    _pin: PhantomPinned,
}

/// # Invariants
///
/// - Bit `i` of `occupied` is set if and only if slot `i` has an element. The code that clears the
///   bit owns the element, and nothing else uses it any more.
/// - `used` is at most `N`, and greater than the index of every set bit.
/// - No bit is set in both `refused` and `occupied`. The elements of the slots in `refused` have
///   been dropped.
/// - Each bit in `adding` belongs to an [`Added`] of the block, and is set in `occupied`.
struct State {
    /// The number of the block.
    number: u64,
    /// How many walks and [`Added`] need the block.
    pins: usize,
    /// How many slots have been used. The next element gets the slot above them, so that the order
    /// of slots is the order in which elements came.
    used: usize,
    occupied: u64,
    /// The elements that no walk removes, since they are still being added.
    adding: u64,
    /// The slots of refused elements. A slot can be reused when all used slots above it are
    /// refused, too.
    refused: u64,
}

impl State {
    /// Frees the slots of `mask`, whose elements have been dropped.
    fn refuse(&mut self, mask: u64) {
        self.refused |= mask;
        let used = (!self.refused & below(self.used)).checked_ilog2();
        self.used = used.map_or(0, |last| last as usize + 1);
        self.refused &= below(self.used);
    }
}

/// A block that is in no list yet.
pub(crate) struct NewBlock<T: 'static, const N: usize>(Pin<KBox<Block<T, N>>>);

impl<T, const N: usize> NewBlock<T, N> {
    /// Allocates a block.
    ///
    /// Context: may sleep, as `flags` say.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory.
    pub(crate) fn new(flags: Flags) -> Result<Self> {
        const { assert!(0 < N && N <= u64::BITS as usize) };
        // INVARIANT: It has no elements.
        let block = pin_init!(Block {
            links: Opaque::uninit(),
            state: UnsafeCell::new(State {
                number: 0,
                pins: 0,
                used: 0,
                occupied: 0,
                adding: 0,
                refused: 0,
            }),
            slots <- pin_init::pin_init_array_from_fn(|_| Opaque::ffi_init(|_| ())),
            _pin: PhantomPinned,
        });
        Ok(Self(KBox::pin_init(block, flags)?))
    }
}

impl<T: Send + Sync, const N: usize> BlockList<T, N> {
    /// Creates an empty list.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory.
    pub(crate) fn new() -> Result<impl PinInit<Self>> {
        let links = KBox::pin_init(
            // SAFETY: The slot is valid for writes.
            Opaque::ffi_init(|slot| unsafe { bindings::INIT_LIST_HEAD(slot) }),
            GFP_KERNEL,
        )?;
        // INVARIANT: The list has no blocks.
        Ok(pin_init!(Self {
            head <- new_raw_spinlock!(Head {
                links,
                next_number: 0,
                len: 0,
                _blocks: PhantomData,
            }, "BlockList::head"),
        }))
    }

    /// Takes the lock, to add elements.
    ///
    /// Context: any but interrupts.
    pub(crate) fn lock(&self) -> Locked<'_, T, N> {
        Locked {
            list: self,
            head: self.head.lock(),
        }
    }

    /// Begins a walk over the blocks that are there now, in their order.
    ///
    /// Context: any but interrupts.
    pub(crate) fn walk(&self) -> Walk<'_, T, N> {
        Walk {
            list: self,
            at: None,
            end: self.head.lock().next_number,
        }
    }

    /// Returns how many elements there are.
    ///
    /// Context: any but interrupts.
    pub(crate) fn len(&self) -> usize {
        self.head.lock().len
    }

    /// Drops one pin of `block`, and the block if it has no element and no other pin.
    ///
    /// # Safety
    ///
    /// The caller owns a pin of `block`, which is of this list.
    unsafe fn unpin(&self, block: NonNull<Block<T, N>>) {
        let mut head = self.head.lock();
        // SAFETY: The list is locked, and the pin is the caller's.
        let left = unsafe { head.unpin(block) };
        drop(head);
        drop(left);
    }
}

impl<T, const N: usize> Head<T, N> {
    /// Returns the block after `block`, or the first one.
    ///
    /// # Safety
    ///
    /// `self` is locked, and `block` is in its list.
    unsafe fn after(&self, block: Option<NonNull<Block<T, N>>>) -> Option<NonNull<Block<T, N>>> {
        let links = match block {
            // SAFETY: By the caller's promise the block is valid; this computes an address.
            Some(block) => unsafe { (*block.as_ptr()).links.get() },
            None => self.links.get(),
        };
        // SAFETY: By the caller's promise the links are in the list, which does not change
        // meanwhile.
        unsafe { self.block_of((*links).next) }
    }

    /// Returns the last block.
    ///
    /// # Safety
    ///
    /// `self` is locked.
    unsafe fn last(&self) -> Option<NonNull<Block<T, N>>> {
        // SAFETY: The head is valid, and by the caller's promise the list is not changed meanwhile.
        unsafe { self.block_of((*self.links.get()).prev) }
    }

    /// # Safety
    ///
    /// `links` is in the list.
    unsafe fn block_of(&self, links: *mut bindings::list_head) -> Option<NonNull<Block<T, N>>> {
        if core::ptr::eq(links, self.links.get()) {
            return None;
        }
        // SAFETY: All links in the list except the head belong to blocks.
        let block = unsafe { container_of!(Opaque::cast_from(links), Block<T, N>, links) };
        NonNull::new(block.cast_mut())
    }

    /// Drops one pin of `block`. If the block has no element and no other pin, takes it out of the
    /// list and returns it, to be freed without the lock.
    ///
    /// # Safety
    ///
    /// `self` is locked, and the caller owns a pin of `block`.
    unsafe fn unpin(&mut self, block: NonNull<Block<T, N>>) -> Option<Pin<KBox<Block<T, N>>>> {
        // SAFETY: By the caller's promise the block is valid, and its state is ours.
        let state = unsafe { &mut *(*block.as_ptr()).state.get() };
        state.pins -= 1;
        if state.pins > 0 || state.occupied != 0 {
            return None;
        }
        // SAFETY: The block is in the list, since it was pinned, and the list is locked.
        unsafe { list_del_init((*block.as_ptr()).links.get()) };
        // SAFETY: It comes from `into_raw()`, and nothing else has a pointer to it any more.
        Some(unsafe { Pin::new_unchecked(KBox::from_raw(block.as_ptr())) })
    }

    /// Takes the elements of `mask` out of `block`. The caller owns them from then on.
    ///
    /// # Safety
    ///
    /// `self` is locked, and `block` is in its list and has these elements.
    unsafe fn take(&mut self, block: NonNull<Block<T, N>>, mask: u64) {
        // SAFETY: By the caller's promise the block is valid, and its state is ours.
        let state = unsafe { &mut *(*block.as_ptr()).state.get() };
        state.occupied &= !mask;
        self.len -= mask.count_ones() as usize;
    }
}

/// Returns the indices of the set bits, lowest first.
fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let bit = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        Some(bit)
    })
}

/// Returns a mask of the bits below `bit`: all bits if `bit` is beyond the last one.
fn below(bit: usize) -> u64 {
    if bit < u64::BITS as usize {
        (1 << bit) - 1
    } else {
        u64::MAX
    }
}

/// Drops elements in place.
///
/// # Safety
///
/// The caller owns the elements of `mask`, which are in `block`, and a pin of `block`.
unsafe fn drop_elements<T, const N: usize>(block: NonNull<Block<T, N>>, mask: u64) {
    for index in bits(mask) {
        // SAFETY: By the caller's promise the element is initialised and ours, and its memory
        // stays. The bits that are set are below `N`.
        unsafe {
            (*block.as_ptr())
                .slots
                .get_unchecked(index)
                .get()
                .drop_in_place()
        };
    }
}

/// The locked list.
pub(crate) struct Locked<'a, T: 'static, const N: usize> {
    list: &'a BlockList<T, N>,
    head: Guard<'a, Head<T, N>, RawSpinLockBackend>,
}

impl<'a, T: Send + Sync, const N: usize> Locked<'a, T, N> {
    /// Returns whether there is no element.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.len == 0
    }

    /// Adds elements to the end, as many as fit in one block: the last block or, if that is full,
    /// one of `spare`. Returns [`None`] if the last block is full and `spare` is empty. Releases
    /// the lock.
    ///
    /// `elements`, their initialisers and their drops run with the lock held: they must not sleep,
    /// allocate, free, or use the list.
    pub(crate) fn append<I: PinInit<T>>(
        mut self,
        spare: &mut KVec<NewBlock<T, N>>,
        elements: impl IntoIterator<Item = I>,
    ) -> Option<Added<'a, T, N>> {
        // SAFETY: The list is locked.
        let last = unsafe { self.head.last() }.filter(|last| {
            // SAFETY: The list is locked, so its last block is valid and its state is ours.
            unsafe { (*(*last.as_ptr()).state.get()).used < N }
        });
        let block = match last {
            Some(block) => block,
            None => self.push_back(spare.pop()?),
        };
        // SAFETY: The list is locked, so the state of its blocks is ours. The caller's code that
        // runs below cannot get at it: each access takes the lock, and would spin.
        let state = unsafe { &mut *(*block.as_ptr()).state.get() };
        let start = state.used;
        for element in elements.into_iter().take(N - start) {
            // SAFETY: The block is valid and does not move, and only the next statement uses the
            // reference. By the invariant the slot has no element, and no walk looks at it.
            let slot: &'static mut MaybeUninit<T> = unsafe {
                let slot = (*block.as_ptr()).slots.get_unchecked(state.used);
                &mut *slot.get().cast()
            };
            let Ok(_) = slot.write_pin_init(element);
            // INVARIANT: The slot has just been initialised.
            state.occupied |= 1 << state.used;
            state.used += 1;
        }
        let mask = below(state.used) & !below(start);
        // INVARIANT: These are the bits and the pin of the result.
        state.adding |= mask;
        state.pins += 1;
        self.head.len += mask.count_ones() as usize;
        Some(Added {
            list: self.list,
            block,
            mask,
            refused: 0,
        })
    }

    /// Adds a block to the end. The caller pins it.
    fn push_back(&mut self, block: NewBlock<T, N>) -> NonNull<Block<T, N>> {
        // SAFETY: The block does not move: it stays pinned in the list.
        let block = KBox::into_raw(unsafe { Pin::into_inner_unchecked(block.0) });
        let head = &mut *self.head;
        // SAFETY: The block is ours until it is in the list, which is locked.
        // INVARIANT: It comes from `into_raw()`.
        unsafe {
            (*(*block).state.get()).number = head.next_number;
            bindings::list_add_tail((*block).links.get(), head.links.get());
        }
        head.next_number += 1;
        // SAFETY: A box is not null.
        unsafe { NonNull::new_unchecked(block) }
    }
}

/// Elements that have been added. Walks see them, but do not remove them before this has been
/// dropped.
///
/// # Invariants
///
/// - `block` is a block of `list`, and `self` owns one of its pins.
/// - `self` owns the bits of `mask` in `adding` of that block, and the slots of `refused`.
pub(crate) struct Added<'a, T: Send + Sync + 'static, const N: usize> {
    list: &'a BlockList<T, N>,
    block: NonNull<Block<T, N>>,
    mask: u64,
    /// The slots of elements that have been refused and dropped.
    refused: u64,
}

impl<T: Send + Sync, const N: usize> Added<'_, T, N> {
    /// Keeps the elements for which `is_kept` returns true, and removes the others. A removed
    /// element leaves a hole only if another element was added after it. `is_kept` is called in the
    /// order of the elements, without the lock.
    ///
    /// Context: any but interrupts; may sleep if the drop of an element does.
    pub(crate) fn retain(mut self, mut is_kept: impl FnMut(&T) -> bool) {
        let mut removed = 0;
        for index in bits(self.mask) {
            // SAFETY: By the invariants the block stays and has this element, which no walk
            // removes.
            let element = unsafe { &*(*self.block.as_ptr()).slots.get_unchecked(index).get() };
            if !is_kept(element) {
                removed |= 1 << index;
            }
        }
        if removed == 0 {
            return;
        }
        let mut head = self.list.head.lock();
        // SAFETY: The list is locked. The block has these elements, see above.
        // INVARIANT: They leave `adding` as well.
        unsafe {
            head.take(self.block, removed);
            (*(*self.block.as_ptr()).state.get()).adding &= !removed;
        }
        drop(head);
        // SAFETY: The elements are ours now, and so is the pin until we drop `self`.
        unsafe { drop_elements(self.block, removed) };
        self.refused = removed;
    }
}

impl<T: Send + Sync, const N: usize> Drop for Added<'_, T, N> {
    fn drop(&mut self) {
        let mut head = self.list.head.lock();
        // SAFETY: The list is locked, so the state is ours, and by the invariants so are the bits
        // and the pin.
        // INVARIANT: The refused elements have been dropped.
        let left = unsafe {
            let state = &mut *(*self.block.as_ptr()).state.get();
            state.adding &= !self.mask;
            if self.refused != 0 {
                state.refuse(self.refused);
            }
            head.unpin(self.block)
        };
        drop(head);
        drop(left);
    }
}

/// A walk over a list, which takes its lock for one block at a time.
///
/// # Invariants
///
/// `at` is a block of `list`, and `self` owns one of its pins.
pub(crate) struct Walk<'a, T: Send + Sync + 'static, const N: usize> {
    list: &'a BlockList<T, N>,
    at: Option<NonNull<Block<T, N>>>,
    /// The number of the first block that came after the walk had begun.
    end: u64,
}

impl<T: Send + Sync, const N: usize> Walk<'_, T, N> {
    /// Goes to the next block, and locks the list to look at it. Returns [`None`] at the end.
    ///
    /// The visit borrows the walk, since the walk's next step and its drop take the lock that the
    /// visit holds.
    ///
    /// Context: any but interrupts.
    pub(crate) fn next(&mut self) -> Option<Visit<'_, T, N>> {
        let mut head = self.list.head.lock();
        // SAFETY: The list is locked, and by the invariant `at` is in it.
        let block = unsafe { head.after(self.at) }?;
        // SAFETY: The list is locked, so the state of its blocks is ours.
        let state = unsafe { &mut *(*block.as_ptr()).state.get() };
        if state.number >= self.end {
            return None;
        }
        state.pins += 1;
        // INVARIANT: We have just pinned the block.
        let left = self.at.replace(block).and_then(|left| {
            // SAFETY: The list is locked, and by the invariant the pin was ours.
            unsafe { head.unpin(left) }
        });
        Some(Visit {
            head,
            _left: left,
            block,
        })
    }

    /// Locks the list to look at the walk's current block again. Returns [`None`] if there is no
    /// current block.
    ///
    /// Context: any but interrupts.
    pub(crate) fn here(&mut self) -> Option<Visit<'_, T, N>> {
        Some(Visit {
            block: self.at?,
            head: self.list.head.lock(),
            _left: None,
        })
    }
}

impl<T: Send + Sync, const N: usize> Drop for Walk<'_, T, N> {
    fn drop(&mut self) {
        if let Some(block) = self.at {
            // SAFETY: By the invariant the pin is ours.
            unsafe { self.list.unpin(block) };
        }
    }
}

/// The locked list, at a block of it.
///
/// # Invariants
///
/// `block` is in the list, and pinned by the walk that is borrowed.
pub(crate) struct Visit<'a, T: 'static, const N: usize> {
    // Fields are dropped in this order: the lock is released before memory is freed.
    head: Guard<'a, Head<T, N>, RawSpinLockBackend>,
    _left: Option<Pin<KBox<Block<T, N>>>>,
    block: NonNull<Block<T, N>>,
}

impl<T, const N: usize> Visit<'_, T, N> {
    /// Returns the elements from the index `start` on, with their indices. An element keeps its
    /// index as long as it is in the list.
    pub(crate) fn iter_from(&self, start: usize) -> impl Iterator<Item = (usize, &T)> {
        // SAFETY: The list is locked and by the invariant the block is in it, so the state is ours.
        let occupied = unsafe { (*(*self.block.as_ptr()).state.get()).occupied };
        bits(occupied & !below(start)).map(|index| {
            // SAFETY: By the invariants the bits that are set are below `N`, and their slots have
            // elements, which stay as long as the list is locked.
            (index, unsafe {
                &*(*self.block.as_ptr()).slots.get_unchecked(index).get()
            })
        })
    }

    /// Removes the elements for which `is_removed` returns true, and drops them after releasing the
    /// lock. `is_removed` is called in the order of the elements, with the lock held. It is not
    /// called for elements that are still being added.
    ///
    /// Context: may sleep if the drop of an element does.
    pub(crate) fn remove_if(mut self, is_removed: impl Fn(&T) -> bool) {
        // SAFETY: The list is locked and by the invariant the block is in it, so the state is ours.
        let adding = unsafe { (*(*self.block.as_ptr()).state.get()).adding };
        let mut removed = 0;
        for (index, element) in self.iter_from(0) {
            if adding & (1 << index) == 0 && is_removed(element) {
                removed |= 1 << index;
            }
        }
        // SAFETY: As above; these are elements of the block.
        unsafe { self.head.take(self.block, removed) };
        let block = self.block;
        drop(self.head);
        drop(self._left);
        // SAFETY: The elements are ours now. The walk pins the block.
        unsafe { drop_elements(block, removed) };
    }
}

#[pinned_drop]
impl<T, const N: usize> PinnedDrop for BlockList<T, N> {
    fn drop(self: Pin<&mut Self>) {
        loop {
            let mut head = self.head.lock();
            // SAFETY: The list is locked.
            let Some(block) = (unsafe { head.after(None) }) else {
                return;
            };
            // INVARIANT: No other code has the list. Pins that are left belong to walks and
            // `Added`s that were forgotten, which use no block any more. So this pin is the only
            // one that counts.
            // SAFETY: The list is locked.
            let occupied = unsafe {
                let state = &mut *(*block.as_ptr()).state.get();
                state.pins = 1;
                state.occupied
            };
            // SAFETY: The list is locked; these are the elements of the block.
            unsafe { head.take(block, occupied) };
            // The drop of an element may sleep.
            drop(head);
            // SAFETY: The elements are ours now, and so is the pin.
            unsafe { drop_elements(block, occupied) };
            let mut head = self.head.lock();
            // SAFETY: As above.
            let left = unsafe { head.unpin(block) };
            drop(head);
            drop(left);
        }
    }
}
