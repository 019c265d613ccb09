// SPDX-License-Identifier: GPL-2.0

//! The attacks on the module. Runs inside a guest, as root, with `MP1_KO` naming the module; each
//! attack loads and unloads it itself.
//!
//! A failed attack is a panic; what the kernel says of itself (KASAN, lockdep and the like) is looked
//! for in its log, after each attack here and once more on the host.

mod fault_points;
mod fuzz;
mod races;
mod resources;
mod userfaultfd;

use std::env;
use std::time::Instant;

use support::kernel_log::KernelLog;

const USAGE: &str = "usage: abuse faults
       abuse fuzz CALLS [SEED]
       abuse races SECONDS [SEED]
       abuse pinned-pids|many-processes|unread-files|open-close|load-unload [COUNT]
       abuse memcg-limit
       abuse userfaultfd";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (attack, numbers) = arguments.split_first().expect(USAGE);
    let numbers: Vec<u64> = numbers.iter().map(|text| number(text)).collect();

    let started = Instant::now();
    let mut log = KernelLog::from_now();
    match (*attack, &numbers[..]) {
        ("faults", []) => fault_points::run(),
        ("fuzz", [calls]) => fuzz::run(*calls, entropy()),
        ("fuzz", [calls, seed]) => fuzz::run(*calls, *seed),
        ("races", [seconds]) => races::run(*seconds, entropy()),
        ("races", [seconds, seed]) => races::run(*seconds, *seed),
        ("userfaultfd", []) => userfaultfd::run(),
        (_, []) => resources::run(attack, None),
        (_, [count]) => resources::run(attack, Some(*count as usize)),
        _ => panic!("{USAGE}"),
    }
    log.expect_no_report();
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
