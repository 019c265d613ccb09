// SPDX-License-Identifier: GPL-2.0

//! The kernel's log.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;

/// Stands for messages that came and went before they were read.
pub const LOST: &str = "(older messages were lost)";

/// The kernel's log, from the moment on at which this was made.
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

    /// Returns the messages that have come since this was last asked.
    pub fn messages(&mut self) -> Vec<String> {
        let mut messages = Vec::new();
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                // One read is one record: "LEVEL,NUMBER,TIME,FLAGS;MESSAGE\n", and more lines of
                // others' data.
                Ok(len) => {
                    let text = String::from_utf8_lossy(&record[..len]);
                    let (_, message) = text.split_once(';').expect("a message");
                    messages.push(message.lines().next().unwrap_or_default().to_owned());
                }
                Err(e) => match e.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EPIPE) => messages.push(LOST.to_owned()),
                    Some(Errno::EAGAIN) => return messages,
                    _ => panic!("reading the kernel's log: {e}"),
                },
            }
        }
    }

    /// Fails if something in the kernel went wrong since the log was last read.
    pub fn expect_no_report(&mut self) {
        let messages = self.messages();
        let report = messages
            .iter()
            .position(|message| signs().any(|sign| message.contains(sign)));
        if let Some(first) = report {
            let shown = &messages[first..messages.len().min(first + 60)];
            panic!("the kernel reports:\n{}", shown.join("\n"));
        }
    }
}

/// Each report of a checker has one of these in one line at least.
fn signs() -> impl Iterator<Item = &'static str> {
    include_str!("../kernel-log-signs")
        .lines()
        .filter(|line| !line.starts_with('#'))
}
