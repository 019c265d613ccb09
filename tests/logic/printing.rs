// SPDX-License-Identifier: GPL-2.0

//! The lines of processes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::line::{LINE_MAX, Lines};

/// Prepends each process, and compares the text with what it must be.
fn expect_lines(processes: &[(u32, u64)]) {
    let mut lines = Lines::<8>::new();
    // The second text must show nothing of the first.
    for _ in 0..2 {
        lines.clear();
        let mut expected = String::new();
        for (pid, nsec) in processes {
            lines.prepend_process(*pid, *nsec);
            expected.insert_str(0, &format!("{pid}: {}\n", nsec / 1_000_000));
            assert_eq!(String::from_utf8_lossy(lines.text()), expected);
        }
    }
}

fn expect_line(pid: u32, nsec: u64) {
    expect_lines(&[(pid, nsec)]);
}

#[test]
fn extremes() {
    for pid in [1, 9, 10, 99, 100, 4_194_304, i32::MAX as u32, u32::MAX] {
        for nsec in [
            0,
            999_999,
            1_000_000,
            9_999_999,
            10_000_000,
            99_000_000,
            100_000_000,
            u64::MAX,
        ] {
            expect_line(pid, nsec);
        }
    }
}

#[test]
fn the_longest_lines() {
    expect_lines(&[(u32::MAX, u64::MAX); 8]);
    let mut lines = Lines::<8>::new();
    // What has no room is left out as a whole.
    for _ in 0..100 {
        lines.prepend_process(u32::MAX, u64::MAX);
    }
    assert_eq!(lines.text().len() % LINE_MAX, 0);
    assert!(lines.text().len() >= 8 * LINE_MAX);
}

#[test]
fn lost_lines_and_parts() {
    let mut lines = Lines::<3>::new();
    lines.prepend_lost(u64::MAX);
    lines.prepend_part(b"");
    lines.prepend_part(b"2: 3\n");
    let part = [b'9'; LINE_MAX];
    lines.prepend_part(&part);
    let expected = [&part[..], b"2: 3\nlost: 18446744073709551615\n"].concat();
    assert_eq!(lines.text(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_line(pid in 1u32.., nsec in any::<u64>(), shift in 0u32..64) {
        expect_line(pid >> (shift / 2), nsec >> shift);
    }

    #[test]
    fn any_lines(processes in vec((any::<u32>(), any::<u64>()), 0..=8)) {
        expect_lines(&processes);
    }
}
