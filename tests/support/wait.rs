// SPDX-License-Identifier: GPL-2.0

//! Waiting for what happens, never for a time.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Long enough for a slow, emulated machine: a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(1);

/// Returns what `found` gives as soon as it gives something.
pub fn until_some<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain: {what}");
        sleep(PAUSE);
    }
}

/// Returns as soon as `holds` does.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    until_some(what, || holds().then_some(()));
}
