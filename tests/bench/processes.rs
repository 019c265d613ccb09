// SPDX-License-Identifier: GPL-2.0

//! Processes to register: many, live, and cheap.

use std::arch::asm;
use std::fs;
use std::io::Error;
use std::ops::Range;

use nix::sys::resource::Resource;
use nix::sys::resource::setrlimit;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::Result;

/// How much one write takes.
const WRITE_MAX: usize = 4096;

/// More processes, and open files, than a small machine allows itself.
pub fn lift_limits() -> Result {
    fs::write("/proc/sys/kernel/threads-max", "300000")?;
    fs::write("/proc/sys/kernel/pid_max", "1000000")?;
    setrlimit(Resource::RLIMIT_NOFILE, 100_000, 100_000)?;
    Ok(())
}

/// Live processes that sleep until they are killed.
#[derive(Default)]
pub struct Sleepers {
    pids: Vec<Pid>,
    /// What is written to register each.
    written: Vec<Vec<u8>>,
}

impl Sleepers {
    pub fn of(count: usize) -> Result<Self> {
        let mut sleepers = Self::default();
        sleepers.grow(count)?;
        Ok(sleepers)
    }

    pub fn pids(&self) -> &[Pid] {
        &self.pids
    }

    pub fn written(&self) -> &[Vec<u8>] {
        &self.written
    }

    /// Starts processes until there are `count`.
    pub fn grow(&mut self, count: usize) -> Result {
        while self.pids.len() < count {
            let pid = start_sleeper()?;
            self.pids.push(pid);
            self.written.push(format!("{pid}\n").into_bytes());
        }
        Ok(())
    }

    /// Ends and reaps `count` of those in `range`, taken evenly from among them.
    pub fn thin_out(&mut self, range: Range<usize>, count: usize) -> Result {
        let step = range.len() / count;
        let is_doomed = |i: usize| range.contains(&i) && (i - range.start) % step == 0;
        let (mut doomed, mut rest) = (Self::default(), Self::default());
        for (i, (pid, written)) in self.pids.drain(..).zip(self.written.drain(..)).enumerate() {
            let to = match is_doomed(i) && doomed.pids.len() < count {
                true => &mut doomed,
                false => &mut rest,
            };
            to.pids.push(pid);
            to.written.push(written);
        }
        *self = rest;
        doomed.kill()
    }

    /// Ends and reaps them all.
    pub fn kill(self) -> Result {
        for &pid in &self.pids {
            kill(pid, Signal::SIGKILL)?;
        }
        for pid in self.pids {
            waitpid(pid, None)?;
        }
        Ok(())
    }
}

/// What registers them with as few writes as can be, and how many each write registers.
pub fn in_few_writes(written: &[Vec<u8>]) -> Vec<(Vec<u8>, usize)> {
    let mut writes = vec![(Vec::new(), 0)];
    for pid in written {
        if writes
            .last()
            .is_some_and(|(text, _)| text.len() + pid.len() > WRITE_MAX)
        {
            writes.push((Vec::new(), 0));
        }
        if let Some((text, count)) = writes.last_mut() {
            text.extend_from_slice(pid);
            *count += 1;
        }
    }
    writes
}

/// Starts a process that shares all that can be shared with this one, and calls `pause` for ever.
fn start_sleeper() -> Result<Pid> {
    let flags =
        libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_FS | libc::CLONE_SIGHAND | libc::SIGCHLD;
    let result: i64;
    // SAFETY: the child runs on this stack but never touches it: all it does is a system call
    // that never returns to it, since the only signal sent to it is SIGKILL.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 3f",
            "2:",
            "mov x0, #0",
            "mov x1, #0",
            "mov x2, #0",
            "mov x3, #0",
            "mov x8, {ppoll}",
            "svc #0",
            "b 2b",
            "3:",
            ppoll = const libc::SYS_ppoll,
            inlateout("x0") i64::from(flags) => result,
            inlateout("x8") libc::SYS_clone => _,
            inlateout("x1") 0_i64 => _,
            inlateout("x2") 0_i64 => _,
            inlateout("x3") 0_i64 => _,
            in("x4") 0_i64,
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 3f",
            "2:",
            "mov eax, {pause}",
            "syscall",
            "jmp 2b",
            "3:",
            pause = const libc::SYS_pause,
            inlateout("rax") libc::SYS_clone => result,
            in("rdi") i64::from(flags),
            in("rsi") 0,
            in("rdx") 0,
            in("r10") 0,
            in("r8") 0,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    match i32::try_from(result)? {
        error @ ..=-1 => Err(Error::from_raw_os_error(-error).into()),
        pid => Ok(Pid::from_raw(pid)),
    }
}
