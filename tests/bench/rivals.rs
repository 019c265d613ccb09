// SPDX-License-Identifier: GPL-2.0

//! The alternatives that need neither a module nor a privilege: a file in `/proc`, or the kernel's
//! own CPU clock, for each process.

use std::fs::File;
use std::io::Error;
use std::io::Read;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

use nix::time::ClockId;
use nix::time::clock_gettime;
use nix::unistd::Pid;

use crate::Result;
use crate::measure::batch;
use crate::measure::least;
use crate::measure::once;
use crate::report;

/// Reads `/proc/PID/stat` of each.
pub fn stat(pids: &[Pid]) -> Result {
    let paths: Vec<_> = pids.iter().map(|pid| format!("/proc/{pid}/stat")).collect();
    let mut buffer = vec![0; 4096];
    let each = least(|| {
        batch(paths.len(), |i| {
            match File::open(&paths[i])?.read(&mut buffer)? {
                0 => Err("nothing to read".into()),
                _ => Ok(()),
            }
        })
    })?;
    report("read", "stat", pids.len(), each.median);
    Ok(())
}

/// Asks the clock of each for the process's CPU time.
pub fn clock(pids: &[Pid]) -> Result {
    let clocks: Vec<_> = pids.iter().map(|&pid| cpu_clock(pid)).collect();
    let all = once(|| {
        for &clock in &clocks {
            clock_gettime(clock)?;
        }
        Ok(())
    })?;
    report("read", "clock", pids.len(), all / pids.len() as f64);
    Ok(())
}

/// What `clock_getcpuclockid()` computes, after it has asked whether there is such a process.
fn cpu_clock(pid: Pid) -> ClockId {
    const CPUCLOCK_SCHED: i32 = 2;
    ClockId::from_raw((!pid.as_raw() << 3) | CPUCLOCK_SCHED)
}

/// Opens a pidfd of each, which keeps the same identity as a registration, and closes it again.
pub fn pidfd(pids: &[Pid]) -> Result {
    let mut close = f64::MAX;
    let open = least(|| {
        let mut open = Vec::with_capacity(pids.len());
        let cost = batch(pids.len(), |i| {
            open.push(pidfd_open(pids[i])?);
            Ok(())
        })?;
        let closed = batch(pids.len(), |_| {
            drop(open.pop());
            Ok(())
        })?;
        close = close.min(closed.median);
        Ok(cost)
    })?;
    report("register", "pidfd", pids.len(), open.median);
    report("register-mean", "pidfd", pids.len(), open.mean);
    report("close", "pidfd", pids.len(), close);
    Ok(())
}

fn pidfd_open(pid: Pid) -> Result<OwnedFd> {
    // SAFETY: the call takes integers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    match i32::try_from(fd)? {
        ..=-1 => Err(Error::last_os_error().into()),
        // SAFETY: the descriptor is new, and no other code has it.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}
