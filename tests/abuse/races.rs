// SPDX-License-Identifier: GPL-2.0

//! Everything at once: processes that read, write, come, go and change, and a module that is loaded
//! and unloaded under them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use support::child::{Child, Parent};
use support::exits;
use support::module::{Machine, insmod, is_loaded, rmmod};
use support::status::{self, PATH};
use support::waiter::{FOR_INPUT, FOR_OUTPUT, Way};

/// One thing that is done again and again by a process of its own. Returns how often it came to
/// pass.
type Worker = fn(&mut Rng) -> u64;

const WORKERS: [(&str, usize, Worker); 9] = [
    ("reader", 2, read_some),
    ("holder", 1, hold_open),
    ("writer", 2, register_many),
    ("forker", 2, fork_and_exit),
    ("executor", 1, execute),
    ("namespaces", 1, visit_namespace),
    ("scribbler", 1, scribble),
    ("follower", 1, follow_exits),
    ("waiter", 2, wait_somehow),
];

pub fn run(seconds: u64, seed: u64) {
    println!("races: {seconds} s with seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let machine = Machine::take();
    let end = Instant::now() + Duration::from_secs(seconds);

    let mut workers = Vec::new();
    for (name, count, worker) in WORKERS {
        for _ in 0..count {
            let mut rng = rng.fork();
            let child = Child::start(move |parent: &mut Parent| {
                let mut done = 0;
                while Instant::now() < end {
                    done += worker(&mut rng);
                }
                parent.tell(done as i64);
            });
            workers.push((name, child));
        }
    }
    let loads = load_and_unload(&mut rng, end);

    println!("  module: loaded and unloaded {loads} times");
    for (name, child) in workers {
        println!("  {name}: {} times", child.hear());
        child.finish();
    }
    drop(machine);
}

/// Loads and unloads the module, after a time that is short enough to meet the first update, or
/// long enough for everybody to be inside.
fn load_and_unload(rng: &mut Rng, end: Instant) -> u64 {
    let mut loads = 0;
    while Instant::now() < end {
        let interval = [10, 10, 11, 3_600_000][rng.usize(..4)];
        insmod(&[("interval_ms", &interval.to_string())]).expect("insmod");
        loads += 1;
        match rng.u32(..4) {
            0 => {}
            1 => {
                // The first update is due at the very moment of the unload.
                status::register(process::id() as i32);
                pause(Duration::from_micros(9_500 + rng.u64(..1000)));
            }
            2 => pause(Duration::from_micros(rng.u64(..30_000))),
            _ => pause(Duration::from_millis(rng.u64(..1000))),
        }
        rmmod().expect("rmmod");
    }
    assert!(!is_loaded());
    loads
}

fn pause(time: Duration) {
    // It is the length of time itself that this is about.
    thread::sleep(time);
}

/// Opens the status file, or returns [`None`] when it is not there at the moment.
fn open(options: &mut OpenOptions) -> Option<File> {
    open_at(PATH, options)
}

fn open_at(path: &str, options: &mut OpenOptions) -> Option<File> {
    match options.open(path) {
        Ok(file) => Some(file),
        Err(e) => {
            // A file that goes away while it is being opened may also say that.
            let errno = e.raw_os_error().map(Errno::from_raw);
            assert!(
                matches!(errno, Some(Errno::ENOENT | Errno::EIO | Errno::EINVAL)),
                "open: {e}"
            );
            pause(Duration::from_millis(1));
            None
        }
    }
}

/// Lets an error pass that says that the module has gone since the file was opened: `EIO`, but of
/// `lseek`.
fn unless_gone<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EIO | libc::EINVAL)) => None,
        Err(e) => panic!("{e}"),
    }
}

fn read_some(rng: &mut Rng) -> u64 {
    let Some(mut file) = open(OpenOptions::new().read(true)) else {
        return 0;
    };
    for _ in 0..rng.usize(..4) {
        let mut text = Vec::new();
        let mut buffer = vec![0; rng.usize(1..5000)];
        loop {
            match unless_gone(file.read(&mut buffer)) {
                None => return 0,
                Some(0) => break,
                Some(len) => text.extend_from_slice(&buffer[..len]),
            }
        }
        // Whole lines, whatever happened meanwhile.
        status::parse(std::str::from_utf8(&text).expect("text"));
        if unless_gone(file.seek(SeekFrom::Start(0))).is_none() {
            return 0;
        }
    }
    1
}

/// Reads exits as they come, for a while.
fn follow_exits(rng: &mut Rng) -> u64 {
    let Some(mut file) = open_at(
        exits::PATH,
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK),
    ) else {
        return 0;
    };
    let mut text = Vec::new();
    let mut buffer = vec![0; rng.usize(1..500)];
    for _ in 0..rng.usize(1..200) {
        match file.read(&mut buffer) {
            Ok(len) => text.extend_from_slice(&buffer[..len]),
            Err(e) if e.raw_os_error() == Some(libc::EIO) => return 0,
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(libc::EAGAIN), "exits: {e}");
                // The next one, if it comes soon.
                let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, 20u8).expect("poll");
            }
        }
    }
    let whole = text
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    exits::parse(&text[..whole]);
    1
}

/// Waits on exits for what may come only with the unload.
fn wait_somehow(rng: &mut Rng) -> u64 {
    let Some(file) = open_at(exits::PATH, OpenOptions::new().read(true)) else {
        return 0;
    };
    // A file that has gone can be read and written, and so ends all of these.
    let ways: Vec<Way> = FOR_INPUT.into_iter().chain(FOR_OUTPUT).collect();
    let way = ways[rng.usize(..ways.len())];
    match way.wait(&file) {
        // What an io_uring of before has left to do can interrupt the next wait.
        Ok(_) | Err(Errno::EIO | Errno::ECANCELED | Errno::EINTR) => 1,
        Err(errno) => panic!("{way:?}: {errno}"),
    }
}

/// Keeps files open from one load of the module to another, and uses them.
fn hold_open(rng: &mut Rng) -> u64 {
    let mut files: Vec<File> = Vec::new();
    for _ in 0..rng.usize(1..50) {
        files.extend(open(OpenOptions::new().read(true).write(true)));
    }
    for _ in 0..200 {
        if files.is_empty() {
            return 0;
        }
        let mut file = &files[rng.usize(..files.len())];
        // All that is known of these is that they end.
        let _ = file.read(&mut [0; 10]);
        let _ = file.seek(SeekFrom::End(-(rng.i64(..20))));
        let _ = file.write(process::id().to_string().as_bytes());
        if rng.u32(..50) == 0 {
            pause(Duration::from_millis(rng.u64(..50)));
        }
    }
    1
}

/// Registers whatever processes there are, many in one write.
fn register_many(rng: &mut Rng) -> u64 {
    let Some(mut file) = open(OpenOptions::new().write(true)) else {
        return 0;
    };
    let mut text = String::new();
    for entry in Path::new("/proc").read_dir().expect("/proc").flatten() {
        if let Some(number) = entry
            .file_name()
            .to_str()
            .filter(|name| name.parse::<i32>().is_ok())
        {
            text += number;
            text.push(if rng.bool() { ' ' } else { '\n' });
        }
    }
    match file.write(text.as_bytes()) {
        Ok(len) => assert!(len > 0 && len <= text.len()),
        Err(e) => expect_gone_or_exited(&e),
    }
    1
}

fn expect_gone_or_exited(e: &io::Error) {
    assert!(
        matches!(e.raw_os_error(), Some(libc::EIO | libc::ESRCH)),
        "write: {e}"
    );
}

/// Forks children that register themselves, or are registered, and exit at once, some with threads.
fn fork_and_exit(rng: &mut Rng) -> u64 {
    let (by_itself, threads, linger) = (rng.bool(), rng.usize(..3), rng.u64(..3000));
    let child = in_fork(|| {
        for _ in 0..threads {
            thread::spawn(move || pause(Duration::from_micros(linger / 2)));
        }
        if by_itself {
            register_quietly(process::id() as i32);
        }
        pause(Duration::from_micros(linger));
    });
    if !by_itself {
        register_quietly(child.as_raw());
    }
    reap(child);
    1
}

/// Registers a process that may have exited, in a module that may be gone.
fn register_quietly(pid: i32) {
    if let Some(mut file) = open(OpenOptions::new().write(true)) {
        if let Err(e) = file.write(pid.to_string().as_bytes()) {
            expect_gone_or_exited(&e);
        }
    }
}

/// Children that register themselves and call `exec`, half of them from another thread than the
/// first.
fn execute(rng: &mut Rng) -> u64 {
    let from_thread = rng.bool();
    let child = in_fork(|| {
        register_quietly(process::id() as i32);
        let exec = || {
            let program = c"/bin/true";
            nix::unistd::execv(program, &[program]).expect("exec")
        };
        if from_thread {
            thread::spawn(exec).join().expect("exec returns never");
        } else {
            exec();
        }
    });
    reap(child);
    1
}

/// A PID namespace with a few processes, which register and read there, and which ends with its
/// first.
fn visit_namespace(rng: &mut Rng) -> u64 {
    let inhabitants = rng.usize(..4);
    let visitor = in_fork(|| {
        unshare(CloneFlags::CLONE_NEWPID).expect("unshare");
        let first = in_fork(|| {
            for _ in 0..inhabitants {
                in_fork(|| {
                    register_quietly(process::id() as i32);
                    loop {
                        thread::park();
                    }
                });
            }
            register_quietly(1);
            if let Some(mut file) = open(OpenOptions::new().read(true)) {
                let mut text = String::new();
                if unless_gone(file.read_to_string(&mut text)).is_some() {
                    let lines = status::parse(&text);
                    assert!(
                        lines.iter().all(|line| line.pid <= 10),
                        "outsiders in {lines:?}"
                    );
                }
            }
        });
        reap(first);
    });
    reap(visitor);
    1
}

/// Writes nonsense.
fn scribble(rng: &mut Rng) -> u64 {
    let Some(mut file) = open(OpenOptions::new().write(true)) else {
        return 0;
    };
    let bytes: Vec<u8> = (0..rng.usize(..6000)).map(|_| rng.u8(..)).collect();
    match file.write(&bytes) {
        Ok(0) => assert!(bytes.is_empty()),
        Ok(_) => {}
        Err(e) => assert!(
            matches!(
                e.raw_os_error(),
                Some(libc::EIO | libc::ESRCH | libc::EINVAL | libc::ERANGE)
            ),
            "{e}"
        ),
    }
    1
}

/// Forks a child that runs `body`. Its failure is seen by [`reap`].
fn in_fork(body: impl FnOnce()) -> Pid {
    // SAFETY: The workers have one thread.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: It takes a number and does not return.
            unsafe { libc::_exit(if done.is_ok() { 0 } else { 101 }) }
        }
    }
}

fn reap(child: Pid) {
    match waitpid(child, None::<WaitPidFlag>).expect("waitpid") {
        WaitStatus::Exited(_, 0) => {}
        other => {
            let _ = kill(child, Signal::SIGKILL);
            panic!("a child ended with {other:?}");
        }
    }
}
