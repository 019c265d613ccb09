// SPDX-License-Identifier: GPL-2.0

//! What a registration keeps in memory, and the module itself, from the allocators' own statistics.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::Result;
use crate::measure::REPETITIONS;
use crate::processes::Sleepers;
use crate::report;
use crate::subject::EMPTY;
use crate::subject::Subject;
use crate::trace;

/// Long enough that no update falls into what is measured here.
pub const NO_UPDATE: Duration = Duration::from_secs(3600);

/// How many processes exit between two updates.
const EXITED: usize = 3000;

const PAGE: i64 = 4096;

/// A cache of the slab allocator.
struct Slab {
    objects: i64,
    object_size: i64,
    pages: i64,
}

/// What the kernel's allocators have given out.
struct Memory {
    slabs: BTreeMap<String, Slab>,
    /// The pages of the slab allocator, in bytes: of its caches, and of objects that are too large
    /// for them.
    slab_pages: i64,
    /// Of `vmalloc()`, except the code and data of modules, and the stacks of threads.
    vmalloc: i64,
}

impl Memory {
    fn now() -> Result<Self> {
        // Let what waits for a grace period be freed first.
        sleep(Duration::from_secs(2));
        let mut slabs = BTreeMap::new();
        // The first two lines are headings; then "NAME ACTIVE ALL SIZE PER-SLAB PAGES : tunables A
        // B C : slabdata ACTIVE-SLABS SLABS SHARED".
        for line in fs::read_to_string("/proc/slabinfo")?.lines().skip(2) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let slab = Slab {
                objects: fields[1].parse()?,
                object_size: fields[3].parse()?,
                pages: fields[14].parse::<i64>()? * fields[5].parse::<i64>()?,
            };
            slabs.insert(fields[0].to_owned(), slab);
        }
        let of_meminfo = |name: &str| -> Result<i64> {
            let info = fs::read_to_string("/proc/meminfo")?;
            let mut lines = info.lines();
            let line = lines
                .find_map(|line| line.strip_prefix(name))
                .ok_or("no such line")?;
            Ok(line.trim_end_matches("kB").trim().parse::<i64>()? * 1024)
        };
        Ok(Self {
            slabs,
            slab_pages: of_meminfo("SReclaimable:")? + of_meminfo("SUnreclaim:")?,
            vmalloc: vmalloc()?,
        })
    }

    /// By how many bytes of objects each cache has grown.
    fn caches_since(&self, before: &Self) -> impl Iterator<Item = (&str, i64)> {
        self.slabs.iter().map(|(name, slab)| {
            let old = before.slabs.get(name).map_or(0, |old| old.objects);
            (name.as_str(), (slab.objects - old) * slab.object_size)
        })
    }

    fn large_objects(&self) -> i64 {
        self.slab_pages
            - self
                .slabs
                .values()
                .map(|slab| slab.pages * PAGE)
                .sum::<i64>()
    }

    /// By how many bytes all has grown: objects in caches, objects too large for them, and
    /// `vmalloc()`.
    fn bytes_since(&self, before: &Self) -> i64 {
        let caches: i64 = self.caches_since(before).map(|(_, bytes)| bytes).sum();
        caches + self.large_objects() - before.large_objects() + self.vmalloc - before.vmalloc
    }
}

/// The bytes of the areas in `/proc/vmallocinfo` that have pages of their own: "START-END SIZE
/// CALLER pages=N vmalloc ...".
fn vmalloc() -> Result<i64> {
    const OTHERS: [&str; 4] = [
        "execmem",
        "module_alloc",
        "dup_task_struct",
        "alloc_thread_stack",
    ];
    let mut bytes = 0;
    for line in fs::read_to_string("/proc/vmallocinfo")?.lines() {
        if OTHERS.iter().any(|caller| line.contains(caller)) {
            continue;
        }
        let mut fields = line.split_whitespace();
        if let Some(pages) = fields.find_map(|field| field.strip_prefix("pages=")) {
            bytes += pages.parse::<i64>()? * PAGE;
        }
    }
    Ok(bytes)
}

/// Makes the allocator give back the free objects that it has kept. The next allocation then takes
/// new pages, however much was in use before.
pub fn shrink() -> Result {
    for cache in fs::read_dir("/sys/kernel/slab")? {
        let cache = cache?;
        if cache.file_name().to_string_lossy().starts_with("kmalloc") {
            fs::write(cache.path().join("shrink"), "1")?;
        }
    }
    Ok(())
}

/// The memory of one registration of a live process.
pub fn per_registration(subject: &Subject, pids: &[Vec<u8>]) -> Result {
    let _module = subject.load(NO_UPDATE)?;
    let before = Memory::now()?;
    drop(subject.register(pids)?);
    let after = Memory::now()?;

    let each = |bytes: i64| bytes as f64 / pids.len() as f64;
    for (cache, bytes) in after.caches_since(&before) {
        // What is not a byte for each registration is not of them.
        if bytes as usize > pids.len() {
            report(
                &format!("memory-{cache}"),
                subject.name,
                pids.len(),
                each(bytes),
            );
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

/// What the module has allocated when it is loaded, beyond what the kernel has for a module that
/// does nothing. Its code and data are not in it.
pub fn fixed(subject: &Subject) -> Result {
    let mut least = [i64::MAX; 2];
    for _ in 0..REPETITIONS {
        for (least, subject) in least.iter_mut().zip([subject, &EMPTY]) {
            let before = vmalloc()?;
            let mut module = None;
            let objects = trace::kept(|| {
                module = Some(subject.load(NO_UPDATE)?);
                // What waits for a grace period is freed meanwhile.
                sleep(Duration::from_secs(2));
                Ok(())
            })?;
            *least = (*least).min(objects + vmalloc()? - before);
            drop(module);
        }
    }
    report(
        "memory-fixed",
        subject.name,
        0,
        (least[0] - least[1]) as f64,
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
    let before = Memory::now()?;
    let sleepers = Sleepers::of(EXITED)?;
    if registered {
        drop(subject.register(sleepers.written())?);
    }
    sleepers.kill()?;
    Ok(Memory::now()?.bytes_since(&before))
}
