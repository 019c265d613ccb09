// SPDX-License-Identifier: GPL-2.0

//! PIDs that are reused as fast as possible, while readers keep looking at them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;

use support::child::Child;
use support::module::Module;
use support::shared;
use support::status;

const NUMBERS: usize = 8;
const READERS: usize = 3;

/// Whose a number is: this and the number of the change, which is larger each time.
const FREE: u32 = 0;
const OTHERS: u32 = 1;
const REGISTERED: u32 = 2;
const KINDS: u32 = 3;
/// It is changing hands at the moment.
const CHANGING: u32 = u32::MAX;

pub fn run(seconds: u64, seed: u64) {
    println!("reused-pids: {seconds} s with seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let _module = Module::without_updates();
    let end = Instant::now() + Duration::from_secs(seconds);

    let mut owners: Vec<Option<Child>> = (0..NUMBERS).map(|_| Some(Child::sleeper())).collect();
    let numbers: Vec<i32> = owners.iter().flatten().map(Child::pid).collect();
    let states = shared::atomics::<NUMBERS>();
    for state in states {
        state.store(OTHERS, Ordering::SeqCst);
    }
    let readers: Vec<Child> = (0..READERS)
        .map(|_| {
            Child::start(|parent| {
                let mut checks = 0;
                while Instant::now() < end {
                    checks += check(&numbers, states);
                }
                parent.tell(checks);
            })
        })
        .collect();

    let mut changes = 0;
    while Instant::now() < end {
        let nth = rng.usize(..NUMBERS);
        let state = &states[nth];
        let change = state.load(Ordering::SeqCst) / KINDS + 1;
        let is = |kind| state.store(change * KINDS + kind, Ordering::SeqCst);
        state.store(CHANGING, Ordering::SeqCst);
        match owners[nth].take() {
            Some(owner) if rng.bool() => {
                // Known already, or not: registered it is then.
                status::register(owner.pid());
                owners[nth] = Some(owner);
                is(REGISTERED);
            }
            Some(owner) => {
                owner.end();
                is(FREE);
            }
            None => {
                let owner = Child::start_numbered(numbers[nth], |parent| parent.wait_forever());
                owners[nth] = Some(owner);
                is(OTHERS);
            }
        }
        changes += 1;
    }
    println!("  {changes} changes of {NUMBERS} numbers");
    for reader in readers {
        println!("  {} numbers were checked", reader.hear());
        reader.finish();
    }
}

/// Reads the file, and compares the lines of those numbers that did not change hands meanwhile.
fn check(numbers: &[i32], states: &[AtomicU32; NUMBERS]) -> i64 {
    let look = || states.each_ref().map(|state| state.load(Ordering::SeqCst));
    let before = look();
    let text = status::text();
    let after = look();
    let lines = status::parse(&text);
    let mut checks = 0;
    for (nth, number) in numbers.iter().enumerate() {
        if before[nth] != after[nth] || before[nth] == CHANGING {
            continue;
        }
        let count = lines.iter().filter(|line| line.pid == *number).count();
        let possible = match before[nth] % KINDS {
            OTHERS => 0..=0,
            REGISTERED => 1..=1,
            // Of all owners that have gone, until the next update.
            _ => 0..=usize::MAX,
        };
        assert!(
            possible.contains(&count),
            "{count} lines of {number}, whose state is {}, in:\n{text}",
            before[nth] % KINDS
        );
        checks += 1;
    }
    checks
}
