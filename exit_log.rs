// SPDX-License-Identifier: GPL-2.0

//! The log of exits: the records that open files still wait for.
//!
//! It holds at most [`KEPT`] records, and what they pin is bounded. For each PID namespace in which
//! files have been opened, a [`Viewer`] counts the records that the namespace sees. So the log
//! knows which files wait for a record, and how many records a file has missed.

#![forbid(unsafe_code)]

use crate::{
    gfp,
    process::{
        ExitedGroup,
        FinalTime,
        NamespaceId,
        Process, //
    }, //
};
use kernel::{
    pid_namespace::PidNamespace,
    prelude::*,
    rbtree::RBTree, //
};

/// How many records are kept for all files together.
pub(crate) const KEPT: usize = 16384;

/// How much memory the records may pin, in bytes: enough for [`KEPT`] processes in PID namespaces
/// up to three levels deep, unless each process pins a different namespace.
pub(crate) const PINNED_MAX: usize = KEPT * Process::pid_size_at(3);

/// How many first threads may be pinned until they have run their last instruction.
pub(crate) const ENDING_MAX: usize = 128;

/// When this many are pinned, a work item is queued to unpin those that are off their CPU, also if
/// they were preempted.
pub(crate) const ENDING_DUE: usize = 32;

/// How many records are looked at in one hold of the lock.
pub(crate) const BATCH: usize = 12;

/// A process that has exited.
pub(crate) struct Record {
    pub(crate) process: Process,
    pub(crate) time: FinalTime,
    /// How many open files have not read it yet.
    pub(crate) waiting: u32,
    /// What it pins, in bytes.
    pub(crate) pinned: u32,
}

/// A PID namespace in which files have been opened.
pub(crate) struct Viewer {
    /// How many are open.
    pub(crate) files: u32,
    /// The first record that is counted here.
    pub(crate) since: u64,
    /// How many records that it sees have been added to the log, and how many of them have left it.
    pub(crate) added: u64,
    pub(crate) left: u64,
}

/// The records, numbered from 0 in the order of the exits.
pub(crate) struct Log {
    /// A ring: record `number` is at index `number % KEPT`. Empty while no file is open.
    pub(crate) ring: KVVec<Option<Record>>,
    /// The number of the oldest record, and of the next one.
    pub(crate) first: u64,
    pub(crate) next: u64,
    /// How many files are open.
    pub(crate) files: usize,
    pub(crate) viewers: RBTree<NamespaceId, Viewer>,
    /// What the records pin, in bytes.
    pub(crate) pinned: usize,
    /// How many records pin a first thread, and a record number below which none does.
    pub(crate) ending: usize,
    pub(crate) settled: u64,
    /// The namespaces that were charged to a record lately. Records of one namespace share its
    /// cost.
    pub(crate) charged: [Option<NamespaceId>; 16],
}

impl Log {
    /// Creates an empty log, without memory for records.
    pub(crate) fn new() -> Self {
        Self {
            ring: KVVec::new(),
            first: 0,
            next: 0,
            files: 0,
            viewers: RBTree::new(),
            pinned: 0,
            ending: 0,
            settled: 0,
            charged: [None; 16],
        }
    }

    pub(crate) fn place(number: u64) -> usize {
        (number % KEPT as u64) as usize
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Record> {
        self.ring.get(Self::place(number))?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Record> {
        self.ring.get_mut(Self::place(number))?.as_mut()
    }

    /// Returns how much memory a record of `process` pins.
    fn charge(&self, process: &Process) -> usize {
        let namespace = process.namespace();
        if self.charged[namespace.key() % 16] == Some(namespace) {
            process.pid_size()
        } else {
            process.pid_size() + process.namespace_size()
        }
    }

    /// Adds a record, unless no open file waits for it. Returns whether there is a new record.
    ///
    /// # Errors
    ///
    /// If there is no room, the oldest record leaves the log and is returned. The caller drops it
    /// without the lock, and tries again.
    pub(crate) fn add(
        &mut self,
        process: &Process,
        group: &ExitedGroup<'_>,
    ) -> Result<bool, Record> {
        let mut waiting = 0;
        for namespace in process.namespaces() {
            waiting += self
                .viewers
                .get(&namespace)
                .map_or(0, |viewer| viewer.files);
        }
        if waiting == 0 || self.ring.is_empty() {
            return Ok(false);
        }
        let pinned = self.charge(process);
        if self.next - self.first == KEPT as u64 || self.pinned + pinned > PINNED_MAX {
            if let Some(oldest) = self.take_first() {
                return Err(oldest);
            }
        }

        for namespace in process.namespaces() {
            if let Some(viewer) = self.viewers.get_mut(&namespace) {
                viewer.added += 1;
            }
        }
        let namespace = process.namespace();
        self.charged[namespace.key() % 16] = Some(namespace);
        let time = group.final_time(self.ending < ENDING_MAX);
        self.ending += usize::from(!time.is_settled());
        self.pinned += pinned;
        self.ring[Self::place(self.next)] = Some(Record {
            process: process.clone(),
            time,
            waiting,
            pinned: pinned as u32,
        });
        self.next += 1;
        Ok(true)
    }

    /// Takes the oldest record out.
    pub(crate) fn take_first(&mut self) -> Option<Record> {
        let number = self.first;
        let record = self.ring.get_mut(Self::place(number))?.take()?;
        self.first += 1;
        self.pinned -= record.pinned as usize;
        self.ending -= usize::from(!record.time.is_settled());
        for namespace in record.process.namespaces() {
            if let Some(viewer) = self.viewers.get_mut(&namespace) {
                viewer.left += u64::from(number >= viewer.since);
            }
        }
        Some(record)
    }

    /// Takes out the oldest record, if no file waits for it. The caller drops it without the lock.
    pub(crate) fn take_read(&mut self) -> Option<Record> {
        let record = self.get(self.first)?;
        if record.waiting > 0 {
            return None;
        }
        self.take_first()
    }

    /// Makes a file that was opened in `ns` stop waiting for the records in `from..to` that `ns`
    /// sees.
    pub(crate) fn pass(&mut self, ns: &PidNamespace, from: u64, to: u64) {
        for number in from.max(self.first)..to {
            if let Some(record) = self.get_mut(number) {
                if record.process.number_in(ns).is_some() {
                    record.waiting -= 1;
                }
            }
        }
    }

    /// Settles the times of threads that have run their last instruction, up to a batch of them;
    /// while many are pinned, those of preempted threads as well. Returns whether there may be
    /// more.
    pub(crate) fn settle(&mut self) -> bool {
        self.settled = self.settled.max(self.first);
        for _ in 0..BATCH {
            let number = self.settled;
            if number == self.next {
                return false;
            }
            let may_wait = self.ending < ENDING_DUE;
            if let Some(record) = self.get_mut(number) {
                if record.time.is_running() || (may_wait && record.time.is_ending()) {
                    return false;
                }
                self.ending -= usize::from(record.time.settle());
            }
            self.settled += 1;
        }
        true
    }
}

/// Allocates a ring without records, charged to the process that opens the file.
pub(crate) fn new_ring() -> Result<KVVec<Option<Record>>> {
    let mut ring = KVVec::with_capacity(KEPT, gfp::user_account())?;
    for _ in 0..KEPT {
        // There is room for it.
        ring.push(None, gfp::user_account())?;
    }
    Ok(ring)
}
