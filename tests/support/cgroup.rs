// SPDX-License-Identifier: GPL-2.0

//! Control groups: who pays for memory, and what their processes have used.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::wait;

const CGROUPS: &str = "/sys/fs/cgroup";

/// A cgroup whose memory and CPU time are counted; gone when it goes out of scope.
pub struct Cgroup(PathBuf);

impl Cgroup {
    pub fn new(name: &str) -> Self {
        fs::write(format!("{CGROUPS}/cgroup.subtree_control"), "+memory")
            .expect("the memory controller");
        let path = Path::new(CGROUPS).join(name);
        fs::create_dir(&path).expect("a cgroup");
        Self(path)
    }

    /// Moves the calling process into the cgroup.
    pub fn enter(&self) {
        fs::write(self.0.join("cgroup.procs"), "0").expect("entering a cgroup");
    }

    /// Opens the directory, for [`Child::start_in_cgroup`](crate::child::Child::start_in_cgroup).
    pub fn directory(&self) -> File {
        File::open(&self.0).expect("the directory of the cgroup")
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the bytes of the kernel's objects that its processes have paid for.
    pub fn slab(&self) -> i64 {
        self.value("memory.stat", "slab ") as i64
    }

    /// Returns the bytes of all memory of the kernel that its processes have paid for.
    pub fn kernel(&self) -> i64 {
        self.value("memory.stat", "kernel ") as i64
    }

    /// Returns the CPU time of all processes that have ever been in it, in microseconds and rounded
    /// down. What a process has used outside is not in it.
    pub fn cpu_us(&self) -> u64 {
        self.value("cpu.stat", "usage_usec ")
    }

    fn value(&self, file: &str, name: &str) -> u64 {
        let text = fs::read_to_string(self.0.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("no {name:?} in {text}"));
        value.parse().expect("a number")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A zombie of another's is still in it for a moment.
        wait::until("the cgroup to go", || fs::remove_dir(&self.0).is_ok());
    }
}
