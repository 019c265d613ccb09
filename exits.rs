// SPDX-License-Identifier: GPL-2.0

//! `/proc/mp1/exits`: a line for each registered process that exits, with its final CPU time.
//!
//! All open files share one [`Log`] of records. Each file reads it at its own position. The
//! callback at an exit adds a record. The last file to wait for a record drops it. A file that
//! falls behind misses the oldest records, and is told how many.
//!
//! A file shows the exits that its opener's PID namespace sees, with PIDs as in its reader's
//! namespace.
//!
//! A read copies without a lock and then moves the file's position. If another reader of the same
//! file has moved it meanwhile, the read retries. So a bad pointer loses nothing, and no caller
//! waits for a reader.

#![forbid(unsafe_code)]

use crate::{
    exit_log::{
        new_ring,
        Log,
        Viewer,
        BATCH,
        ENDING_DUE, //
    },
    gfp,
    line::{
        Lines,
        LINE_MAX, //
    },
    poll::{
        Events,
        PollQueue, //
    },
    proc::{
        FileOps,
        Reader, //
    },
    process::{
        ExitedGroup,
        NamespaceId,
        Process, //
    },
    raw_spinlock::{
        new_raw_spinlock,
        RawSpinLockIrqSave, //
    },
    workqueue::{
        self,
        OwnedQueue, //
    }, //
};
use core::{
    mem,
    sync::atomic::{
        AtomicBool,
        AtomicUsize,
        Ordering::{
            Acquire,
            Relaxed,
            Release, //
        }, //
    }, //
};
use kernel::{
    current,
    impl_has_work,
    new_work,
    pid_namespace::PidNamespace,
    prelude::*,
    processor::cpu_relax,
    rbtree::RBTreeNodeReservation,
    sync::{
        aref::ARef,
        Arc,
        ArcBorrow,
        LockedBy, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

/// How many times a reader checks whether an exiting thread has run its last instruction. The
/// thread needs microseconds for that, or longer if it was preempted, or a hypervisor has preempted
/// its CPU. So the reader first spins, then sleeps between the checks: some 20 ms for one read.
const SPINS: usize = 200;
const SLEEPS: usize = 200;
const PAUSE: Delta = Delta::from_micros(50);

/// Where an open file is in the log.
#[derive(Clone, Copy)]
struct Position {
    /// The number of the next record.
    next: u64,
    /// How many earlier records its namespace sees, counted as in [`Viewer::added`].
    passed: u64,
}

/// What an open file has read.
struct Cursor {
    position: Position,
    /// The rest of a line that has been read in part.
    rest: [u8; LINE_MAX],
    rest_len: usize,
    /// Counts the changes, so that a reader notices those that other readers make.
    version: u64,
}

/// A line that a file reads next.
#[derive(Clone, Copy)]
enum Line {
    Lost(u64),
    Process { number: u32, nsec: u64 },
}

/// A snapshot of what a file reads next, taken with the lock held.
struct Ahead {
    /// The version and the position of the cursor at that time.
    version: u64,
    from: Position,
    rest: [u8; LINE_MAX],
    rest_len: usize,
    /// The lines after `rest`, each with the position after that line.
    lines: [(Line, Position); BATCH],
    len: usize,
    /// The position after the last record that was looked at.
    to: Position,
    /// Whether there may be more.
    has_more: bool,
    /// Whether the next record has a thread that is yet to run its last instruction.
    is_ending: bool,
}

impl Ahead {
    fn new() -> Self {
        let start = Position { next: 0, passed: 0 };
        Self {
            version: 0,
            from: start,
            rest: [0; LINE_MAX],
            rest_len: 0,
            lines: [(Line::Lost(0), start); BATCH],
            len: 0,
            to: start,
            has_more: false,
            is_ending: false,
        }
    }

    fn push(&mut self, line: Line) {
        if let Some(place) = self.lines.get_mut(self.len) {
            *place = (line, self.to);
            self.len += 1;
        }
    }
}

/// The log of exits, with the wait queue of its readers.
#[pin_data]
pub(crate) struct Exits {
    #[pin]
    log: RawSpinLockIrqSave<Log>,
    /// A copy of [`Log::files`], which an exit reads first, without the lock.
    files: AtomicUsize,
    readers: Arc<PollQueue>,
    is_closed: AtomicBool,
    /// Unpins threads, and wakes readers.
    #[pin]
    work: Work<Self>,
    queue: Arc<OwnedQueue>,
}

impl_has_work! {
    impl HasWork<Self> for Exits { self.work }
}

impl WorkItem for Exits {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.settle();
        this.readers.wake(Events::READABLE);
    }
}

impl Exits {
    /// Creates an empty log, whose readers are woken by work on `queue`.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory.
    pub(crate) fn new(queue: Arc<OwnedQueue>) -> Result<Arc<Self>> {
        let readers = Arc::new(PollQueue::new(c"mp1_exits")?, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                log <- new_raw_spinlock!(Log::new(), "Exits::log"),
                files: AtomicUsize::new(0),
                readers,
                is_closed: AtomicBool::new(false),
                work <- new_work!("Exits::work"),
                queue,
            }),
            GFP_KERNEL,
        )
    }

    /// Adds a record of `process`, if an open file waits for it. Called at its exit.
    ///
    /// Context: as [`ExitHandler::exited`](crate::exit_watch::ExitHandler::exited).
    pub(crate) fn record(this: ArcBorrow<'_, Self>, process: &Process, group: &ExitedGroup<'_>) {
        // A file that was opened before the exit is counted by now.
        if this.files.load(Relaxed) == 0 {
            return;
        }
        let is_due = loop {
            let mut log = this.log.lock();
            match log.add(process, group) {
                Ok(true) => break log.ending >= ENDING_DUE,
                Ok(false) => return,
                Err(oldest) => {
                    drop(log);
                    drop(oldest);
                }
            }
        };
        // Readers are woken by work, since their number is the users' choice.
        if is_due || this.readers.has_waiters() {
            // An error means that the work is queued already, or disabled.
            let _ = this.queue.enqueue::<Arc<Self>, 0>(this.into());
        }
    }

    /// Unpins the threads that have run their last instruction.
    ///
    /// Context: process context.
    pub(crate) fn settle(&self) {
        while self.log.lock().settle() {}
    }

    /// Drops the oldest records, up to the first one that a file still waits for.
    fn drop_read(&self) {
        loop {
            // The lock is released before the record is dropped.
            let record = self.log.lock().take_read();
            if record.is_none() {
                return;
            }
        }
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Acquire)
    }
}

/// An open exits file.
pub(crate) struct OpenExits {
    exits: Arc<Exits>,
    /// The PID namespace of its opener.
    ns: ARef<PidNamespace>,
    cursor: LockedBy<Cursor, Log>,
}

impl OpenExits {
    /// Opens a file, which shows the exits from now on.
    fn new(exits: &Arc<Exits>) -> Result<Self> {
        let ns = {
            let opener = current!();
            ARef::from(opener.active_pid_ns().ok_or(ESRCH)?)
        };
        let id = NamespaceId::of(&ns);
        let viewer = RBTreeNodeReservation::new(gfp::user_account())?.into_node(
            id,
            Viewer {
                files: 0,
                since: 0,
                added: 0,
                left: 0,
            },
        );
        let mut ring = KVVec::new();
        let mut log = exits.log.lock();
        while log.ring.is_empty() {
            if ring.is_empty() {
                drop(log);
                ring = new_ring()?;
                log = exits.log.lock();
            } else {
                log.ring = mem::take(&mut ring);
            }
        }
        log.files += 1;
        exits.files.store(log.files, Relaxed);
        let next = log.next;
        let mut unused = None;
        if log.viewers.get(&id).is_none() {
            log.viewers.insert(viewer);
            if let Some(viewer) = log.viewers.get_mut(&id) {
                viewer.since = next;
            }
        } else {
            unused = Some(viewer);
        }
        let passed = log.viewers.get_mut(&id).map_or(0, |viewer| {
            viewer.files += 1;
            viewer.added
        });
        drop(log);
        drop(unused);
        Ok(Self {
            exits: exits.clone(),
            ns,
            cursor: LockedBy::new(
                &exits.log,
                Cursor {
                    position: Position { next, passed },
                    rest: [0; LINE_MAX],
                    rest_len: 0,
                    version: 0,
                },
            ),
        })
    }

    /// Looks at what a reader in `ns` reads next. With `settle`, takes the time of a thread that is
    /// yet to run its last instruction as it is now.
    fn look_ahead(&self, ns: &PidNamespace, settle: bool, ahead: &mut Ahead) {
        let mut guard = self.exits.log.lock();
        let log = &mut *guard;
        let cursor = self.cursor.access(log);
        ahead.version = cursor.version;
        ahead.from = cursor.position;
        ahead.to = cursor.position;
        ahead.rest_len = cursor.rest_len;
        ahead.rest[..cursor.rest_len].copy_from_slice(&cursor.rest[..cursor.rest_len]);
        ahead.len = 0;
        ahead.is_ending = false;

        if ahead.to.next < log.first {
            let viewer = log.viewers.get(&NamespaceId::of(&self.ns));
            let left = viewer.map_or(ahead.to.passed, |viewer| viewer.left);
            let lost = left - ahead.to.passed;
            ahead.to = Position {
                next: log.first,
                passed: left,
            };
            if lost > 0 {
                ahead.push(Line::Lost(lost));
            }
        }
        // Not every record yields a line.
        for _ in ahead.len..BATCH {
            let next = log.next;
            let Some(record) = log.get_mut(ahead.to.next).filter(|_| ahead.to.next < next) else {
                break;
            };
            ahead.to.next += 1;
            if record.process.number_in(&self.ns).is_none() {
                continue;
            }
            if record.time.is_ending() && !settle {
                ahead.to.next -= 1;
                ahead.is_ending = true;
                break;
            }
            ahead.to.passed += 1;
            let was_ending = record.time.settle();
            if let Some(number) = record.process.number_in(ns) {
                let nsec = record.time.nsec();
                ahead.push(Line::Process { number, nsec });
            }
            log.ending -= usize::from(was_ending);
        }
        ahead.has_more = ahead.to.next < log.next;
    }

    /// Moves the file to `to`, unless another reader has moved it since `seen`. `rest` is the
    /// unread rest of the line before `to`.
    ///
    /// Returns whether the file was moved.
    fn advance(&self, seen: &Ahead, to: Position, rest: &[u8]) -> bool {
        let mut guard = self.exits.log.lock();
        let log = &mut *guard;
        let cursor = self.cursor.access_mut(log);
        if cursor.version != seen.version {
            return false;
        }
        cursor.position = to;
        cursor.rest[..rest.len()].copy_from_slice(rest);
        cursor.rest_len = rest.len();
        cursor.version += 1;
        log.pass(&self.ns, seen.from.next, to.next);
        drop(guard);
        self.exits.drop_read();
        true
    }

    /// Returns whether a reader in `ns` has something to read. Skips records without a line for
    /// this reader.
    ///
    /// Context: process context; does not sleep.
    fn is_readable(&self, ns: &PidNamespace) -> bool {
        let mut ahead = Ahead::new();
        loop {
            self.look_ahead(ns, false, &mut ahead);
            if ahead.rest_len > 0 || ahead.len > 0 || ahead.is_ending {
                return true;
            }
            if ahead.to.next > ahead.from.next {
                self.advance(&ahead, ahead.to, &[]);
            }
            if !ahead.has_more {
                return false;
            }
        }
    }

    /// Copies to a reader in `ns` what there is to read, up to the length that it asks for.
    fn copy_lines(&self, ns: &PidNamespace, reader: &mut Reader<'_>) -> Result {
        let mut ahead = Ahead::new();
        let mut lines = Lines::<{ BATCH + 1 }>::new();
        // How much of the text is left after each line.
        let mut left = [0; BATCH];
        let mut is_empty = true;
        let mut tries = 0;
        while reader.room() > 0 {
            self.look_ahead(ns, tries >= SPINS + SLEEPS, &mut ahead);
            lines.clear();
            for ((line, _), left) in ahead.lines[..ahead.len].iter().zip(&mut left).rev() {
                *left = lines.text().len();
                match *line {
                    Line::Lost(count) => lines.prepend_lost(count),
                    Line::Process { number, nsec } => lines.prepend_process(number, nsec),
                }
            }
            lines.prepend_part(&ahead.rest[..ahead.rest_len]);
            let text = lines.text();
            let len = text.len();
            let copied = reader.copy(&text[..len.min(reader.room())]);

            // Move the file past the last line that was copied in full or in part. If everything
            // was copied, move it past all records that were looked at.
            let (to, end) = if copied == len {
                (ahead.to, len)
            } else if copied <= ahead.rest_len {
                (ahead.from, ahead.rest_len)
            } else {
                let mut lines = ahead.lines.iter().zip(&left).take(ahead.len);
                lines
                    .find(|(_, left)| copied <= len - **left)
                    .map_or((ahead.to, len), |((_, after), left)| (*after, len - *left))
            };
            let moves = copied > 0 || to.next > ahead.from.next;
            if moves && !self.advance(&ahead, to, &text[copied..end]) {
                // Another reader of this file was faster.
                reader.undo(copied);
                continue;
            }
            is_empty &= copied == 0;
            if copied < len {
                return if is_empty { Err(EFAULT) } else { Ok(()) };
            }
            if len == 0 && ahead.is_ending {
                tries += 1;
                if tries < SPINS {
                    cpu_relax();
                } else {
                    fsleep(PAUSE);
                }
            } else if !ahead.has_more {
                break;
            }
        }
        Ok(())
    }
}

impl Drop for OpenExits {
    fn drop(&mut self) {
        let mut log = self.exits.log.lock();
        let mut at = self.cursor.access(&log).position.next;
        // Records that come from now on do not wait for this file.
        let end = log.next;
        let id = NamespaceId::of(&self.ns);
        let mut viewer = None;
        if let Some(entry) = log.viewers.get_mut(&id) {
            entry.files -= 1;
            if entry.files == 0 {
                viewer = log.viewers.remove_node(&id);
            }
        }
        drop(log);
        drop(viewer);

        while at < end {
            let to = end.min(at + BATCH as u64);
            let mut log = self.exits.log.lock();
            // Skip the records that have left the log meanwhile.
            at = at.max(log.first);
            log.pass(&self.ns, at, to);
            drop(log);
            at = at.max(to);
            self.exits.drop_read();
        }

        let mut log = self.exits.log.lock();
        log.files -= 1;
        self.exits.files.store(log.files, Relaxed);
        let mut ring = KVVec::new();
        if log.files == 0 {
            ring = mem::take(&mut log.ring);
        }
        drop(log);
        drop(ring);
    }
}

/// The operations of the exits file.
pub(crate) struct ExitsFile;

#[vtable]
impl FileOps for ExitsFile {
    type Data = Arc<Exits>;
    type OpenFile = KBox<OpenExits>;

    fn open(exits: ArcBorrow<'_, Exits>) -> Result<Self::OpenFile> {
        let open = OpenExits::new(&exits.into())?;
        Ok(KBox::new(open, gfp::user_account())?)
    }

    fn read(exits: ArcBorrow<'_, Exits>, open: &OpenExits, reader: &mut Reader<'_>) -> Result {
        let task = current!();
        let ns = task.active_pid_ns().ok_or(ESRCH)?;
        let room = reader.room();
        if room == 0 {
            return Ok(());
        }
        loop {
            if exits.is_closed() {
                return Err(EIO);
            }
            open.copy_lines(ns, reader)?;
            if reader.room() < room {
                return Ok(());
            }
            if reader.is_nonblocking() {
                return Err(EAGAIN);
            }
            exits
                .readers
                .wait_interruptible(|| exits.is_closed() || open.is_readable(ns))?;
        }
    }

    fn poll_queue(exits: ArcBorrow<'_, Exits>) -> Arc<PollQueue> {
        exits.readers.clone()
    }

    fn poll(exits: ArcBorrow<'_, Exits>, open: &OpenExits) -> Events {
        if exits.is_closed() {
            return Events::ALL;
        }
        let task = current!();
        match task.active_pid_ns() {
            Some(ns) if open.is_readable(ns) => Events::READABLE,
            _ => Events::NONE,
        }
    }

    fn hang_up(exits: ArcBorrow<'_, Exits>) {
        exits.is_closed.store(true, Release);
        exits.readers.hang_up();
    }
}

/// The work that wakes readers. Dropping this ends it.
///
/// Context: dropped where sleeping is allowed.
pub(crate) struct Wakeups(pub(crate) Arc<Exits>);

impl Drop for Wakeups {
    fn drop(&mut self) {
        workqueue::disable_sync::<_, 0>(&self.0);
    }
}
