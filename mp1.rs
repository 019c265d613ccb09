// SPDX-License-Identifier: GPL-2.0

//! mp1: keeps track of the CPU time of processes that users register in `/proc/mp1/status`.

#![forbid(unsafe_op_in_unsafe_fn)]

use core::borrow::Borrow;
use kernel::{
    prelude::*,
    sync::Arc,
    time::Delta, //
};

mod block_list;
mod exit_log;
mod exit_watch;
mod exits;
mod gfp;
mod line;
mod list_head;
mod lock_class;
mod once;
mod pid_list;
mod poll;
mod prefetch;
mod proc;
mod process;
mod raw_spinlock;
mod rcu_tasks;
mod registry;
mod seqlock;
mod spinlock_irqsave;
mod status;
mod timer;
mod workqueue;

/// What the kernel's C compiler says: see `layout.c`.
#[expect(non_upper_case_globals)]
mod layout {
    include!(env!("MP1_LAYOUT"));
}

use exits::{
    Exits,
    ExitsFile,
    Wakeups, //
};
use proc::{
    Dir,
    File, //
};
use registry::{
    Registrations,
    Registry, //
};
use status::StatusFile;
use timer::Ticking;
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

/// The version, for `modinfo` and `/sys/module/mp1/version`: [`module!`] has no key for it.
const VERSION: &str = concat!("version=", env!("MP1_VERSION"), "\0");

// As in `module!`. With `used(linker)`, this would be in a second section of that name. Newer
// linkers do not join it with the first, and the kernel refuses a module with two.
#[used(compiler)]
#[link_section = ".modinfo"]
static MODINFO_VERSION: [u8; VERSION.len()] = *VERSION.as_bytes().first_chunk().unwrap();

/// The loaded module. The comment of each field says what its drop does; the fields are dropped in
/// this order.
struct Mp1 {
    /// Wakes the readers and polls of the file. No user is inside it from then on.
    _exits: File<ExitsFile>,
    /// The same for readers and writers of the other file.
    _status: File<StatusFile>,
    /// Cancels the timer, then waits for the work.
    _ticking: Ticking<Registry>,
    /// Drops the registrations. No exit of a process calls the module from then on.
    _registrations: Registrations,
    /// Waits for the work that such calls have queued.
    _wakeups: Wakeups,
    /// Destroys the queue. From then on, the module only frees its remaining memory.
    _queue: Arc<OwnedQueue>,
}

impl kernel::Module for Mp1 {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let interval = interval(by_value(module_parameters::interval_ms.value()))?;

        let queue = Arc::new(OwnedQueue::new_unbound(c"mp1")?, GFP_KERNEL)?;
        let exits = Exits::new(queue.clone())?;
        let registry = Registry::new(exits.clone())?;
        let ticking = Ticking::new(interval, queue.clone(), registry)?;
        let updates = ticking.periodic().clone();
        let dir = Arc::new(Dir::new(c"mp1", 0o555)?, GFP_KERNEL)?;
        let exits_file = File::new(dir.clone(), c"exits", 0o444, exits.clone())?;
        // The last step: processes are registered from now on.
        let status_file = File::new(dir, c"status", 0o666, updates.clone())?;

        pr_info!("loaded, updates every {} ms\n", interval.as_millis());
        Ok(Self {
            _exits: exits_file,
            _status: status_file,
            _ticking: ticking,
            _registrations: Registrations(updates),
            _wakeups: Wakeups(exits),
            _queue: queue,
        })
    }
}

impl Drop for Mp1 {
    fn drop(&mut self) {
        pr_info!("unloaded\n");
    }
}

/// Returns the time between updates for the parameter `interval_ms`.
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
