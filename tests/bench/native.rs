// SPDX-License-Identifier: GPL-2.0

//! Compares the time that mp1 and its C twin take, where the processor runs the kernel's code
//! natively: on User Mode Linux.
//!
//! The machine does other things meanwhile, so a time by itself says little. mp1, the twin and the
//! floor are measured in turns, in many rounds within one boot. What counts is the ratio of two of
//! them within a round, and how much this ratio varies between rounds. The mp1 of another commit
//! takes part if it was built.
//!
//! A system call of User Mode Linux costs far more than a registration, so one `writev` registers
//! many processes: the module's write is called for each vector.

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

/// How many processes one `writev` registers: many, and yet it is rarely interrupted by something
/// else.
const VECTORS: usize = 250;

/// How often a round reads all lines.
const READS: usize = 15;

const INTERVAL: Duration = Duration::from_millis(20);

/// For how long a round watches updates.
const UPDATES: Duration = Duration::from_millis(200);

const NULL: &str = "/proc/mp1_twin/null";

/// The figures of a round, in this order: registering while the number of processes grows from half
/// of them to all; registering one process that often, which thus is in the processor's caches;
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

/// What is measured in each round, in this order or the reverse.
#[derive(Clone, Copy)]
struct Candidate {
    /// What the figures call it.
    name: &'static str,
    subject: &'static Subject,
    file: &'static str,
}

const CANDIDATES: [Candidate; 4] = {
    let [mp1, twin, _] = &SUBJECTS;
    [
        Candidate {
            name: "mp1",
            subject: mp1,
            file: mp1.status,
        },
        Candidate {
            name: "twin",
            subject: twin,
            file: twin.status,
        },
        // The same calls of a file that does nothing, and updates of an empty list.
        Candidate {
            name: "floor",
            subject: twin,
            file: NULL,
        },
        Candidate {
            name: BEFORE.name,
            subject: &BEFORE,
            file: BEFORE.status,
        },
    ]
};

/// The times of each candidate.
type Round = [Times; CANDIDATES.len()];

pub fn compare() -> Result {
    let ns_per_tick = calibrate();
    let mut sleepers = Sleepers::default();
    for (size, count) in SIZES {
        sleepers.grow(size)?;
        let pids = sleepers.written();
        let mut rounds = Vec::new();
        for number in 0..count {
            let mut round = [[f64::NAN; FIGURES.len()]; CANDIDATES.len()];
            let mut in_turn: Vec<_> = CANDIDATES.iter().zip(&mut round).collect();
            // What one leaves in the caches is not always for the same one.
            if number % 2 == 1 {
                in_turn.reverse();
            }
            for (candidate, times) in in_turn {
                if candidate.subject.is_there() {
                    *times = measure(candidate, pids, ns_per_tick)?;
                }
            }
            rounds.push(round);
        }
        for (index, figure) in FIGURES.iter().enumerate() {
            report(figure, size, &rounds, index);
        }
    }
    sleepers.kill()
}

/// The length of a tick of the time stamp counter. The kernel comes to rest after its boot
/// meanwhile.
fn calibrate() -> f64 {
    let (start, first) = (Instant::now(), ticks());
    sleep(Duration::from_secs(3));
    start.elapsed().as_nanos() as f64 / (ticks() - first) as f64
}

/// What the file costs in the module, which is loaded again.
fn measure(candidate: &Candidate, pids: &[Vec<u8>], ns_per_tick: f64) -> Result<Times> {
    let Candidate { subject, file, .. } = *candidate;
    let vectors: Vec<_> = pids.iter().map(|pid| IoSlice::new(pid)).collect();
    let (first, second) = vectors.split_at(vectors.len() / 2);

    let module = subject.load(INTERVAL)?;
    let mut status = File::options().write(true).open(file)?;
    write_all(&mut status, first)?;
    let register = write_all(&mut status, second)?;

    let mut updates = Vec::new();
    while updates.is_empty() {
        updates = trace::updates(UPDATES, subject.module)?;
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

/// Registers a process with each vector, and returns the ticks that one of them took: the median of
/// the calls.
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

/// Registers all with as few writes as can be, and returns the ticks that a process took: the
/// median of the calls.
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

/// Prints one figure of all rounds: the medians of the times, and the quartiles of the ratio of mp1
/// to the twin, with and without what the kernel spends around both, and to mp1 of before.
fn report(figure: &str, size: usize, rounds: &[Round], index: usize) {
    let print = |subject: &str, value: f64| {
        if value.is_finite() {
            println!("{figure}\t{subject}\t{size}\t{value:.3}");
        }
    };
    let all = |value: &dyn Fn([f64; CANDIDATES.len()]) -> f64| {
        let times = rounds.iter().map(|round| round.map(|times| times[index]));
        quartiles(times.map(value).collect())
    };
    let medians: Vec<_> = (0..CANDIDATES.len())
        .map(|i| all(&|times| times[i])[1])
        .collect();
    for (candidate, &median) in CANDIDATES.iter().zip(&medians) {
        print(candidate.name, median);
    }

    let floor = medians[2];
    let whole = all(&|[mp1, twin, ..]| mp1 / twin);
    let net = all(&|[mp1, twin, ..]| (mp1 - floor) / (twin - floor));
    let gain = all(&|[mp1, _, _, before]| mp1 / before);
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
