// SPDX-License-Identifier: GPL-2.0

//! The CPU time of a process as the kernel itself tells it.

use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};

/// Milliseconds of one clock tick of `/proc/PID/stat`.
pub const TICK_MS: u64 = 10;

/// Returns `utime + stime` of `/proc/PID/stat`, in ms. Each of the two is rounded down to a clock tick.
pub fn stat_ms(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("/proc/PID/stat");
    // The name in parentheses can hold anything; after it, `utime` is the 12th field and `stime` the 13th.
    let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
    fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().expect("ticks") * TICK_MS)
        .sum()
}

/// Returns the time of the process's CPU clock, in ms and rounded down.
pub fn clock_ms(pid: i32) -> u64 {
    let mut clock = 0;
    // SAFETY: `clock` is a valid place for the result.
    let error = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
    assert_eq!(
        error,
        0,
        "the CPU clock of {pid}: {}",
        Errno::from_raw(error)
    );
    let time = clock_gettime(ClockId::from_raw(clock)).expect("clock_gettime");
    Duration::from(time)
        .as_millis()
        .try_into()
        .expect("a time of this age")
}
