// SPDX-License-Identifier: GPL-2.0

//! Exhaustion of resources: what a user can pin, how far the file scales, and what is left
//! afterwards.

use std::ffi::c_void;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::process;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::wait::waitpid;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{self, Pid};

use support::child::{Child, Parent};
use support::crowd::Crowd;
use support::leaks::{self, Kmemleak, Slabs};
use support::module::Module;
use support::status;
use support::wait;

/// Objects that caches may have more of after an attack than before: what the kernel itself is at.
const MARGIN: i64 = 500;

pub fn run(attack: &str, count: Option<usize>) {
    raise_limits();
    match attack {
        "pinned-pids" => register_and_exit(count.unwrap_or(50_000)),
        "pinned-namespaces" => register_in_namespaces(count.unwrap_or(20_000)),
        "growth" => register_growing(count.unwrap_or(200_000)),
        "many-processes" => register_crowd(count.unwrap_or(10_000)),
        "unread-files" => never_read_to_the_end(count.unwrap_or(1000)),
        "open-close" => open_again_and_again(count.unwrap_or(1_000_000)),
        "memcg-limit" => exhaust_cgroup(),
        "load-unload" => load_and_unload(count.unwrap_or(200)),
        _ => panic!("there is no attack '{attack}'"),
    }
}

fn raise_limits() {
    fs::write("/proc/sys/kernel/pid_max", "4194304").expect("pid_max");
    fs::write("/proc/sys/kernel/threads-max", "400000").expect("threads-max");
    fs::write("/proc/sys/vm/max_map_count", "1000000").expect("max_map_count");
    let files = 200_000;
    fs::write("/proc/sys/fs/file-max", files.to_string()).expect("file-max");
    setrlimit(Resource::RLIMIT_NOFILE, files, files).expect("RLIMIT_NOFILE");
    setrlimit(
        Resource::RLIMIT_NPROC,
        libc::RLIM_INFINITY,
        libc::RLIM_INFINITY,
    )
    .expect("RLIMIT_NPROC");
}

/// Registers processes that exit at once.
fn register_and_exit(count: usize) {
    exits_stay_bounded(count, 500, |file| {
        register_one_that_exits(file.as_raw_fd());
    });
}

/// Processes that register themselves and exit, each in PID and user namespaces of its own, which
/// its `struct pid` pins.
fn register_in_namespaces(count: usize) {
    for file in ["max_pid_namespaces", "max_user_namespaces"] {
        let path = Path::new("/proc/sys/user").join(file);
        fs::write(path, "1000000").unwrap_or_else(|e| panic!("{file}: {e}"));
    }
    exits_stay_bounded(count, 100, |file| {
        let namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWUSER;
        let child = Child::start_in_new(namespaces, |_| {
            assert_eq!(unistd::write(file, b"1"), Ok(1), "registering itself");
        });
        child.reap();
    });
}

/// Has a process registered and exit, again and again, while no update is due for an hour. Looks at
/// the lines after each `look_every` of them.
fn exits_stay_bounded(count: usize, look_every: usize, register_one: impl Fn(&File)) {
    let before = Slabs::count();
    let module = Module::without_updates();
    let file = status::writer();
    let started = Instant::now();
    let mut most = 0;
    for nth in 1..=count {
        register_one(&file);
        if nth % look_every == 0 {
            most = most.max(status::text().lines().count());
        }
        if nth % (20 * look_every) == 0 {
            expect_bounded(&before, most);
        }
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    println!("  {count} registered and exited, {rate:.0} a second");
    let pinned = expect_bounded(&before, most);
    println!(
        "  at most {most} lines; {} kB are pinned at the end",
        pinned >> 10
    );
    assert!(
        most < count,
        "{most} lines of processes that have exited, and no update: so few do not reach the bound"
    );
    assert!(most > 0, "no line was ever seen");
    drop(file);
    drop(module);
    expect_no_growth(&before);
}

/// Waits until what exited processes pin is within its bound, and returns it in bytes.
fn expect_bounded(before: &Slabs, lines: usize) -> i64 {
    let bound = leaks::most_pinned();
    let started = Instant::now();
    loop {
        let pinned = Slabs::count().bytes() - before.bytes();
        if pinned <= bound {
            return pinned;
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "{pinned} bytes are pinned by up to {lines} lines of processes that have exited"
        );
    }
}

/// Registers more and more, and compares what a registration costs at the end with what it cost
/// with 3000.
fn register_growing(count: usize) {
    const FEW: usize = 3000;
    const BATCH: usize = 1000;
    /// What caches may cost: the memory of all is larger than they are.
    const FACTOR: u32 = 3;

    assert!(count >= 4 * FEW, "there is nothing to compare");
    let _module = Module::without_updates();
    let crowd = Crowd::of(count);
    let mut file = status::writer();
    let mut text = String::with_capacity(16);
    let mut batches = Vec::new();
    for pids in crowd.pids().chunks(BATCH) {
        let mut longest = Duration::ZERO;
        let before = thread_time();
        for pid in pids {
            let start = thread_time();
            register_one(&mut file, &mut text, *pid).expect("registering");
            longest = longest.max(thread_time() - start);
        }
        batches.push(((thread_time() - before) / pids.len() as u32, longest));
    }
    // Of all that registering causes, also now and then.
    let mean = |batches: &[(Duration, Duration)]| {
        let sum: Duration = batches.iter().map(|(mean, _)| *mean).sum();
        sum / batches.len() as u32
    };
    let longest = batches.iter().map(|(_, longest)| *longest).max();
    let few = mean(&batches[..FEW / BATCH]);
    let many = mean(&batches[batches.len() - batches.len() / 4..]);
    println!("  a registration: {few:?} up to {FEW}, {many:?} up to {count}");
    println!("  the longest of all: {:?}", longest.expect("a batch"));
    assert!(
        many <= FACTOR * few,
        "the cost of a registration grows from {few:?} to {many:?}"
    );
    assert!(status::pids() == crowd.pids(), "not all are there");
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("the thread's clock")
        .into()
}

/// Starts a process that shares our memory, and waits until it has registered itself and exited.
fn register_one_that_exits(fd: RawFd) {
    let mut stack = [0u128; 512];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: We do not run before the process has exited, and so its stack and argument live long
    // enough.
    let pid = unsafe {
        libc::clone(
            register_itself,
            stack.as_mut_ptr_range().end.cast(),
            flags,
            fd as usize as *mut c_void,
        )
    };
    let pid = Errno::result(pid).expect("clone");
    let status = waitpid(Pid::from_raw(pid), None).expect("waitpid");
    assert_eq!(
        status,
        nix::sys::wait::WaitStatus::Exited(Pid::from_raw(pid), 0),
        "registering itself"
    );
}

extern "C" fn register_itself(fd: *mut c_void) -> libc::c_int {
    let text = process::id().to_string();
    // SAFETY: The text lives through the call.
    let len = unsafe { libc::write(fd as usize as RawFd, text.as_ptr().cast(), text.len()) };
    if len == text.len() as isize { 0 } else { 1 }
}

/// Many that live, and then die all at once.
fn register_crowd(count: usize) {
    let _module = Module::with_interval(1000);
    let crowd = Crowd::of(count);
    let timed = |what: &str, f: &mut dyn FnMut()| {
        let started = Instant::now();
        f();
        println!("  {what}: {} ms", started.elapsed().as_millis());
    };
    timed(&format!("registering {count}"), &mut || {
        status::register_all(crowd.pids())
    });
    timed("reading them", &mut || {
        assert_eq!(status::pids(), crowd.pids())
    });
    timed(
        "two updates of them, which come every 1000 ms",
        &mut status::await_update,
    );
    timed("one more registration", &mut || {
        let child = Child::sleeper();
        status::register(child.pid());
        assert!(status::pids().contains(&child.pid()));
    });
    drop(crowd);
    timed("until the last of them is gone", &mut || {
        wait::until("no line", || status::text().is_empty())
    });
}

/// Readers that keep a snapshot each, of which they have read one byte.
fn never_read_to_the_end(readers: usize) {
    let registrations = 3000;
    let before = Slabs::count();
    let module = Module::without_updates();
    let crowd = Crowd::of(registrations);
    status::register_all(crowd.pids());
    let free = available_kb();

    let mut files: Vec<File> = Vec::new();
    for _ in 0..readers {
        let mut file = status::reader();
        file.read_exact(&mut [0]).expect("reading one byte");
        files.push(file);
    }
    let taken = free - available_kb();
    println!(
        "  {readers} files with a snapshot of {registrations} lines each: {} kB a file",
        taken / readers as i64
    );
    // All others go on.
    assert_eq!(status::pids(), crowd.pids());
    let child = Child::sleeper();
    status::register(child.pid());

    // Unloading takes their snapshots away, not their files.
    drop(module);
    let left = free - available_kb();
    println!("  {left} kB are missing after the unload, {taken} kB before");
    assert!(
        left < taken / 4 + 4096,
        "{left} kB of {taken} kB are still missing"
    );
    let errno = unistd::read(&files[0], &mut [0]).expect_err("the module is gone");
    assert_eq!(errno, Errno::EIO);
    drop((files, child, crowd));
    expect_no_growth(&before);
}

fn available_kb() -> i64 {
    // What is free at last, not what waits to be freed.
    let _ = Slabs::count();
    let text = fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))
        .expect("MemAvailable");
    line.split_whitespace()
        .nth(1)
        .expect("a number")
        .parse()
        .expect("a number")
}

fn open_again_and_again(count: usize) {
    let before = Slabs::count();
    let module = Module::without_updates();
    let child = Child::sleeper();
    status::register(child.pid());
    let started = Instant::now();
    for _ in 0..count {
        drop(status::reader());
    }
    println!(
        "  {count} opened one after the other, {:.0} a second",
        count as f64 / started.elapsed().as_secs_f64()
    );

    let at_once = 20_000;
    let mut files: Vec<File> = (0..at_once).map(|_| status::reader_and_writer()).collect();
    let expected = format!("{}: 0\n", child.pid());
    for file in &mut files {
        let mut text = String::new();
        file.read_to_string(&mut text).expect("reading");
        assert_eq!(text, expected);
    }
    println!("  {at_once} open and read at the same time");
    drop((files, child, module));
    expect_no_growth(&before);
}

/// A writer whose cgroup has no more memory: it gets an error, is not killed, and other groups
/// notice nothing.
fn exhaust_cgroup() {
    let cgroup = Path::new("/sys/fs/cgroup/mp1-attack");
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").expect("the memory controller");
    fs::create_dir(cgroup).expect("a cgroup");
    let value = |name: &str| fs::read_to_string(cgroup.join(name)).expect("a value of the cgroup");
    let current = || {
        value("memory.current")
            .trim()
            .parse::<i64>()
            .expect("a number")
    };

    let module = Module::without_updates();
    let crowd = Crowd::of(20_000);
    let spare = 300 << 10;

    let attacker =
        Child::start(|parent: &mut Parent| attack_from(parent, cgroup, crowd.pids(), spare));
    let registered = attacker.hear();
    println!("  {registered} registered with {spare} bytes to spare, then ENOMEM");
    assert!(
        value("memory.events").contains("\noom_kill 0\n"),
        "killed: {}",
        value("memory.events")
    );
    assert_eq!(
        status::text().lines().count() as i64,
        registered,
        "what is registered after ENOMEM"
    );

    // Others register and read as ever.
    let rest = &crowd.pids()[registered as usize..];
    status::register_all(&rest[..1000]);
    assert_eq!(status::text().lines().count() as i64, registered + 1000);

    // With its registrations goes their charge.
    let full = current();
    drop(module);
    wait::until("the charge to be given back", || {
        current() < full - spare / 2
    });
    attacker.finish();
    wait::until("the cgroup to be empty", || fs::remove_dir(cgroup).is_ok());
}

fn attack_from(parent: &mut Parent, cgroup: &Path, pids: &[i32], spare: i64) {
    let mut file = status::writer();
    let mut text = String::with_capacity(16);
    let mut limit = File::create(cgroup.join("memory.max")).expect("memory.max");
    fs::write(cgroup.join("cgroup.procs"), process::id().to_string()).expect("cgroup.procs");
    // Whatever the first registration brings with it, it is there before the limit.
    let mut registered = 0;
    let current = loop {
        register_one(&mut file, &mut text, pids[registered]).expect("no limit yet");
        registered += 1;
        let current = fs::read_to_string(cgroup.join("memory.current")).expect("memory.current");
        let current: i64 = current.trim().parse().expect("a number");
        if current > 0 {
            break current;
        }
    };
    limit
        .write_all((current + spare).to_string().as_bytes())
        .expect("a limit");

    let errno = loop {
        match register_one(&mut file, &mut text, pids[registered]) {
            Ok(()) => registered += 1,
            Err(errno) => break errno,
        }
    };
    assert_eq!(errno, Errno::ENOMEM);
    limit.write_all(b"max").expect("no limit");
    parent.tell(registered as i64);
}

fn register_one(file: &mut File, text: &mut String, pid: i32) -> Result<(), Errno> {
    use std::fmt::Write as _;
    text.clear();
    write!(text, "{pid}").expect("a string");
    unistd::write(file, text.as_bytes()).map(|len| assert_eq!(len, text.len()))
}

/// The whole life of the module many times, and all that it could lose in it.
fn load_and_unload(count: usize) {
    let leaks = Kmemleak::watch();
    let mut before = None;
    for cycle in 0..count {
        let module = Module::with_interval([10, 3_600_000][cycle % 2]);
        let children: Vec<Child> = (0..10).map(|_| Child::sleeper()).collect();
        let pids: Vec<i32> = children.iter().map(Child::pid).collect();
        status::register_all(&pids);
        register_one_that_exits(status::writer().as_raw_fd());
        let reader = status::reader_and_writer();
        unistd::read(&reader, &mut [0; 5]).expect("reading");
        status::write("abc").expect_err("no PID");
        status::write(format!("{} 4194304", pids[0])).expect("a short write");
        if cycle % 2 == 0 {
            status::await_update();
        }
        // Half of them exit before the unload, and the file is closed after it.
        drop(children);
        drop(module);
        drop(reader);
        // The first cycles fill caches.
        if cycle == count / 10 {
            before = Some(Slabs::count());
        }
    }
    expect_no_growth(&before.expect("more than a few cycles"));
    println!("  {count} loads and unloads");
    if let Some(leaks) = leaks {
        leaks.expect_none();
    }
}

fn expect_no_growth(before: &Slabs) {
    wait::until("all memory to be given back", || {
        let grown = Slabs::count().grown_since(before, MARGIN);
        let ours = |row: &&String| {
            ["pid:", "task_struct:", "kmalloc", "signal_cache:"]
                .iter()
                .any(|name| row.starts_with(name))
        };
        grown.iter().find(ours).is_none_or(|row| {
            eprintln!("  {row}");
            false
        })
    });
    println!("  no cache of `struct pid`, task_struct or kmalloc has grown");
}
