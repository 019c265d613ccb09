// SPDX-License-Identifier: GPL-2.0

//! The cost of the exit of a process, and of reading its line.

use std::fs::File;
use std::io::ErrorKind;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::wait::waitpid;

use crate::BUFFERS;
use crate::Result;
use crate::measure::REPETITIONS;
use crate::measure::batch;
use crate::measure::least;
use crate::memory::NO_UPDATE;
use crate::processes::Sleepers;
use crate::report;
use crate::report_absent;
use crate::settle;
use crate::subject::Subject;

const EXITS: &str = "/proc/mp1/exits";

/// How many processes exit, one after the other; of which the median is taken.
const PROCESSES: usize = 200;

/// How many open files wait for exits.
const LISTENERS: [usize; 3] = [0, 1, 100];

/// How many lines are read.
const LINES: usize = 1000;

/// Between two exits, so that each is one by itself for whatever it has others do.
const PAUSE: Duration = Duration::from_millis(20);

pub fn measure(mp1: &Subject) -> Result {
    settle();
    first_in_line()?;
    let report = |figure, listeners, value| report(figure, mp1.name, listeners, value);

    report("exit-without", 0, exit(|_| Ok(()))?);
    report("exit-unregistered", 0, exit(|_| mp1.load(NO_UPDATE))?);
    for listeners in LISTENERS {
        let loaded = mp1.load(NO_UPDATE)?;
        let there = Path::new(EXITS).exists();
        drop(loaded);
        if listeners > 0 && !there {
            report_absent("exit-registered", mp1.name, listeners);
            continue;
        }
        let cost = exit(|sleepers| {
            let module = mp1.load(NO_UPDATE)?;
            let open: Vec<_> = (0..listeners)
                .map(|_| File::open(EXITS))
                .collect::<std::io::Result<_>>()?;
            drop(mp1.register(sleepers.written())?);
            // In this order: the files are closed before the module is unloaded.
            Ok((open, module))
        })?;
        report("exit-registered", listeners, cost);
    }
    reading(mp1)
}

/// Lets this process, and those that it starts, run before all workers of the kernel: what an exit
/// has others do later is not part of it.
fn first_in_line() -> Result {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: The structure lives as long as the call.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &priority) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// The instructions from the signal that ends a process to the return of `waitpid()`, in the state
/// that `prepare` brings about.
fn exit<T>(prepare: impl Fn(&Sleepers) -> Result<T>) -> Result<f64> {
    let cost = least(|| {
        let sleepers = Sleepers::of(PROCESSES)?;
        let _state = prepare(&sleepers)?;
        let mut pids = sleepers.pids().iter();
        let mut costs = Vec::new();
        for &pid in &mut pids {
            sleep(PAUSE);
            costs.push(batch(1, |_| {
                kill(pid, Signal::SIGKILL)?;
                waitpid(pid, None)?;
                Ok(())
            })?);
        }
        costs.sort_by(|one, other| one.median.total_cmp(&other.median));
        Ok(costs.swap_remove(PROCESSES / 2))
    })?;
    Ok(cost.median)
}

/// A line of each file, without opening it.
fn reading(mp1: &Subject) -> Result {
    let mut least = [f64::MAX; 2];
    for _ in 0..REPETITIONS {
        let sleepers = Sleepers::of(LINES)?;
        let _module = mp1.load(NO_UPDATE)?;
        let exits = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(EXITS);
        drop(mp1.register(sleepers.written())?);
        for _ in 0..REPETITIONS {
            least[0] = least[0].min(read_lines(File::open(mp1.status)?)?);
        }
        sleepers.kill()?;
        sleep(Duration::from_secs(1));
        match exits {
            Ok(exits) => least[1] = least[1].min(read_lines(exits)?),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    report("read-line-status", mp1.name, LINES, least[0]);
    match least[1] {
        f64::MAX => report_absent("read-line-exits", mp1.name, LINES),
        cost => report("read-line-exits", mp1.name, LINES, cost),
    }
    Ok(())
}

/// Reads all that is there, and returns the instructions a line.
fn read_lines(mut file: File) -> Result<f64> {
    let mut buffer = vec![0; BUFFERS[0].1];
    let mut lines = 0;
    let mut whole = 0.0;
    loop {
        let mut read = Ok(0);
        whole += batch(1, |_| {
            read = file.read(&mut buffer);
            Ok(())
        })?
        .median;
        match read {
            Ok(0) => break,
            Ok(len) => lines += buffer[..len].iter().filter(|&&byte| byte == b'\n').count(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    match lines {
        LINES => Ok(whole / LINES as f64),
        _ => Err(format!("{lines} lines were read, not {LINES}").into()),
    }
}
