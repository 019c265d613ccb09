// SPDX-License-Identifier: GPL-2.0

//! What a write means: the module's parser against [`support::contract`], a second implementation
//! of the same rules.

use nix::errno::Errno;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::pid_list::{ParseError, Pids, up_to_last_space, without_terminator};
use support::contract::{self, Meaning};

const TAKEN: usize = 4096;

/// What the module makes of a write, put together as its write operation does.
fn parsed(bytes: &[u8]) -> Result<Option<Meaning>, Errno> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (text, all) = if bytes.len() > TAKEN {
        let text = up_to_last_space(&bytes[..TAKEN]).ok_or(Errno::EINVAL)?;
        (text, text.len())
    } else {
        (without_terminator(bytes), bytes.len())
    };
    let mut pids = Vec::new();
    for pid in Pids::new(text) {
        let pid = pid.map_err(|error| match error {
            ParseError::Invalid => Errno::EINVAL,
            ParseError::Range => Errno::ERANGE,
        })?;
        pids.push((pid.number, pid.end as usize));
    }
    if pids.is_empty() {
        Err(Errno::EINVAL)
    } else {
        Ok(Some(Meaning { pids, all }))
    }
}

fn expect_same(bytes: &[u8]) {
    assert_eq!(
        parsed(bytes),
        contract::meaning(bytes),
        "{:?}",
        String::from_utf8_lossy(bytes)
    );
}

#[test]
fn as_the_contract_says() {
    let good = |text: &str, pids: &[i32]| {
        let meaning = parsed(text.as_bytes())
            .unwrap_or_else(|e| panic!("{text:?}: {e}"))
            .expect("not empty");
        assert_eq!(
            meaning.pids.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(),
            pids,
            "{text:?}"
        );
        assert_eq!(meaning.all, text.len(), "{text:?}");
    };
    good("42", &[42]);
    good("42\n", &[42]);
    good("42\0", &[42]);
    good("42\n\0", &[42]);
    good(" 1\t2\r\n3\x0b4\x0c", &[1, 2, 3, 4]);
    good("2147483647", &[i32::MAX]);
    for invalid in [
        "abc",
        "12x",
        "1,2",
        "0x10",
        "1.5",
        "-1",
        "+1",
        "0",
        "1\x002",
        "\0",
        " ",
        "\n",
        "1 \0\0",
        "9999999999x",
    ] {
        assert_eq!(
            parsed(invalid.as_bytes()),
            Err(Errno::EINVAL),
            "{invalid:?}"
        );
    }
    for beyond in [
        "2147483648",
        "4294967297",
        "18446744073709551617",
        "1 99999999999999999999999999",
    ] {
        assert_eq!(parsed(beyond.as_bytes()), Err(Errno::ERANGE), "{beyond:?}");
    }
    assert_eq!(parsed(b""), Ok(None));
}

#[test]
fn all_short_texts_of_the_bytes_that_matter() {
    const BYTES: &[u8] = b"019 \n\x0b\0x-\x80";
    for len in 0..=6u32 {
        for number in 0..BYTES.len().pow(len) {
            let text: Vec<u8> = (0..len)
                .map(|place| BYTES[number / BYTES.len().pow(place) % BYTES.len()])
                .collect();
            expect_same(&text);
        }
    }
}

/// A number, or what looks like one.
fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => (1..=i32::MAX).prop_map(|number| number.to_string().into_bytes()),
        2 => any::<u128>().prop_map(|number| number.to_string().into_bytes()),
        1 => (i32::MAX as u32 - 3..i32::MAX as u32 + 4).prop_map(|number| number.to_string().into_bytes()),
        1 => (0..40usize, 0..9u32).prop_map(|(zeros, number)| [vec![b'0'; zeros], number.to_string().into_bytes()].concat()),
        1 => vec(any::<u8>(), 0..6),
    ]
}

fn space() -> impl Strategy<Value = Vec<u8>> {
    vec(select(b" \t\n\x0b\x0c\r".to_vec()), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn lists(words in vec((word(), space()), 0..20), end in word(), nul in any::<bool>()) {
        let mut text = words.into_iter().map(|(word, space)| [word, space].concat()).collect::<Vec<_>>().concat();
        text.extend(end);
        text.extend(nul.then_some(0));
        expect_same(&text);
    }

    #[test]
    fn nonsense(text in vec(any::<u8>(), 0..100)) {
        expect_same(&text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn long_lists(words in vec((1..=i32::MAX, space()), 300..900), len in 4080usize..4120) {
        let mut text = words
            .into_iter()
            .map(|(number, space)| [number.to_string().into_bytes(), space].concat())
            .collect::<Vec<_>>()
            .concat();
        text.truncate(len);
        expect_same(&text);
    }
}
