// SPDX-License-Identifier: GPL-2.0

//! What a registration keeps in memory, from the allocator's own statistics.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::REPETITIONS;
use crate::Result;
use crate::processes::Sleepers;
use crate::report;
use crate::subject::Subject;

/// Long enough that no update falls into what is measured here.
const NO_UPDATE: Duration = Duration::from_secs(3600);

/// How many processes exit between two updates.
const EXITED: usize = 3000;

/// What the slab caches hold.
struct Slabs(BTreeMap<String, (i64, i64)>);

impl Slabs {
    fn now() -> Result<Self> {
        // Let what waits for a grace period be freed first.
        sleep(Duration::from_secs(2));
        let mut caches = BTreeMap::new();
        // The first two lines are headings; then "NAME ACTIVE ALL SIZE ...".
        for line in fs::read_to_string("/proc/slabinfo")?.lines().skip(2) {
            let fields: Vec<_> = line.split_whitespace().collect();
            caches.insert(
                fields[0].to_owned(),
                (fields[1].parse()?, fields[3].parse()?),
            );
        }
        Ok(Self(caches))
    }

    /// By how many objects of which size each cache has grown.
    fn since(&self, before: &Self) -> impl Iterator<Item = (&str, i64, i64)> {
        self.0.iter().map(|(name, &(count, size))| {
            let old = before.0.get(name).map_or(0, |cache| cache.0);
            (name.as_str(), count - old, size)
        })
    }

    fn bytes_since(&self, before: &Self) -> i64 {
        self.since(before)
            .map(|(_, count, size)| count * size)
            .sum()
    }
}

/// The memory of one registration of a live process.
pub fn per_registration(subject: &Subject, pids: &[Vec<u8>]) -> Result {
    let _module = subject.load(NO_UPDATE)?;
    let before = Slabs::now()?;
    drop(subject.register(pids)?);
    let after = Slabs::now()?;

    let each = |bytes: i64| bytes as f64 / pids.len() as f64;
    for (cache, count, size) in after.since(&before) {
        // One object for a tenth of the registrations is not chance.
        if count as usize > pids.len() / 10 {
            let figure = format!("memory-{cache}");
            report(&figure, subject.name, pids.len(), each(count * size));
        }
    }
    report(
        "memory",
        subject.name,
        pids.len(),
        each(after.bytes_since(&before)),
    );
    Ok(())
}

/// The memory that processes keep between their exit and the next update, all together.
pub fn pinned_by_exited(subject: &Subject) -> Result {
    // The caches of the allocator keep some of what was freed, more or less of it.
    let mut least = [i64::MAX; 2];
    for _ in 0..REPETITIONS {
        least[0] = least[0].min(held_after_exit(subject, false)?);
        least[1] = least[1].min(held_after_exit(subject, true)?);
    }
    let [unregistered, registered] = least;
    let pinned = (registered - unregistered) as f64;
    report("pinned", subject.name, EXITED, pinned);
    Ok(())
}

fn held_after_exit(subject: &Subject, registered: bool) -> Result<i64> {
    let _module = subject.load(NO_UPDATE)?;
    let before = Slabs::now()?;
    let mut sleepers = Sleepers::new();
    sleepers.grow(EXITED)?;
    if registered {
        drop(subject.register(sleepers.written())?);
    }
    sleepers.kill()?;
    Ok(Slabs::now()?.bytes_since(&before))
}
