// SPDX-License-Identifier: GPL-2.0

//! The module: one on the whole machine, so one test at a time.

use std::env;
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module};
use nix::unistd::alarm;

static MACHINE: Mutex<()> = Mutex::new(());

/// The right to load and unload; while one is held, no other test has it.
pub struct Machine {
    _only: MutexGuard<'static, ()>,
}

impl Machine {
    /// Waits for its turn, and starts with the module unloaded whatever the test before left.
    pub fn take() -> Self {
        let only = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        if is_loaded() {
            rmmod().expect("unloading what an earlier test has left");
        }
        // A test that hangs must end the whole program.
        if let Ok(seconds) = env::var("MP1_TEST_TIMEOUT") {
            alarm::set(seconds.parse().expect("MP1_TEST_TIMEOUT is a number"));
        }
        Self { _only: only }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !is_loaded() {
            return;
        }
        match rmmod() {
            Ok(()) => {}
            Err(errno) if thread::panicking() => eprintln!("rmmod failed as well: {errno}"),
            Err(errno) => panic!("rmmod failed: {errno}"),
        }
    }
}

/// The loaded module, unloaded at the end of the test, which fails if that fails.
pub struct Module {
    _machine: Machine,
}

impl Module {
    pub fn load(parameters: &[(&str, &str)]) -> Self {
        let machine = Machine::take();
        insmod(parameters).expect("insmod");
        Self { _machine: machine }
    }

    /// Loads the module with that many milliseconds between two updates.
    pub fn with_interval(ms: u32) -> Self {
        Self::load(&[("interval_ms", &ms.to_string())])
    }

    /// Loads the module so that no update disturbs the test.
    pub fn without_updates() -> Self {
        Self::with_interval(3_600_000)
    }
}

/// Loads the module with one `finit_module`, so that its own error is seen.
pub fn insmod(parameters: &[(&str, &str)]) -> Result<(), Errno> {
    let path =
        PathBuf::from(env::var_os("MP1_KO").unwrap_or_else(|| OsString::from("/lib/mp1/mp1.ko")));
    let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let parameters: Vec<String> = parameters
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let parameters = CString::new(parameters.join(" ")).expect("no NUL in a parameter");
    finit_module(&file, &parameters, ModuleInitFlags::empty())
}

pub fn rmmod() -> Result<(), Errno> {
    delete_module(c"mp1", DeleteModuleFlags::O_NONBLOCK)
}

pub fn is_loaded() -> bool {
    fs::read_to_string("/proc/modules")
        .expect("/proc/modules")
        .lines()
        .any(|line| line.starts_with("mp1 "))
}
