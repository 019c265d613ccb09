// SPDX-License-Identifier: GPL-2.0

//! Counts the instructions that mp1, its C twin and the alternatives without a module execute.
//!
//! Runs in a machine whose time stamp counter counts instructions (QEMU's `-icount shift=0`), with
//! the modules beside it. Prints one figure a line, tab separated: figure, subject, number of
//! registrations, value. `scripts/bench` makes a table of them.
//!
//! The argument says what is measured, each in a machine of its own: `sizes`, or see [`growth`] and
//! [`exits`]. [`parallel`] and [`native`] go by the clock, in other machines.

mod bpf;
mod clock;
mod exits;
mod growth;
mod measure;
mod memory;
mod native;
mod parallel;
mod processes;
mod rivals;
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

use crate::measure::REPETITIONS;
use crate::measure::batch;
use crate::measure::least;
use crate::measure::once;
use crate::processes::Sleepers;
use crate::processes::in_few_writes;
use crate::subject::SUBJECTS;
use crate::subject::Subject;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// How many processes are registered.
const SIZES: [usize; 5] = [10, 100, 1000, 3000, 30_000];

/// The buffer of `read`: the tables are made with the first, the second is that of `cat`.
const BUFFERS: [(&str, usize); 2] = [("read", 64 * 1024), ("read-cat", 128 * 1024)];

const INTERVAL: Duration = Duration::from_millis(5000);

/// For how long the idle module is watched.
const IDLE: Duration = Duration::from_secs(60);

fn main() -> Result {
    processes::lift_limits()?;
    match env::args().nth(1).as_deref() {
        Some("sizes") => sizes(),
        Some("growth") => growth::measure(&SUBJECTS[0]),
        Some("exits") => exits::measure(&SUBJECTS[0]),
        Some("parallel") => parallel::compare(),
        Some("native") => native::compare(),
        _ => Err("usage: bench sizes|growth|exits|parallel|native".into()),
    }
}

/// Lets the kernel do the things of its own that it still does right after boot.
fn settle() {
    sleep(Duration::from_secs(5));
}

fn sizes() -> Result {
    settle();
    idle()?;
    floor()?;
    for subject in &SUBJECTS {
        memory::fixed(subject)?;
    }
    let mut sleepers = Sleepers::default();
    for size in SIZES {
        sleepers.grow(size)?;
        for subject in &SUBJECTS {
            registration(subject, sleepers.written())?;
            reading_and_update(subject, sleepers.written())?;
            holding(subject, sleepers.written())?;
        }
        many_in_one_write(&SUBJECTS[0], sleepers.written())?;
        rivals::stat(sleepers.pids())?;
        rivals::clock(sleepers.pids())?;
        rivals::pidfd(sleepers.pids())?;
        bpf::measure(sleepers.pids())?;
    }
    for subject in &SUBJECTS {
        memory::per_registration(subject, sleepers.written())?;
    }
    sleepers.kill()?;
    for subject in &SUBJECTS {
        memory::pinned_by_exited(subject)?;
    }

    charged(Sleepers::of(1000)?.written())
}

/// In place of a figure of what the module does not have.
fn report_absent(figure: &str, subject: &str, count: usize) {
    println!("{figure}\t{subject}\t{count}\tabsent");
}

fn report(figure: &str, subject: &str, count: usize, value: f64) {
    let decimals = if value.abs() < 10.0 { 3 } else { 1 };
    println!("{figure}\t{subject}\t{count}\t{value:.decimals$}");
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
    let module = subject.load(INTERVAL)?;
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
        let whole = once(|| read_to_end(subject.status, &mut buffer))?;
        report(figure, whole / count);
    }
    drop(module);
    growth::reads("read", subject, pids)?;
    Ok(())
}

/// The longest time that a spin lock is held, by registrations, a read and an update.
fn holding(subject: &Subject, pids: &[Vec<u8>]) -> Result {
    let mut least = longest_holds(subject, pids)?;
    for _ in 1..REPETITIONS {
        for (least, hold) in least.iter_mut().zip(longest_holds(subject, pids)?) {
            *least = hold.min(*least);
        }
    }
    match least.into_iter().max().unwrap_or_default() {
        0 => Err("no spin lock was taken".into()),
        longest => {
            report("hold", subject.name, pids.len(), longest as f64);
            Ok(())
        }
    }
}

/// The longest hold of each action.
fn longest_holds(subject: &Subject, pids: &[Vec<u8>]) -> Result<Vec<u64>> {
    let hold = |action: &mut dyn FnMut() -> Result| trace::longest_hold(subject.module, action);
    let _module = subject.load(INTERVAL)?;
    let (first, last) = pids.split_at(pids.len() - 1);
    let mut longest = Vec::new();
    if subject.takes_many() {
        longest.push(hold(&mut || subject.register_fast(first))?);
    } else {
        subject.register_fast(first)?;
    }
    let mut buffer = vec![0; BUFFERS[0].1];
    let mut read = || read_to_end(subject.status, &mut buffer);
    longest.push(hold(&mut || open_and_write(subject.status, &last[0]))?);
    longest.push(hold(&mut read)?);
    // Both timers have fired by then.
    longest.push(hold(&mut || {
        sleep(2 * INTERVAL);
        Ok(())
    })?);
    longest.push(hold(&mut read)?);
    Ok(longest)
}

/// The cost of a registration by a write of as many PIDs as it takes, while the number of them
/// grows from half of `pids` to all.
fn many_in_one_write(subject: &Subject, pids: &[Vec<u8>]) -> Result {
    let (first, second) = pids.split_at(pids.len() / 2);
    let writes = in_few_writes(second);
    let cost = least(|| {
        let _module = subject.load(INTERVAL)?;
        let mut file = subject.register(first)?;
        batch(writes.len(), |i| write_one(&mut file, &writes[i].0))
    })?;
    let each = cost.mean * writes.len() as f64 / second.len() as f64;
    report("register-many", subject.name, pids.len(), each);
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

/// The instructions of one update.
fn least_update(subject: &Subject) -> Result<f64> {
    let updates = trace::updates(INTERVAL * (REPETITIONS as u32 + 1), subject.module)?;
    let least = updates.into_iter().min().ok_or("no update was seen")?;
    Ok(least as f64)
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
