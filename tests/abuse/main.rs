// SPDX-License-Identifier: GPL-2.0

//! The attacks on the module. Runs inside a guest, as root, with `MP1_KO` naming the module; each
//! attack loads and unloads it itself.
//!
//! A failed attack is a panic; what the kernel says of itself (KASAN, lockdep and the like) is
//! looked for in its log, after each attack here and once more on the host.

mod exits;
mod fault_points;
mod fuzz;
mod idle_pollers;
mod idle_readers;
mod races;
mod resources;
mod reused_pids;
mod starved;
mod userfaultfd;

use std::env;
use std::time::Instant;

use support::kernel_log::KernelLog;

const USAGE: &str = "usage: abuse faults
       abuse fuzz CALLS [SEED]
       abuse races SECONDS [SEED]
       abuse reused-pids SECONDS [SEED]
       abuse exits-unload|pollers-unload|exits-register ROUNDS [SEED]
       abuse exits-lost|exits-count EXITS [SEED]
       abuse idle-readers [LINES]
       abuse idle-pollers ROUNDS [BUSY_MS]
       abuse pinned-pids|pinned-namespaces|growth [COUNT]
       abuse many-processes|unread-files|open-close|load-unload [COUNT]
       abuse memcg-limit
       abuse userfaultfd";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (attack, numbers) = arguments.split_first().expect(USAGE);
    let numbers: Vec<u64> = numbers.iter().map(|text| number(text)).collect();

    let started = Instant::now();
    let mut log = KernelLog::from_now();
    let seed = || numbers.get(1).copied().unwrap_or_else(entropy);
    match (*attack, &numbers[..]) {
        ("faults", []) => fault_points::run(),
        ("fuzz", [calls] | [calls, _]) => fuzz::run(*calls, seed()),
        ("races", [seconds] | [seconds, _]) => races::run(*seconds, seed()),
        ("reused-pids", [seconds] | [seconds, _]) => reused_pids::run(*seconds, seed()),
        ("exits-unload", [rounds] | [rounds, _]) => exits::against_unload(*rounds, seed()),
        ("pollers-unload", [rounds] | [rounds, _]) => {
            exits::pollers_against_unload(*rounds, seed())
        }
        ("exits-register", [rounds] | [rounds, _]) => exits::against_registering(*rounds, seed()),
        ("exits-lost", [total] | [total, _]) => exits::lost(*total, seed()),
        ("exits-count", [count]) => exits::count(*count),
        ("idle-readers", []) => idle_readers::run(&[300, 3000]),
        ("idle-readers", [lines]) => idle_readers::run(&[*lines as usize]),
        ("idle-pollers", [rounds]) => idle_pollers::run(*rounds, None),
        ("idle-pollers", [rounds, busy_ms]) => idle_pollers::run(*rounds, Some(*busy_ms)),
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
