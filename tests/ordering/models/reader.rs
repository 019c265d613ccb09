// SPDX-License-Identifier: GPL-2.0

//! Two readers of one exits file. Each looks at the file's cursor with the lock held, copies
//! without it, and moves the cursor with the lock held, unless another reader has moved it
//! (`OpenExits::copy_lines()`). Each byte goes to one of them.

use crate::at_once;
use loom::sync::{Arc, Mutex};

/// The length of a line, and of all lines.
const LINE: usize = 2;
const ALL: usize = 2 * LINE;

/// How a reader finds out that the cursor was moved.
#[derive(Clone, Copy)]
enum Check {
    /// As the module does.
    Version,
    Position,
    Nothing,
}

#[derive(Clone, Copy)]
struct Cursor {
    /// The number of the next line.
    next: usize,
    /// How much of the line before it has not been read.
    rest: usize,
    version: u64,
}

impl Cursor {
    fn offset(&self) -> usize {
        self.next * LINE - self.rest
    }
}

/// Returns the bytes that were read, by their numbers, `room` at most.
fn read(file: &Mutex<Cursor>, check: Check, room: usize) -> Vec<usize> {
    loop {
        let seen = *file.lock().unwrap();
        let start = seen.offset();
        let end = ALL.min(start + room);
        let bytes: Vec<_> = (start..end).collect();
        // The user's memory is copied to here, with no lock held.
        let next = end.div_ceil(LINE);
        let mut cursor = file.lock().unwrap();
        let is_unmoved = match check {
            Check::Version => cursor.version == seen.version,
            Check::Position => cursor.next == seen.next,
            Check::Nothing => true,
        };
        if is_unmoved {
            *cursor = Cursor {
                next,
                rest: next * LINE - end,
                version: cursor.version + 1,
            };
            return bytes;
        }
    }
}

/// `rest`: how much is left of the first line when both begin.
fn two_read(check: Check, rest: usize, room: usize) {
    loom::model(move || {
        let file = Arc::new(Mutex::new(Cursor {
            next: usize::from(rest > 0),
            rest,
            version: 0,
        }));
        let start = file.lock().unwrap().offset();
        let reader = || {
            let file = file.clone();
            move || read(&file, check, room)
        };
        let (mut bytes, others) = at_once(reader(), reader());
        bytes.extend(others);
        bytes.sort();
        let end = ALL.min(start + 2 * room);
        assert_eq!(bytes, Vec::from_iter(start..end), "each byte once");
    });
}

#[test]
fn each_byte_goes_to_one_reader() {
    for rest in 0..LINE {
        for room in 1..=ALL {
            two_read(Check::Version, rest, room);
        }
    }
}

#[test]
#[should_panic = "each byte once"]
fn not_without_a_check() {
    two_read(Check::Nothing, 0, LINE);
}

/// Reading the rest of a line leaves the number of the next one as it is.
#[test]
#[should_panic = "each byte once"]
fn not_by_the_position_alone() {
    two_read(Check::Position, 1, 1);
}
