// SPDX-License-Identifier: GPL-2.0

//! Readers and writers of the lowest priority, which are preempted inside a call and then wait for
//! their processor behind two busy loops. They must delay no other process.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use support::child::{self, Child};
use support::crowd::Crowd;
use support::module::{Machine, insmod, rmmod};
use support::status;

use crate::starved::{self, IDLE_SHARE};

const INTERVAL_MS: u64 = 500;

/// What anything may take longer than without the idle readers. With a lock that they hold it takes
/// 2 to 200 s.
const MORE: Duration = Duration::from_millis(1000);
/// The same for the unload. For this procfs itself waits until each read that has begun is done,
/// which takes [`IDLE_SHARE`] times longer beside two busy loops.
const UNLOAD_MORE: Duration = Duration::from_secs(30);

/// How many of the idle processes write.
const WRITERS: usize = 2;

/// How often each is measured; the longest counts.
const TRIES: usize = 5;

/// The longest times of what root does.
#[derive(Debug)]
struct Times {
    read: Duration,
    write: Duration,
    /// From a registration to the update that tells its time.
    update: Duration,
    /// From SIGKILL to the end of a process that reads all the while.
    kill: Duration,
}

/// With so many lines, one after the other.
pub fn run(sizes: &[usize]) {
    let theirs = starved::split_processors();
    let machine = Machine::take();
    for lines in sizes {
        for readers in [1, 4, 24] {
            attack(*lines, readers, theirs);
        }
    }
    drop(machine);
}

fn attack(lines: usize, readers: usize, theirs: usize) {
    let load = || insmod(&[("interval_ms", &INTERVAL_MS.to_string())]).expect("insmod");
    let crowd = Crowd::of(lines);
    load();
    status::register_all(crowd.pids());
    let without = measure();
    let unload_without = unload();

    load();
    status::register_all(crowd.pids());
    let mut idle: Vec<Child> = (0..readers).map(|_| start_idle_reader(theirs)).collect();
    idle.extend((0..WRITERS).map(|_| start_idle_writer(theirs)));
    // All are inside the module by now, most of the time.
    idle.iter().for_each(|reader| _ = reader.hear());
    let _busy = starved::start_busy_loops(theirs, u64::MAX);
    let with = measure();
    let unload_with = unload();
    println!("  {lines} lines: {without:?}, unload {unload_without:?}");
    println!(
        "  with {readers} idle readers and {WRITERS} writers: {with:?}, unload {unload_with:?}"
    );
    for (what, without, with, more) in [
        ("a read", without.read, with.read, MORE),
        ("a write", without.write, with.write, MORE),
        ("an update", without.update, with.update, MORE),
        ("a kill", without.kill, with.kill, MORE),
        (
            "the unload",
            unload_without + without.read * IDLE_SHARE,
            unload_with,
            UNLOAD_MORE,
        ),
    ] {
        assert!(
            with <= 10 * without + more,
            "{what} waits for idle readers: {with:?}, and {without:?} without them"
        );
    }
}

/// Starts a reader that runs only when its CPU is idle. It reports its first read.
fn start_idle_reader(cpu: usize) -> Child {
    Child::start(|parent| {
        starved::move_to(cpu);
        let mut file = status::reader();
        let mut text = String::new();
        file.read_to_string(&mut text).expect("read");
        parent.tell(0);
        starved::become_idle();
        loop {
            text.clear();
            // Until the module goes.
            if file
                .rewind()
                .and_then(|()| file.read_to_string(&mut text))
                .is_err()
            {
                parent.wait_forever();
            }
        }
    })
}

/// Starts a writer that runs only when its CPU is idle, and registers itself again and again.
fn start_idle_writer(cpu: usize) -> Child {
    Child::start(|parent| {
        starved::move_to(cpu);
        let text = child::getpid().to_string();
        let mut file = status::writer();
        file.write_all(text.as_bytes()).expect("write");
        parent.tell(0);
        starved::become_idle();
        // Until the module goes.
        while file.write_all(text.as_bytes()).is_ok() {}
        parent.wait_forever()
    })
}

fn timed<T>(action: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    action();
    start.elapsed()
}

fn measure() -> Times {
    let mut times = Times {
        read: Duration::ZERO,
        write: Duration::ZERO,
        update: Duration::ZERO,
        kill: Duration::ZERO,
    };
    for _ in 0..TRIES {
        times.read = times.read.max(timed(status::text));
        let witness = Child::burnt(5);
        times.write = times.write.max(timed(|| status::register(witness.pid())));
        times.update = times.update.max(timed(|| await_ms_of(witness.pid())));
        let reader = Child::start(|parent| {
            parent.tell(0);
            loop {
                status::text();
            }
        });
        reader.hear();
        times.kill = times.kill.max(timed(|| {
            reader.signal(Signal::SIGKILL);
            reader.reap();
        }));
    }
    times
}

/// Reads until the process has a time. It fails only if nothing comes at all.
fn await_ms_of(pid: i32) {
    let mut file: File = status::reader();
    let start = Instant::now();
    loop {
        let mut text = String::new();
        file.rewind().expect("seek");
        file.read_to_string(&mut text).expect("read");
        let lines = status::parse(&text);
        if lines.iter().any(|line| line.pid == pid && line.ms > 0) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(300), "no update came");
    }
}

fn unload() -> Duration {
    timed(|| rmmod().expect("rmmod"))
}
