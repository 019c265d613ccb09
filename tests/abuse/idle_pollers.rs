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

const POLLERS: usize = 24;

/// What the unload may take. It gives up its own wait for the pollers long before; procfs waits for
/// those that are inside the file.
const UNLOAD_LIMIT: Duration = Duration::from_secs(60);

pub fn run(rounds: u64) {
    let theirs = starved::split_processors();
    let machine = Machine::take();
    let _probe = Probe::at_the_end_of_polls();
    let polls = &shared::atomics::<1>()[0];
    let mut longest = Duration::ZERO;
    for round in 0..rounds {
        insmod(&[]).expect("insmod");
        let pollers: Vec<Child> = (0..POLLERS).map(|_| start_poller(theirs, polls)).collect();
        pollers.iter().for_each(|poller| _ = poller.hear());
        let busy = starved::start_busy_loops(theirs);
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
    let polls = polls.load(Ordering::Relaxed);
    println!(
        "  {rounds} loads; {polls} polls by {POLLERS} idle pollers at a time; the longest unload took {longest:?}"
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

/// A probe at the place where the pollers are to be preempted. The few instructions there take many
/// times longer with it, and its handler, which runs with preemption off, ends in a preemption if
/// one is due.
struct Probe;

impl Probe {
    const ALL: &str = "/sys/kernel/tracing/kprobe_events";
    const ENABLE: &str = "/sys/kernel/tracing/events/kprobes/mp1_polled/enable";

    fn at_the_end_of_polls() -> Self {
        Self::change("r:kprobes/mp1_polled proc_reg_poll");
        fs::write(Self::ENABLE, "1").expect("enabling a probe");
        Self
    }

    fn change(command: &str) {
        let mut events = OpenOptions::new()
            .append(true)
            .open(Self::ALL)
            .expect("a kernel with KPROBE_EVENTS");
        events.write_all(command.as_bytes()).expect("a probe");
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        fs::write(Self::ENABLE, "0").expect("disabling a probe");
        Self::change("-:kprobes/mp1_polled");
    }
}
