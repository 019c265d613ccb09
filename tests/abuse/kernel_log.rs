// SPDX-License-Identifier: GPL-2.0

//! What the kernel reports of itself.

use super::support::kernel_log::KernelLog;

/// Each report of a checker has one of these in one line at least.
fn signs() -> impl Iterator<Item = &'static str> {
    include_str!("../kernel-log-signs")
        .lines()
        .filter(|line| !line.starts_with('#'))
}

/// Fails if something in the kernel went wrong since `log` was last read.
pub fn expect_no_report(log: &mut KernelLog) {
    let messages = log.messages();
    let report = messages
        .iter()
        .position(|message| signs().any(|sign| message.contains(sign)));
    if let Some(first) = report {
        let shown = &messages[first..messages.len().min(first + 60)];
        panic!("the kernel reports:\n{}", shown.join("\n"));
    }
}
