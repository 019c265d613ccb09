// SPDX-License-Identifier: GPL-2.0

//! Pollers of the lowest priority that are preempted inside `io_submit()`, after the file has put
//! their poll on a queue of the module, and before `aio_poll()` takes the lock of that queue. It
//! takes it when they run on, however long after the unload that is.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use support::aio::Aio;
use support::child::Child;
use support::module::{Machine, insmod, rmmod};
use support::shared;
use support::status;

use crate::starved;

/// Few, since the unload waits for those that are inside the file, and so for the busy loops.
const POLLERS: usize = 3;

/// What the unload may take. Its own wait for the pollers times out long before; procfs waits for
/// those that are inside the file.
const UNLOAD_LIMIT: Duration = Duration::from_secs(60);

/// Each busy loop runs for `busy_ms`, after which the unload's wait for the pollers ends by itself,
/// or without an end, so that this wait times out.
pub fn run(rounds: u64, busy_ms: Option<u64>) {
    let theirs = starved::split_processors();
    let machine = Machine::take();
    let probe = Probe::at_the_end_of_polls();
    let polls = &shared::atomics::<1>()[0];
    let mut longest = Duration::ZERO;
    for round in 0..rounds {
        insmod(&[]).expect("insmod");
        let pollers: Vec<Child> = (0..POLLERS).map(|_| start_poller(theirs, polls)).collect();
        pollers.iter().for_each(|poller| _ = poller.hear());
        let busy = starved::start_busy_loops(theirs, busy_ms.unwrap_or(u64::MAX));
        let start = Instant::now();
        rmmod().unwrap_or_else(|e| panic!("rmmod in round {round}: {e}"));
        let unload = start.elapsed();
        assert!(
            unload < UNLOAD_LIMIT,
            "the unload waits for idle pollers: {unload:?}"
        );
        longest = longest.max(unload);
        // Without the busy loops all run on, out of the call in which they were preempted.
        drop(busy);
        drop(pollers);
    }
    println!(
        "  {rounds} loads; {} polls by {POLLERS} idle pollers at a time, probed {} times; the longest unload took {longest:?}",
        polls.load(Ordering::Relaxed),
        probe.hits()
    );
    drop(machine);
}

/// Starts a poller that runs only when its CPU is idle. It reports its first poll.
fn start_poller(cpu: usize, polls: &AtomicU32) -> Child {
    Child::start(|parent| {
        starved::move_to(cpu);
        let file = status::reader();
        let aio = Aio::new().expect("io_setup");
        let poll = || {
            aio.submit_poll(&file, PollFlags::POLLIN)
                .expect("io_submit");
            // There is always something to read, so that this does not sleep.
            aio.wait().expect("io_getevents");
            polls.fetch_add(1, Ordering::Relaxed);
        };
        poll();
        parent.tell(0);
        starved::become_idle();
        loop {
            poll();
        }
    })
}

/// A probe of the place at which the pollers are to be preempted. There are few instructions. The
/// probe's handler makes them take longer than the rest of a poll, since it walks the stack. It
/// runs with preemption disabled, so a preemption that is due takes place at its end.
struct Probe;

impl Probe {
    const TRACING: &str = "/sys/kernel/tracing";
    const NAME: &str = "mp1_polled";

    fn at_the_end_of_polls() -> Self {
        // One for each poller that is inside the function.
        Self::change(&format!("r{POLLERS}:{} proc_reg_poll", Self::NAME));
        Self::set("trigger", "stacktrace");
        Self::set("enable", "1");
        Self
    }

    fn change(command: &str) {
        OpenOptions::new()
            .append(true)
            .open(format!("{}/kprobe_events", Self::TRACING))
            .expect("a kernel with KPROBE_EVENTS")
            .write_all(command.as_bytes())
            .expect("a probe");
    }

    fn set(file: &str, value: &str) {
        let path = format!("{}/events/kprobes/{}/{file}", Self::TRACING, Self::NAME);
        fs::write(path, value).expect("a probe");
    }

    fn hits(&self) -> u64 {
        let profile =
            fs::read_to_string(format!("{}/kprobe_profile", Self::TRACING)).expect("the profile");
        let line = profile
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|words| words[0] == Self::NAME)
            .expect("the probe");
        line[1].parse().expect("how often it was hit")
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        Self::set("enable", "0");
        Self::set("trigger", "!stacktrace");
        Self::change(&format!("-:{}", Self::NAME));
    }
}
