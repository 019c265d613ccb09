// SPDX-License-Identifier: GPL-2.0

//! The lines that are read from the files.
//!
//! Pure logic on bytes, built for the kernel and for the host's tests alike.

#![forbid(unsafe_code)]

/// The nanoseconds of a millisecond.
const NSEC_PER_MSEC: u64 = 1_000_000;

/// The length of the longest line of a process: ten digits of a PID, and fourteen of as many
/// milliseconds as 64 bits of nanoseconds make. A line of lost records is no longer.
pub(crate) const LINE_MAX: usize = 10 + b": ".len() + 14 + b"\n".len();

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
    pub(crate) fn process(&mut self, pid: u32, nsec: u64) -> &[u8] {
        self.start = SPACE;
        self.prepend(b'\n');
        self.prepend_decimal(nsec / NSEC_PER_MSEC);
        self.prepend(b' ');
        self.prepend(b':');
        self.prepend_decimal(u64::from(pid));
        &self.space[self.start % SPACE..]
    }

    /// Returns the line `lost: N\n` for `count` lines that are not there any more.
    pub(crate) fn lost(&mut self, count: u64) -> &[u8] {
        self.start = SPACE;
        self.prepend(b'\n');
        self.prepend_decimal(count);
        for byte in b"lost: ".iter().rev() {
            self.prepend(*byte);
        }
        &self.space[self.start % SPACE..]
    }

    #[inline]
    fn prepend(&mut self, byte: u8) {
        self.start = self.start.wrapping_sub(1);
        self.space[self.start % SPACE] = byte;
    }

    #[inline]
    fn prepend_decimal(&mut self, mut number: u64) {
        loop {
            self.prepend(b'0' + (number % 10) as u8);
            number /= 10;
            if number == 0 {
                break;
            }
        }
    }
}
