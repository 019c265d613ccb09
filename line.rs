// SPDX-License-Identifier: GPL-2.0

//! The lines that are read from the files.
//!
//! Pure logic on bytes, built for the kernel and for the host's tests alike.

#![forbid(unsafe_code)]

/// The nanoseconds of a millisecond.
const NSEC_PER_MSEC: u64 = 1_000_000;

/// The length of the longest line of a process: ten digits of the PID, and fourteen of 64 bits of
/// nanoseconds in milliseconds. A line of lost records is not longer.
pub(crate) const LINE_MAX: usize = 10 + b": ".len() + 14 + b"\n".len();

/// The space for one line. A power of two: masking an index costs less than a bounds check.
const SPACE: usize = LINE_MAX.next_power_of_two();

/// A text with room for at least `N` lines. It is written from its end to its start, since that is
/// the order in which the digits of a number come out.
pub(crate) struct Lines<const N: usize> {
    space: [[u8; SPACE]; N],
    start: usize,
}

impl<const N: usize> Lines<N> {
    /// Creates an empty text.
    pub(crate) fn new() -> Self {
        Self {
            space: [[0; SPACE]; N],
            start: N * SPACE,
        }
    }

    /// Removes all lines.
    pub(crate) fn clear(&mut self) {
        self.start = N * SPACE;
    }

    /// Returns the text.
    pub(crate) fn text(&self) -> &[u8] {
        self.space.as_flattened().get(self.start..).unwrap_or(&[])
    }

    /// Prepends the line `PID: MS\n` of a process that has used `nsec` nanoseconds of CPU time.
    ///
    /// Does nothing if there is no room.
    pub(crate) fn prepend_process(&mut self, pid: u32, nsec: u64) {
        self.prepend(|line| {
            line.prepend(b'\n');
            line.prepend_decimal(nsec / NSEC_PER_MSEC);
            line.prepend(b' ');
            line.prepend(b':');
            line.prepend_decimal(u64::from(pid));
        });
    }

    /// Prepends the line `lost: N\n` for `count` lost records.
    ///
    /// Does nothing if there is no room.
    pub(crate) fn prepend_lost(&mut self, count: u64) {
        self.prepend(|line| {
            line.prepend(b'\n');
            line.prepend_decimal(count);
            line.prepend_bytes(b"lost: ");
        });
    }

    /// Prepends a part of a line, of at most [`LINE_MAX`] bytes.
    ///
    /// Does nothing if there is no room.
    pub(crate) fn prepend_part(&mut self, part: &[u8]) {
        self.prepend(|line| line.prepend_bytes(&part[part.len().saturating_sub(LINE_MAX)..]));
    }

    fn prepend(&mut self, write: impl FnOnce(&mut Line<'_>)) {
        let free = self.space.as_flattened_mut().get_mut(..self.start);
        if let Some(space) = free.and_then(|free| free.last_chunk_mut()) {
            let mut line = Line {
                space,
                start: SPACE,
            };
            write(&mut line);
            self.start -= SPACE - line.start;
        }
    }
}

/// The space before a text. One line is written into it, from its end.
struct Line<'a> {
    space: &'a mut [u8; SPACE],
    start: usize,
}

impl Line<'_> {
    fn prepend(&mut self, byte: u8) {
        self.start = self.start.wrapping_sub(1) % SPACE;
        self.space[self.start] = byte;
    }

    fn prepend_bytes(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().rev() {
            self.prepend(*byte);
        }
    }

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
