// SPDX-License-Identifier: GPL-2.0

//! What the compiler refuses.
//!
//! A comment that begins with error codes is about the next line. The build must give exactly these
//! errors there: scripts/test-misuse compares them.

#![forbid(unsafe_code)]

use crate::{
    block_list::{
        Added,
        BlockList,
        NewBlock,
        Visit,
        Walk, //
    },
    exit_watch::{
        ExitHandler,
        ExitWatch, //
    },
    list_head,
    once,
    poll::PollQueue,
    proc::{
        Dir,
        File,
        FileOps,
        Reader, //
    },
    process::{
        ExitedGroup,
        Process,
        ThreadGroup, //
    },
    raw_spinlock::RawSpinLockIrqSave,
    seqlock,
    timer::{
        Job,
        Periodic,
        Ticking, //
    },
    workqueue::OwnedQueue, //
};
use core::{
    borrow::Borrow,
    cell::Cell,
    mem,
    ptr::null_mut, //
};
use kernel::{
    impl_has_delayed_work,
    impl_has_work,
    prelude::*,
    sync::{
        rcu,
        Arc,
        ArcBorrow, //
    },
    uaccess::UserSliceReader,
    workqueue::{
        DelayedWork,
        Queue,
        Work,
        WorkItem, //
    }, //
};

/// What another thread needs to take a value over, or to share it.
fn give_away<T: Send>(_: T) {}
fn share<T: Sync>(_: &T) {}

/// What it takes to keep a value for good.
fn keep<T: 'static>(_: T) {}

// proc.rs

struct Borrowing<'a>(&'a u64);

#[vtable]
// E0478 E0495: operations that borrow from a stack frame
impl<'a> FileOps for Borrowing<'a> {
    // E0477: a file that owns a pointer to a stack frame, and outlives the frame by `mem::forget()`
    type Data = KBox<&'a u64>;
    // E0477: an open file that owns such a pointer
    type OpenFile = KBox<&'a u64>;

    fn open(_: &&'a u64) -> Result<KBox<&'a u64>> {
        Err(EINVAL)
    }

    fn read(_: &&'a u64, _: &&'a u64, _: &mut Reader<'_>) -> Result {
        Ok(())
    }
}

struct Unlocked;

#[vtable]
impl FileOps for Unlocked {
    // E0277: data of a file that two users could change at once
    type Data = KBox<Cell<u64>>;
    // E0277: data of an open file that two threads could change at once
    type OpenFile = KBox<Cell<u64>>;

    fn open(_: &Cell<u64>) -> Result<Self::OpenFile> {
        Err(EINVAL)
    }

    // E0053: a read that returns a length which it did not copy
    fn read(_: &Cell<u64>, _: &Cell<u64>, _: &mut Reader<'_>) -> Result<usize> {
        Ok(1 << 20)
    }
}

struct Keeping;

#[vtable]
impl FileOps for Keeping {
    type Data = KBox<u64>;
    type OpenFile = KBox<u64>;

    fn open(data: &u64) -> Result<Self::OpenFile> {
        // E0521: an open file that keeps what the file owns
        keep(data);
        Err(EINVAL)
    }

    fn read(_: &u64, _: &u64, reader: &mut Reader<'_>) -> Result {
        // E0521: a reader that is used after the read
        keep(reader);
        Ok(())
    }
}

struct TwoDirs(Arc<Dir>, Arc<Dir>, Cell<bool>);

impl Borrow<Dir> for TwoDirs {
    fn borrow(&self) -> &Dir {
        self.2.set(!self.2.get());
        if self.2.get() {
            &self.0
        } else {
            &self.1
        }
    }
}

fn file_in_two_dirs(dirs: TwoDirs, data: KBox<u64>) {
    // E0308: a directory that is another one at each look
    let _ = File::<Keeping>::new(dirs, c"file", 0o444, data);
}

// poll.rs

fn queue_that_may_go(queue: PollQueue) {
    // E0133: a poll on a queue that can be dropped under it
    queue.register(null_mut(), null_mut());
}

// workqueue.rs and timer.rs

#[pin_data]
struct Later {
    #[pin]
    work: DelayedWork<Self>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Later { self.work }
}

impl WorkItem for Later {
    type Pointer = Arc<Self>;

    fn run(_: Arc<Self>) {}
}

fn delayed_work(queue: OwnedQueue, later: Arc<Later>) {
    // E0599: delayed work, for which the end of a queue does not wait
    let _ = queue.enqueue_delayed(later, 100);
}

fn raw_queue(queue: &OwnedQueue) -> &Queue {
    // E0308: the queue of the `kernel` crate, which takes delayed work
    queue
}

#[pin_data]
struct UnlockedWork {
    #[pin]
    work: Work<Self>,
    runs: Cell<u64>,
}

impl_has_work! {
    impl HasWork<Self> for UnlockedWork { self.work }
}

impl WorkItem for UnlockedWork {
    type Pointer = Arc<Self>;

    fn run(_: Arc<Self>) {}
}

fn unlocked_work(queue: &OwnedQueue, work: Arc<UnlockedWork>) {
    // E0277: work on data that its owner could change at once
    let _ = queue.enqueue::<_, 0>(work);
}

// E0478 E0495: a job that borrows from a stack frame
impl<'a> Job for Borrowing<'a> {
    fn run(&self) -> bool {
        false
    }

    fn announce(&self) {}

    fn is_idle(&self) -> bool {
        true
    }
}

fn timer_without_end<J: Job>(periodic: Arc<Periodic<J>>) -> Ticking<J> {
    // E0423: a second owner of a timer
    Ticking(periodic)
}

// process.rs and exit_watch.rs

fn group_after_rcu(process: &Process) -> Option<u64> {
    let rcu = rcu::read_lock();
    let group = process.threads(&rcu)?;
    // E0505: threads that are read after the RCU read lock was dropped
    drop(rcu);
    group.cpu_time()
}

fn group_elsewhere(group: ThreadGroup<'_>) {
    // E0277: threads that are read by another thread, which does not hold that lock
    give_away(group);
}

fn group_without_tasklist_lock(process: &Process) {
    // E0133: a process that is taken for one that has exited
    let _ = ExitedGroup::new(process);
}

struct Handler;

impl ExitHandler for Handler {
    fn exited(_: ArcBorrow<'_, Self>, process: &Process, group: ExitedGroup<'_>) {
        // E0521: a process that is used after the watch has gone
        keep(process);
        // E0521: an exit that is read after `tasklist_lock` was dropped
        keep(group);
    }
}

struct UnlockedHandler(Cell<u64>);

// E0277: a handler that two exits could change at once
impl ExitHandler for UnlockedHandler {
    fn exited(_: ArcBorrow<'_, Self>, _: &Process, _: ExitedGroup<'_>) {}
}

type Watch = Pin<KBox<ExitWatch<Handler>>>;

fn moved_watches(mut one: Watch, mut other: Watch) {
    // E0596: watches that are moved while a wait queue points at them
    mem::swap(&mut *one, &mut *other);
}

fn other_process(mut watch: Watch, mut process: Process) {
    // E0616: a watch that is removed from the queue of another process
    mem::swap(watch.as_mut().project().process, &mut process);
}

// block_list.rs

fn second_step(walk: &mut Walk<'_, u64, 8>) {
    let visit = walk.next();
    // E0499: a step while a visit holds the lock
    let _ = walk.next();
    drop(visit);
}

fn walk_that_ends(list: &BlockList<u64, 8>) {
    let mut walk = list.walk();
    let visit = walk.next();
    // E0505: a walk that ends while its visit holds the lock
    drop(walk);
    drop(visit);
}

fn walk_without_list(list: Pin<KBox<BlockList<u64, 8>>>) {
    let mut walk = list.walk();
    // E0505: a walk over a list that has gone
    drop(list);
    let _ = walk.next();
}

fn element_without_lock(visit: Visit<'_, u64, 8>) -> u64 {
    let first = visit.iter_from(0).next();
    // E0505: an element that is used without the lock
    drop(visit);
    first.map_or(0, |(_, element)| *element)
}

fn removed_element(visit: Visit<'_, u64, 8>) -> usize {
    visit.remove_if(|_| true);
    // E0382: elements that are used after they were removed
    visit.iter_from(0).count()
}

fn element_that_escapes(added: Added<'_, u64, 8>) -> u64 {
    let mut kept = None;
    added.retain(|element| {
        // E0521: an element that is used after walks may remove it
        kept = Some(element);
        true
    });
    kept.map_or(0, |element| *element)
}

fn added_without_list(list: Pin<KBox<BlockList<u64, 8>>>, mut spare: KVec<NewBlock<u64, 8>>) {
    let added = list.lock().append(&mut spare, [1]);
    // E0505: elements of a list that has gone
    drop(list);
    drop(added);
}

fn visit_elsewhere(visit: Visit<'_, u64, 8>) {
    // E0277: a spin lock that another thread unlocks
    give_away(visit);
}

fn shared_elements(list: &BlockList<Cell<u64>, 8>) {
    // E0277: elements that two threads change at once
    share(list);
}

fn forged_block(block: NewBlock<u64, 8>) {
    // E0616: elements that were never initialised
    block.0.project().state;
}

// raw_spinlock.rs, spinlock_irqsave.rs, seqlock.rs, once.rs and list_head.rs

fn value_without_irqsave_lock(lock: &RawSpinLockIrqSave<u64>) -> u64 {
    let guard = lock.lock();
    let value = &*guard;
    // E0505: a value that is used without the lock
    drop(guard);
    *value
}

fn irqsave_lock_elsewhere(lock: &RawSpinLockIrqSave<u64>) {
    // E0277: interrupts that another thread enables
    give_away(lock.lock());
}

fn raw_pointers() {
    // E0133: a sequence lock at no address
    seqlock::read(null_mut(), || ());
    // E0133: a variable at no address
    let _ = once::read_once(null_mut::<u64>());
    // E0133: a list at no address
    list_head::list_del_init(null_mut());
}
