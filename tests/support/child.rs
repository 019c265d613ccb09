// SPDX-License-Identifier: GPL-2.0

//! Child processes that run a closure of the test and talk with it over a pair of pipes.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, pipe2};

use crate::wait;

/// `libc` has it in an integer that is too small.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

const NUMBER: u8 = b'n';
const PANIC: u8 = b'p';

/// A child process; killed and reaped at the latest when it goes out of scope.
pub struct Child {
    pid: i32,
    reaped: Cell<bool>,
    to: File,
    from: File,
}

/// The child's side of the pipes.
pub struct Parent {
    to: File,
    from: File,
}

impl Child {
    /// Starts a child that runs `body` and then exits.
    pub fn start(body: impl FnOnce(&mut Parent)) -> Self {
        Self::spawn(0, None, None, body).expect("clone3")
    }

    /// Starts a child in a PID namespace of its own, whose process 1 it is.
    pub fn start_in_new_pid_namespace(body: impl FnOnce(&mut Parent)) -> Self {
        Self::spawn(libc::CLONE_NEWPID as u64, None, None, body).expect("clone3")
    }

    /// Starts a child in namespaces of these kinds (`CLONE_NEW...`).
    pub fn start_in_new(namespaces: i32, body: impl FnOnce(&mut Parent)) -> Self {
        Self::spawn(namespaces as u64, None, None, body).expect("clone3")
    }

    /// Starts a child in the cgroup of this directory, to which all of its time is charged.
    pub fn start_in_cgroup(cgroup: impl AsFd, body: impl FnOnce(&mut Parent)) -> Self {
        Self::spawn(0, None, Some(cgroup.as_fd()), body).expect("clone3 into a cgroup")
    }

    /// Starts a child that has this number.
    pub fn start_numbered(pid: i32, body: impl FnOnce(&mut Parent)) -> Self {
        Self::spawn(0, Some(pid), None, body).expect("clone3 with a number")
    }

    /// Starts a child that does nothing until it is killed.
    pub fn sleeper() -> Self {
        Self::start(|parent| parent.wait_forever())
    }

    /// Starts a child that has used that much CPU time when this returns, and then does nothing.
    pub fn burnt(ms: u64) -> Self {
        let child = Self::start(|parent| {
            burn_ms(ms);
            parent.tell(0);
            parent.wait_forever()
        });
        child.hear();
        child
    }

    /// Starts a child that uses the CPU until it is killed or stopped.
    pub fn burner() -> Self {
        Self::start(|_| burn_ms(u64::MAX))
    }

    /// Takes charge of a process that another has started, and of which we become the parent if
    /// that exits first.
    pub fn adopt(pid: i32) -> Self {
        let (from, to) = pipe();
        Self {
            pid,
            reaped: Cell::new(false),
            to,
            from,
        }
    }

    fn spawn(
        flags: u64,
        number: Option<i32>,
        cgroup: Option<BorrowedFd>,
        body: impl FnOnce(&mut Parent),
    ) -> Result<Self, Errno> {
        let (child_reads, to) = pipe();
        let (from, child_writes) = pipe();
        let pid = clone3(flags, number, cgroup)?;
        if pid == 0 {
            drop((to, from));
            let mut parent = Parent {
                to: child_writes,
                from: child_reads,
            };
            parent.run(body);
        }
        Ok(Self {
            pid,
            reaped: Cell::new(false),
            to,
            from,
        })
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Lets the child go on from its `wait`.
    pub fn go(&self) {
        (&self.to).write_all(b"g").expect("the child listens");
    }

    /// Waits for the child to `tell` something; fails with the child's message if it has panicked.
    pub fn hear(&self) -> i64 {
        self.try_hear().expect("the child ended without a word")
    }

    /// What becomes readable when there is something to `hear`.
    pub fn ear(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }

    /// Waits until the child's closure has returned; fails with its message if it has panicked.
    pub fn finish(self) {
        while self.try_hear().is_some() {}
    }

    fn try_hear(&self) -> Option<i64> {
        wait::word_of_child(&self.from);
        let mut kind = [0];
        match (&self.from).read_exact(&mut kind) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return None,
            Err(e) => panic!("listening to a child: {e}"),
        }
        if kind == [PANIC] {
            let mut message = String::new();
            (&self.from)
                .read_to_string(&mut message)
                .expect("the child's message");
            panic!("in a child: {message}");
        }
        let mut number = [0; 8];
        (&self.from)
            .read_exact(&mut number)
            .expect("the child's number");
        Some(i64::from_ne_bytes(number))
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal).expect("kill");
    }

    /// Stops all threads of the child, so that its CPU time stands still.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        waitid(Id::Pid(Pid::from_raw(self.pid)), WaitPidFlag::WSTOPPED).expect("waitid");
    }

    /// Waits until the child has exited, and leaves it a zombie.
    pub fn await_zombie(&self) {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(Pid::from_raw(self.pid)), flags).expect("waitid");
    }

    /// Waits until the child has exited and can be reaped, and reaps it. Returns what `wait4`
    /// reports as its CPU time, and that of the children that it has waited for, in microseconds:
    /// both user and system time are rounded down.
    pub fn reap(&self) -> u64 {
        // SAFETY: All members are integers, for which 0 is valid.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is a valid place for the result.
        let pid = unsafe { libc::wait4(self.pid, std::ptr::null_mut(), libc::__WALL, &mut usage) };
        assert_eq!(Errno::result(pid), Ok(self.pid), "wait4");
        self.reaped.set(true);
        let us = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
        us(usage.ru_utime) + us(usage.ru_stime)
    }

    /// Forgets that the child has to be reaped, since something else reaps it.
    pub fn is_reaped_by_another(&self) {
        self.reaped.set(true);
    }

    /// Returns whether `wait4` would return at once.
    pub fn can_be_reaped(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        waitid(Id::Pid(Pid::from_raw(self.pid)), flags).expect("waitid") != WaitStatus::StillAlive
    }

    /// Waits until the child's first thread sleeps, in a system call that a signal can interrupt.
    pub fn await_sleep(&self) {
        wait::until("the child to sleep", || state_of(self.pid) == 'S');
    }

    /// Waits until the child sleeps or has exited.
    pub fn await_sleep_or_end(&self) {
        wait::until("the child to sleep or end", || {
            matches!(state_of(self.pid), 'S' | 'Z')
        });
    }

    /// Returns whether the child exits within that time.
    pub fn ends_within(&self, time: Duration) -> bool {
        let start = Instant::now();
        while !self.can_be_reaped() {
            if start.elapsed() > time {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Kills the child, and leaves it a zombie.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
        self.await_zombie();
    }

    /// Kills and reaps the child; its number is free then.
    pub fn end(self) -> i32 {
        self.pid
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.reaped.get() {
            return;
        }
        let pid = Pid::from_raw(self.pid);
        // A zombie can be signalled, and an own child's number is not reused before it is reaped.
        kill(pid, Signal::SIGKILL).expect("kill");
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED).expect("waitid");
    }
}

impl Parent {
    /// Runs the child's closure, tells of its panic, and ends the child.
    fn run(&mut self, body: impl FnOnce(&mut Parent)) -> ! {
        // SAFETY: The call takes integers only. The child shall not outlive a test program that is
        // killed.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let report = self.to.try_clone().expect("dup");
        panic::set_hook(Box::new(move |info| {
            // If the parent has gone, there is no one to tell.
            let _ = (&report).write_all(&[&[PANIC], info.to_string().as_bytes()].concat());
        }));
        let done = panic::catch_unwind(AssertUnwindSafe(|| body(self)));
        // SAFETY: The call takes an integer and does not return. It runs no exit handlers, which
        // are the test program's.
        unsafe { libc::_exit(if done.is_ok() { 0 } else { 101 }) }
    }

    /// Says something that the test can `hear`.
    pub fn tell(&mut self, number: i64) {
        let mut message = [NUMBER; 9];
        message[1..].copy_from_slice(&number.to_ne_bytes());
        self.to.write_all(&message).expect("the test listens");
    }

    /// Waits for the test's `go`.
    pub fn wait(&mut self) {
        self.from.read_exact(&mut [0]).expect("the test says go");
    }

    pub fn wait_forever(&mut self) -> ! {
        loop {
            // SAFETY: The call has no argument.
            unsafe { libc::pause() };
        }
    }
}

fn pipe() -> (File, File) {
    let (reads, writes): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC).expect("pipe2");
    (reads.into(), writes.into())
}

/// Forks, by the one system call that can also choose the number and the namespace.
///
/// glibc's own `fork` would, besides, make `malloc` usable in the child if another thread held its
/// lock: the tests run on one thread, and start no other in a process that forks.
fn clone3(flags: u64, number: Option<i32>, cgroup: Option<BorrowedFd>) -> Result<i32, Errno> {
    // SAFETY: All members are integers, for which 0 is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(number) = &number {
        args.set_tid = std::ptr::from_ref(number) as u64;
        args.set_tid_size = 1;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: Without `CLONE_VM` the child has a copy of all memory, its stack included.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, size_of_val(&args)) };
    Errno::result(pid as i32)
}

/// Runs `body` in a child, and fails if it does.
pub fn in_child(body: impl FnOnce()) {
    Child::start(|_| body()).finish();
}

/// Runs `body` in a child that belongs to no privileged user.
pub fn as_nobody(body: impl FnOnce()) {
    in_child(|| {
        nix::unistd::setgid(65534.into()).expect("setgid");
        nix::unistd::setuid(65534.into()).expect("setuid");
        body();
    });
}

/// Returns a number that no process has.
pub fn unused_number() -> i32 {
    Child::start(|_| ()).end()
}

/// Returns the state letter of the first thread of a process.
pub fn state_of(pid: i32) -> char {
    state_in(&format!("/proc/{pid}/stat"))
}

/// Returns the state letter of a thread of a process.
pub fn state_of_thread(pid: i32, thread: i32) -> char {
    state_in(&format!("/proc/{pid}/task/{thread}/stat"))
}

fn state_in(path: &str) -> char {
    let stat = fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    stat.rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next())
        .expect("a state")
}

/// Ends the calling thread and no other, not even if it is the first.
pub fn end_this_thread() -> ! {
    // SAFETY: The call takes an integer; nothing of this thread is used by others.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!()
}

/// Ends the calling process, whatever thread calls.
pub fn end_this_process() -> ! {
    // SAFETY: The call takes an integer and does not return. It runs no exit handlers, which are
    // the test program's.
    unsafe { libc::_exit(0) }
}

pub fn gettid() -> i32 {
    nix::unistd::gettid().as_raw()
}

pub fn getpid() -> i32 {
    process::id() as i32
}

/// Uses that much CPU time in the calling thread, most of it in user mode.
pub fn burn_ms(ms: u64) {
    burn(ms, || {
        for i in 0..1000 {
            std::hint::black_box(i);
        }
    });
}

/// Uses that much CPU time in the calling thread, most of it in the kernel.
pub fn burn_system_ms(ms: u64) {
    let mut zeroes = File::open("/dev/zero").expect("/dev/zero");
    let mut buffer = vec![0; 1 << 18];
    burn(ms, || {
        zeroes.read_exact(&mut buffer).expect("reading zeroes")
    });
}

fn burn(ms: u64, mut some: impl FnMut()) {
    let now = || {
        Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the thread's clock"))
    };
    let end = now().saturating_add(Duration::from_millis(ms));
    while now() < end {
        some();
    }
}
