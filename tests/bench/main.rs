// SPDX-License-Identifier: GPL-2.0

//! Counts what mp1, its C twin and the reading of `/proc/PID/stat` cost, in executed instructions.
//!
//! Runs in a machine whose time stamp counter counts instructions (QEMU's `-icount shift=0`), with the
//! modules beside it. Prints one figure a line, tab separated: figure, subject, number of
//! registrations, value. `scripts/bench` makes a table of them.
//!
//! With the argument `native` it compares the times of the two modules instead, see [`native`].

mod clock;
mod memory;
mod native;
mod processes;
mod subject;
mod trace;

use std::env;
use std::error::Error;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use crate::clock::instructions;
use crate::processes::Sleepers;
use crate::subject::SUBJECTS;
use crate::subject::Subject;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// How many processes are registered.
const SIZES: [usize; 5] = [10, 100, 1000, 3000, 30_000];

/// Each figure is the least of so many: what disturbs (a timer tick, a cold cache of the
/// allocator) only ever adds.
const REPETITIONS: usize = 5;

/// The buffer of `read`: the tables are made with the first, the second is that of `cat`.
const BUFFERS: [(&str, usize); 2] = [("read", 64 * 1024), ("read-cat", 128 * 1024)];

const INTERVAL: Duration = Duration::from_millis(5000);

/// For how long the idle module is watched.
const IDLE: Duration = Duration::from_secs(60);

fn main() -> Result {
    processes::lift_limits()?;
    if env::args()
        .nth(1)
        .is_some_and(|argument| argument == "native")
    {
        return native::compare();
    }
    // The kernel still does things of its own right after boot.
    sleep(Duration::from_secs(5));

    idle()?;
    floor()?;
    let mut sleepers = Sleepers::new();
    for size in SIZES {
        sleepers.grow(size)?;
        for subject in &SUBJECTS {
            registration(subject, sleepers.written())?;
            reading_and_update(subject, sleepers.written())?;
            holding(subject, sleepers.written())?;
        }
        stat(sleepers.written())?;
    }
    for subject in &SUBJECTS {
        memory::per_registration(subject, sleepers.written())?;
    }
    sleepers.kill()?;
    for subject in &SUBJECTS {
        memory::pinned_by_exited(subject)?;
    }
    let mut sleepers = Sleepers::new();
    sleepers.grow(1000)?;
    charged(sleepers.written())
}

fn report(figure: &str, subject: &str, count: usize, value: f64) {
    println!("{figure}\t{subject}\t{count}\t{value:.1}");
}

/// How often timer and work run while nothing is registered.
fn idle() -> Result {
    for subject in &SUBJECTS {
        let _module = subject.load(INTERVAL)?;
        let events = trace::watch(IDLE, subject.module)?;
        let count = |kind| {
            events
                .iter()
                .filter(|event| event.name.contains(kind))
                .count() as f64
        };
        report("idle-timer", subject.name, 0, count("timer_expire_entry"));
        report(
            "idle-work",
            subject.name,
            0,
            count("workqueue_execute_start"),
        );
    }
    Ok(())
}

/// What the kernel spends around a file of `/proc` that does nothing.
fn floor() -> Result {
    let twin = &SUBJECTS[1];
    let _module = twin.load(INTERVAL)?;
    let report = |figure, value| report(figure, "floor", 0, value);

    let null = "/proc/mp1_twin/null";
    let mut file = File::options().write(true).open(null)?;
    let write = least(|| batch(100, |_| write_one(&mut file, b"12345\n")))?;
    report("register", write.median);
    report("register-mean", write.mean);

    let open_write = least(|| batch(100, |_| open_and_write(null, b"12345\n")))?;
    report("register-open", open_write.median);

    let mut buffer = vec![0; BUFFERS[0].1];
    let read = least(|| batch(100, |_| read_to_end(null, &mut buffer)))?;
    report("read", read.median);

    report("update", least_update(twin)?);
    Ok(())
}

/// The cost of one registration while the number of them grows from half of `pids` to all.
fn registration(subject: &Subject, pids: &[Vec<u8>]) -> Result {
    let (first, second) = pids.split_at(pids.len() / 2);
    let report = |figure, value| report(figure, subject.name, pids.len(), value);

    let file_open = least(|| {
        let _module = subject.load(INTERVAL)?;
        let mut file = subject.register(first)?;
        batch(second.len(), |i| write_one(&mut file, &second[i]))
    })?;
    report("register", file_open.median);
    report("register-mean", file_open.mean);

    let open_to_close = least(|| {
        let _module = subject.load(INTERVAL)?;
        let _file = subject.register(first)?;
        batch(second.len(), |i| open_and_write(subject.status, &second[i]))
    })?;
    report("register-open", open_to_close.median);
    Ok(())
}

fn reading_and_update(subject: &Subject, pids: &[Vec<u8>]) -> Result {
    let _module = subject.load(INTERVAL)?;
    let count = pids.len() as f64;
    let report = |figure, value| report(figure, subject.name, pids.len(), value);
    drop(subject.register(pids)?);

    report("update", least_update(subject)? / count);

    let lines = fs::read_to_string(subject.status)?.lines().count();
    if lines != pids.len() {
        return Err(format!("{}: {lines} lines, not {count}", subject.name).into());
    }
    for (figure, size) in BUFFERS {
        let mut buffer = vec![0; size];
        let whole = least(|| batch(1, |_| read_to_end(subject.status, &mut buffer)))?;
        report(figure, whole.median / count);
    }
    Ok(())
}

/// The longest time that a spin lock is held, by a registration, a read and an update.
fn holding(subject: &Subject, pids: &[Vec<u8>]) -> Result {
    let _module = subject.load(INTERVAL)?;
    drop(subject.register(&pids[1..])?);
    let mut buffer = vec![0; BUFFERS[0].1];

    let mut longest = u64::MAX;
    for _ in 0..REPETITIONS {
        let held = trace::longest_hold(subject.module, || {
            open_and_write(subject.status, &pids[0])?;
            read_to_end(subject.status, &mut buffer)?;
            // Both timers have fired by then.
            sleep(2 * INTERVAL);
            Ok(())
        })?;
        longest = longest.min(held);
    }
    report("hold", subject.name, pids.len(), longest as f64);
    Ok(())
}

/// The cost of one registration by a member of a control group that is charged for memory, as
/// services and users are. From then on the kernel looks for such a group at each allocation.
fn charged(pids: &[Vec<u8>]) -> Result {
    const GROUP: &str = "/sys/fs/cgroup/bench";
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")?;
    fs::create_dir(GROUP)?;
    fs::write(format!("{GROUP}/cgroup.procs"), "0")?;

    for subject in &SUBJECTS {
        let cost = least(|| {
            let _module = subject.load(INTERVAL)?;
            let mut file = subject.register(&[])?;
            batch(pids.len(), |i| write_one(&mut file, &pids[i]))
        })?;
        report("register-cgroup", subject.name, pids.len(), cost.median);
    }
    Ok(())
}

/// The same facts without a module: one read of `/proc/PID/stat` for each process.
fn stat(pids: &[Vec<u8>]) -> Result {
    let path = |pid| format!("/proc/{}/stat", String::from_utf8_lossy(pid).trim_end());
    let paths: Vec<_> = pids.iter().map(|pid| path(pid)).collect();
    let mut buffer = vec![0; 4096];
    let each = least(|| {
        batch(paths.len(), |i| {
            match File::open(&paths[i])?.read(&mut buffer)? {
                0 => Err("nothing to read".into()),
                _ => Ok(()),
            }
        })
    })?;
    report("read", "stat", pids.len(), each.median);
    Ok(())
}

/// The instructions of one update.
fn least_update(subject: &Subject) -> Result<f64> {
    let updates = trace::updates(INTERVAL * (REPETITIONS as u32 + 1), subject.module)?;
    let least = updates.into_iter().min().ok_or("no update was seen")?;
    Ok(least as f64)
}

/// The instructions of one of many steps.
struct Cost {
    /// With all that happens now and then: new pages for the allocator, updates, timer ticks.
    mean: f64,
    /// Of a step without such.
    median: f64,
}

fn least(mut measure: impl FnMut() -> Result<Cost>) -> Result<Cost> {
    let mut least = measure()?;
    for _ in 1..REPETITIONS {
        let cost = measure()?;
        least.mean = least.mean.min(cost.mean);
        least.median = least.median.min(cost.median);
    }
    Ok(least)
}

/// The cost of `step`, done `count` times in a row.
fn batch(count: usize, mut step: impl FnMut(usize) -> Result) -> Result<Cost> {
    let mut costs = Vec::with_capacity(count);
    for i in 0..count {
        let start = instructions();
        step(i)?;
        costs.push(instructions() - start);
    }
    costs.sort_unstable();
    let mean = costs.iter().sum::<u64>() as f64 / count as f64;
    let median = costs[count / 2] as f64;
    Ok(Cost { mean, median })
}

fn write_one(file: &mut File, pid: &[u8]) -> Result {
    if file.write(pid)? != pid.len() {
        return Err("a short write".into());
    }
    Ok(())
}

fn open_and_write(path: &str, pid: &[u8]) -> Result {
    write_one(&mut File::options().write(true).open(path)?, pid)
}

fn read_to_end(path: &str, buffer: &mut [u8]) -> Result {
    let mut file = File::open(path)?;
    while file.read(buffer)? != 0 {}
    Ok(())
}
