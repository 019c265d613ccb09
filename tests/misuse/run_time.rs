// SPDX-License-Identifier: GPL-2.0

//! What is refused, or does nothing, at run time. Each result is logged, and compared with what
//! must come of it.

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
    rcu_tasks::TasksGracePeriod,
    timer::{
        Job,
        Ticking, //
    },
    workqueue::OwnedQueue, //
};
use core::{
    fmt::Debug,
    mem,
    sync::atomic::{
        AtomicU32,
        Ordering::Relaxed, //
    }, //
};
use kernel::{
    current,
    fmt,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow,
        Completion, //
    },
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta, //
    }, //
};

/// Logs what came of a misuse. Fails unless that is what must come of it.
fn check<T: Debug + PartialEq>(misuse: fmt::Arguments<'_>, got: T, wanted: T) -> Result {
    pr_info!("{misuse}: {got:?}\n");
    if got != wanted {
        pr_err!("{misuse} must give {wanted:?}\n");
        return Err(EIO);
    }
    Ok(())
}

/// Tries all that needs no user.
pub(crate) fn check_all() -> Result {
    names()?;
    modes()?;
    watches()?;
    timer_after_its_end()?;
    grace_periods()?;
    lists()
}

fn new_file(dir: &Arc<Dir>, name: &CStr, mode: u16) -> Result<File<Greedy>> {
    File::new(dir.clone(), name, mode, KBox::new(0, GFP_KERNEL)?)
}

fn names() -> Result {
    const LONG: [u8; 257] = {
        let mut name = [b'x'; 257];
        name[256] = 0;
        name
    };
    let long = CStr::from_bytes_with_nul(&LONG).map_err(|_| EINVAL)?;
    let dir = Arc::new(Dir::new(c"outer", 0o555)?, GFP_KERNEL)?;
    for name in [c"", c".", c"..", c"outer/inner", c"/inner", c"inner/", long] {
        let error = Dir::new(name, 0o555).err();
        check(fmt!("a directory named {name:?}"), error, Some(EINVAL))?;
        let error = new_file(&dir, name, 0o444).err();
        check(fmt!("a file named {name:?}"), error, Some(EINVAL))?;
    }
    let error = Dir::new(c"12345", 0o555).err();
    check(fmt!("a directory named as a process"), error, Some(EINVAL))
}

fn modes() -> Result {
    let dir = Arc::new(Dir::new(c"outer", 0o555)?, GFP_KERNEL)?;
    for mode in [0, 0o20555, 0o100555, 0o120555] {
        let error = Dir::new(c"inner", mode).err();
        check(fmt!("a directory of mode {mode:o}"), error, Some(EINVAL))?;
        let error = new_file(&dir, c"inner", mode).err();
        check(fmt!("a file of mode {mode:o}"), error, Some(EINVAL))?;
    }
    Ok(())
}

/// Does nothing at an exit.
pub(crate) struct Deaf;

impl ExitHandler for Deaf {
    fn exited(_: ArcBorrow<'_, Self>, _: &Process, _: ExitedGroup<'_>) {}
}

fn watches() -> Result {
    let handler = Arc::new(Deaf, GFP_KERNEL)?;
    let watch = || -> Result<_> {
        let [process] = Process::find_many::<1>(&[current!().pid()]);
        let watch = ExitWatch::new(process.ok_or(ESRCH)?, handler.clone());
        Ok(KBox::pin_init(watch, GFP_KERNEL)?)
    };
    let (first, second, idle) = (watch()?, watch()?, watch()?);
    check(fmt!("a watch"), first.start(), Ok(()))?;
    check(fmt!("one that is started twice"), first.start(), Err(EBUSY))?;
    check(
        fmt!("a second watch of a process"),
        second.start(),
        Err(EBUSY),
    )?;
    drop(idle);
    drop(first);
    check(fmt!("one when the first has gone"), second.start(), Ok(()))
}

/// Counts its runs.
#[pin_data]
pub(crate) struct Counter {
    runs: AtomicU32,
    #[pin]
    has_run: Completion,
}

impl Counter {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            runs: AtomicU32::new(0),
            has_run <- Completion::new(),
        })
    }

    /// Waits for the first run.
    pub(crate) fn wait(&self) {
        self.has_run.wait_for_completion();
    }
}

impl Job for Counter {
    fn run(&self) -> bool {
        self.runs.fetch_add(1, Relaxed);
        true
    }

    fn announce(&self) {
        self.has_run.complete_all();
    }

    fn is_idle(&self) -> bool {
        false
    }
}

fn timer_after_its_end() -> Result {
    let queue = Arc::new(OwnedQueue::new_unbound(c"misuse")?, GFP_KERNEL)?;
    let ticking = Ticking::new(Delta::from_millis(1), queue, Counter::new())?;
    let periodic = ticking.periodic().clone();
    periodic.as_arc_borrow().start();
    periodic.job().wait();
    drop(ticking);

    let runs = periodic.job().runs.load(Relaxed);
    periodic.as_arc_borrow().start();
    periodic.as_arc_borrow().run_soon();
    // Work that is queued and a timer that is armed hold a reference.
    let Some(periodic) = Arc::into_unique_or_drop(periodic) else {
        return check(
            fmt!("a timer that is started after its end"),
            "is armed",
            "does nothing",
        );
    };
    let more = periodic.job().runs.load(Relaxed) - runs;
    check(
        fmt!("runs of a timer that is started after its end"),
        more,
        0,
    )
}

fn grace_periods() -> Result {
    // The kernel still uses the memory of a wait that timed out.
    let is_over = TasksGracePeriod::new()?.wait(0);
    pr_info!("a wait for preempted tasks with a timeout of 0: {is_over}\n");
    let is_over = TasksGracePeriod::new()?.wait(msecs_to_jiffies(60_000));
    let can_wait = cfg!(any(CONFIG_TASKS_RCU, not(CONFIG_PREEMPTION)));
    check(fmt!("a wait for preempted tasks"), is_over, can_wait)
}

/// An element that counts its drops, and sleeps meanwhile.
struct Sleeper(Arc<AtomicU32>);

impl Drop for Sleeper {
    fn drop(&mut self) {
        fsleep(Delta::from_millis(1));
        self.0.fetch_add(1, Relaxed);
    }
}

fn lists() -> Result {
    let drops = Arc::new(AtomicU32::new(0), GFP_KERNEL)?;
    let elements = || core::iter::repeat_with(|| Sleeper(drops.clone()));
    let list = KBox::pin_init(BlockList::<_, 2>::new()?, GFP_KERNEL)?;
    let mut spare = KVec::new();
    let is_added = list.lock().append(&mut spare, elements()).is_some();
    check(fmt!("elements without a block"), is_added, false)?;
    for _ in 0..2 {
        spare.push(NewBlock::new(GFP_KERNEL)?, GFP_KERNEL)?;
        drop(list.lock().append(&mut spare, elements()));
    }
    check(
        fmt!("elements, as many as there is room for"),
        list.len(),
        4,
    )?;

    for start in [usize::MAX, 1 << 32] {
        let beyond = list
            .walk()
            .next()
            .map(|visit| visit.iter_from(start).count());
        check(fmt!("elements from {start} on"), beyond, Some(0))?;
    }

    let mut walk = list.walk();
    let mut other = list.walk();
    let mut forgotten = list.walk();
    for walk in [&mut walk, &mut other, &mut forgotten] {
        drop(walk.next());
    }
    mem::forget(forgotten);
    walk.here().ok_or(EINVAL)?.remove_if(|_| true);
    check(
        fmt!("drops of elements at which other walks stand"),
        drops.load(Relaxed),
        2,
    )?;
    let left = other.here().map(|visit| visit.iter_from(0).count());
    check(fmt!("what another walk finds there"), left, Some(0))?;
    check(fmt!("a step from it"), other.next().is_some(), true)?;
    drop((walk, other));

    spare.push(NewBlock::new(GFP_KERNEL)?, GFP_KERNEL)?;
    let added = list.lock().append(&mut spare, elements()).ok_or(EINVAL)?;
    let mut walk = list.walk();
    while let Some(visit) = walk.next() {
        visit.remove_if(|_| true);
    }
    check(
        fmt!("elements that are removed while they are added"),
        list.len(),
        2,
    )?;
    let mut kept = 0;
    added.retain(|_| {
        kept += 1;
        kept == 1
    });
    check(fmt!("those of which one is refused"), list.len(), 1)?;
    let again = list.lock().append(&mut spare, elements());
    check(fmt!("its place is used again"), again.is_some(), true)?;
    check(fmt!("by one element"), list.len(), 2)?;
    mem::forget(again);
    drop(walk);
    drop(list);
    check(
        fmt!("drops of elements with their list, which sleep"),
        drops.load(Relaxed),
        7,
    )
}
