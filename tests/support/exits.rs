// SPDX-License-Identifier: GPL-2.0

//! `/proc/mp1/exits`: opened, awaited, and its records read strictly.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::status::{self, Line};
use crate::wait;

pub const PATH: &str = "/proc/mp1/exits";

/// How many records are kept for all open files together.
pub const KEPT: usize = 16_384;

/// What one line of the file tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// A process has exited, and this was its time.
    Exit(Line),
    /// The reader fell behind, and so many records were dropped.
    Lost(u64),
}

pub fn open() -> File {
    File::open(PATH).expect("opening exits")
}

pub fn open_nonblocking() -> File {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(PATH)
        .expect("opening exits")
}

/// Returns the events of these that the file has now; error and hang-up need not be asked for.
pub fn events(file: impl AsFd, events: PollFlags) -> PollFlags {
    let mut fds = [PollFd::new(file.as_fd(), events)];
    poll(&mut fds, PollTimeout::ZERO).expect("poll");
    fds[0].revents().expect("no unknown event")
}

/// An open file that is read without blocking.
pub struct Stream {
    file: File,
    /// The beginning of a line whose end has not been read yet.
    begun: Vec<u8>,
}

impl Stream {
    pub fn open() -> Self {
        Self {
            file: open_nonblocking(),
            begun: Vec::new(),
        }
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Reads all that is there now.
    pub fn records(&mut self) -> Vec<Record> {
        self.try_records().expect("reading exits")
    }

    /// Reads all that is there now, or says why the file cannot be read any more.
    pub fn try_records(&mut self) -> std::io::Result<Vec<Record>> {
        let mut buffer = [0; 1 << 16];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => panic!("exits came to an end"),
                Ok(len) => self.begun.extend_from_slice(&buffer[..len]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        let text = std::mem::take(&mut self.begun);
        Ok(parse(&text))
    }

    /// Reads all lines that are there now; fails if some were lost.
    pub fn lines(&mut self) -> Vec<Line> {
        self.records().into_iter().map(line).collect()
    }

    /// Waits until there is something, and reads all of it.
    pub fn await_lines(&mut self) -> Vec<Line> {
        wait::readable("a line of exits", &self.file);
        self.lines()
    }

    /// Waits for so many lines, and reads them.
    pub fn await_count(&mut self, count: usize) -> Vec<Line> {
        let mut lines = Vec::new();
        while lines.len() < count {
            lines.extend(self.await_lines());
        }
        assert_eq!(lines.len(), count, "one line for each: {lines:?}");
        lines
    }

    /// Waits for one line, which must be of that process, and returns its milliseconds.
    pub fn await_ms_of(&mut self, pid: i32) -> u64 {
        match self.await_lines()[..] {
            [line] if line.pid == pid => line.ms,
            ref lines => panic!("not one line of {pid}: {lines:?}"),
        }
    }

    /// Reads the line of a process whose exit has been seen already, and returns its milliseconds.
    pub fn ms_of(&mut self, pid: i32) -> u64 {
        match self.lines()[..] {
            [line] if line.pid == pid => line.ms,
            ref lines => panic!("not one line of {pid}: {lines:?}"),
        }
    }

    pub fn pids(&mut self) -> Vec<i32> {
        self.lines().iter().map(|line| line.pid).collect()
    }

    pub fn expect_nothing(&mut self) {
        assert_eq!(self.records(), [], "there should be nothing to read");
    }
}

fn line(record: Record) -> Line {
    match record {
        Record::Exit(line) => line,
        Record::Lost(n) => panic!("{n} records were lost"),
    }
}

/// Parses text that must be whole lines of the forms `PID: MS\n` and `lost: N\n`.
pub fn parse(text: &[u8]) -> Vec<Record> {
    text.split_inclusive(|byte| *byte == b'\n')
        .map(|line| match parse_lost(line) {
            Some(lost) => Record::Lost(lost),
            None => {
                let lines = status::try_parse(line).unwrap_or_else(|why| panic!("{why}"));
                Record::Exit(lines[0])
            }
        })
        .collect()
}

fn parse_lost(line: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(line).ok()?;
    let lost: u64 = line
        .strip_prefix("lost: ")?
        .strip_suffix('\n')?
        .parse()
        .ok()?;
    assert!(
        lost > 0 && line == format!("lost: {lost}\n"),
        "no number of lost records: {line:?}"
    );
    Some(lost)
}
