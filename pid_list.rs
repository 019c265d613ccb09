// SPDX-License-Identifier: GPL-2.0

//! The text that is written to the status file: decimal PIDs with white space between them.
//!
//! Pure logic on bytes, built for the kernel and for the host's tests alike.

#![forbid(unsafe_code)]

/// The smallest number that does not fit in an `int`.
const PID_LIMIT: u64 = 1 << 31;

/// Why a text is no list of PIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// Something that is no PID.
    Invalid,
    /// A number that does not fit in an `int`, the type of a PID in C.
    Range,
}

/// A PID in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pid {
    /// The number, at least 1.
    pub(crate) number: i32,
    /// The length of the text up to and including its last digit.
    pub(crate) end: u32,
}

/// Returns whether `byte` is white space in the sense of C's `isspace()`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Returns the beginning of `text` up to and including its last white space, or [`None`] if there
/// is no white space. Only this part can be parsed if the rest of the text is not known.
pub(crate) fn up_to_last_space(text: &[u8]) -> Option<&[u8]> {
    let last = text.iter().rposition(|byte| is_space(*byte))?;
    text.get(..=last)
}

/// Returns `text` without the NUL that ends a string in C, if its last byte is one.
pub(crate) fn without_terminator(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\0").unwrap_or(text)
}

/// The PIDs of a text, in their order.
///
/// A text is valid if there is no error up to its end. What follows an error means nothing.
pub(crate) struct Pids<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Pids<'a> {
    /// Begins at the start of `text`.
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }
}

impl Iterator for Pids<'_> {
    type Item = Result<Pid, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        while is_space(*self.text.get(self.at)?) {
            self.at += 1;
        }

        let mut number = 0;
        while let Some(byte) = self.text.get(self.at) {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                if is_space(*byte) {
                    break;
                }
                return Some(Err(ParseError::Invalid));
            }
            // A number beyond the range stays beyond it.
            if number < PID_LIMIT {
                number = 10 * number + u64::from(digit);
            }
            self.at += 1;
        }

        Some(match i32::try_from(number) {
            Ok(0) => Err(ParseError::Invalid),
            Ok(number) => Ok(Pid {
                number,
                end: self.at as u32,
            }),
            Err(_) => Err(ParseError::Range),
        })
    }
}
