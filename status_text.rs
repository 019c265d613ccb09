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

/// "00" to "99", and more than anybody asks for, so that no index has to be checked.
const PAIRS: [[u8; 2]; 128] = {
    let mut pairs = [[b'0'; 2]; 128];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// The space for one line, which is written from its end.
///
/// It is a power of two so that indices can be reduced to it, which costs less than checking them.
const SPACE: usize = LINE_MAX.next_power_of_two();

/// A formatter of lines.
pub(crate) struct Formatter {
    space: [u8; SPACE],
    start: usize,
}

impl Formatter {
    /// Creates a formatter.
    pub(crate) fn new() -> Self {
        Self {
            space: [0; SPACE],
            start: SPACE,
        }
    }

    /// Returns the line `PID: MS\n` of a process that has used `nsec` nanoseconds of CPU time.
    #[inline]
    pub(crate) fn line(&mut self, pid: u32, nsec: u64) -> &[u8] {
        self.start = SPACE;
        self.prepend(b'\n');
        self.prepend_decimal(nsec / NSEC_PER_MSEC);
        self.prepend(b' ');
        self.prepend(b':');
        self.prepend_decimal(u64::from(pid));
        &self.space[self.start % SPACE..]
    }

    #[inline]
    fn prepend(&mut self, byte: u8) {
        self.start = self.start.wrapping_sub(1);
        self.space[self.start % SPACE] = byte;
    }

    /// Two digits a step, since a division costs more than all the rest.
    #[inline]
    fn prepend_decimal(&mut self, mut number: u64) {
        while number >= 100 {
            self.prepend_pair(number % 100);
            number /= 100;
        }
        if number >= 10 {
            self.prepend_pair(number);
        } else {
            self.prepend(b'0' + number as u8);
        }
    }

    #[inline]
    fn prepend_pair(&mut self, number: u64) {
        let [tens, ones] = PAIRS[number as usize % PAIRS.len()];
        self.prepend(ones);
        self.prepend(tens);
    }
}
