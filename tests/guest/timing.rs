// SPDX-License-Identifier: GPL-2.0

//! When updates come, what runs then, and that nothing does while nothing is registered.

use std::thread::sleep;
use std::time::{Duration, Instant};

use support::child::{self, Child};
use support::crowd::Crowd;
use support::module::Module;
use support::status;
use support::trace::{self, Trace, What};
use support::wait;

/// Registers a process that has used some time, and returns how long it took until that was seen.
fn time_to_the_first_update() -> Duration {
    let child = Child::burnt(5);
    let start = Instant::now();
    status::register(child.pid());
    wait::until("an update", || status::ms_of(child.pid()) > 0);
    start.elapsed()
}

#[test]
fn the_default_interval_is_5_s() {
    let _module = Module::load(&[]);
    let time = time_to_the_first_update();
    assert!((4.95..6.5).contains(&time.as_secs_f64()), "{time:?}");
}

#[test]
fn interval_ms_sets_the_interval() {
    let _module = Module::with_interval(400);
    let time = time_to_the_first_update();
    assert!((0.395..1.0).contains(&time.as_secs_f64()), "{time:?}");
}

#[test]
fn updates_come_every_interval_and_do_not_drift() {
    const INTERVAL_US: u64 = 100_000;
    const HALF: usize = 10;

    let _module = Module::with_interval(100);
    let mut trace = Trace::start();
    status::register(child::getpid());
    wait::until("some updates", || {
        trace.times_of(&What::TimerFired).len() >= 2 * HALF
    });
    let fired = trace.times_of(&What::TimerFired);
    // On a busy machine, an update may be late, or so late that the next one is skipped. That does
    // not add up: the least late ones of both halves are whole intervals apart.
    let least_late = |times: &[u64]| {
        let late = |time| (time - fired[0] + INTERVAL_US / 2) % INTERVAL_US;
        times.iter().map(late).min().expect("a time")
    };
    let drift = least_late(&fired[HALF..2 * HALF]).abs_diff(least_late(&fired[..HALF]));
    assert!(drift < 5000, "{drift} us: {fired:?}");
    let intervals = (fired[2 * HALF - 1] - fired[0] + INTERVAL_US / 2) / INTERVAL_US;
    assert!(
        intervals.abs_diff(2 * HALF as u64 - 1) < 5,
        "{intervals} intervals: {fired:?}"
    );
}

#[test]
fn the_first_registration_arms_the_timer_for_one_full_interval() {
    let _module = Module::with_interval(300);
    for round in 0..3 {
        // A timer that ran on since the round before would fire early.
        sleep(Duration::from_millis(100));
        let time = time_to_the_first_update();
        assert!(
            time >= Duration::from_millis(299),
            "{time:?} in round {round}"
        );
        wait::until("nothing to be registered", || status::text().is_empty());
    }
}

#[test]
fn a_later_registration_does_not_put_off_the_update() {
    let _module = Module::with_interval(300);
    let first = Child::burnt(5);
    let start = Instant::now();
    status::register(first.pid());
    wait::until("an update", || {
        let child = Child::sleeper();
        status::register(child.pid());
        status::ms_of(first.pid()) > 0
    });
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn while_nothing_is_registered_no_timer_is_armed() {
    let _module = Module::with_interval(10);
    assert_eq!(trace::armed_timers(), 0, "after the load");
    for _ in 0..3 {
        let child = Child::sleeper();
        status::register(child.pid());
        wait::until("the timer to be armed", || trace::armed_timers() == 1);
        drop(child);
        // One that is just firing is not in the list for a moment, and comes back.
        wait::until("the timer to be disarmed", || {
            (0..20).all(|_| trace::armed_timers() == 0)
        });
        assert_eq!(status::text(), "");
    }
}

#[test]
fn while_nothing_is_registered_nothing_runs() {
    let _module = Module::with_interval(10);
    let mut trace = Trace::start();
    let quiet = |trace: &mut Trace| {
        let before = trace.events().len();
        // Twenty intervals: there is no event to await when the claim is that there is none.
        sleep(Duration::from_millis(200));
        assert_eq!(trace.events().len(), before, "{:?}", trace.events());
    };
    assert_eq!(status::text(), "");
    assert!(status::write("abc").is_err());
    quiet(&mut trace);
    assert!(trace.events().is_empty(), "since the load");

    let child = Child::sleeper();
    status::register(child.pid());
    status::await_update();
    assert!(!trace.events().is_empty(), "the trace does show what runs");
    drop(child);
    // The file is empty before the work that drops the last one has ended, and no timer is armed
    // meanwhile.
    wait::until("the last update to end", || {
        status::text().is_empty()
            && trace::armed_timers() == 0
            && matches!(trace.events().last(), Some(last) if last.what == What::WorkEnded)
    });
    quiet(&mut trace);
}

#[test]
fn a_refused_registration_arms_nothing() {
    let _module = Module::with_interval(3_600_000);
    for text in ["abc", "2147483648", "2147483647", " "] {
        assert!(status::write(text).is_err());
    }
    assert_eq!(trace::armed_timers(), 0);
}

#[test]
fn the_timers_callback_queues_one_work_item_on_the_modules_own_queue() {
    let _module = Module::with_interval(50);
    let mut trace = Trace::start();
    status::register(child::getpid());
    wait::until("some updates", || {
        trace.times_of(&What::WorkEnded).len() >= 5
    });

    let events = trace.events();
    let queued = What::Queued("mp1".to_owned());
    let order: Vec<_> = events.iter().map(|event| &event.what).collect();
    let update = [
        &What::TimerFired,
        &queued,
        &What::WorkBegan,
        &What::WorkEnded,
    ];
    // The first registration queues work of its own, which arms the timer.
    let updates = order
        .iter()
        .skip_while(|event| **event != &What::TimerFired);
    for (event, expected) in updates.zip(update.into_iter().cycle()) {
        assert_eq!(*event, expected, "{events:?}");
    }
}

#[test]
fn the_update_itself_runs_in_the_work_item() {
    let _module = Module::with_interval(1000);
    let mut trace = Trace::start();
    let child = Child::burnt(5);
    status::register(child.pid());
    // Work that ran before the timer fired has armed it.
    let after_timer = |trace: &mut Trace, what: &What| {
        let events = trace.events().iter();
        events
            .skip_while(|event| event.what != What::TimerFired)
            .any(|event| event.what == *what)
    };
    wait::until("an update", || {
        let ended = after_timer(&mut trace, &What::WorkEnded);
        let updated = status::ms_of(child.pid()) > 0;
        let began = after_timer(&mut trace, &What::WorkBegan);
        assert!(!updated || began, "time was read although no work had run");
        assert!(
            !ended || status::ms_of(child.pid()) > 0,
            "work has run and no time was read"
        );
        updated
    });
}

#[test]
fn the_timers_callback_takes_no_longer_with_more_registrations() {
    // Time under emulation is rough: what is compared is the best of many.
    let best = |size| {
        let _module = Module::with_interval(10);
        let crowd = Crowd::of(size);
        status::register_all(crowd.pids());
        let mut trace = Trace::start();
        wait::until("some updates", || {
            trace.times_of(&What::Queued("mp1".to_owned())).len() >= 20
        });
        let events = trace.events();
        let callbacks = events.windows(2).filter_map(|pair| {
            let queued = matches!(pair[1].what, What::Queued(_));
            (pair[0].what == What::TimerFired && queued).then(|| pair[1].at - pair[0].at)
        });
        callbacks.min().expect("a callback that queues")
    };
    let (few, many) = (best(1), best(2000));
    assert!(many <= few + 200, "{few} us with one, {many} us with 2000");
}
