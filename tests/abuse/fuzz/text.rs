// SPDX-License-Identifier: GPL-2.0

//! What is written: good lists of PIDs, lists with something wrong in them, and nonsense.

use fastrand::Rng;

use super::model::Model;

const SPACES: &[u8] = b" \t\n\x0b\x0c\r";
const INTERESTING: [&str; 22] = [
    "0",
    "00",
    "-1",
    "+1",
    "1.5",
    "0x10",
    "1,2",
    "12x",
    "abc",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
    "99999999999999999999999999x",
    "4194305",
    "007",
    "\0",
    "1\0",
    "1e3",
    "\u{660}",
];

pub fn any(rng: &mut Rng, model: &Model) -> Vec<u8> {
    match rng.u32(..20) {
        0..9 => one(rng, model),
        9..13 => {
            let count = rng.usize(1..40);
            list(rng, model, count)
        }
        13 => long(rng, model),
        14..18 => {
            let count = rng.usize(1..6);
            let mut text = list(rng, model, count);
            for _ in 0..rng.usize(1..3) {
                spoil(rng, &mut text);
            }
            text
        }
        18 => random(rng, |rng| rng.u8(..)),
        _ => random(rng, |rng| *pick(rng, b"0123456789 \n\0-x")),
    }
}

fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}

/// A PID as `echo`, `printf` or a C program writes it.
fn one(rng: &mut Rng, model: &Model) -> Vec<u8> {
    let mut text = model.number(rng).to_string().into_bytes();
    text.extend_from_slice(pick::<&[u8]>(
        rng,
        &[b"", b"\n", b"\0", b"\n\0", b" ", b"\r\n"],
    ));
    text
}

fn list(rng: &mut Rng, model: &Model, count: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..rng.usize(..2) {
        text.push(*pick(rng, SPACES));
    }
    for _ in 0..count {
        text.extend_from_slice(model.number(rng).to_string().as_bytes());
        for _ in 0..=rng.usize(..2) {
            text.push(*pick(rng, SPACES));
        }
    }
    match rng.u32(..3) {
        0 => _ = text.pop(),
        1 => text.push(0),
        _ => {}
    }
    text
}

/// A list around the length at which a write is cut.
fn long(rng: &mut Rng, model: &Model) -> Vec<u8> {
    let len = *pick(
        rng,
        &[
            4000, 4093, 4094, 4095, 4096, 4097, 4098, 4100, 5000, 8191, 8192, 12000,
        ],
    );
    let mut text = Vec::new();
    match rng.u32(..3) {
        // Little but white space.
        0 => {
            text.resize(len, b' ');
            let number = model.number(rng).to_string();
            let at = rng.usize(..len - number.len());
            text[at..][..number.len()].copy_from_slice(number.as_bytes());
        }
        // One word, which may be a number of many digits.
        1 => text.resize(len, *pick(rng, b"01x")),
        _ => {
            while text.len() < len {
                text.extend_from_slice(model.number(rng).to_string().as_bytes());
                text.push(*pick(rng, SPACES));
            }
            text.truncate(len);
        }
    }
    text
}

fn spoil(rng: &mut Rng, text: &mut Vec<u8>) {
    let at = rng.usize(..=text.len());
    match rng.u32(..5) {
        0 => text.insert(at, rng.u8(..)),
        1 if at < text.len() => _ = text.remove(at),
        2 if at < text.len() => text[at] ^= 1 << rng.u32(..8),
        3 => text.truncate(at),
        _ => {
            let word = pick(rng, &INTERESTING).as_bytes();
            text.splice(at..at, word.iter().copied());
        }
    }
}

fn random(rng: &mut Rng, mut byte: impl FnMut(&mut Rng) -> u8) -> Vec<u8> {
    let len = match rng.u32(..10) {
        0 => rng.usize(..10_000),
        1..4 => rng.usize(..100),
        _ => rng.usize(..8),
    };
    (0..len).map(|_| byte(rng)).collect()
}
