// SPDX-License-Identifier: GPL-2.0

//! The throughput of two processors relative to one: registrations, and reads.
//!
//! Measures time, on a machine with two processors. So the figures need a quiet machine, and on
//! emulated processors they show contention, not caches.

use std::fs::File;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::BUFFERS;
use crate::Result;
use crate::memory::NO_UPDATE;
use crate::processes::Sleepers;
use crate::read_to_end;
use crate::report;
use crate::subject::SUBJECTS;
use crate::subject::Subject;
use crate::write_one;

const ROUNDS: usize = 15;

/// How many processes are registered in a round.
const PROCESSES: usize = 3000;

/// How often each reader reads.
const READS: usize = 20;

pub fn compare() -> Result {
    let sleepers = Sleepers::of(PROCESSES)?;
    let pids = sleepers.written();
    for subject in &SUBJECTS[..2] {
        let mut gains = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            gains[0].push(writers(subject, pids, 1)? / writers(subject, pids, 2)?);
            let [one, two] = [1, 2].map(|threads| readers(subject, pids, threads));
            // Each of two reads as often as the one.
            gains[1].push(2.0 * one? / two?);
            gains[2].push(idle_loops(1)? * 2.0 / idle_loops(2)?);
        }
        for (figure, mut gains) in ["parallel-write", "parallel-read", "parallel-nothing"]
            .iter()
            .zip(gains)
        {
            gains.sort_by(f64::total_cmp);
            report(figure, subject.name, PROCESSES, gains[ROUNDS / 2]);
        }
    }
    sleepers.kill()
}

/// The seconds in which so many threads register all, each its part.
fn writers(subject: &Subject, pids: &[Vec<u8>], threads: usize) -> Result<f64> {
    let _module = subject.load(NO_UPDATE)?;
    let parts: Vec<_> = pids.chunks(pids.len() / threads).collect();
    at_once(threads, |thread| {
        let mut file = File::options().write(true).open(subject.status)?;
        for pid in parts[thread] {
            write_one(&mut file, pid)?;
        }
        Ok(())
    })
}

/// The seconds in which each of so many threads reads all lines again and again.
fn readers(subject: &Subject, pids: &[Vec<u8>], threads: usize) -> Result<f64> {
    let _module = subject.load(NO_UPDATE)?;
    drop(subject.register(pids)?);
    at_once(threads, |_| {
        let mut buffer = vec![0; BUFFERS[0].1];
        (0..READS).try_for_each(|_| read_to_end(subject.status, &mut buffer))
    })
}

/// What the machine itself makes of two processors.
fn idle_loops(threads: usize) -> Result<f64> {
    at_once(threads, |_| {
        (0..20_000_000).for_each(|i| {
            black_box(i);
        });
        Ok(())
    })
}

/// The seconds from the common start to the end of the last.
fn at_once(threads: usize, task: impl Fn(usize) -> Result + Sync) -> Result<f64> {
    let start = Barrier::new(threads);
    let run = |thread| {
        start.wait();
        let began = Instant::now();
        task(thread).map_err(|error| error.to_string())?;
        Ok::<_, String>((began, Instant::now()))
    };
    thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || run(thread)))
            .collect();
        let mut times = Vec::new();
        for thread in threads {
            times.push(thread.join().map_err(|_| "a thread has panicked")??);
        }
        let start = times.iter().map(|times| times.0).min();
        let end = times.iter().map(|times| times.1).max();
        let (start, end) = start.zip(end).ok_or("no thread")?;
        Ok(end
            .duration_since(start)
            .max(Duration::from_nanos(1))
            .as_secs_f64())
    })
}
