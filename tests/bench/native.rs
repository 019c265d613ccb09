// SPDX-License-Identifier: GPL-2.0

//! Compares the time that mp1 and its C twin take, where the processor runs the kernel's code
//! natively: on User Mode Linux.
//!
//! The machine does other things meanwhile, so a time by itself says little. mp1, the twin and the
//! floor are measured in turns, many rounds within one boot, and what counts is the ratio of two of
//! them in a round, and how much it varies between the rounds. mp1 as it was at another commit takes
//! part if it is there.
//!
//! A system call of User Mode Linux costs far more than a registration, so one `writev` registers many
//! processes: the module's write is called for each vector.

use std::fs;
use std::fs::File;
use std::io::IoSlice;
use std::io::Write;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use crate::BUFFERS;
use crate::Result;
use crate::clock::instructions as ticks;
use crate::processes::Sleepers;
use crate::processes::in_few_writes;
use crate::read_to_end;
use crate::subject::BEFORE;
use crate::subject::SUBJECTS;
use crate::subject::Subject;
use crate::trace;

/// How many processes are registered, and in how many rounds.
const SIZES: [(usize, usize); 4] = [(100, 60), (1000, 60), (3000, 60), (30_000, 30)];

/// How many processes one `writev` registers: many, and yet it is rarely interrupted by something else.
const VECTORS: usize = 250;

/// How often a round reads all lines.
const READS: usize = 15;

const INTERVAL: Duration = Duration::from_millis(20);

/// For how long a round watches updates.
const UPDATES: Duration = Duration::from_millis(200);

const NULL: &str = "/proc/mp1_twin/null";

/// The figures of a round, in this order: registering while the number of processes grows from half of
/// them to all; registering one process that often, which thus is in the processor's caches;
/// registering the half with as few writes as can be; and so on.
const FIGURES: [&str; 5] = [
    "native-register",
    "native-register-one",
    "native-register-many",
    "native-read",
    "native-update",
];

/// Nanoseconds, each for one process; not a number where the file takes no such write.
type Times = [f64; FIGURES.len()];

/// What is measured in each round.
struct Round {
    mp1: Times,
    twin: Times,
    /// The same calls of a file that does nothing, and updates of an empty list.
    floor: Times,
    before: Option<Times>,
}

pub fn compare() -> Result {
    let ns_per_tick = calibrate();
    let mut sleepers = Sleepers::default();
    for (size, count) in SIZES {
        sleepers.grow(size)?;
        let pids = sleepers.written();
        let [mp1, twin, _] = &SUBJECTS;
        let mut rounds = Vec::new();
        for _ in 0..count {
            let times = |subject: &Subject, file| measure(subject, file, pids, ns_per_tick);
            rounds.push(Round {
                mp1: times(mp1, mp1.status)?,
                twin: times(twin, twin.status)?,
                floor: times(twin, NULL)?,
                before: match BEFORE.is_there() {
                    true => Some(times(&BEFORE, BEFORE.status)?),
                    false => None,
                },
            });
        }
        for (index, figure) in FIGURES.iter().enumerate() {
            report(figure, size, &rounds, index);
        }
    }
    sleepers.kill()
}

/// The length of a tick of the time stamp counter. The kernel comes to rest after its boot meanwhile.
fn calibrate() -> f64 {
    let (start, first) = (Instant::now(), ticks());
    sleep(Duration::from_secs(3));
    start.elapsed().as_nanos() as f64 / (ticks() - first) as f64
}

/// What `file` costs in `subject`, which is loaded anew.
fn measure(subject: &Subject, file: &str, pids: &[Vec<u8>], ns_per_tick: f64) -> Result<Times> {
    let vectors: Vec<_> = pids.iter().map(|pid| IoSlice::new(pid)).collect();
    let (first, second) = vectors.split_at(vectors.len() / 2);

    let module = subject.load(INTERVAL)?;
    let mut status = File::options().write(true).open(file)?;
    write_all(&mut status, first)?;
    let register = write_all(&mut status, second)?;

    let updates = trace::updates(UPDATES, subject.module)?;
    if updates.is_empty() {
        return Err("no update was seen".into());
    }
    let update = updates.iter().sum::<u64>() as f64 / updates.len() as f64;

    let mut buffer = vec![0; BUFFERS[0].1];
    let mut reads = Vec::new();
    for _ in 0..READS {
        let start = ticks();
        read_to_end(file, &mut buffer)?;
        reads.push((ticks() - start) as f64);
    }
    let read = quartiles(reads)[1];
    let lines = fs::read_to_string(file)?.lines().count();
    if lines != if file == NULL { 0 } else { pids.len() } {
        return Err(format!("{file}: {lines} lines").into());
    }
    drop((status, module));

    let module = subject.load(INTERVAL)?;
    let mut status = File::options().write(true).open(file)?;
    let same = vec![vectors[0]; vectors.len() / 2];
    write_all(&mut status, &same)?;
    let one = write_all(&mut status, &same)?;
    drop((status, module));

    let mut many = f64::NAN;
    if subject.takes_many() || file == NULL {
        let _module = subject.load(INTERVAL)?;
        let mut status = File::options().write(true).open(file)?;
        let (first, second) = pids.split_at(pids.len() / 2);
        write_many(&mut status, first)?;
        many = write_many(&mut status, second)?;
    }

    Ok([
        register * ns_per_tick,
        one * ns_per_tick,
        many * ns_per_tick,
        read * ns_per_tick / pids.len() as f64,
        update * 1000.0 / pids.len() as f64,
    ])
}

/// Registers a process with each vector, and returns the ticks that one of them took: the median of the
/// calls.
fn write_all(file: &mut File, vectors: &[IoSlice]) -> Result<f64> {
    let mut ticks_each = Vec::new();
    for some in vectors.chunks(VECTORS) {
        let start = ticks();
        let written = file.write_vectored(some)?;
        ticks_each.push((ticks() - start) as f64 / some.len() as f64);
        if written != some.iter().map(|vector| vector.len()).sum() {
            return Err("a short write".into());
        }
    }
    Ok(quartiles(ticks_each)[1])
}

/// Registers all with as few writes as can be, and returns the ticks that a process took: the median of
/// the calls.
fn write_many(file: &mut File, pids: &[Vec<u8>]) -> Result<f64> {
    let mut ticks_each = Vec::new();
    for (text, count) in in_few_writes(pids) {
        let start = ticks();
        let written = file.write(&text)?;
        ticks_each.push((ticks() - start) as f64 / count as f64);
        if written != text.len() {
            return Err("a short write".into());
        }
    }
    Ok(quartiles(ticks_each)[1])
}

/// Prints one figure of all rounds: the medians of the times, and the quartiles of the ratio of mp1 to
/// the twin, with and without what the kernel spends around both, and to mp1 of before.
fn report(figure: &str, size: usize, rounds: &[Round], index: usize) {
    let print = |subject: &str, value: f64| {
        if value.is_finite() {
            println!("{figure}\t{subject}\t{size}\t{value:.3}");
        }
    };
    let all = |value: &dyn Fn(&Round) -> f64| quartiles(rounds.iter().map(value).collect());
    let before = |round: &Round| round.before.map_or(f64::NAN, |times| times[index]);

    print("mp1", all(&|round| round.mp1[index])[1]);
    print("twin", all(&|round| round.twin[index])[1]);
    print("before", all(&before)[1]);
    let floor = all(&|round| round.floor[index])[1];
    print("floor", floor);

    let whole = all(&|round| round.mp1[index] / round.twin[index]);
    let net = all(&|round| (round.mp1[index] - floor) / (round.twin[index] - floor));
    let gain = all(&|round| round.mp1[index] / before(round));
    for (kind, ratio) in [("ratio", whole), ("ratio-net", net), ("ratio-before", gain)] {
        for (quartile, value) in ["q1", "q2", "q3"].iter().zip(ratio) {
            print(&format!("{kind}-{quartile}"), value);
        }
    }
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}
