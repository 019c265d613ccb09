// SPDX-License-Identifier: GPL-2.0

//! What the module does without a lock, in the orders that a memory model allows.
//!
//! loom runs each model with the interleavings of its threads, and lets a read return any older
//! value that C11 allows. `docs/ordering.md` tells how that relates to the kernel's model. There
//! are two kinds of models:
//!
//! - `seqlock.rs` and `process.rs` are the module's own, compiled for the host; what they read is
//!   laid out here as the kernel has it, and the other side is the kernel's C code, step by step.
//! - Protocols of files that need more of the kernel are modelled by what they do to shared
//!   variables, in the module's order.
//!
//! Each test of what holds has others beside it that must fail, with a barrier left out or two
//! steps swapped: they show that loom sees what the barrier or the order is for.

// `kernel` and `crate` are where the module's files find what they use.
extern crate self as kernel;

pub mod bindings;
mod kernel_crate;
mod once;
#[path = "../../prefetch.rs"]
#[rustfmt::skip]
mod prefetch;
// The module's files have the kernel's format.
#[allow(dead_code, reason = "the module uses all of it")]
#[path = "../../process.rs"]
#[rustfmt::skip]
mod process;
#[path = "../../seqlock.rs"]
#[rustfmt::skip]
mod seqlock;
mod spinlock_irqsave;

pub use kernel_crate::{pid_namespace, sync, task};

mod models {
    mod exit_state;
    mod exit_watch;
    mod final_time;
    mod group_time;
    mod reader;
    mod wakeup;
}

/// Runs both at once. Each is a thread of its own, since loom does not show a thread again what it
/// saw before it last waited.
fn at_once<A: 'static, B: 'static>(
    a: impl FnOnce() -> A + 'static,
    b: impl FnOnce() -> B + 'static,
) -> (A, B) {
    let a = loom::thread::spawn(a);
    let b = loom::thread::spawn(b);
    (a.join().unwrap(), b.join().unwrap())
}
