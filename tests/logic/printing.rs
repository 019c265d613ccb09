// SPDX-License-Identifier: GPL-2.0

//! The line of a process.

use proptest::prelude::*;

use super::line::{Formatter, LINE_MAX};

fn expect_line(pid: u32, nsec: u64) {
    let mut formatter = Formatter::new();
    let expected = format!("{pid}: {}\n", nsec / 1_000_000);
    // The second line must show nothing of the first.
    for _ in 0..2 {
        assert_eq!(
            String::from_utf8_lossy(formatter.process(pid, nsec)),
            expected
        );
        formatter.process(u32::MAX, u64::MAX);
    }
    assert!(expected.len() <= LINE_MAX);
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
    assert_eq!(
        Formatter::new().process(u32::MAX, u64::MAX).len(),
        LINE_MAX,
        "the longest line"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_line(pid in 1u32.., nsec in any::<u64>(), shift in 0u32..64) {
        expect_line(pid >> (shift / 2), nsec >> shift);
    }
}
