// SPDX-License-Identifier: GPL-2.0

//! Waiting for what happens, never for a time.

use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

/// Long enough for a slow, emulated machine: a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(30);
/// The same for a whole step of a child, which can be thousands of processes.
const CHILD_DEADLINE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(1);

/// Returns what `found` gives as soon as it gives something.
pub fn until_some<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain: {what}");
        sleep(PAUSE);
    }
}

/// Returns as soon as `holds` does.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    until_some(what, || holds().then_some(()));
}

/// Returns as soon as there is something to read, or nothing will ever come.
pub fn readable(what: &str, file: impl AsFd) {
    readable_within(DEADLINE, what, file);
}

/// The same for the next word of a child, which may be that it is done with much.
pub(crate) fn word_of_child(file: impl AsFd) {
    readable_within(CHILD_DEADLINE, "a word of the child", file);
}

fn readable_within(deadline: Duration, what: &str, file: impl AsFd) {
    let end = Instant::now() + deadline;
    loop {
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, 1000u16) {
            Ok(0) | Err(Errno::EINTR) => {
                assert!(Instant::now() < end, "waited in vain: {what}");
            }
            Ok(_) => return,
            Err(errno) => panic!("poll: {errno}"),
        }
    }
}
