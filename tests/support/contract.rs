// SPDX-License-Identifier: GPL-2.0

//! What a write means: a second implementation, independent of the module's.

use nix::errno::Errno;

/// How much of a write is looked at.
const TAKEN: usize = 4096;

/// The PIDs of a good write, each with the number of bytes up to its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Meaning {
    pub pids: Vec<(i32, usize)>,
    /// What the write returns if all of them can be registered.
    pub all: usize,
}

/// Says what a write of `bytes` asks for; [`None`]: nothing, and it returns 0.
pub fn meaning(bytes: &[u8]) -> Result<Option<Meaning>, Errno> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (text, all) = if bytes.len() > TAKEN {
        let end = (0..TAKEN)
            .rev()
            .find(|at| is_space(bytes[*at]))
            .ok_or(Errno::EINVAL)?;
        (&bytes[..=end], end + 1)
    } else if bytes.last() == Some(&0) {
        (&bytes[..bytes.len() - 1], bytes.len())
    } else {
        (bytes, bytes.len())
    };

    let mut pids = Vec::new();
    let mut end = 0;
    for token in text.split(|byte| is_space(*byte)) {
        end += token.len();
        if !token.is_empty() {
            pids.push((pid(token)?, end));
        }
        end += 1;
    }
    if pids.is_empty() {
        Err(Errno::EINVAL)
    } else {
        Ok(Some(Meaning { pids, all }))
    }
}

/// White space is what `isspace` of C takes for it.
pub fn is_space(byte: u8) -> bool {
    b" \t\n\x0b\x0c\r".contains(&byte)
}

fn pid(token: &[u8]) -> Result<i32, Errno> {
    if !token.iter().all(u8::is_ascii_digit) {
        return Err(Errno::EINVAL);
    }
    let digits: String = token.iter().map(|digit| char::from(*digit)).collect();
    match digits.trim_start_matches('0') {
        "" => Err(Errno::EINVAL),
        digits if digits.len() > 10 => Err(Errno::ERANGE),
        digits => digits
            .parse::<u64>()
            .expect("at most ten digits")
            .try_into()
            .map_err(|_| Errno::ERANGE),
    }
}
