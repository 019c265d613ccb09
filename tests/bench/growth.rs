// SPDX-License-Identifier: GPL-2.0

//! How the cost of a registration, with all that comes of it, grows with the number of
//! registrations.

use std::ops::Range;
use std::thread::sleep;
use std::time::Duration;

use crate::BUFFERS;
use crate::Result;
use crate::clock::instructions;
use crate::measure::Cost;
use crate::measure::batch;
use crate::memory;
use crate::memory::NO_UPDATE;
use crate::processes::Sleepers;
use crate::read_to_end;
use crate::report;
use crate::settle;
use crate::subject::Subject;
use crate::trace;
use crate::write_one;

/// How many processes are registered.
const SIZES: [usize; 4] = [3000, 30_000, 100_000, 200_000];

/// Each figure is the least of so many.
const REPETITIONS: usize = 3;

/// Long enough that what is measured fits between two updates.
const INTERVAL: Duration = Duration::from_secs(60);

/// For how long a measurement goes on afterwards: the first update falls into it, and one that
/// finds everything settled.
const AFTERWARDS: Duration = Duration::from_secs(150);

/// How many processes exit between two updates.
const EXITS: usize = 1000;

/// The processes are left to the end of the machine, which is sooner than theirs.
pub fn measure(subject: &Subject) -> Result {
    settle();
    let mut sleepers = Sleepers::default();
    for size in SIZES {
        sleepers.grow(size)?;
        at(subject, &mut sleepers)?;
        reads("growth-read", subject, sleepers.written())?;
    }
    Ok(())
}

fn at(subject: &Subject, sleepers: &mut Sleepers) -> Result {
    let count = sleepers.pids().len();
    let report = |figure, value| report(figure, subject.name, count, value);

    let mut registration = Registration::measure(subject, sleepers.written())?;
    for _ in 1..REPETITIONS {
        registration.or_less(Registration::measure(subject, sleepers.written())?);
    }
    report("growth-register", registration.cost.median);
    report("growth-register-later", registration.with_all_later);
    report("growth-longest-write", registration.cost.longest);
    report("growth-update", registration.update / count as f64);

    // The same of a stretch in the middle at each size, and spread over all.
    let middle = count / 2 - SIZES[0] / 2;
    let stretch = middle..middle + SIZES[0];
    for (figure, range) in [("growth-drop", stretch), ("growth-drop-spread", 0..count)] {
        let mut least = f64::MAX;
        for _ in 0..REPETITIONS {
            least = least.min(dropping(subject, sleepers, range.clone())?);
            sleepers.grow(count)?;
        }
        report(figure, least);
    }
    Ok(())
}

/// What it takes to register half of the processes after the other half.
struct Registration {
    cost: Cost,
    /// The mean, with what the update after them does beyond a usual one, and with all other work.
    with_all_later: f64,
    /// A usual update.
    update: f64,
}

impl Registration {
    fn measure(subject: &Subject, pids: &[Vec<u8>]) -> Result<Self> {
        let (first, second) = pids.split_at(pids.len() / 2);
        let _module = subject.load(INTERVAL)?;
        let mut file = subject.register(first)?;
        // The first half settles.
        sleep(2 * INTERVAL);
        memory::shrink()?;

        let mut window = 0..0;
        let mut cost = None;
        let runs = trace::work(subject.module, || {
            window.start = instructions();
            cost = Some(batch(second.len(), |i| write_one(&mut file, &second[i]))?);
            window.end = instructions();
            sleep(AFTERWARDS);
            Ok(())
        })?;
        let (later, update) = beyond_usual(&runs, window.end)?;
        Ok(Self {
            cost: cost.ok_or("nothing was registered")?,
            with_all_later: ((window.end - window.start) as f64 + later) / second.len() as f64,
            update,
        })
    }

    fn or_less(&mut self, other: Self) {
        self.cost.median = self.cost.median.min(other.cost.median);
        self.cost.longest = self.cost.longest.min(other.cost.longest);
        self.with_all_later = self.with_all_later.min(other.with_all_later);
        self.update = self.update.min(other.update);
    }
}

/// What the work that began after `moment` took beyond that many usual updates, and what such a one
/// takes: the last of them.
fn beyond_usual(runs: &[Range<u64>], moment: u64) -> Result<(f64, f64)> {
    let later = runs.iter().filter(|run| run.start > moment);
    let spans: Vec<_> = later.map(|run| (run.end - run.start) as f64).collect();
    match spans[..] {
        [_, .., usual] => Ok((spans.iter().map(|span| span - usual).sum(), usual)),
        _ => Err("too few updates were seen".into()),
    }
}

/// What an update takes to drop one process of `range` that has exited.
fn dropping(subject: &Subject, sleepers: &mut Sleepers, range: Range<usize>) -> Result<f64> {
    let _module = subject.load(INTERVAL)?;
    subject.register_fast(sleepers.written())?;
    sleep(2 * INTERVAL);
    let mut moment = 0;
    let runs = trace::work(subject.module, || {
        moment = instructions();
        sleepers.thin_out(range, EXITS)?;
        sleep(AFTERWARDS);
        Ok(())
    })?;
    Ok(beyond_usual(&runs, moment)?.0 / EXITS as f64)
}

/// Reports what the first read after registrations takes, a line, and what later ones do.
pub fn reads(figure: &str, subject: &Subject, pids: &[Vec<u8>]) -> Result {
    let mut least = [f64::MAX; 2];
    for _ in 0..REPETITIONS {
        let _module = subject.load(NO_UPDATE)?;
        subject.register_fast(pids)?;
        let mut buffer = vec![0; BUFFERS[0].1];
        let mut read = || batch(1, |_| read_to_end(subject.status, &mut buffer));
        for i in [0, 1, 1] {
            least[i] = least[i].min(read()?.median);
        }
    }
    for (when, whole) in ["first", "later"].iter().zip(least) {
        let each = whole / pids.len() as f64;
        report(&format!("{figure}-{when}"), subject.name, pids.len(), each);
    }
    Ok(())
}
