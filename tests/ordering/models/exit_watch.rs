// SPDX-License-Identifier: GPL-2.0

//! `ExitWatch::add()` against the exit of the process. Either the callback comes or the registration is
//! refused, never both and never neither.

use crate::at_once;
use loom::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// The wait queue of the process: whether the watch is on it.
#[derive(Default)]
struct Exit {
    has_exited: AtomicBool,
    queue: Mutex<bool>,
    called: AtomicBool,
}

impl Exit {
    /// `exit_notify()`: what `has_exited()` reads, then the walk of `__wake_up()` under the queue's lock.
    fn notify(&self) {
        self.has_exited.store(true, Relaxed);
        let mut queue = self.queue.lock().unwrap();
        if *queue {
            self.called.store(true, Relaxed);
            *queue = false;
        }
    }

    /// `ExitWatch::add()`, which puts the watch on the queue and then looks; or looks first. Returns
    /// whether the process is watched.
    fn add(&self, looks_first: bool) -> bool {
        if looks_first {
            if self.has_exited.load(Relaxed) {
                return false;
            }
            *self.queue.lock().unwrap() = true;
            return true;
        }
        *self.queue.lock().unwrap() = true;
        if !self.has_exited.load(Relaxed) {
            return true;
        }
        *self.queue.lock().unwrap() = false;
        self.called.load(Relaxed)
    }
}

fn registers_meanwhile(looks_first: bool) {
    loom::model(move || {
        let exit = Arc::new(Exit::default());
        let other = exit.clone();
        let (watched, ()) = at_once(move || other.add(looks_first), {
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
fn not_if_it_looks_first() {
    registers_meanwhile(true);
}
