// SPDX-License-Identifier: GPL-2.0

//! What the kernel reports of itself.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;

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

/// The log, from the moment on at which this was made.
pub struct KernelLog(File);

impl KernelLog {
    pub fn from_now() -> Self {
        let mut log = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .expect("/dev/kmsg");
        log.seek(SeekFrom::End(0)).expect("the end of the log");
        Self(log)
    }

    /// Fails if something in the kernel went wrong.
    pub fn expect_no_report(mut self) {
        let mut lines = Vec::new();
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                // "LEVEL,NUMBER,TIME,FLAGS;TEXT\n"
                Ok(len) => {
                    let text = String::from_utf8_lossy(&record[..len]).into_owned();
                    let text = text.split_once(';').map_or("", |(_, text)| text);
                    lines.push(text.lines().next().unwrap_or_default().to_owned());
                }
                Err(e) if e.raw_os_error() == Some(Errno::EPIPE as i32) => {
                    lines.push("(older lines were lost)".to_owned());
                }
                Err(e) if e.raw_os_error() == Some(Errno::EAGAIN as i32) => break,
                Err(e) => panic!("reading the kernel's log: {e}"),
            }
        }
        let report = lines
            .iter()
            .position(|line| SIGNS.iter().any(|sign| line.contains(sign)));
        if let Some(first) = report {
            let shown = &lines[first..lines.len().min(first + 60)];
            panic!("the kernel reports:\n{}", shown.join("\n"));
        }
    }
}
