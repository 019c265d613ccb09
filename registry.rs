// SPDX-License-Identifier: GPL-2.0

//! The registered processes.
//!
//! They are in one list under one spin lock, in the order of registration. An element of the list is a
//! [`Block`] of registrations, which is what one hold of the lock looks at. Writers append to the last
//! block. Updates and readers walk from block to block, and hold nothing between two of them that
//! others wait for.
//!
//! A registration stays where it is until an update finds that its process has exited, since the wait
//! queue of the process points at it. So exits leave holes. A block goes when its last registration
//! does: at worst, one process that lives keeps a block, which is less than a tenth of what the kernel
//! spends on the process itself. A block is charged to the writer that needed it. Writers that use the
//! room that is left in it pay nothing.
//!
//! A process is registered once: a second watch on its exit is refused.

#![forbid(unsafe_code)]

use crate::{
    exit_watch::{
        ExitHandler,
        ExitWatch, //
    },
    exits::Exits,
    gfp,
    line::Lines,
    pin_vec::PinVec,
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
    stepped_list::{
        NewNode,
        SteppedList,
        Walk, //
    },
    timer::{
        Job,
        Periodic, //
    }, //
};
use core::{
    array::from_fn,
    cell::Cell,
    sync::atomic::{
        AtomicBool,
        AtomicU64,
        AtomicUsize,
        Ordering::{
            Acquire,
            Relaxed,
            Release, //
        }, //
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
/// More processes may exit until that update runs. So this is well below the limit of 8 MiB, of which the
/// records of exits may take 3.
const EXITED_MAX: usize = 3 << 20;

/// How many registrations a block has room for.
///
/// A reader or an update looks at all of them in one hold of the lock. So this bounds the hold.
const BLOCK_LEN: usize = 24;

/// How many processes are registered, or dropped, in one hold of the lock.
const BATCH: usize = 3;

/// How many numbers are looked up in one hold of the lock, to see whether they are in use again.
const LOOKUPS: usize = 6;

/// The usual length of a line, for which a reader makes room at first.
const USUAL_LINE: usize = 12;

/// The registry with the timer and the work that update it.
pub(crate) type Updates = Periodic<Registry>;

/// One registered process.
///
/// Its fields change under the list's lock; only the watch changes at the exit.
#[pin_data]
struct Registration {
    #[pin]
    watch: ExitWatch<Updates>,
    /// The number in the initial PID namespace, which most readers are in.
    number: u32,
    /// Whether reads show it: not while its last thread has exited and a tracer delays the exit.
    is_shown: Cell<bool>,
    /// The CPU time at the latest update, in nanoseconds.
    cpu_time: Cell<u64>,
}

impl Registration {
    fn new(process: Process, updates: Arc<Updates>) -> impl PinInit<Self, Error> {
        let number = process.number();
        try_pin_init!(Self {
            watch <- ExitWatch::new(process, updates),
            number,
            is_shown: Cell::new(true),
            cpu_time: Cell::new(0),
        }? Error)
    }

    /// Returns how much of [`Registry::exited`] is due to this registration.
    fn exited_size(&self) -> usize {
        if self.watch.has_exited() {
            pinned_size(self.watch.process())
        } else {
            0
        }
    }

    /// Takes over the CPU time of an update; [`None`] if all threads have exited.
    fn set_time(&self, time: Option<u64>) {
        match time {
            // A time that was read while threads ended may lag behind an earlier one.
            Some(time) => self.cpu_time.set(time.max(self.cpu_time.get())),
            None => self.is_shown.set(false),
        }
    }

    /// Returns the number that a reader in `ns` sees, and how many numbers were looked up for that.
    fn number_for(&self, ns: &PidNamespace, is_initial: bool) -> (Option<u32>, usize) {
        let number = if is_initial {
            Some(self.number)
        } else {
            self.watch.process().number_in(ns)
        };
        let Some(number) = number.filter(|_| self.is_shown.get()) else {
            return (None, 0);
        };
        if !self.watch.has_exited() {
            return (Some(number), 0);
        }
        let is_replaced = self.watch.process().is_replaced_in(ns, number);
        (Some(number).filter(|_| !is_replaced), 1)
    }
}

/// Registrations that lie together in memory.
type Block = PinVec<Registration, BLOCK_LEN>;

/// Empty blocks for the processes of one write.
pub(crate) struct Spare(KVec<NewNode<Block>>);

impl Spare {
    /// Allocates the blocks that `count` registrations need at most. One is not allocated ahead, since
    /// most often there is room for it.
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
        let block = NewNode::new(Block::new(), gfp::user_account())?;
        Ok(self.0.push(block, gfp::user_account())?)
    }
}

/// The registered processes.
#[pin_data]
pub(crate) struct Registry {
    #[pin]
    list: SteppedList<Block>,
    /// What the processes that have exited since the latest update pin, in bytes.
    exited: AtomicUsize,
    /// The number of updates so far.
    updates: AtomicU64,
    /// The polls of the status file.
    pollers: PollQueue,
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
        let list = SteppedList::new()?;
        let pollers = PollQueue::new(c"mp1_pollers")?;
        Ok(pin_init!(Self {
            list <- list,
            exited: AtomicUsize::new(0),
            updates: AtomicU64::new(0),
            pollers,
            is_closed: AtomicBool::new(false),
            exits,
        }))
    }

    /// Registers `processes` in their order, up to the first one that is [`None`] or has exited. Those
    /// that are registered already stay as they are. Returns how many that are.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if a block is needed that is not in `spare`, there is no memory for it, and nothing
    /// has been registered.
    pub(crate) fn register(
        updates: ArcBorrow<'_, Updates>,
        processes: &mut [Option<Process>],
        spare: &mut Spare,
    ) -> Result<usize> {
        let registry = updates.job();
        let mut done = 0;
        for batch in processes.chunks_mut(BATCH) {
            let mut list = registry.list.lock();
            // At most one more block is needed for a batch, which is no longer than a block.
            while spare.0.is_empty() && list.back().map_or(0, |block| block.room()) < batch.len() {
                drop(list);
                match spare.add() {
                    Err(_) if done > 0 => return Ok(done),
                    result => result?,
                }
                list = registry.list.lock();
            }
            let was_empty = list.is_empty();
            let before = done;
            for process in batch.iter_mut().map_while(Option::take) {
                if list.back().is_none_or(|block| block.room() == 0) {
                    let Some(block) = spare.0.pop() else {
                        break;
                    };
                    list.push_back(block);
                }
                let Some(block) = list.back() else {
                    break;
                };
                match block.push(Registration::new(process, updates.into())) {
                    // It is registered now, or it was.
                    Ok(()) | Err(EBUSY) => done += 1,
                    Err(_) => break,
                }
            }
            // A new block may be empty: the next update drops it.
            let is_first = was_empty && !list.is_empty();
            drop(list);
            if is_first {
                updates.start();
            }
            if done - before < batch.len() {
                break;
            }
        }
        Ok(done)
    }

    /// Reads the CPU time of every process, and drops those that have exited.
    ///
    /// Context: may sleep; must not be called by two at once.
    fn update(&self) {
        let mut walk = self.list.walk();
        let mut times = [None; BLOCK_LEN];
        loop {
            // Each step is done for a whole block before the next one, so that the CPU waits for many
            // cache lines at once. The lock is not held while times are summed up, since a process
            // may have many threads.
            let rcu = rcu::read_lock();
            let Some(mut visit) = walk.next() else {
                return;
            };
            let block = visit.value();
            let seen = block.len();
            let groups: [_; BLOCK_LEN] = from_fn(|index| {
                let group = block.get(index)?.watch.process().threads(&rcu)?;
                group.prefetch_leader();
                Some(group)
            });
            drop(visit);

            for group in groups.iter().flatten() {
                group.prefetch_signal();
            }
            for (time, group) in times.iter_mut().zip(&groups) {
                *time = group.as_ref().and_then(ThreadGroup::cpu_time);
            }
            drop(rcu);

            let Some(mut visit) = walk.here() else {
                continue;
            };
            // A process without live threads has exited, or is about to.
            let mut may_drop = visit.value().is_empty();
            for (index, registration) in visit.value().iter_from(0) {
                if index < seen {
                    registration.set_time(times[index]);
                    may_drop |= times[index].is_none();
                }
            }
            drop(visit);
            if may_drop {
                self.drop_here(&mut walk, |registration| registration.watch.has_exited());
            }
        }
    }

    /// Drops the registrations of which `is_dropped` holds in the block at which `walk` stands, and the
    /// block if it is empty then.
    fn drop_here(&self, walk: &mut Walk<'_, Block>, is_dropped: impl Fn(&Registration) -> bool) {
        while let Some(mut visit) = walk.here() {
            // As many as may be dropped in one hold of the lock.
            for _ in 0..BATCH {
                let mut block = visit.value();
                let found = block
                    .iter_from(0)
                    .find(|(_, registration)| is_dropped(registration))
                    .map(|(index, registration)| (index, registration.exited_size()));
                let Some((index, size)) = found else {
                    if block.is_empty() {
                        visit.remove();
                    }
                    return;
                };
                block.as_mut().remove(index);
                self.exited.fetch_sub(size, Relaxed);
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
        // The initial namespace sees all of them. Others let the text grow as it does.
        let expected = if is_initial {
            self.list.len() * BLOCK_LEN * USUAL_LINE
        } else {
            0
        };
        let mut text = KVVec::with_capacity(expected, gfp::user_account())?;
        let mut lines = Lines::<BLOCK_LEN>::new();
        let mut walk = self.list.walk();
        // Where to go on in the block at which the walk stands, if it is not done.
        let mut rest = None;
        let mut numbers = [0; BLOCK_LEN];
        let mut times = [0; BLOCK_LEN];
        loop {
            let visit = match rest {
                Some(_) => walk.here(),
                None => walk.next(),
            };
            let Some(mut visit) = visit else {
                return Ok(text);
            };
            // With the lock held, only collect what a line is made of.
            let mut count = 0;
            let mut lookups = 0;
            let start = rest.take().unwrap_or(0);
            for (index, registration) in visit.value().iter_from(start) {
                if lookups == LOOKUPS {
                    rest = Some(index);
                    break;
                }
                let (number, looked_up) = registration.number_for(ns, is_initial);
                lookups += looked_up;
                if let Some(number) = number {
                    numbers[count] = number;
                    times[count] = registration.cpu_time.get();
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
    pub(crate) fn pollers(&self) -> &PollQueue {
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
        while walk.next().is_some() {
            self.drop_here(&mut walk, |_| true);
        }
    }
}

/// Returns how much memory an exited process pins through its registration, in bytes.
fn pinned_size(process: &Process) -> usize {
    size_of::<Registration>() + process.pid_size() + process.namespace_size()
}

impl Job for Registry {
    fn run(&self) {
        self.update();
        self.exits.settle();
        self.updates.fetch_add(1, Relaxed);
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

/// The registrations of the loaded module. Dropping this drops them all, after which no exit calls the
/// module.
///
/// Context: dropped where sleeping is allowed, when no caller registers any more.
pub(crate) struct Registrations(pub(crate) Arc<Updates>);

impl Drop for Registrations {
    fn drop(&mut self) {
        self.0.job().clear();
    }
}
