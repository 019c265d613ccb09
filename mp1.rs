// SPDX-License-Identifier: GPL-2.0

//! mp1: keeps track of the CPU time of processes that users register in `/proc/mp1/status`.

#![forbid(unsafe_op_in_unsafe_fn)]

use core::borrow::Borrow;
use kernel::{
    prelude::*,
    time::Delta, //
};

mod gfp;
mod pid_list;
mod proc;
mod process;
mod registry;
mod seqlock;
mod status;
mod status_text;
mod timer;
mod workqueue;

use proc::{
    Dir,
    File, //
};
use registry::Registry;
use status::StatusFile;
use timer::{
    Owner,
    Periodic, //
};
use workqueue::OwnedQueue;

module! {
    type: Mp1,
    name: "mp1",
    authors: ["The mp1 developers"],
    description: "CPU time of registered processes, in /proc/mp1/status",
    license: "GPL v2",
    params: {
        interval_ms: i64 {
            default: 5000,
            description: "Time between updates in milliseconds, 10 to 3600000",
        },
    },
}

/// The loaded module. The order of the fields is the order in which it ends.
struct Mp1 {
    /// No reader or writer is inside the module, or will be again.
    _status: File<StatusFile>,
    /// No timer queues work; then, no work runs; the last reference to the registry goes.
    _updates: Owner<Registry>,
}

impl kernel::Module for Mp1 {
    // In line, it belongs to what is given back once the module is loaded.
    #[inline]
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let interval = interval(by_value(module_parameters::interval_ms.value()))?;

        let queue = OwnedQueue::new_unbound(c"mp1")?;
        let updates = Periodic::new(interval, queue, Registry::new()?)?;
        let dir = Dir::new(c"mp1", 0o555)?;
        // The last step: users are inside from now on.
        let status = File::new(dir, c"status", 0o666, updates.clone())?;

        pr_info!("loaded, updates every {} ms\n", interval.as_millis());
        Ok(Self {
            _status: status,
            _updates: Owner(updates),
        })
    }
}

impl Drop for Mp1 {
    #[inline]
    fn drop(&mut self) {
        pr_info!("unloaded\n");
    }
}

/// Returns the time between updates for the parameter `interval_ms`.
#[inline]
fn interval(ms: i64) -> Result<Delta> {
    if (10..=3_600_000).contains(&ms) {
        Ok(Delta::from_millis(ms))
    } else {
        pr_err!("interval_ms is {ms}, but must be from 10 to 3600000\n");
        Err(EINVAL)
    }
}

/// The value of a parameter: `value()` returns a reference in Linux 7.2, and the value from 7.3 on.
fn by_value(value: impl Borrow<i64>) -> i64 {
    *value.borrow()
}
