// SPDX-License-Identifier: GPL-2.0

//! What the kernel reports of itself.

use super::support::kernel_log::KernelLog;

/// What the reports of all its checkers have in common, each with one line at least.
const SIGNS: [&str; 17] = [
    "BUG:",
    "WARNING:",
    "Oops",
    "KASAN",
    "UBSAN",
    "ODEBUG",
    "INFO: possible",
    "INFO: task",
    "INFO: rcu",
    "inconsistent lock state",
    "suspicious RCU",
    "refcount_t:",
    "corruption",
    "stall",
    "unreferenced object",
    "Objects remaining",
    "rust_kernel: panicked",
];

/// Fails if something in the kernel went wrong since `log` was last read.
pub fn expect_no_report(log: &mut KernelLog) {
    let messages = log.messages();
    let report = messages
        .iter()
        .position(|message| SIGNS.iter().any(|sign| message.contains(sign)));
    if let Some(first) = report {
        let shown = &messages[first..messages.len().min(first + 60)];
        panic!("the kernel reports:\n{}", shown.join("\n"));
    }
}
