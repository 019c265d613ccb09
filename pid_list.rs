// SPDX-License-Identifier: GPL-2.0

//! The text that is written to the status file: decimal PIDs with white space between them.
//!
//! Pure logic on bytes, built for the kernel and for the host's tests alike.

#![forbid(unsafe_code)]

/// The largest number that a PID can have: PIDs are `int` in C.
const MAX: u32 = i32::MAX as u32;

/// Why a text is no list of PIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// There is no PID at all, or something that is no PID.
    Invalid,
    /// There is a number that no `int` holds.
    Range,
}

/// A PID in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pid {
    /// The number, at least 1.
    pub(crate) number: i32,
    /// How many bytes of the text go up to, and with, its last digit.
    pub(crate) end: usize,
}

/// Returns whether `byte` is white space in the sense of C's `isspace()`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Returns the beginning of `text` up to, and with, its last white space, or [`None`] if it has no
/// white space: what can be understood of a text of which only the beginning is known.
pub(crate) fn complete_part(text: &[u8]) -> Option<&[u8]> {
    let last = text.iter().rposition(|byte| is_space(*byte))?;
    text.get(..=last)
}

/// Returns `text` without the NUL that ends a string in C, where it is the last byte.
pub(crate) fn without_terminator(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\0").unwrap_or(text)
}

/// A text all of which is known to be good.
#[derive(Debug)]
pub(crate) struct PidList<'a> {
    text: &'a [u8],
}

impl<'a> PidList<'a> {
    /// Parses all of `text`. The first thing wrong with it is the error.
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, ParseError> {
        let mut at = 0;
        let mut any = false;
        while let Some(pid) = next_pid(text, at)? {
            at = pid.end;
            any = true;
        }
        if any {
            Ok(Self { text })
        } else {
            Err(ParseError::Invalid)
        }
    }

    /// Returns the PIDs in the order in which they stand in the text; at least one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Pid> + 'a {
        let text = self.text;
        let mut at = 0;
        core::iter::from_fn(move || {
            let pid = next_pid(text, at).ok()??;
            at = pid.end;
            Some(pid)
        })
    }
}

/// Parses the first PID of `text` from `at` on. [`None`]: nothing but white space is left.
fn next_pid(text: &[u8], mut at: usize) -> Result<Option<Pid>, ParseError> {
    while text.get(at).is_some_and(|byte| is_space(*byte)) {
        at += 1;
    }
    let start = at;
    let mut number: u32 = 0;
    while let Some(byte) = text.get(at).filter(|byte| !is_space(**byte)) {
        // A number beyond the range stays there, and is out of range only if all of it is digits.
        number = number.saturating_mul(10).saturating_add(digit(*byte)?);
        at += 1;
    }

    match number {
        _ if at == start => Ok(None),
        0 => Err(ParseError::Invalid),
        // CAST: It fits, as `MAX` does.
        1..=MAX => Ok(Some(Pid {
            number: number as i32,
            end: at,
        })),
        _ => Err(ParseError::Range),
    }
}

/// Returns the value of a decimal digit.
fn digit(byte: u8) -> Result<u32, ParseError> {
    match byte {
        b'0'..=b'9' => Ok(u32::from(byte - b'0')),
        _ => Err(ParseError::Invalid),
    }
}
