// SPDX-License-Identifier: GPL-2.0

//! The CPU time of a process as the kernel itself tells it.

use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// Milliseconds of one clock tick of `/proc/PID/stat`.
pub const TICK_MS: u64 = 10;

/// Returns `utime + stime` of `/proc/PID/stat`, in ms. Each of the two is rounded down to a clock
/// tick.
pub fn stat_ms(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("/proc/PID/stat");
    // The name in parentheses can hold anything; after it, `utime` is the 12th field and `stime`
    // the 13th.
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
    clock_ns(pid) / 1_000_000
}

/// Returns the time of the process's CPU clock. A zombie has one as well.
pub fn clock_ns(pid: i32) -> u64 {
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
        .as_nanos()
        .try_into()
        .expect("a time of this age")
}

/// Returns the final time of a zombie, in ns.
///
/// A process can be reaped some microseconds before its last thread leaves its processor, and what
/// that thread has run since the latest tick is added only then. Afterwards, nothing changes the
/// time any more.
pub fn final_ns(zombie: i32) -> u64 {
    let mut before = 0;
    loop {
        visit_all_cpus();
        let now = clock_ns(zombie);
        if now == before {
            return now;
        }
        before = now;
    }
}

/// The processors that the calling thread may use.
pub fn cpus() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("sched_getaffinity");
    (0..CpuSet::count())
        .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .collect()
}

/// Lets the calling thread run on one processor only.
pub fn pin(cpu: usize) {
    pin_process(0, cpu);
}

/// Lets the first thread of a process run on one processor only.
pub fn pin_process(pid: i32, cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a processor");
    sched_setaffinity(Pid::from_raw(pid), &set).expect("sched_setaffinity");
}

/// Lets the calling thread run on these processors.
pub fn unpin(cpus: &[usize]) {
    let mut set = CpuSet::new();
    cpus.iter()
        .for_each(|cpu| set.set(*cpu).expect("a processor"));
    sched_setaffinity(Pid::from_raw(0), &set).expect("sched_setaffinity");
}

/// Gives the first thread of a process a scheduling policy; 0 is the calling thread.
pub fn set_policy(pid: i32, policy: i32, priority: i32) {
    let parameter = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: The parameter is valid.
    let error = unsafe { libc::sched_setscheduler(pid, policy, &parameter) };
    assert_eq!(error, 0, "policy {policy}");
}

/// Runs on each processor once, so that each switches away from what ran there before.
pub fn visit_all_cpus() {
    let own = Pid::from_raw(0);
    let before = sched_getaffinity(own).expect("sched_getaffinity");
    let mut all = CpuSet::new();
    for cpu in 0..CpuSet::count() {
        all.set(cpu).expect("a processor");
    }
    // The kernel takes those of them that there are.
    sched_setaffinity(own, &all).expect("sched_setaffinity");
    cpus().into_iter().for_each(pin);
    sched_setaffinity(own, &before).expect("sched_setaffinity");
}
