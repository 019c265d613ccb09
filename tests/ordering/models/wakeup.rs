// SPDX-License-Identifier: GPL-2.0

//! Waiters of a `PollQueue` that race with their event. A waiter that misses the event is woken.

use crate::at_once;
use loom::sync::{
    Arc, Mutex,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
        fence,
    },
};

/// The queue, with one waiter at most.
#[derive(Default)]
struct Queue {
    /// Whether there is one, under the queue's lock.
    waiter: Mutex<bool>,
    /// The same as `head.next` shows it without the lock.
    has_next: AtomicBool,
    woken: AtomicBool,
}

impl Queue {
    /// `prepare_to_wait_event()`, or `poll_wait()`: both end with a full barrier.
    fn enter(&self) {
        let mut waiter = self.waiter.lock().unwrap();
        *waiter = true;
        self.has_next.store(true, Relaxed);
        drop(waiter);
        fence(SeqCst);
    }

    /// `__wake_up()`
    fn wake(&self) {
        if *self.waiter.lock().unwrap() {
            self.woken.store(true, Relaxed);
        }
    }

    /// `PollQueue::has_waiters()`
    fn has_waiters(&self, has_barrier: bool) -> bool {
        if has_barrier {
            fence(SeqCst);
        }
        self.has_next.load(Relaxed)
    }
}

fn waits_meanwhile(has_barrier: bool) {
    loom::model(move || {
        let event = Arc::new((AtomicBool::new(false), Queue::default()));
        let (for_waiter, for_waker) = (event.clone(), event.clone());
        let wait = move || {
            let (has_come, queue) = &*for_waiter;
            queue.enter();
            has_come.load(Relaxed)
        };
        let wake = move || {
            let (has_come, queue) = &*for_waker;
            has_come.store(true, Relaxed);
            if queue.has_waiters(has_barrier) {
                queue.wake();
            }
        };
        let (seen, ()) = at_once(wait, wake);
        assert!(seen || event.1.woken.load(Relaxed), "a waiter sleeps on");
    });
}

#[test]
fn an_event_is_seen_or_wakes() {
    waits_meanwhile(true);
}

#[test]
#[should_panic = "a waiter sleeps on"]
fn not_without_the_barrier() {
    waits_meanwhile(false);
}

/// An exit adds its record under the lock under which waiters look for it, `Exits::record()`,
/// before it looks for waiters; or after.
fn records_meanwhile(looks_first: bool) {
    loom::model(move || {
        let event = Arc::new((Mutex::new(0), Queue::default()));
        let (for_waiter, for_waker) = (event.clone(), event.clone());
        let wait = move || {
            let (log, queue) = &*for_waiter;
            queue.enter();
            *log.lock().unwrap() > 0
        };
        let wake = move || {
            let (log, queue) = &*for_waker;
            let mut has_waiters = looks_first && queue.has_waiters(true);
            *log.lock().unwrap() += 1;
            // The lock alone does here, so the barrier is left out.
            has_waiters |= !looks_first && queue.has_waiters(false);
            if has_waiters {
                queue.wake();
            }
        };
        let (seen, ()) = at_once(wait, wake);
        assert!(seen || event.1.woken.load(Relaxed), "a waiter sleeps on");
    });
}

#[test]
fn a_record_is_seen_or_wakes() {
    records_meanwhile(false);
}

#[test]
#[should_panic = "a waiter sleeps on"]
fn not_if_it_looks_for_waiters_first() {
    records_meanwhile(true);
}

/// `hang_up()` closes the file, then wakes; or wakes, then closes.
fn closes_meanwhile(wakes_first: bool) {
    loom::model(move || {
        let event = Arc::new((AtomicBool::new(false), Queue::default()));
        let (for_waiter, for_closer) = (event.clone(), event.clone());
        let wait = move || {
            let (is_closed, queue) = &*for_waiter;
            queue.enter();
            is_closed.load(Acquire)
        };
        let close = move || {
            let (is_closed, queue) = &*for_closer;
            if wakes_first {
                queue.wake();
            }
            is_closed.store(true, Release);
            if !wakes_first {
                queue.wake();
            }
        };
        let (seen, ()) = at_once(wait, close);
        assert!(seen || event.1.woken.load(Relaxed), "a waiter sleeps on");
    });
}

#[test]
fn the_end_is_seen_or_wakes() {
    closes_meanwhile(false);
}

#[test]
#[should_panic = "a waiter sleeps on"]
fn not_if_it_wakes_before_it_closes() {
    closes_meanwhile(true);
}

/// A snapshot takes the number of updates, then the text under the list's lock; or the text first.
/// An update changes the times under that lock, then counts itself.
fn takes_a_snapshot_meanwhile(text_first: bool) {
    loom::model(move || {
        let registry = Arc::new((Mutex::new(0), AtomicU64::new(0)));
        let (for_reader, for_update) = (registry.clone(), registry.clone());
        let read = move || {
            let (time, updates) = &*for_reader;
            if text_first {
                let text = *time.lock().unwrap();
                (text, updates.load(Relaxed))
            } else {
                let number = updates.load(Relaxed);
                (*time.lock().unwrap(), number)
            }
        };
        let update = move || {
            let (time, updates) = &*for_update;
            *time.lock().unwrap() = 5;
            updates.fetch_add(1, Relaxed);
        };
        let ((text, number), ()) = at_once(read, update);
        let is_outdated = number != registry.1.load(Relaxed);
        assert!(text == 5 || is_outdated, "an old text that passes for new");
    });
}

#[test]
fn an_old_snapshot_is_outdated() {
    takes_a_snapshot_meanwhile(false);
}

#[test]
#[should_panic = "an old text that passes for new"]
fn not_if_the_text_comes_first() {
    takes_a_snapshot_meanwhile(true);
}
