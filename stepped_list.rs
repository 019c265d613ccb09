// SPDX-License-Identifier: GPL-2.0

//! A list that is walked step by step.
//!
//! A walk over a list under a spin lock must drop the lock now and then, and find its place again.
//! [`kernel::list::List`] has no way to do so. A [`Walk`] over a [`SteppedList`] takes the lock once for
//! each element and pins the element that it stands at, so that this stays in the list. No caller
//! waits for a walk: elements can be added at any time, any number of walks may run at once, and an
//! element that is removed while walks stand at it leaves the list with the last of them.
//!
//! C header: [`include/linux/list.h`](srctree/include/linux/list.h).

use crate::list_head::list_del_init;
use core::{
    cell::UnsafeCell,
    convert::Infallible,
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    alloc::Flags,
    bindings,
    container_of,
    new_spinlock,
    prelude::*,
    sync::{
        lock::{
            spinlock::SpinLockBackend,
            Guard, //
        },
        SpinLock, //
    },
    types::Opaque, //
};
use pin_init::Wrapper;

/// A list of pinned elements, under a spin lock of its own.
///
/// # Invariants
///
/// - `head` is the head of a list of nodes, each of which comes from `KBox::into_raw()` and is owned
///   by the list.
/// - The links, the state and the value of a node are used by the holder of the lock alone.
/// - The pins of a node are the walks of this list that stand at it. A node that is in no list has
///   none.
#[pin_data(PinnedDrop)]
pub(crate) struct SteppedList<T> {
    #[pin]
    head: SpinLock<Head<T>>,
}

struct Head<T> {
    /// The links, in memory of their own, since a `struct list_head` must not move.
    links: Pin<KBox<Opaque<bindings::list_head>>>,
    /// The number of the next node: nodes are numbered in their order.
    next_number: u64,
    /// How many nodes there are that have not been removed.
    len: usize,
    _nodes: PhantomData<*mut Node<T>>,
}

// SAFETY: The nodes are sent with the head, and pointers to them are used by its owner alone.
unsafe impl<T: Send> Send for Head<T> {}

/// An element with what the list needs.
#[pin_data]
pub(crate) struct Node<T> {
    #[pin]
    links: Opaque<bindings::list_head>,
    state: UnsafeCell<State>,
    #[pin]
    value: UnsafeCell<T>,
}

struct State {
    number: u64,
    /// How many walks stand here.
    pins: usize,
    /// Whether the node has been removed. If it is still in the list, it leaves with the last pin.
    removed: bool,
}

/// A node that is in no list yet.
pub(crate) struct NewNode<T>(Pin<KBox<Node<T>>>);

impl<T> NewNode<T> {
    /// Allocates a node.
    ///
    /// Context: may sleep, as `flags` say.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory.
    pub(crate) fn new(value: impl PinInit<T, Infallible>, flags: Flags) -> Result<Self> {
        Ok(Self(KBox::pin_init(
            pin_init!(Node {
                links: Opaque::uninit(),
                state: UnsafeCell::new(State {
                    number: 0,
                    pins: 0,
                    removed: false,
                }),
                value <- UnsafeCell::pin_init(value),
            }),
            flags,
        )?))
    }
}

impl<T: Send> SteppedList<T> {
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
        // INVARIANT: The list has no nodes.
        Ok(pin_init!(Self {
            head <- new_spinlock!(Head {
                links,
                next_number: 0,
                len: 0,
                _nodes: PhantomData,
            }, "SteppedList::head"),
        }))
    }

    /// Takes the lock, to add elements.
    ///
    /// Context: any but interrupts.
    pub(crate) fn lock(&self) -> Locked<'_, T> {
        Locked(self.head.lock())
    }

    /// Begins a walk over the elements that are there now, in their order.
    ///
    /// Context: any but interrupts.
    pub(crate) fn walk(&self) -> Walk<'_, T> {
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
}

impl<T> Head<T> {
    /// Returns the node after `node`, or the first one.
    ///
    /// # Safety
    ///
    /// `self` is locked, and `node` is in its list.
    unsafe fn after(&self, node: Option<NonNull<Node<T>>>) -> Option<NonNull<Node<T>>> {
        let head = self.links.get();
        let links = match node {
            // SAFETY: By the caller's promise the node is valid; this computes an address.
            Some(node) => unsafe { (*node.as_ptr()).links.get() },
            None => head,
        };
        // SAFETY: By the caller's promise both are in the list, which is not changed meanwhile.
        unsafe { self.node_of((*links).next) }
    }

    /// Returns the last node.
    ///
    /// # Safety
    ///
    /// `self` is locked.
    unsafe fn last(&self) -> Option<NonNull<Node<T>>> {
        // SAFETY: The head is valid, and by the caller's promise the list is not changed meanwhile.
        unsafe { self.node_of((*self.links.get()).prev) }
    }

    /// # Safety
    ///
    /// `links` is in the list.
    unsafe fn node_of(&self, links: *mut bindings::list_head) -> Option<NonNull<Node<T>>> {
        if core::ptr::eq(links, self.links.get()) {
            return None;
        }
        // SAFETY: All links of the list but the head are those of nodes.
        NonNull::new(unsafe { container_of!(Opaque::cast_from(links), Node<T>, links) }.cast_mut())
    }

    /// Drops one pin of `node`. If it was the last one of a node that has been removed, takes the node
    /// out of the list and returns it, to be dropped without the lock.
    ///
    /// # Safety
    ///
    /// `self` is locked, and the caller owns a pin of `node`.
    unsafe fn unpin(&mut self, node: NonNull<Node<T>>) -> Option<Pin<KBox<Node<T>>>> {
        // SAFETY: By the caller's promise the node is valid, and its state is ours.
        let state = unsafe { &mut *(*node.as_ptr()).state.get() };
        state.pins -= 1;
        if state.pins > 0 || !state.removed {
            return None;
        }
        // SAFETY: The node is in the list, since it was pinned, and the list is locked.
        unsafe { list_del_init((*node.as_ptr()).links.get()) };
        // SAFETY: It comes from `into_raw()`; no list and no walk has it any more.
        Some(unsafe { Pin::new_unchecked(KBox::from_raw(node.as_ptr())) })
    }
}

/// The locked list.
pub(crate) struct Locked<'a, T>(Guard<'a, Head<T>, SpinLockBackend>);

impl<T> Locked<'_, T> {
    /// Returns whether there is no element.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Returns the last element, unless there is none or it has been removed.
    pub(crate) fn back(&mut self) -> Option<Pin<&mut T>> {
        // SAFETY: The list is locked, so its last node is valid and its state and value are ours.
        unsafe {
            let node = self.0.last()?.as_ptr();
            (!(*(*node).state.get()).removed).then(|| Pin::new_unchecked(&mut *(*node).value.get()))
        }
    }

    /// Adds an element to the end.
    pub(crate) fn push_back(&mut self, node: NewNode<T>) {
        // SAFETY: The node is not moved, but goes on being pinned in the list.
        let node = KBox::into_raw(unsafe { Pin::into_inner_unchecked(node.0) });
        let head = &mut *self.0;
        // SAFETY: The node is ours until it is in the list, which is locked.
        // INVARIANT: It comes from `into_raw()`, and has no pins.
        unsafe {
            (*(*node).state.get()).number = head.next_number;
            bindings::list_add_tail((*node).links.get(), head.links.get());
        }
        head.next_number += 1;
        head.len += 1;
    }
}

/// A walk over a list, which takes its lock for one element at a time.
///
/// # Invariants
///
/// `at` is a node of `list`, and `self` owns one of its pins.
pub(crate) struct Walk<'a, T: Send> {
    list: &'a SteppedList<T>,
    at: Option<NonNull<Node<T>>>,
    /// The number of the first node that came after the walk had begun.
    end: u64,
}

impl<T: Send> Walk<'_, T> {
    /// Goes to the next element, and locks the list to look at it. Returns [`None`] at the end.
    ///
    /// The visit borrows the walk, which would lock the list again for its next step or its end.
    ///
    /// Context: any but interrupts.
    pub(crate) fn next(&mut self) -> Option<Visit<'_, T>> {
        loop {
            let mut head = self.list.head.lock();
            // SAFETY: The list is locked, and by the invariant `at` is in it.
            let node = unsafe { head.after(self.at) }?;
            // SAFETY: The list is locked, so the state of its nodes is ours.
            let state = unsafe { &mut *(*node.as_ptr()).state.get() };
            if state.number >= self.end {
                return None;
            }
            state.pins += 1;
            let is_removed = state.removed;
            // INVARIANT: We have just pinned the node.
            let left = self.at.replace(node).and_then(|left| {
                // SAFETY: The list is locked, and by the invariant the pin was ours.
                unsafe { head.unpin(left) }
            });
            let visit = Visit {
                head,
                _left: left,
                node,
            };
            // A removed node, at which others stand, is a step like another one.
            if !is_removed {
                return Some(visit);
            }
        }
    }

    /// Locks the list to look once more at the element at which the walk stands. Returns [`None`] if it
    /// stands at none, or at one that has been removed.
    ///
    /// Context: any but interrupts.
    pub(crate) fn here(&mut self) -> Option<Visit<'_, T>> {
        let node = self.at?;
        let head = self.list.head.lock();
        // SAFETY: The list is locked and by the invariant `node` is in it, so its state is ours.
        let is_removed = unsafe { (*(*node.as_ptr()).state.get()).removed };
        (!is_removed).then_some(Visit {
            head,
            _left: None,
            node,
        })
    }
}

/// The locked list, at an element of it.
///
/// # Invariants
///
/// `node` is in the list, and has not been removed, or not before [`remove`](Self::remove).
pub(crate) struct Visit<'a, T> {
    // Fields are dropped in this order: memory is given back without the lock.
    head: Guard<'a, Head<T>, SpinLockBackend>,
    _left: Option<Pin<KBox<Node<T>>>>,
    node: NonNull<Node<T>>,
}

impl<T> Visit<'_, T> {
    /// Returns the element.
    pub(crate) fn value(&mut self) -> Pin<&mut T> {
        // SAFETY: The list is locked and by the invariant `node` is in it, so its value is ours; it is
        // pinned.
        unsafe { Pin::new_unchecked(&mut *(*self.node.as_ptr()).value.get()) }
    }

    /// Removes the element: no walk comes to it any more, and it is dropped when the last one that
    /// stands at it has left.
    pub(crate) fn remove(mut self) {
        // SAFETY: The list is locked and by the invariant `node` is in it, so its state is ours.
        unsafe { (*(*self.node.as_ptr()).state.get()).removed = true };
        self.head.len -= 1;
    }
}

impl<T: Send> Drop for Walk<'_, T> {
    fn drop(&mut self) {
        let Some(node) = self.at else {
            return;
        };
        let mut head = self.list.head.lock();
        // SAFETY: The list is locked, and by the invariant the pin is ours.
        let left = unsafe { head.unpin(node) };
        drop(head);
        drop(left);
    }
}

#[pinned_drop]
impl<T> PinnedDrop for SteppedList<T> {
    fn drop(self: Pin<&mut Self>) {
        loop {
            let mut head = self.head.lock();
            // SAFETY: Nobody else has the list, so no walk stands in it.
            let Some(node) = (unsafe { head.after(None) }) else {
                return;
            };
            // INVARIANT: The node is pinned for the moment.
            // SAFETY: The list is locked.
            let left = unsafe {
                let state = &mut *(*node.as_ptr()).state.get();
                state.removed = true;
                state.pins = 1;
                head.unpin(node)
            };
            // The drop of an element may sleep.
            drop(head);
            drop(left);
        }
    }
}
