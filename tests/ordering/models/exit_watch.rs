// SPDX-License-Identifier: GPL-2.0

//! A watch that races with the exit of its process. In `ExitWatch::add()`, either the callback runs
//! or the watch is refused, never both and never neither. The drop takes no lock after the callback
//! has run.

use crate::at_once;
use loom::cell::UnsafeCell;
use loom::sync::{
    Arc, Mutex,
    atomic::{
        AtomicBool,
        Ordering::{self, Acquire, Relaxed, Release},
    },
};

/// The wait queue of the process: whether the watch is on it.
#[derive(Default)]
struct Exit {
    has_exited: AtomicBool,
    queue: Mutex<bool>,
    called: AtomicBool,
}

impl Exit {
    /// `exit_notify()`: what `has_exited()` reads, then the walk of `__wake_up()` under the queue's
    /// lock.
    fn notify(&self) {
        self.has_exited.store(true, Relaxed);
        let mut queue = self.queue.lock().unwrap();
        if *queue {
            self.called.store(true, Relaxed);
            *queue = false;
        }
    }

    /// `ExitWatch::start()`, which looks with the lock held, or before. Returns whether the process
    /// is watched.
    fn start(&self, looks_before: bool) -> bool {
        if looks_before && self.has_exited.load(Relaxed) {
            return false;
        }
        let mut queue = self.queue.lock().unwrap();
        if !looks_before && self.has_exited.load(Relaxed) {
            return false;
        }
        *queue = true;
        true
    }
}

fn registers_meanwhile(looks_before: bool) {
    loom::model(move || {
        let exit = Arc::new(Exit::default());
        let other = exit.clone();
        let (watched, ()) = at_once(move || other.start(looks_before), {
            let exit = exit.clone();
            move || exit.notify()
        });
        assert_eq!(watched, exit.called.load(Relaxed), "one of the two");
    });
}

#[test]
fn an_exit_is_told_of_or_refused() {
    registers_meanwhile(false);
}

#[test]
#[should_panic = "one of the two"]
fn not_if_it_looks_before_it_locks() {
    registers_meanwhile(true);
}

/// The state of a watch, and what its drop frees.
struct Watch {
    exited: AtomicBool,
    entry: UnsafeCell<()>,
}

impl Watch {
    /// `wake()`: the last use of the entry, then the state; or the other way round.
    fn wake(&self, order: Ordering, is_last: bool) {
        if !is_last {
            self.exited.store(true, order);
        }
        self.entry.with_mut(|_| ());
        if is_last {
            self.exited.store(true, order);
        }
    }

    /// The drop of a watch that is over.
    fn free(&self) {
        if self.exited.load(Acquire) {
            self.entry.with_mut(|_| ());
        }
    }
}

fn drops_meanwhile(order: Ordering, is_last: bool) {
    loom::model(move || {
        let watch = Arc::new(Watch {
            exited: AtomicBool::new(false),
            entry: UnsafeCell::new(()),
        });
        let other = watch.clone();
        at_once(move || other.wake(order, is_last), move || watch.free());
    });
}

#[test]
fn a_watch_is_freed_after_its_callback() {
    drops_meanwhile(Release, true);
}

#[test]
#[should_panic = "Causality violation"]
fn not_if_the_state_is_stored_without_a_release() {
    drops_meanwhile(Relaxed, true);
}

#[test]
#[should_panic = "Causality violation"]
fn not_if_the_state_is_stored_before_the_last_use() {
    drops_meanwhile(Release, false);
}
