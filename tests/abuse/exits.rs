// SPDX-License-Identifier: GPL-2.0

//! Exits against all that can meet them: the unload, registrations, readers that fall behind, and
//! each other.

use std::collections::HashMap;
use std::ffi::c_void;
use std::fs::File;
use std::hint;
use std::os::fd::{AsRawFd, RawFd};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd;

use support::child::{self, Child};
use support::crowd::Crowd;
use support::exits::{self, KEPT, Record, Stream};
use support::leaks::Kmemleak;
use support::module::{Machine, Module, insmod, rmmod};
use support::shared;
use support::status;
use support::waiter::{FOR_INPUT, FOR_OUTPUT, FOR_PRIORITY, Way};

/// Unloads the module while registered processes exit, and files of exits are open, read, and
/// closed.
pub fn against_unload(rounds: u64, seed: u64) {
    println!("exits-unload: seed {seed}");
    let leaks = Kmemleak::watch();
    let mut rng = Rng::with_seed(seed);
    let _machine = Machine::take();
    let mut seen = 0;
    for round in 0..rounds {
        insmod(&[("interval_ms", ["10", "3600000"][rng.usize(..2)])]).expect("insmod");
        let mut streams: Vec<Stream> = (0..rng.usize(..4)).map(|_| Stream::open()).collect();
        let crowd = Crowd::of(rng.usize(1..60));
        status::register_all(crowd.pids());
        let closer = Child::start(|parent| {
            parent.wait();
            // Opens and closes until the module has gone.
            while let Ok(file) = File::open(exits::PATH) {
                drop(file);
            }
            parent.tell(0);
        });
        closer.go();
        crowd.begin_to_end();
        pause(Duration::from_micros(rng.u64(..3000)));
        for stream in &mut streams {
            seen += stream.records().len() as u64;
        }
        rmmod().unwrap_or_else(|e| panic!("rmmod in round {round}: {e}"));
        for stream in &mut streams {
            let errno = stream.try_records().expect_err("the module is gone");
            assert_eq!(errno.raw_os_error(), Some(libc::EIO));
        }
        closer.hear();
    }
    println!("  {rounds} loads; {seen} exits were read before the unload");
    if let Some(leaks) = leaks {
        leaks.expect_none();
    }
}

fn pause(time: Duration) {
    // It is the length of time itself that this is about.
    thread::sleep(time);
}

/// Unloads the module while processes wait on its files, or are about to.
pub fn pollers_against_unload(rounds: u64, seed: u64) {
    println!("pollers-unload: seed {seed}");
    let leaks = Kmemleak::watch();
    let mut rng = Rng::with_seed(seed);
    let _machine = Machine::take();
    let exits_ways: Vec<Way> = FOR_INPUT
        .into_iter()
        .chain(FOR_PRIORITY)
        .chain(FOR_OUTPUT)
        .collect();
    let mut waits = 0;
    for round in 0..rounds {
        insmod(&[("interval_ms", ["10", "3600000"][rng.usize(..2)])]).expect("insmod");
        let victim = Child::sleeper();
        status::register(victim.pid());
        let shared = exits::open();
        let waiters: Vec<_> = (0..rng.usize(1..24))
            .map(|_| {
                let on_status = rng.u32(..4) == 0;
                let own = rng.bool();
                let way = if on_status {
                    FOR_PRIORITY[rng.usize(..FOR_PRIORITY.len())]
                } else {
                    exits_ways[rng.usize(..exits_ways.len())]
                };
                let child = Child::start(|parent| {
                    let file = match (on_status, own) {
                        (true, _) => status::reader(),
                        (false, true) => exits::open(),
                        (false, false) => shared.try_clone().expect("dup"),
                    };
                    if on_status {
                        // Without a snapshot it would not wait.
                        unistd::read(&file, &mut [0; 64]).expect("read");
                    }
                    parent.tell(0);
                    parent.tell(way.wait(&file).unwrap_or_else(|e| -(e as i32)).into());
                });
                (way, child)
            })
            .collect();
        // All have opened the file; whether they wait by now is up to chance. But procfs says of a
        // file that has gone that it can be read and written, and nothing else: a wait for priority
        // data must have begun.
        for (way, waiter) in &waiters {
            waiter.hear();
            if FOR_PRIORITY.contains(way) {
                waiter.await_sleep_or_end();
            }
        }
        match rng.u32(..4) {
            0 => {}
            1 => victim.kill(),
            2 => waiters
                .iter()
                .for_each(|(_, waiter)| waiter.await_sleep_or_end()),
            _ => pause(Duration::from_micros(rng.u64(..2000))),
        }
        if rng.u32(..4) == 0 {
            let (_, waiter) = &waiters[rng.usize(..waiters.len())];
            waiter.signal(Signal::SIGKILL);
            waiter.await_zombie();
        }
        rmmod().unwrap_or_else(|e| panic!("rmmod in round {round}: {e}"));
        for (way, waiter) in waiters {
            waits += 1;
            if !waiter.ends_within(Duration::from_secs(120)) {
                panic!("round {round}: a waiter sleeps on after the unload: {way:?}");
            }
        }
    }
    println!("  {rounds} loads; {waits} waits, all of which ended");
    if let Some(leaks) = leaks {
        leaks.expect_none();
    }
}

/// Registers processes at the very moment of their exit. A registration that worked gives one line,
/// and one that did not gives none.
pub fn against_registering(rounds: u64, seed: u64) {
    println!("exits-register: seed {seed}");
    const REGISTRARS: usize = 2;

    let mut rng = Rng::with_seed(seed);
    let _module = Module::with_interval(10);
    let mut stream = Stream::open();
    let race = shared::atomics::<1>();
    let (mut registered, mut refused) = (0u64, 0u64);
    for round in 0..rounds {
        let spins = rng.u32(..4000);
        let child = Child::start(|_| {
            await_start(&race[0]);
            spin(spins);
        });
        let pid = child.pid();
        let registrars: Vec<_> = (0..REGISTRARS)
            .map(|_| {
                let spins = rng.u32(..8000);
                Child::start(move |parent| {
                    let file = status::writer();
                    let text = pid.to_string();
                    parent.tell(0);
                    await_start(&race[0]);
                    spin(spins);
                    let result = unistd::write(&file, text.as_bytes());
                    let result = result.map_or_else(|errno| -(errno as i64), |len| len as i64);
                    parent.tell(result);
                })
            })
            .collect();
        registrars.iter().for_each(|registrar| _ = registrar.hear());
        race[0].store(1, Ordering::Release);
        // Its number is not another's before it is reaped.
        let results: Vec<i64> = registrars.iter().map(Child::hear).collect();
        child.reap();
        race[0].store(0, Ordering::Release);
        for result in &results {
            assert!(
                *result > 0 || *result == -(Errno::ESRCH as i64),
                "registering gave {result}"
            );
        }
        let lines = stream.lines();
        let expected = usize::from(results.iter().any(|result| *result > 0));
        assert!(
            lines.len() == expected && lines.iter().all(|line| line.pid == pid),
            "round {round}: {lines:?} for {pid}, whose registrations gave {results:?}"
        );
        if expected == 1 {
            registered += 1;
        } else {
            refused += 1;
        }
    }
    println!("  {rounds} exits: {registered} registered before, {refused} refused");
    assert!(
        registered > 0 && refused > 0,
        "it was always the same that came first"
    );
}

fn await_start(started: &AtomicU32) {
    while started.load(Ordering::Acquire) == 0 {
        thread::yield_now();
    }
}

fn spin(count: u32) {
    for _ in 0..count {
        hint::spin_loop();
    }
}

/// Readers that fall behind as far as they may, a bit further, and far beyond.
pub fn lost(total: u64, seed: u64) {
    println!("exits-lost: seed {seed}");
    const READERS: usize = 6;

    let mut rng = Rng::with_seed(seed);
    let _module = Module::with_interval(100);
    let mut keen = Stream::open();
    let mut readers: Vec<Reader> = (0..READERS).map(|_| Reader::new(0)).collect();
    let mut pids: Vec<i32> = Vec::new();
    let (mut gaps, mut reads) = (0u64, 0u64);
    while (pids.len() as u64) < total {
        let behind = pids.len() - readers[0].at;
        // Often just at the edge of what is kept.
        let edge = KEPT.saturating_sub(behind);
        let count = match rng.u32(..4) {
            0 if edge > 0 => edge.min(1000),
            1 => (edge + 1).min(1000),
            _ => rng.usize(1..1000),
        };
        let crowd = Crowd::of(count);
        status::register_all(crowd.pids());
        drop(crowd);
        let new = keen.pids();
        assert_eq!(new.len(), count, "one line for each");
        pids.extend(new);

        for reader in &mut readers {
            let behind = pids.len() - reader.at;
            let reads_now = match behind {
                KEPT.. => rng.u32(..4) == 0,
                _ => rng.u32(..40) == 0,
            };
            if reads_now {
                gaps += u64::from(reader.read(&pids));
                reads += 1;
            }
        }
        if rng.u32(..20) == 0 {
            let nth = rng.usize(..READERS);
            readers[nth] = Reader::new(pids.len());
        }
    }
    for reader in &mut readers {
        gaps += u64::from(reader.read(&pids));
    }
    println!("  {} exits, {reads} reads, {gaps} gaps", pids.len());
    assert!(gaps > 0, "nobody fell behind");
}

/// A reader, and how far it is.
struct Reader {
    stream: Stream,
    /// So many of all exits were before what it reads next.
    at: usize,
}

impl Reader {
    fn new(at: usize) -> Self {
        Self {
            stream: Stream::open(),
            at,
        }
    }

    /// Reads all, compares it with all exits there were, and returns whether there was a gap.
    fn read(&mut self, pids: &[i32]) -> bool {
        let records = self.stream.records();
        let behind = pids.len() - self.at;
        let mut gap = 0;
        for (nth, record) in records.iter().enumerate() {
            match record {
                Record::Lost(lost) => {
                    assert_eq!(nth, 0, "a gap in the middle");
                    gap = *lost as usize;
                    assert!(
                        behind > KEPT && gap >= behind - KEPT && gap <= behind,
                        "{gap} lost of {behind}"
                    );
                    self.at += gap;
                }
                Record::Exit(line) => {
                    assert_eq!(line.pid, pids[self.at], "no. {} of all", self.at);
                    self.at += 1;
                }
            }
        }
        assert_eq!(
            self.at,
            pids.len(),
            "it has not seen all: {behind} behind, {gap} lost"
        );
        assert!(
            gap > 0 || behind <= KEPT,
            "{behind} were kept, which is more than {KEPT}"
        );
        gap > 0
    }
}

/// Processes of about a millisecond that register themselves, read along: none is lost, none comes
/// twice.
pub fn count(count: u64) {
    let module = Module::with_interval(1000);
    let mut stream = Stream::open();
    let started = Instant::now();
    let forker = Child::start(|parent| {
        let file = status::writer();
        for _ in 0..count {
            let (pid, us) = run_short(file.as_raw_fd());
            parent.tell((i64::from(pid) << 32) | us as i64);
        }
        parent.wait_forever()
    });
    let mut lines: HashMap<i32, u64> = HashMap::new();
    let mut differ = 0;
    for nth in 0..count {
        let told = forker.hear();
        let (pid, us) = ((told >> 32) as i32, (told & 0xffff_ffff) as u64);
        for line in stream.lines() {
            let before = lines.insert(line.pid, line.ms);
            assert_eq!(before, None, "{line:?} comes twice");
        }
        // It is forgotten, so that its number can come back.
        let ms = lines.remove(&pid);
        assert!(
            ms.is_some_and(|ms| ms >= us / 1000),
            "no. {nth}, {pid}: the line says {ms:?} ms, wait4 {us} us"
        );
        // Where the two microseconds that wait4 cuts matter, or the end came after it.
        differ += u64::from(ms != Some(us / 1000));
    }
    stream.expect_nothing();
    assert!(lines.is_empty(), "{lines:?}");
    println!(
        "  {count} processes, {:.0} a second; none lost, none twice; the ms of {differ} are more than wait4's",
        count as f64 / started.elapsed().as_secs_f64()
    );
    drop(module);
}

/// Runs a process that shares our memory until it has registered itself, used a millisecond, and
/// exited. Returns its number and what `wait4` says of it, in microseconds.
fn run_short(fd: RawFd) -> (i32, u64) {
    let mut stack = [0u128; 1024];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: We do not run before the process has exited, and so its stack and argument live long
    // enough.
    let pid = unsafe {
        libc::clone(
            short,
            stack.as_mut_ptr_range().end.cast(),
            flags,
            fd as usize as *mut c_void,
        )
    };
    let pid = Errno::result(pid).expect("clone");
    // SAFETY: All members are integers, for which 0 is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let mut status = 0;
    // SAFETY: Both are valid places for the results.
    let reaped = unsafe { libc::wait4(pid, &mut status, 0, &mut usage) };
    assert_eq!((reaped, status), (pid, 0), "registering itself");
    let us = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    (pid, us(usage.ru_utime) + us(usage.ru_stime))
}

extern "C" fn short(fd: *mut c_void) -> libc::c_int {
    let text = process::id().to_string();
    // SAFETY: The text lives through the call.
    let len = unsafe { libc::write(fd as usize as RawFd, text.as_ptr().cast(), text.len()) };
    child::burn_ms(1);
    if len == text.len() as isize { 0 } else { 1 }
}
