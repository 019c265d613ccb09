// SPDX-License-Identifier: GPL-2.0

//! `/proc/mp1/status`: one `write` at a time, and its lines read strictly.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd;

use crate::child::{self, Child};
use crate::wait;

pub const DIRECTORY: &str = "/proc/mp1";
pub const PATH: &str = "/proc/mp1/status";

/// One line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub pid: i32,
    pub ms: u64,
}

/// Opens the file for writing, as `>` of a shell does.
pub fn writer() -> File {
    OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(PATH)
        .expect("opening for writing")
}

pub fn reader() -> File {
    File::open(PATH).expect("opening for reading")
}

pub fn reader_and_writer() -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(PATH)
        .expect("opening for both")
}

/// Opens the file and gives it these bytes in one `write`.
pub fn write(text: impl AsRef<[u8]>) -> Result<usize, Errno> {
    unistd::write(writer(), text.as_ref())
}

/// Registers a process, which must work.
pub fn register(pid: i32) {
    let text = format!("{pid}\n");
    assert_eq!(write(&text), Ok(text.len()), "registering {pid}");
}

/// Registers them all with as few writes as the file allows.
pub fn register_all(pids: &[i32]) {
    writer()
        .write_all(list(pids).as_bytes())
        .expect("registering");
}

/// Returns the numbers as they can be written, one a line.
pub fn list(pids: &[i32]) -> String {
    let lines: Vec<_> = pids.iter().map(|pid| format!("{pid}\n")).collect();
    lines.concat()
}

/// Reads the whole file through a fresh descriptor.
pub fn text() -> String {
    text_at(PATH)
}

pub fn text_at(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).expect("reading the file")
}

pub fn lines() -> Vec<Line> {
    parse(&text())
}

pub fn pids() -> Vec<i32> {
    lines().iter().map(|line| line.pid).collect()
}

/// Returns the milliseconds of a process that must have a line, and no more than one.
pub fn ms_of(pid: i32) -> u64 {
    let lines = lines();
    let mut found = lines.iter().filter(|line| line.pid == pid);
    let ms = found
        .next()
        .unwrap_or_else(|| panic!("no line of {pid} in {lines:?}"))
        .ms;
    assert_eq!(found.next(), None, "two lines of {pid} in {lines:?}");
    ms
}

/// Parses the text, which must be whole lines of the form `PID: MS\n`.
pub fn parse(text: &str) -> Vec<Line> {
    try_parse(text.as_bytes()).unwrap_or_else(|why| panic!("{why}"))
}

/// Parses the text, or says which line is not of the form `PID: MS\n`.
pub fn try_parse(text: &[u8]) -> Result<Vec<Line>, String> {
    text.split_inclusive(|byte| *byte == b'\n')
        .map(|line| {
            let line = String::from_utf8_lossy(line);
            parse_line(&line).ok_or_else(|| format!("no line of the form \"PID: MS\\n\": {line:?}"))
        })
        .collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let (pid, ms) = line.strip_suffix('\n')?.split_once(": ")?;
    let line = Line {
        pid: plain_decimal(pid)?,
        ms: plain_decimal(ms)?,
    };
    (line.pid > 0).then_some(line)
}

/// Parses what has no sign, no leading zero and nothing but digits.
fn plain_decimal<T: std::str::FromStr>(digits: &str) -> Option<T> {
    let plain =
        digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok())?
}

/// Returns after an update that has seen all processes as they were at the call.
///
/// A process has a time of 0 until the first update after its registration. So two of them, one
/// after the other, tell of an update that has begun before the second was registered and of one
/// that has begun after it.
pub fn await_update() {
    for _ in 0..2 {
        let witness = Child::start(|parent| {
            child::burn_ms(2);
            parent.tell(0);
            parent.wait_forever()
        });
        witness.hear();
        register(witness.pid());
        wait::until("an update", || ms_of(witness.pid()) > 0);
    }
}

/// Returns when the process has no line any more.
pub fn await_gone(pid: i32) {
    wait::until("the line to go", || !pids().contains(&pid));
}
