// SPDX-License-Identifier: GPL-2.0

//! Whose memory a registration takes, when it is given back, and how much can be held.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use support::child::Child;
use support::crowd::Crowd;
use support::module::Module;
use support::status;
use support::wait;

const CGROUPS: &str = "/sys/fs/cgroup";

/// A cgroup whose memory is counted; gone when it goes out of scope.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Self {
        fs::write(format!("{CGROUPS}/cgroup.subtree_control"), "+memory")
            .expect("the memory controller");
        let path = PathBuf::from(CGROUPS).join("mp1-test");
        fs::create_dir(&path).expect("a cgroup");
        Self(path)
    }

    /// Moves the calling process into the cgroup.
    fn enter(&self) {
        fs::write(self.0.join("cgroup.procs"), "0").expect("entering a cgroup");
    }

    /// Returns the bytes of the kernel's objects that its processes have paid for.
    fn slab(&self) -> i64 {
        let stat = fs::read_to_string(self.0.join("memory.stat")).expect("memory.stat");
        let slab = stat
            .lines()
            .find_map(|line| line.strip_prefix("slab "))
            .expect("slab");
        slab.parse().expect("a number")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).expect("removing the cgroup");
    }
}

/// A process in a cgroup of its own, which has registered all of a crowd.
struct Writer {
    /// Ends before the cgroup, which would not go while somebody is in it.
    _process: Child,
    cgroup: Cgroup,
    before: i64,
    charged: i64,
}

impl Writer {
    /// Registers the crowd, and expects the cgroup to pay for it.
    fn of(crowd: &Crowd) -> Self {
        let cgroup = Cgroup::new();
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

    /// Waits until the cgroup has got its memory back, but for what the kernel keeps for a while.
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
fn what_exited_processes_keep_between_two_updates_is_bounded() {
    const BOUND: usize = 16384;

    let _module = Module::without_updates();
    for _ in 0..12 {
        let crowd = Crowd::of(1500);
        status::register_all(crowd.pids());
        assert!(
            status::pids().ends_with(crowd.pids()),
            "those that live are all there"
        );
    }
    let lines = status::lines().len();
    assert!(
        lines <= BOUND,
        "{lines} lines, and none of these processes lives"
    );
}
