// SPDX-License-Identifier: GPL-2.0

//! The text that is read from the status file: a line for each process.
//!
//! Pure logic on bytes, built for the kernel and for the host's tests alike.

#![forbid(unsafe_code)]

/// The nanoseconds of a millisecond.
const NSEC_PER_MSEC: u64 = 1_000_000;

/// The length of the longest line: ten digits of a PID, and fourteen of as many milliseconds as 64
/// bits of nanoseconds make.
pub(crate) const LINE_MAX: usize = 10 + b": ".len() + 14 + b"\n".len();

/// "00" to "99", one after the other.
const PAIRS: [u8; 200] = {
    let mut pairs = [0; 200];
    let mut number = 0;
    while number < 100 {
        pairs[2 * number] = b'0' + (number / 10) as u8;
        pairs[2 * number + 1] = b'0' + (number % 10) as u8;
        number += 1;
    }
    pairs
};

/// The space for one line, written from its end.
pub(crate) struct Line {
    bytes: [u8; LINE_MAX],
    start: usize,
}

impl Line {
    /// Writes the line `PID: MS\n` of a process that has used `nsec` nanoseconds of CPU time.
    #[inline]
    pub(crate) fn new(pid: u32, nsec: u64) -> Self {
        let mut line = Self {
            bytes: [0; LINE_MAX],
            start: LINE_MAX,
        };
        line.prepend(*b"\n");
        line.prepend_decimal(nsec / NSEC_PER_MSEC);
        line.prepend(*b": ");
        line.prepend_decimal(u64::from(pid));
        line
    }

    /// Returns the text of the line.
    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    #[inline]
    fn prepend<const N: usize>(&mut self, text: [u8; N]) {
        self.start -= N;
        self.bytes[self.start..][..N].copy_from_slice(&text);
    }

    /// Two digits a step, since a division costs more than all the rest.
    #[inline]
    fn prepend_decimal(&mut self, mut number: u64) {
        while number >= 100 {
            let pair = 2 * (number % 100) as usize;
            self.prepend([PAIRS[pair], PAIRS[pair + 1]]);
            number /= 100;
        }
        let pair = 2 * number as usize;
        if number >= 10 {
            self.prepend([PAIRS[pair], PAIRS[pair + 1]]);
        } else {
            self.prepend([PAIRS[pair + 1]]);
        }
    }
}
