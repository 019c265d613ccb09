// SPDX-License-Identifier: GPL-2.0

//! Whose memory a registration takes, when it is given back, and how much can be held.

use std::fs;
use std::io::{Read, Write};

use support::cgroup::Cgroup;
use support::child::Child;
use support::crowd::Crowd;
use support::exits::Stream;
use support::leaks::{self, Slabs};
use support::module::Module;
use support::status;
use support::wait;

/// A process in a cgroup of its own, which has registered all of a crowd.
struct Writer {
    /// Ends before the cgroup, which cannot be removed while a process is in it.
    _process: Child,
    cgroup: Cgroup,
    before: i64,
    charged: i64,
}

impl Writer {
    /// Registers the crowd, and expects the cgroup to pay for it.
    fn of(crowd: &Crowd) -> Self {
        let cgroup = Cgroup::new("mp1-test");
        let process = Child::start(|parent| {
            cgroup.enter();
            let mut file = status::writer();
            parent.tell(0);
            parent.wait();
            file.write_all(status::list(crowd.pids()).as_bytes())
                .expect("registering");
            parent.tell(0);
            parent.wait_forever()
        });
        process.hear();
        let before = cgroup.slab();
        process.go();
        process.hear();
        // The kernel gathers these figures now and then only.
        let charged = wait::until_some("the cgroup to be charged", || {
            let charged = cgroup.slab() - before;
            (charged >= LEAST * crowd.pids().len() as i64).then_some(charged)
        });
        Self {
            _process: process,
            cgroup,
            before,
            charged,
        }
    }

    /// Waits until the cgroup has got its memory back, except what the kernel keeps for a while.
    fn await_refund(&self) {
        wait::until("the memory to be given back", || {
            self.cgroup.slab() - self.before < self.charged / 4
        });
    }
}

/// The least that one registration may be charged: less, and something of it is not.
const LEAST: i64 = 64;
const MANY: usize = 2000;

#[test]
fn a_registration_is_charged_to_the_writers_cgroup() {
    let _module = Module::without_updates();
    Writer::of(&Crowd::of(MANY));
}

#[test]
fn its_memory_is_freed_at_the_update_after_the_exit() {
    let _module = Module::with_interval(100);
    let crowd = Crowd::of(MANY);
    let writer = Writer::of(&crowd);
    drop(crowd);
    writer.await_refund();
}

#[test]
fn its_memory_is_freed_at_rmmod() {
    let module = Module::without_updates();
    let crowd = Crowd::of(MANY);
    let writer = Writer::of(&crowd);
    drop(module);
    writer.await_refund();
}

#[test]
fn registering_again_leaves_no_holes() {
    const NEW: usize = 200;
    // Blocks that have one registration each take some 2 KB for it.
    const MOST: i64 = 256;

    let _module = Module::without_updates();
    let cgroup = Cgroup::new("mp1-again");
    let (old, new) = (Crowd::of(100), Crowd::of(NEW));
    status::register_all(old.pids());
    let child = Child::start(|parent| {
        cgroup.enter();
        parent.tell(0);
        parent.wait();
        for pid in new.pids() {
            status::register_all(old.pids());
            status::register(*pid);
        }
        parent.tell(0);
        parent.wait_forever()
    });
    child.hear();
    let before = settled(&cgroup);
    child.go();
    child.hear();
    let charged = grown(&cgroup, before, LEAST * NEW as i64);
    assert!(
        charged < MOST * NEW as i64,
        "{charged} bytes for {NEW} new registrations"
    );
}

/// Returns what one open file keeps of a snapshot in a namespace in which only `INSIDE` of all
/// lines can be seen, in bytes.
fn kept_by_a_reader_inside() -> i64 {
    const INSIDE: usize = 200;
    const FILES: usize = 100;

    let cgroup = Cgroup::new("mp1-reader");
    let child = Child::start_in_new_pid_namespace(|parent| {
        let crowd = Crowd::of(INSIDE);
        status::register_all(crowd.pids());
        cgroup.enter();
        parent.tell(0);
        let files: Vec<_> = (0..FILES)
            .map(|_| {
                parent.wait();
                let mut file = status::reader();
                file.read_exact(&mut [0]).expect("reading one byte");
                parent.tell(0);
                file
            })
            .collect();
        parent.wait();
        assert_eq!(status::parse(&status::text()).len(), INSIDE);
        drop(files);
    });
    child.hear();
    let before = settled(&cgroup);
    for _ in 0..FILES {
        // Another reader sees all of them each time.
        status::text();
        child.go();
        child.hear();
    }
    let least = FILES * b"1: 0\n".len() * INSIDE;
    let kept = grown(&cgroup, before, least as i64);
    child.go();
    child.finish();
    kept / FILES as i64
}

/// Returns what the cgroup has paid for, once the kernel has gathered it.
fn settled(cgroup: &Cgroup) -> i64 {
    let mut last = cgroup.kernel();
    wait::until_some("the figures to stand still", || {
        std::thread::sleep(GATHERED_EVERY);
        let now = cgroup.kernel();
        (std::mem::replace(&mut last, now) == now).then_some(now)
    })
}

/// Returns by how much what the cgroup has paid for has grown, once it is `least`. Between two
/// gatherings, the figures are old, and stand still.
fn grown(cgroup: &Cgroup, before: i64, least: i64) -> i64 {
    wait::until(&format!("{least} bytes to be charged"), || {
        cgroup.kernel() - before >= least
    });
    settled(cgroup) - before
}

/// The kernel gathers the figures of a cgroup every two seconds.
const GATHERED_EVERY: std::time::Duration = std::time::Duration::from_millis(2100);

#[test]
fn what_a_reader_keeps_depends_on_what_it_sees() {
    let _module = Module::without_updates();
    let alone = kept_by_a_reader_inside();
    let crowd = Crowd::of(3000);
    status::register_all(crowd.pids());
    let among_many = kept_by_a_reader_inside();
    assert!(alone > 0, "what a reader keeps is charged to it");
    assert!(
        among_many <= alone + alone / 4 + 256,
        "{among_many} bytes a file, and {alone} where nobody else is registered"
    );
    // 200 lines are some 1.5 KB; the rest is the kernel's own open file, which KASAN makes larger.
    // All lines are 30 KB.
    assert!(among_many <= 12_288, "{among_many} bytes a file");
}

#[test]
fn the_buffers_of_exits_are_charged_to_who_opened_and_freed_at_the_close() {
    const FILES: usize = 200;

    let _module = Module::without_updates();
    let mut outside = Stream::open();
    let cgroup = Cgroup::new("mp1-reader");
    let child = Child::start(|parent| {
        cgroup.enter();
        parent.tell(0);
        parent.wait();
        let mut streams: Vec<_> = (0..FILES).map(|_| Stream::open()).collect();
        parent.tell(0);
        parent.wait();
        streams
            .iter_mut()
            .for_each(|stream| assert_eq!(stream.lines().len(), 1000));
        parent.tell(0);
        parent.wait();
        drop(streams);
        parent.tell(0);
        parent.wait_forever()
    });
    child.hear();
    let before = settled(&cgroup);
    child.go();
    child.hear();
    let opened = grown(&cgroup, before, 100 * FILES as i64);
    let crowd = Crowd::of(1000);
    status::register_all(crowd.pids());
    drop(crowd);
    assert_eq!(outside.lines().len(), 1000);
    child.go();
    child.hear();
    child.go();
    child.hear();
    wait::until("the memory to be given back", || {
        cgroup.kernel() - before < opened / 4
    });
}

/// Starts processes that register themselves and exit, each in PID and user namespaces of its own.
fn register_in_namespaces(count: usize) {
    let file = status::writer();
    for _ in 0..count {
        let child = Child::start_in_new(libc::CLONE_NEWPID | libc::CLONE_NEWUSER, |_| {
            assert_eq!(nix::unistd::write(&file, b"1"), Ok(1));
        });
        child.reap();
    }
}

/// Waits until no more is kept than exited processes may pin, and what the kernel itself frees
/// later.
fn await_bound(before: i64) {
    wait::until("no more than 8 MiB to be pinned", || {
        let kept = Slabs::count().bytes() - before;
        println!("{kept} bytes are kept");
        kept <= leaks::most_pinned()
    });
}

/// A `struct pid` that is kept keeps its namespace, and that its user namespace: more than 4 KB in
/// all.
#[test]
fn what_exited_processes_of_namespaces_pin_is_bounded() {
    const COUNT: usize = 4000;

    let _module = Module::without_updates();
    for (file, value) in [
        ("/proc/sys/user/max_pid_namespaces", "100000"),
        ("/proc/sys/user/max_user_namespaces", "100000"),
    ] {
        fs::write(file, value).unwrap_or_else(|e| panic!("{file}: {e}"));
    }
    register_in_namespaces(100);
    let before = Slabs::count().bytes();
    for _ in 0..COUNT / 500 {
        register_in_namespaces(500);
        await_bound(before);
    }
    // An update has come, though none is due for an hour.
    let lines = status::text().lines().count();
    assert!(
        lines < COUNT,
        "{lines} lines, and none of these processes lives"
    );
}

#[test]
fn what_exited_processes_keep_between_two_updates_is_bounded() {
    // All of them would keep 13 MB: a `struct pid` takes 192 bytes, and a registration 85.
    const COUNT: usize = 48_000;

    let _module = Module::without_updates();
    drop(Crowd::of(1500));
    let before = Slabs::count().bytes();
    for round in 0..COUNT / 1500 {
        let crowd = Crowd::of(1500);
        status::register_all(crowd.pids());
        assert!(
            status::pids().ends_with(crowd.pids()),
            "those that live are all there"
        );
        drop(crowd);
        if round % 8 == 7 {
            await_bound(before);
        }
    }
    let lines = status::lines().len();
    assert!(
        lines < COUNT,
        "{lines} lines, and none of these processes lives"
    );
}
