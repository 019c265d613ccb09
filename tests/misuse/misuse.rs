// SPDX-License-Identifier: GPL-2.0

//! A module that misuses the abstractions of mp1, in code without `unsafe`. See README.md.

// No misuse needs all of an abstraction.
#![allow(unused)]

use core::borrow::Borrow;
use kernel::prelude::*;

#[path = "../../block_list.rs"]
mod block_list;
#[path = "../../exit_watch.rs"]
mod exit_watch;
#[path = "../../gfp.rs"]
mod gfp;
#[path = "../../list_head.rs"]
mod list_head;
#[path = "../../lock_class.rs"]
mod lock_class;
#[path = "../../once.rs"]
mod once;
#[path = "../../poll.rs"]
mod poll;
#[path = "../../prefetch.rs"]
mod prefetch;
#[path = "../../proc.rs"]
mod proc;
#[path = "../../process.rs"]
mod process;
#[path = "../../raw_spinlock.rs"]
mod raw_spinlock;
#[path = "../../rcu_tasks.rs"]
mod rcu_tasks;
#[path = "../../seqlock.rs"]
mod seqlock;
#[path = "../../spinlock_irqsave.rs"]
mod spinlock_irqsave;
#[path = "../../timer.rs"]
mod timer;
#[path = "../../workqueue.rs"]
mod workqueue;

#[expect(non_upper_case_globals)]
mod layout {
    include!(env!("MP1_LAYOUT"));
}

mod files;
mod limits;
#[cfg(REFUSED)]
mod refused;
mod run_time;

module! {
    type: Misuse,
    name: "misuse",
    authors: ["The mp1 developers"],
    description: "Misuses of the abstractions of mp1",
    license: "GPL v2",
    params: {
        limit: i64 {
            default: 0,
            description: "Which of the misuses that do harm to show (limits.rs)",
        },
        pid: i64 {
            default: 0,
            description: "A process that lives longer than the module",
        },
    },
}

struct Misuse {
    _files: Option<files::Files>,
}

impl kernel::Module for Misuse {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let limit = by_value(module_parameters::limit.value());
        let pid = by_value(module_parameters::pid.value());
        if limit != 0 {
            limits::show(limit, pid as i32)?;
            return Ok(Self { _files: None });
        }
        run_time::check_all()?;
        Ok(Self {
            _files: Some(files::Files::new()?),
        })
    }
}

/// The value of a parameter: `value()` returns a reference in Linux 7.2, and the value from 7.3 on.
fn by_value(value: impl Borrow<i64>) -> i64 {
    *value.borrow()
}
