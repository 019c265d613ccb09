// SPDX-License-Identifier: GPL-2.0

//! Whose memory a registration takes, when it is given back, and how much can be held.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use crate::support::child::{self, Child};
use crate::support::crowd::{self, Crowd};
use crate::support::module::Module;
use crate::support::status;
use crate::support::wait;

const CGROUPS: &str = "/sys/fs/cgroup";

/// A cgroup whose memory is counted; gone when it goes out of scope.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Self {
        fs::write(format!("{CGROUPS}/cgroup.subtree_control"), "+memory").expect("the memory controller");
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
        let slab = stat.lines().find_map(|line| line.strip_prefix("slab ")).expect("slab");
        slab.parse().expect("a number")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).expect("removing the cgroup");
    }
}

/// Starts a child in the cgroup that registers all of the crowd when told, tells, and waits.
fn writer_in(cgroup: &Cgroup, crowd: &Crowd) -> Child {
    let writer = Child::start(|parent| {
        cgroup.enter();
        // What opening and a long write take for a moment is not what is measured.
        let mut file = status::writer();
        parent.tell(0);
        parent.wait();
        for chunk in crowd.pids().chunks(500) {
            file.write_all(status::list(chunk).as_bytes()).expect("registering");
        }
        drop(file);
        parent.tell(0);
        parent.wait_forever()
    });
    writer.hear();
    writer
}

/// The least that one registration may be charged: less, and something of it is not.
const LEAST: i64 = 64;
const MANY: usize = 2000;

#[test]
fn a_registration_is_charged_to_the_writers_cgroup() {
    let _module = Module::without_updates();
    let cgroup = Cgroup::new();
    let crowd = Crowd::of(MANY);
    {
        let writer = writer_in(&cgroup, &crowd);
        let before = cgroup.slab();
        writer.go();
        writer.hear();
        assert_eq!(status::lines().len(), MANY);
        let charged = cgroup.slab() - before;
        assert!(charged >= MANY as i64 * LEAST, "{charged} bytes for {MANY} registrations");
    }
}

#[test]
fn its_memory_is_freed_at_the_update_after_the_exit() {
    let _module = Module::with_interval(300);
    let cgroup = Cgroup::new();
    let crowd = Crowd::of(MANY);
    {
        let writer = writer_in(&cgroup, &crowd);
        let before = cgroup.slab();
        writer.go();
        writer.hear();
        let charged = cgroup.slab() - before;
        drop(crowd);
        status::await_update();
        wait::until("the memory to be given back", || cgroup.slab() - before < charged / 10);
    }
}

#[test]
fn its_memory_is_freed_at_rmmod() {
    let module = Module::without_updates();
    let cgroup = Cgroup::new();
    let crowd = Crowd::of(MANY);
    {
        let writer = writer_in(&cgroup, &crowd);
        let before = cgroup.slab();
        writer.go();
        writer.hear();
        let charged = cgroup.slab() - before;
        drop(module);
        wait::until("the memory to be given back", || cgroup.slab() - before < charged / 10);
    }
}

#[test]
fn what_exited_processes_keep_between_two_updates_is_bounded() {
    const BOUND: usize = 8192;

    let _module = Module::without_updates();
    // Most of these have exited when the next registers.
    crowd::each_in_passing(BOUND + 2000, || status::register(child::getpid()));
    let lines = status::lines().len();
    assert!(lines <= BOUND, "{lines} lines, although no more than one of these processes lives");
}

#[test]
fn live_processes_beyond_the_bound_are_all_registered() {
    let _module = Module::without_updates();
    let crowd = Crowd::of(4500);
    status::register_all(crowd.pids());
    assert_eq!(status::pids(), crowd.pids());
}
