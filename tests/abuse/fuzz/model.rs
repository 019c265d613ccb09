// SPDX-License-Identifier: GPL-2.0

//! The processes that are there, and what the file must show of them.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write;
use std::fs::File;

use fastrand::Rng;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{self, Pid};

use super::Counter;
use super::memory::Edge;
use super::open_file::Pipe;
use support::child::{Child, getpid, gettid};
use support::contract::{self, Meaning};
use support::exits::{self, Record};
use support::status;

const LIVING: usize = 24;
/// Identities of processes that are not ours begin here: their number is added.
const FOREIGN: u64 = 1 << 40;

/// A process of ours.
struct Living {
    child: Child,
    /// The number of another thread of it.
    thread: Option<i32>,
    identity: u64,
}

/// A registration.
struct Entry {
    identity: u64,
    number: i32,
    ms: u64,
    /// The process has exited, or may have.
    may_vanish: bool,
}

/// What an open file of exits has to tell.
struct Exits {
    file: File,
    /// The beginning of a line whose end has not been read yet.
    begun: Vec<u8>,
    /// The processes that have exited since, in order.
    expected: VecDeque<i32>,
}

impl Exits {
    fn open() -> Self {
        Self {
            file: exits::open_nonblocking(),
            begun: Vec::new(),
            expected: VecDeque::new(),
        }
    }
}

pub struct Model {
    living: Vec<Living>,
    zombies: Vec<Living>,
    /// Numbers of processes that have been reaped.
    free: Vec<i32>,
    next_identity: u64,
    entries: Vec<Entry>,
    /// All numbers of processes that are not ours and were registered.
    foreign: HashSet<i32>,
    updates: bool,
    exits: Exits,
    pub edge: Edge,
    pub pipe: Pipe,
}

impl Model {
    pub fn new(rng: &mut Rng, updates: bool) -> Self {
        let mut model = Self {
            living: Vec::new(),
            zombies: Vec::new(),
            free: Vec::new(),
            next_identity: 0,
            entries: Vec::new(),
            foreign: HashSet::new(),
            updates,
            exits: Exits::open(),
            edge: Edge::new(),
            pipe: Pipe::new(),
        };
        for _ in 0..LIVING {
            model.start_one(rng);
        }
        model
    }

    /// Starts a process, maybe with the number of one that was there before.
    pub fn start_one(&mut self, rng: &mut Rng) {
        if self.living.len() > 2 * LIVING {
            return;
        }
        let threaded = rng.u32(..4) == 0;
        let body = move |parent: &mut support::child::Parent| {
            if threaded {
                let (tell, hear) = std::sync::mpsc::channel();
                std::thread::spawn(move || {
                    tell.send(gettid()).expect("the first thread listens");
                    loop {
                        std::thread::park();
                    }
                });
                parent.tell(hear.recv().expect("the other thread speaks").into());
            }
            parent.wait_forever()
        };
        let again = self
            .free
            .pop()
            .filter(|number| rng.bool() && !exists(*number));
        let child = match again {
            Some(number) => Child::start_numbered(number, body),
            None => Child::start(body),
        };
        let thread = threaded.then(|| child.hear() as i32);
        self.next_identity += 1;
        self.living.push(Living {
            child,
            thread,
            identity: self.next_identity,
        });
    }

    /// Ends a process, or reaps one.
    pub fn end_one(&mut self, rng: &mut Rng) {
        if self.zombies.len() > 4 {
            let zombie = self.zombies.swap_remove(rng.usize(..self.zombies.len()));
            self.free.push(zombie.child.end());
        }
        if self.living.len() <= LIVING / 2 {
            return;
        }
        let mut dead = self.living.swap_remove(rng.usize(..self.living.len()));
        for entry in self
            .entries
            .iter_mut()
            .filter(|entry| entry.identity == dead.identity)
        {
            entry.may_vanish = true;
        }
        dead.child.kill();
        dead.thread = None;
        if self
            .entries
            .iter()
            .any(|entry| entry.identity == dead.identity)
        {
            self.exits.expected.push_back(dead.child.pid());
        }
        self.zombies.push(dead);
    }

    /// Reads some of the exits, and compares them.
    pub fn read_exits(&mut self, rng: &mut Rng, counter: &mut Counter) {
        counter.call();
        let exits = &mut self.exits;
        let mut piece = vec![0; rng.usize(1..100)];
        match unistd::read(&exits.file, &mut piece) {
            Ok(len) => exits.begun.extend_from_slice(&piece[..len]),
            Err(errno) => {
                assert_eq!(errno, Errno::EAGAIN, "a read of exits");
                assert!(
                    exits.begun.is_empty() && exits.expected.is_empty(),
                    "exits end with {:?}, and {:?} have not been told of",
                    String::from_utf8_lossy(&exits.begun),
                    exits.expected
                );
            }
        }
        while let Some(end) = exits.begun.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = exits.begun.drain(..=end).collect();
            let [Record::Exit(line)] = exits::parse(&line)[..] else {
                panic!("records of exits are lost")
            };
            if exits.expected.front() == Some(&line.pid) {
                exits.expected.pop_front();
                continue;
            }
            assert!(
                self.foreign.contains(&line.pid),
                "an exit of {}, and the next is one of {:?}",
                line.pid,
                exits.expected
            );
        }
    }

    /// Returns whether the number of a process that has gone may be that of one which is not ours.
    fn is_taken(&self, entry: &Entry) -> bool {
        let mut zombies = self.zombies.iter();
        zombies.all(|zombie| zombie.identity != entry.identity) && exists(entry.number)
    }

    /// Returns whether the number of an entry is another process's of ours by now.
    fn is_reused(&self, entry: &Entry) -> bool {
        let mut owners = self.living.iter().chain(&self.zombies);
        owners.any(|owner| {
            let own = owner.child.pid() == entry.number || owner.thread == Some(entry.number);
            own && owner.identity != entry.identity
        })
    }

    /// Returns a number to write.
    pub fn number(&self, rng: &mut Rng) -> i32 {
        let living = &self.living[rng.usize(..self.living.len())];
        let or_living = |number: Option<i32>| number.unwrap_or(living.child.pid());
        match rng.u32(..100) {
            0..6 => or_living(living.thread),
            6..9 => or_living(self.zombies.last().map(|zombie| zombie.child.pid())),
            9..12 => or_living(self.free.last().copied()),
            12 => *[1, 2, getpid()].get(rng.usize(..3)).expect("one of three"),
            // No kernel has so many processes.
            13..15 => rng.i32(4_194_305..),
            _ => living.child.pid(),
        }
    }

    /// Returns identity and process number of the process that a written number means.
    fn resolve(&self, number: i32) -> Option<(u64, i32)> {
        let ours = |one: &&Living| one.child.pid() == number || one.thread == Some(number);
        if let Some(living) = self.living.iter().find(ours) {
            Some((living.identity, living.child.pid()))
        } else if self
            .zombies
            .iter()
            .any(|zombie| zombie.child.pid() == number)
            || !exists(number)
        {
            None
        } else {
            Some((FOREIGN + number as u64, number))
        }
    }

    /// Compares what a write of `bytes` returned with what it had to return, of which the first
    /// `readable` bytes could be read, and notes what it has registered.
    pub fn wrote(&mut self, bytes: &[u8], readable: usize, got: Result<usize, Errno>) {
        let expected = self.expected(bytes, readable, got);
        assert_eq!(
            got,
            expected,
            "a write of {:?}, {readable} bytes of it readable",
            String::from_utf8_lossy(bytes)
        );
    }

    /// The same for a later part of a `writev`, whose error is not returned.
    pub fn failed_to_write(&mut self, bytes: &[u8]) {
        let expected = self.expected(bytes, bytes.len(), Err(Errno::ESRCH));
        assert!(
            expected.is_err(),
            "a part of a writev failed, {:?}: {expected:?}",
            String::from_utf8_lossy(bytes)
        );
    }

    fn expected(
        &mut self,
        bytes: &[u8],
        readable: usize,
        got: Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        if readable < bytes.len().min(4096) {
            return Err(Errno::EFAULT);
        }
        match contract::meaning(bytes)? {
            None => Ok(0),
            Some(meaning) => self.register(&meaning, got),
        }
    }

    fn register(&mut self, meaning: &Meaning, got: Result<usize, Errno>) -> Result<usize, Errno> {
        let mut written = Err(Errno::ESRCH);
        for (number, end) in &meaning.pids {
            let Some((identity, pid)) = self.resolve(*number) else {
                return written;
            };
            // A thread of the kernel may have ended since it was looked up.
            if identity > FOREIGN && got == written && !exists(*number) {
                return written;
            }
            if identity > FOREIGN {
                self.foreign.insert(pid);
            }
            if !self.entries.iter().any(|entry| entry.identity == identity) {
                let may_vanish = identity > FOREIGN && pid != 1 && pid != getpid();
                self.entries.push(Entry {
                    identity,
                    number: pid,
                    ms: 0,
                    may_vanish,
                });
            }
            written = Ok(*end);
        }
        Ok(meaning.all)
    }

    /// Reads the whole file and compares it.
    pub fn check(&mut self, counter: &mut Counter) {
        counter.call();
        let text = status::text();
        self.accept(text.as_bytes())
            .unwrap_or_else(|why| panic!("{why}\nin:\n{text}"));
    }

    /// Compares a new snapshot with the registrations, and notes which of them are gone by now.
    pub fn accept(&mut self, text: &[u8]) -> Result<(), String> {
        let lines = status::try_parse(text)?;
        // From the end: where a number has come back, its later owner is the one that must be
        // there.
        let mut lines = lines.iter().rev().peekable();
        let mut shown = Vec::new();
        for entry in self.entries.iter().rev() {
            let reused = self.is_reused(entry);
            let line = lines.next_if(|line| line.pid == entry.number && !reused);
            match line {
                Some(line) if line.ms < entry.ms => {
                    return Err(format!(
                        "the time of {} went from {} to {}",
                        line.pid, entry.ms, line.ms
                    ));
                }
                Some(line) if !self.updates && line.ms != 0 => {
                    return Err(format!("{} has a time before any update", line.pid));
                }
                Some(line) => shown.push(Some(line.ms)),
                // Its line is left out while its number is another's, and may come back.
                None if reused || entry.may_vanish && self.is_taken(entry) => {
                    shown.push(Some(entry.ms));
                }
                None if entry.may_vanish && self.updates => shown.push(None),
                None => {
                    return Err(format!(
                        "{} is missing or misplaced; {}",
                        entry.number,
                        self.describe()
                    ));
                }
            }
        }
        if let Some(line) = lines.next() {
            return Err(format!(
                "a line of {} is one too many; {}",
                line.pid,
                self.describe()
            ));
        }

        let mut shown = shown.into_iter().rev();
        self.entries.retain_mut(|entry| {
            let ms = shown.next().expect("one for each entry");
            entry.ms = ms.unwrap_or_default();
            ms.is_some()
        });
        Ok(())
    }

    fn describe(&self) -> String {
        let mut text = String::from("registered, in order:");
        for entry in &self.entries {
            let mark = if entry.may_vanish { "?" } else { "" };
            write!(text, " {}{mark}", entry.number).expect("a string");
        }
        text
    }
}

fn exists(number: i32) -> bool {
    kill(Pid::from_raw(number), None) != Err(Errno::ESRCH)
}
