// SPDX-License-Identifier: GPL-2.0

//! Every allocation, and every copy from and to user memory, fails once.
//!
//! `/proc/thread-self/fail-nth` makes the N-th point fail that the calling thread reaches. A call
//! is repeated with N = 1, 2, 3 and so on, until it ends before it has reached the N-th.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::unistd;

use support::child::Child;
use support::crowd::Crowd;
use support::exits::{self, Record, Stream};
use support::leaks::Kmemleak;
use support::module::{Machine, Module, insmod, is_loaded, rmmod};
use support::status;

/// What may fail, of the settings of the kernel's fault injection: also allocations that can wait.
const SETTINGS: [(&str, &str); 4] = [
    ("failslab/ignore-gfp-wait", "N"),
    ("fail_page_alloc/ignore-gfp-wait", "N"),
    ("fail_page_alloc/ignore-gfp-highmem", "N"),
    ("fail_page_alloc/min-order", "0"),
];
const VERBOSE: [&str; 3] = [
    "failslab/verbose",
    "fail_page_alloc/verbose",
    "fail_usercopy/verbose",
];

pub fn run() {
    for (setting, value) in SETTINGS {
        set(setting, value);
    }
    // A trace for each of thousands would hide everything else: of the injection itself, and on the
    // console, which shows errors only from now on, of allocations that fail.
    for setting in VERBOSE {
        set(setting, "0");
    }
    let console = Path::new("/proc/sys/kernel/printk");
    let level = fs::read_to_string(console).expect("the level of the console");
    fs::write(console, "4").expect("a level for the console");
    let leaks = Kmemleak::watch();

    step_over_insmod();
    step_over_open();
    for registrations in [0, 1, 3000] {
        step_over_read(registrations);
    }
    for pids in [1, 60] {
        for readers in [0, 1] {
            step_over_write(pids, readers);
        }
    }
    step_over_write_of_many();
    step_over_open_of_exits();
    step_over_read_of_exits();
    step_over_poll();

    fs::write(console, level).expect("the level of before");
    if let Some(leaks) = leaks {
        leaks.expect_none();
    }
}

fn set(setting: &str, value: &str) {
    let path = Path::new("/sys/kernel/debug").join(setting);
    fs::write(&path, value)
        .unwrap_or_else(|e| panic!("{}: {e}: the kernel needs fault injection", path.display()));
}

/// Makes the N-th point fail, for N = 1, 2, 3 and so on. Before each call `prepare` may do what is
/// not part of it; `check` gets what that made, and the result.
fn step<P, T>(
    what: &str,
    mut prepare: impl FnMut() -> P,
    mut call: impl FnMut(&mut P) -> Result<T, Errno>,
    mut check: impl FnMut(P, Result<T, Errno>),
) {
    let switch = Switch::open();
    let (mut points, mut refused) = (0, 0);
    loop {
        let mut prepared = prepare();
        switch.arm(points + 1);
        let result = call(&mut prepared);
        let reached = switch.disarm();
        if let Err(errno) = &result {
            assert!(
                matches!(errno, Errno::ENOMEM | Errno::EFAULT),
                "{what}, point {}: {errno}",
                points + 1
            );
            assert!(reached, "{what} fails where nothing failed: {errno}");
            refused += 1;
        }
        check(prepared, result);
        if !reached {
            break;
        }
        points += 1;
    }
    println!(
        "  {what}: {points} points, {refused} refused, {} did without",
        points - refused
    );
    assert!(
        points > 0,
        "{what} has no point that can fail, which cannot be"
    );
}

/// The calling thread's `fail-nth`.
struct Switch(File);

impl Switch {
    fn open() -> Self {
        Self(
            OpenOptions::new()
                .read(true)
                .write(true)
                .open("/proc/thread-self/fail-nth")
                .expect("fail-nth"),
        )
    }

    fn arm(&self, nth: usize) {
        self.0
            .write_all_at(nth.to_string().as_bytes(), 0)
            .expect("fail-nth");
    }

    /// Lets nothing fail any more. Returns whether something has.
    fn disarm(&self) -> bool {
        let mut left = [0; 16];
        let reached = match self.0.read_at(&mut left, 0) {
            Ok(len) => left[..len].starts_with(b"0"),
            // It was this very copy that failed.
            Err(e) if e.raw_os_error() == Some(libc::EFAULT) => false,
            Err(e) => panic!("fail-nth: {e}"),
        };
        while let Err(e) = self.0.write_all_at(b"0", 0) {
            assert_eq!(e.raw_os_error(), Some(libc::EFAULT), "fail-nth");
        }
        reached
    }
}

fn step_over_insmod() {
    let _machine = Machine::take();
    let path = env::var_os("MP1_KO").expect("MP1_KO names the module");
    let load =
        |file: &mut File| finit_module(file, c"interval_ms=3600000", ModuleInitFlags::empty());
    step(
        "insmod",
        || File::open(&path).expect("the module"),
        load,
        |_, result| {
            assert_eq!(is_loaded(), result.is_ok());
            assert_eq!(
                Path::new(status::DIRECTORY).exists(),
                result.is_ok(),
                "the directory"
            );
            if result.is_ok() {
                assert_eq!(status::text(), "");
                rmmod().expect("rmmod");
            }
        },
    );
}

fn step_over_open() {
    let _module = Module::without_updates();
    let child = Child::sleeper();
    status::register(child.pid());
    let open = |(): &mut ()| {
        // SAFETY: The path ends with NUL.
        Errno::result(unsafe {
            libc::open(c"/proc/mp1/status".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC)
        })
    };
    step(
        "open",
        || (),
        open,
        |(), result| {
            if let Ok(fd) = result {
                assert_eq!(
                    fs::read_to_string(format!("/proc/self/fd/{fd}")).expect("reading"),
                    status::text()
                );
                unistd::close(fd).expect("close");
            }
            assert_eq!(status::text(), format!("{}: 0\n", child.pid()));
        },
    );
}

fn step_over_read(registrations: usize) {
    let _module = Module::without_updates();
    let crowd = Crowd::of(registrations);
    if registrations > 0 {
        status::register_all(crowd.pids());
    }
    let whole = status::text();
    assert_eq!(whole.lines().count(), registrations);

    let mut buffer = vec![0; whole.len() + 1];
    let read_before = || {
        let mut file = status::reader();
        file.read_to_end(&mut Vec::new()).expect("reading");
        file.rewind().expect("lseek");
        file
    };
    let mut read = |file: &mut File| unistd::read(file, &mut buffer);
    let check = |mut file: File, result: Result<usize, Errno>| {
        let position = file.stream_position().expect("the position");
        // Where a copy fails in the middle, what was copied before counts.
        assert_eq!(
            position,
            result.unwrap_or(0) as u64,
            "the position after {result:?}"
        );
        let mut rest = String::new();
        file.read_to_string(&mut rest).expect("the next read");
        assert_eq!(rest, whole[position as usize..], "the next read");
    };
    step(
        &format!("first read of {registrations} lines"),
        status::reader,
        &mut read,
        check,
    );
    step(
        &format!("second read of {registrations} lines"),
        read_before,
        &mut read,
        check,
    );
}

/// Each process that is registered gives a line to each of the readers of exits, and no other.
fn step_over_write(pids: usize, readers: usize) {
    let _machine = Machine::take();
    let children: Vec<Child> = (0..pids).map(|_| Child::sleeper()).collect();
    let numbers: Vec<String> = children
        .iter()
        .map(|child| child.pid().to_string())
        .collect();
    let text = numbers.join(" ") + "\n";
    let all = numbers.join(": 0\n") + ": 0\n";

    // A registration stays as long as its process, so each call gets a module of its own.
    let prepare = || {
        insmod(&[("interval_ms", "3600000")]).expect("insmod");
        let streams: Vec<Stream> = (0..readers).map(|_| Stream::open()).collect();
        (status::writer(), streams)
    };
    let write = |(file, _): &mut (File, _)| unistd::write(file, text.as_bytes());
    step(
        &format!("write of {pids} PIDs, {readers} readers of exits"),
        prepare,
        write,
        |(mut file, mut streams), result| {
            if result.is_err() {
                assert_eq!(
                    status::text(),
                    "",
                    "half of a write that failed is registered"
                );
                file.write_all(text.as_bytes()).expect("the next write");
            } else {
                assert_eq!(result, Ok(text.len()));
            }
            assert_eq!(status::text(), all);
            drop(file);
            let witness = Child::sleeper();
            status::register(witness.pid());
            let number = witness.end();
            for stream in &mut streams {
                assert_eq!(stream.pids(), [number], "exits");
            }
            rmmod().expect("rmmod");
        },
    );
}

/// Many blocks of registrations in one write, all of which exit afterwards.
fn step_over_write_of_many() {
    const MANY: usize = 200;

    let _machine = Machine::take();
    let prepare = || {
        insmod(&[("interval_ms", "3600000")]).expect("insmod");
        let crowd = Crowd::of(MANY);
        let text = status::list(crowd.pids());
        (status::writer(), text, crowd, Stream::open())
    };
    let write =
        |(file, text, ..): &mut (File, String, Crowd, Stream)| unistd::write(file, text.as_bytes());
    step(
        &format!("write of {MANY} PIDs"),
        prepare,
        write,
        |(_, text, crowd, mut stream), result| {
            let registered = match result {
                Ok(len) => text[..len].lines().count(),
                Err(_) => 0,
            };
            assert_eq!(status::pids(), crowd.pids()[..registered]);
            drop(crowd);
            assert_eq!(stream.lines().len(), registered, "exits");
            rmmod().expect("rmmod");
        },
    );
}

fn step_over_open_of_exits() {
    let _module = Module::without_updates();
    let open = |(): &mut ()| {
        // SAFETY: The path ends with NUL.
        Errno::result(unsafe {
            let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
            libc::open(c"/proc/mp1/exits".as_ptr(), flags)
        })
    };
    step(
        "open of exits",
        || (),
        open,
        |(), result| {
            let child = Child::sleeper();
            status::register(child.pid());
            let pid = child.end();
            let mut other = Stream::open();
            if let Ok(fd) = result {
                let mut buffer = [0; 64];
                // SAFETY: The descriptor is new, and no other code has it.
                let file = unsafe { File::from_raw_fd(fd) };
                let len = unistd::read(&file, &mut buffer).expect("a line");
                assert!(
                    matches!(exits::parse(&buffer[..len])[..], [Record::Exit(line)] if line.pid == pid),
                    "{:?}",
                    String::from_utf8_lossy(&buffer[..len])
                );
            }
            other.expect_nothing();
        },
    );
}

fn step_over_read_of_exits() {
    const LINES: usize = 200;

    let _module = Module::without_updates();
    let prepare = || {
        let (file, mut other) = (exits::open_nonblocking(), Stream::open());
        let crowd = Crowd::of(LINES);
        status::register_all(crowd.pids());
        drop(crowd);
        (file, vec![0; 8192], other.records())
    };
    step(
        &format!("read of {LINES} lines of exits"),
        prepare,
        |(file, buffer, _)| unistd::read(file, buffer),
        |(file, mut buffer, expected), result| {
            let mut text = buffer[..result.unwrap_or(0)].to_vec();
            while let Ok(len) = unistd::read(&file, &mut buffer) {
                text.extend_from_slice(&buffer[..len]);
            }
            assert_eq!(exits::parse(&text), expected, "nothing is lost");
        },
    );
}

/// Asking for events allocates nothing of the module's, but what fails in the kernel must leave
/// nothing behind either.
fn step_over_poll() {
    let _module = Module::without_updates();
    let files = || (exits::open_nonblocking(), status::reader());
    let poll_both = |(exits, status): &mut (File, File)| {
        let mut fds = [
            PollFd::new(exits.as_fd(), PollFlags::POLLIN),
            PollFd::new(status.as_fd(), PollFlags::POLLPRI),
        ];
        poll(&mut fds, PollTimeout::ZERO)
    };
    step("poll", files, poll_both, |_, result| {
        if let Ok(count) = result {
            assert_eq!(count, 1, "status has something new");
        }
    });
    let watch_both = |(exits, status): &mut (File, File)| {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*exits, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        epoll.add(&*status, EpollEvent::new(EpollFlags::EPOLLPRI, 1))?;
        Ok(epoll)
    };
    step("epoll", files, watch_both, |_, _| ());
}
