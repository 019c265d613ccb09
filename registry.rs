// SPDX-License-Identifier: GPL-2.0

//! The registered processes.
//!
//! They are in one list of blocks, under one spin lock. One hold of the lock looks at one block.
//! Writers append to the last block. Updates and readers walk from block to block. No caller waits
//! for another that can be preempted: the lock is a raw one, and what may wait is done without it.
//!
//! So a write has two steps. Under the lock, it appends registrations, which no reader shows yet.
//! Then it starts their watches, each under the lock of its process's wait queue, and removes the
//! registrations whose watch is refused: a process has at most one watch, and so one registration.
//! Readers show a registration once its watch has started. If two writes race, their lines are in
//! the order of their first steps.
//!
//! A registration stays where it is until an update finds that its process has exited, since the
//! wait queue of the process points at it. So exits leave holes. A block is freed with its last
//! registration: at worst, one live process keeps a block, which is less than a tenth of what the
//! kernel spends on the process itself. A block is charged to the writer that needed it. Later
//! writers use its free slots at no charge.

#![forbid(unsafe_code)]

use crate::{
    block_list::{
        BlockList,
        NewBlock, //
    },
    exit_watch::{
        ExitHandler,
        ExitWatch,
        WatchState, //
    },
    exits::Exits,
    gfp,
    line::Lines,
    poll::{
        Events,
        PollQueue, //
    },
    process::{
        ExitedGroup,
        NamespaceId,
        Process,
        ThreadGroup, //
    },
    timer::{
        Job,
        Periodic, //
    }, //
};
use core::sync::atomic::{
    AtomicBool,
    AtomicU64,
    AtomicUsize,
    Ordering::{
        Acquire,
        Relaxed,
        Release, //
    }, //
};
use kernel::{
    pid_namespace::PidNamespace,
    prelude::*,
    sync::{
        rcu,
        Arc,
        ArcBorrow, //
    }, //
};

/// How much memory exited processes may pin before an update is due, whatever the timer says.
///
/// More processes may exit until that update runs. So this is well below the limit of 8 MiB, of
/// which the records of exits may take 3.
const EXITED_MAX: usize = 3 << 20;

/// How many registrations a block has room for.
///
/// A reader or an update looks at all of them in one hold of the lock. So this bounds the hold.
const BLOCK_LEN: usize = 24;

/// How many registrations are added in one hold of the lock.
const BATCH: usize = 12;

/// How many numbers are looked up in one hold of the lock, to see whether they are in use again.
const LOOKUPS: usize = 6;

/// The usual length of a line, for which a reader makes room at first.
const USUAL_LINE: usize = 12;

/// The registry with the timer and the work that update it.
pub(crate) type Updates = Periodic<Registry>;

/// One registered process.
#[pin_data]
struct Registration {
    #[pin]
    watch: ExitWatch<Updates>,
    /// The number in the initial PID namespace, which most readers are in.
    number: u32,
    /// Whether all threads have ended. Reads skip the process then, even if a tracer still delays
    /// the exit.
    is_over: AtomicBool,
    /// The CPU time at the latest update, in nanoseconds.
    cpu_time: AtomicU64,
}

impl Registration {
    fn new(process: Process, updates: Arc<Updates>) -> impl PinInit<Self> {
        let number = process.number();
        pin_init!(Self {
            watch <- ExitWatch::new(process, updates),
            number,
            is_over: AtomicBool::new(false),
            cpu_time: AtomicU64::new(0),
        })
    }

    /// Takes over the CPU time of an update; [`None`] if all threads have exited.
    fn set_time(&self, time: Option<u64>) {
        match time {
            // A time that was read while threads ended may lag behind an earlier one. Only updates
            // write it, and there is one at a time.
            Some(time) => {
                let before = self.cpu_time.load(Relaxed);
                self.cpu_time.store(time.max(before), Relaxed);
            }
            None => self.is_over.store(true, Relaxed),
        }
    }

    /// Returns the number that a reader in `ns` sees, and how many numbers were looked up for that.
    fn number_for(&self, ns: &PidNamespace, is_initial: bool) -> (Option<u32>, usize) {
        let number = if is_initial {
            Some(self.number)
        } else {
            self.watch.process().number_in(ns)
        };
        let Some(number) = number.filter(|_| !self.is_over.load(Relaxed)) else {
            return (None, 0);
        };
        match self.watch.state() {
            WatchState::Idle => (None, 0),
            WatchState::Watching => (Some(number), 0),
            WatchState::Exited => {
                let is_replaced = self.watch.process().is_replaced_in(ns, number);
                (Some(number).filter(|_| !is_replaced), 1)
            }
        }
    }
}

/// Empty blocks for the processes of one write.
pub(crate) struct Spare(KVec<NewBlock<Registration, BLOCK_LEN>>);

impl Spare {
    /// Allocates the blocks that `count` registrations need at most. For a single one it allocates
    /// nothing, since the last block mostly has room.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory, or the writer's cgroup may not have more.
    pub(crate) fn new(count: usize) -> Result<Self> {
        let mut spare = Self(KVec::new());
        if count > 1 {
            for _ in 0..count.div_ceil(BLOCK_LEN) {
                spare.add()?;
            }
        }
        Ok(spare)
    }

    fn add(&mut self) -> Result {
        let block = NewBlock::new(gfp::user_account())?;
        Ok(self.0.push(block, gfp::user_account())?)
    }
}

/// The registered processes.
#[pin_data]
pub(crate) struct Registry {
    #[pin]
    list: BlockList<Registration, BLOCK_LEN>,
    /// The number of periods so far. One begins when a writer finds the list empty, under the lock
    /// of the list.
    periods: AtomicU64,
    /// The latest period for which the timer has been started.
    periods_started: AtomicU64,
    /// What the processes that have exited since the latest update pin, in bytes.
    exited: AtomicUsize,
    /// The number of updates so far.
    updates: AtomicU64,
    /// The polls of the status file.
    pollers: Arc<PollQueue>,
    is_closed: AtomicBool,
    exits: Arc<Exits>,
}

impl Registry {
    /// Creates a registry without processes, which tells `exits` of their exits.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory.
    pub(crate) fn new(exits: Arc<Exits>) -> Result<impl PinInit<Self>> {
        let list = BlockList::new()?;
        let pollers = Arc::new(PollQueue::new(c"mp1_pollers")?, GFP_KERNEL)?;
        Ok(pin_init!(Self {
            list <- list,
            periods: AtomicU64::new(0),
            periods_started: AtomicU64::new(0),
            exited: AtomicUsize::new(0),
            updates: AtomicU64::new(0),
            pollers,
            is_closed: AtomicBool::new(false),
            exits,
        }))
    }

    /// Registers `processes` in their order, up to the first one that is [`None`] or has exited,
    /// and returns how many that are. Those that are registered already stay as they are, and
    /// count.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if a block is needed that is not in `spare`, there is no memory for it, and
    /// nothing has been registered.
    pub(crate) fn register(
        updates: ArcBorrow<'_, Updates>,
        processes: &mut [Option<Process>],
        spare: &mut Spare,
    ) -> Result<usize> {
        let registry = updates.job();
        let mut done = 0;
        while processes.get(done).is_some_and(Option::is_some) {
            let list = registry.list.lock();
            let period = registry.periods.load(Relaxed) + u64::from(list.is_empty());
            registry.periods.store(period, Relaxed);
            let new = processes[done..]
                .iter_mut()
                .take(BATCH)
                .map_while(Option::take)
                .map(|process| Registration::new(process, updates.into()));
            let Some(added) = list.append(&mut spare.0, new) else {
                match spare.add() {
                    Err(_) if done > 0 => return Ok(done),
                    result => result?,
                }
                continue;
            };
            // The writer that found the list empty may be preempted here. Then the next one starts
            // the timer.
            if registry.periods_started.load(Acquire) < period {
                updates.start();
                registry.periods_started.fetch_max(period, Release);
            }

            let mut is_over = false;
            added.retain(|registration| {
                if is_over {
                    return false;
                }
                match registration.watch.start() {
                    Ok(()) => {
                        done += 1;
                        true
                    }
                    // It is registered already.
                    Err(EBUSY) => {
                        done += 1;
                        false
                    }
                    Err(_) => {
                        is_over = true;
                        false
                    }
                }
            });
        }
        Ok(done)
    }

    /// Reads the CPU time of every process, and drops those that have exited.
    ///
    /// Context: may sleep; must not run twice at the same time.
    fn update(&self) {
        let mut walk = self.list.walk();
        // For each slot: `None` if no registration was seen there, `Some(None)` if all of its
        // threads have exited, else its time.
        let mut times = [None; BLOCK_LEN];
        loop {
            // Each step is done for a whole block before the next one, so that the CPU waits for
            // many cache lines at once. The lock is not held while times are summed up, since a
            // process may have many threads.
            let rcu = rcu::read_lock();
            let Some(visit) = walk.next() else {
                return;
            };
            let mut groups = [const { None }; BLOCK_LEN];
            for (index, registration) in visit.iter_from(0) {
                if registration.watch.state() != WatchState::Idle {
                    let threads = registration.watch.process().threads(&rcu);
                    if let Some(threads) = &threads {
                        threads.prefetch_leader();
                    }
                    groups[index] = Some(threads);
                }
            }
            drop(visit);

            for threads in groups.iter().flatten().flatten() {
                threads.prefetch_signal();
            }
            for (time, group) in times.iter_mut().zip(&groups) {
                *time = group
                    .as_ref()
                    .map(|threads| threads.as_ref().and_then(ThreadGroup::cpu_time));
            }
            drop(rcu);

            let Some(visit) = walk.here() else {
                return;
            };
            // A process without live threads has exited, or is about to.
            let mut may_remove = false;
            for (index, registration) in visit.iter_from(0) {
                // This is the registration that was seen, since only updates remove registrations.
                // Those added meanwhile are for the next update.
                if let Some(time) = times[index] {
                    registration.set_time(time);
                    may_remove |= time.is_none();
                }
            }
            if may_remove {
                visit.remove_if(|registration| {
                    let has_exited = registration.watch.state() == WatchState::Exited;
                    if has_exited {
                        let size = pinned_size(registration.watch.process());
                        self.exited.fetch_sub(size, Relaxed);
                    }
                    has_exited
                });
            }
        }
    }

    /// Returns a line for each process that `ns` sees, in the order of registration.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory, or the reader's cgroup may not have more.
    pub(crate) fn text(&self, ns: &PidNamespace) -> Result<KVVec<u8>> {
        let is_initial = NamespaceId::of(ns).is_initial();
        // The initial namespace sees all processes. For other namespaces, the text grows as needed.
        let expected = if is_initial {
            self.list.len() * USUAL_LINE
        } else {
            0
        };
        let mut text = KVVec::with_capacity(expected, gfp::user_account())?;
        let mut lines = Lines::<BLOCK_LEN>::new();
        let mut walk = self.list.walk();
        // Where to go on in the walk's current block, if it is not done.
        let mut rest = None;
        let mut numbers = [0; BLOCK_LEN];
        let mut times = [0; BLOCK_LEN];
        loop {
            let visit = match rest {
                Some(_) => walk.here(),
                None => walk.next(),
            };
            let Some(visit) = visit else {
                return Ok(text);
            };
            // With the lock held, only collect what a line is made of.
            let mut count = 0;
            let mut lookups = 0;
            let start = rest.take().unwrap_or(0);
            for (index, registration) in visit.iter_from(start) {
                if lookups == LOOKUPS {
                    rest = Some(index);
                    break;
                }
                let (number, looked_up) = registration.number_for(ns, is_initial);
                lookups += looked_up;
                if let Some(number) = number {
                    numbers[count] = number;
                    times[count] = registration.cpu_time.load(Relaxed);
                    count += 1;
                }
            }
            drop(visit);
            lines.clear();
            for (number, nsec) in numbers[..count].iter().zip(&times[..count]).rev() {
                lines.prepend_process(*number, *nsec);
            }
            text.extend_from_slice(lines.text(), gfp::user_account())?;
        }
    }

    /// Returns the number of updates so far.
    ///
    /// Context: any.
    pub(crate) fn updates(&self) -> u64 {
        self.updates.load(Relaxed)
    }

    /// Returns the queue on which updates are announced.
    pub(crate) fn pollers(&self) -> &Arc<PollQueue> {
        &self.pollers
    }

    /// Returns whether the module is about to go.
    ///
    /// Context: any.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Acquire)
    }

    /// Wakes all polls for good.
    ///
    /// Context: sleeps for up to some 50 milliseconds.
    pub(crate) fn hang_up(&self) {
        self.is_closed.store(true, Release);
        self.pollers.hang_up();
    }

    /// Drops all registrations.
    ///
    /// Context: may sleep.
    fn clear(&self) {
        let mut walk = self.list.walk();
        while let Some(visit) = walk.next() {
            visit.remove_if(|_| true);
        }
    }
}

/// Returns how much memory an exited process pins through its registration, in bytes.
fn pinned_size(process: &Process) -> usize {
    size_of::<Registration>() + process.pid_size() + process.namespace_size()
}

impl Job for Registry {
    fn run(&self) -> bool {
        self.update();
        self.exits.settle();
        self.updates.fetch_add(1, Relaxed);
        self.pollers.has_waiters()
    }

    fn announce(&self) {
        self.pollers.wake(Events::CHANGED);
    }

    fn is_idle(&self) -> bool {
        self.list.len() == 0
    }
}

impl ExitHandler for Updates {
    fn exited(this: ArcBorrow<'_, Self>, process: &Process, group: ExitedGroup<'_>) {
        let registry = this.job();
        Exits::record(registry.exits.as_arc_borrow(), process, &group);

        let size = pinned_size(process);
        if registry.exited.fetch_add(size, Relaxed) + size > EXITED_MAX {
            this.run_soon();
        }
    }
}

/// The registrations of the loaded module. Dropping this drops them all, after which no exit calls
/// the module.
///
/// Context: dropped where sleeping is allowed, when no caller registers any more.
pub(crate) struct Registrations(pub(crate) Arc<Updates>);

impl Drop for Registrations {
    fn drop(&mut self) {
        self.0.job().clear();
    }
}
