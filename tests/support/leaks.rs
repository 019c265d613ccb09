// SPDX-License-Identifier: GPL-2.0

//! Memory that is never freed: what kmemleak finds, and the number of objects in the slab caches.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

/// What kmemleak did not know of before.
pub struct Kmemleak;

impl Kmemleak {
    /// Starts a watch, and forgets what others have leaked before; none if the kernel has no
    /// kmemleak.
    pub fn watch() -> Option<Self> {
        if !Path::new(KMEMLEAK).exists() {
            println!("  (no kmemleak in this kernel)");
            return None;
        }
        scan();
        command("clear");
        Some(Self)
    }

    pub fn expect_none(self) {
        scan();
        // What a stack or a register still pointed at, or a grace period still held, is found or
        // gone by a second look.
        scan();
        let found = fs::read_to_string(KMEMLEAK).expect("reading from kmemleak");
        assert!(found.is_empty(), "kmemleak found:\n{found}");
        println!("  kmemleak: nothing");
    }
}

fn scan() {
    // kmemleak speaks of no object that is younger than five seconds.
    thread::sleep(Duration::from_secs(6));
    command("scan");
}

fn command(text: &str) {
    fs::write(KMEMLEAK, text).expect("writing to kmemleak");
}

/// The objects of a slab cache.
struct Cache {
    objects: i64,
    /// Bytes of one.
    size: i64,
}

/// The number of objects in each slab cache.
pub struct Slabs(BTreeMap<String, Cache>);

impl Slabs {
    /// Counts, after the kernel has let go of what it keeps for later.
    pub fn count() -> Self {
        fs::write("/proc/sys/vm/drop_caches", "3").expect("dropping caches");
        for cache in fs::read_dir("/sys/kernel/slab")
            .expect("/sys/kernel/slab")
            .flatten()
        {
            // Some caches cannot be shrunk, and then their number stays.
            let _ = fs::write(cache.path().join("shrink"), "1");
        }
        let table = fs::read_to_string("/proc/slabinfo").expect("/proc/slabinfo");
        let rows = table.lines().skip(2).map(|row| {
            // Name, objects in use, all objects, size of an object.
            let fields: Vec<&str> = row.split_whitespace().collect();
            let number = |nth: usize| fields[nth].parse().expect("a number");
            let cache = Cache {
                objects: number(1),
                size: number(3),
            };
            (fields[0].to_owned(), cache)
        });
        Self(rows.collect())
    }

    pub fn of(&self, cache: &str) -> i64 {
        self.0.get(cache).map_or(0, |cache| cache.objects)
    }

    /// Returns the bytes of all objects in all caches.
    pub fn bytes(&self) -> i64 {
        self.0
            .values()
            .map(|cache| cache.objects * cache.size)
            .sum()
    }

    /// Returns the caches that have grown by more than `margin` objects since `before`.
    pub fn grown_since(&self, before: &Self, margin: i64) -> Vec<String> {
        let grown = self
            .0
            .iter()
            .filter(|(name, now)| now.objects > before.of(name) + margin);
        grown
            .map(|(name, now)| format!("{name}: {} -> {}", before.of(name), now.objects))
            .collect()
    }
}

/// What exited processes may pin between two updates.
const PINNED_MAX: i64 = 8 << 20;

/// Returns by how many bytes [`Slabs::bytes`] may grow with what exited processes pin. That the
/// kernel frees some of its own later is part of it, and that kernels with KASAN surround each
/// object with memory of its own.
pub fn most_pinned() -> i64 {
    let names = fs::read_to_string("/proc/kallsyms").expect("/proc/kallsyms");
    let padded = names.lines().any(|line| line.ends_with(" kasan_report"));
    if padded {
        2 * PINNED_MAX
    } else {
        PINNED_MAX + PINNED_MAX / 4
    }
}
