// SPDX-License-Identifier: GPL-2.0

//! Misuses that do harm and that safe Rust does not refuse: see README.md.

#![forbid(unsafe_code)]

use crate::{
    block_list::{
        BlockList,
        NewBlock, //
    },
    exit_watch::{
        ExitHandler,
        ExitWatch, //
    },
    files::Greedy,
    proc::{
        Dir,
        File, //
    },
    process::{
        ExitedGroup,
        Process, //
    },
    run_time::{
        Counter,
        Deaf, //
    },
    timer::Ticking,
    workqueue::OwnedQueue, //
};
use core::mem;
use kernel::{
    impl_has_work,
    new_spinlock,
    new_work,
    prelude::*,
    sync::{
        rcu,
        Arc,
        ArcBorrow,
        SpinLock, //
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

/// Shows one of them, of which the kernel says what stands above it. `pid` is that of a process
/// that exits after the module was unloaded.
pub(crate) fn show(limit: i64, pid: i32) -> Result {
    match limit {
        // unable to handle page fault
        1 => forgotten_file(),
        // unable to handle page fault
        2 => forgotten_watch(pid),
        // unable to handle page fault
        3 => forgotten_timer(),
        // unable to handle page fault
        4 => work_with_its_queue(),
        // BUG: soft lockup
        5 => lock_taken_twice(),
        // scheduling while atomic
        6 => sleep_under_a_lock(),
        // WARNING: kernel/rcu
        7 => sleep_under_rcu(pid),
        // rcu_preempt detected stalls
        8 => watch_dropped_by_its_handler(pid),
        _ => Err(EINVAL),
    }
}

fn forgotten_file() -> Result {
    let dir = Arc::new(Dir::new(c"misuse", 0o555)?, GFP_KERNEL)?;
    mem::forget(File::<Greedy>::new(
        dir,
        c"forgotten",
        0o444,
        KBox::new(0, GFP_KERNEL)?,
    )?);
    Ok(())
}

fn process(pid: i32) -> Result<Process> {
    let [process] = Process::find_many::<1>(&[pid]);
    process.ok_or(ESRCH)
}

fn forgotten_watch(pid: i32) -> Result {
    let watch = ExitWatch::new(process(pid)?, Arc::new(Deaf, GFP_KERNEL)?);
    let watch = KBox::pin_init(watch, GFP_KERNEL)?;
    watch.start()?;
    mem::forget(watch);
    Ok(())
}

fn forgotten_timer() -> Result {
    let queue = Arc::new(OwnedQueue::new_unbound(c"misuse")?, GFP_KERNEL)?;
    let ticking = Ticking::new(Delta::from_millis(100), queue, Counter::new())?;
    ticking.periodic().as_arc_borrow().start();
    ticking.periodic().job().wait();
    mem::forget(ticking);
    Ok(())
}

/// Nothing is forgotten here, but the work that is queued keeps the queue, and the queue the work.
#[pin_data]
struct Slow {
    #[pin]
    work: Work<Self>,
    queue: Arc<OwnedQueue>,
}

impl_has_work! {
    impl HasWork<Self> for Slow { self.work }
}

impl WorkItem for Slow {
    type Pointer = Arc<Self>;

    fn run(_: Arc<Self>) {
        fsleep(Delta::from_millis(500));
    }
}

fn work_with_its_queue() -> Result {
    let queue = Arc::new(OwnedQueue::new_unbound(c"misuse")?, GFP_KERNEL)?;
    let slow = Arc::pin_init(
        pin_init!(Slow {
            work <- new_work!("Slow::work"),
            queue,
        }),
        GFP_KERNEL,
    )?;
    let _ = slow.queue.enqueue::<Arc<Slow>, 0>(slow.clone());
    Ok(())
}

/// With more than one CPU, the second one waits for the first for ever.
fn lock_taken_twice() -> Result {
    let list = KBox::pin_init(BlockList::<u64, 2>::new()?, GFP_KERNEL)?;
    let mut spare = KVec::new();
    spare.push(NewBlock::new(GFP_KERNEL)?, GFP_KERNEL)?;
    let one = list.lock();
    let other = list.lock();
    let first = one.append(&mut spare, [1]).is_some();
    let second = other.append(&mut spare, [2]).is_some();
    pr_info!("elements that were added at once: {first} and {second}\n");
    Ok(())
}

fn sleep_under_a_lock() -> Result {
    let list = KBox::pin_init(BlockList::<u64, 2>::new()?, GFP_KERNEL)?;
    let locked = list.lock();
    fsleep(Delta::from_millis(1));
    drop(locked);
    Ok(())
}

/// Without preemption, a sleep is the end of an RCU read section, and the threads may go.
fn sleep_under_rcu(pid: i32) -> Result {
    let process = process(pid)?;
    let rcu = rcu::read_lock();
    let threads = process.threads(&rcu).ok_or(ESRCH)?;
    fsleep(Delta::from_millis(1));
    pr_info!("a time that may be nobody's: {:?}\n", threads.cpu_time());
    Ok(())
}

/// A handler with its own watch.
#[pin_data]
struct Own {
    #[pin]
    watch: SpinLock<Option<Pin<KBox<ExitWatch<Own>>>>>,
}

impl ExitHandler for Own {
    fn exited(this: ArcBorrow<'_, Self>, _: &Process, _: ExitedGroup<'_>) {
        let watch = this.watch.lock().take();
        drop(watch);
        pr_info!("a handler goes on without its watch\n");
    }
}

fn watch_dropped_by_its_handler(pid: i32) -> Result {
    let own = Arc::pin_init(
        pin_init!(Own {
            watch <- new_spinlock!(None),
        }),
        GFP_KERNEL,
    )?;
    let watch = ExitWatch::new(process(pid)?, own.clone());
    let watch = KBox::pin_init(watch, GFP_KERNEL)?;
    watch.start()?;
    *own.watch.lock() = Some(watch);
    pr_info!("a process exits, and its handler drops the watch\n");
    Ok(())
}
