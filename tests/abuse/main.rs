// SPDX-License-Identifier: GPL-2.0

//! The attacks on the module. Runs inside a guest, as root, with `MP1_KO` naming the module; each
//! attack loads and unloads it itself.
//!
//! A failed attack is a panic; what the kernel says of itself (KASAN, lockdep and the like) is looked
//! for in its log, after each attack here and once more on the host.

mod fault_points;
mod fuzz;
mod hostile;
mod kernel_log;
mod leaks;
mod races;
mod stalled;
#[allow(dead_code, reason = "shared with the guest tests, which use all of it")]
#[path = "../guest/support/mod.rs"]
mod support;

use std::env;
use std::time::Instant;

use support::kernel_log::KernelLog;

const USAGE: &str = "usage: abuse faults
       abuse fuzz CALLS [SEED]
       abuse races SECONDS [SEED]
       abuse hostile pinned|crowd|unread|opens|memcg|cycles [COUNT]
       abuse stalled";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();

    let started = Instant::now();
    let mut log = KernelLog::from_now();
    match arguments[..] {
        ["faults"] => fault_points::run(),
        ["fuzz", calls] => fuzz::run(number(calls), entropy()),
        ["fuzz", calls, seed] => fuzz::run(number(calls), number(seed)),
        ["races", seconds] => races::run(number(seconds), entropy()),
        ["races", seconds, seed] => races::run(number(seconds), number(seed)),
        ["stalled"] => stalled::run(),
        ["hostile", attack] => hostile::run(attack, None),
        ["hostile", attack, count] => hostile::run(attack, Some(number(count) as usize)),
        _ => panic!("{USAGE}"),
    }
    kernel_log::expect_no_report(&mut log);
    println!(
        "abuse {}: passed in {} s",
        arguments.join(" "),
        started.elapsed().as_secs()
    );
}

fn number(text: &str) -> u64 {
    text.parse()
        .unwrap_or_else(|_| panic!("{text} is no number\n{USAGE}"))
}

fn entropy() -> u64 {
    fastrand::u64(..)
}
