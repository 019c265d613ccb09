// SPDX-License-Identifier: GPL-2.0

//! Periodic work: a timer whose callback queues a work item, as long as there is something to do.
//!
//! C headers: [`include/linux/hrtimer.h`](srctree/include/linux/hrtimer.h),
//! [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h).

#![forbid(unsafe_code)]

use crate::workqueue::{
    self,
    OwnedQueue, //
};
use kernel::{
    impl_has_hr_timer,
    impl_has_work,
    new_mutex,
    new_work,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow,
        Mutex, //
    },
    time::{
        hrtimer::{
            ArcHrTimerHandle,
            HrTimer,
            HrTimerCallback,
            HrTimerCallbackContext,
            HrTimerPointer,
            HrTimerRestart,
            RelativeSoftMode, //
        },
        Delta,
        Monotonic, //
    },
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

/// What is done periodically.
pub(crate) trait Job: Send + Sync + 'static {
    /// Does it once. Runs on the work queue, so it may sleep; never runs twice at the same time.
    /// Returns whether there are waiters for [`announce`](Self::announce).
    fn run(&self) -> bool;

    /// Tells the waiters that a run is done. Runs on the work queue, too, but no run waits for it,
    /// so it may take as long as users make it take.
    fn announce(&self);

    /// Returns whether there is nothing to do until the next [`Periodic::start`].
    ///
    /// Context: process context, with a mutex held.
    fn is_idle(&self) -> bool;
}

/// The IDs of the work items.
const RUN: u64 = 0;
const ARM: u64 = 1;
const ANNOUNCE: u64 = 2;

/// A [`Job`] with the timer and the work items that run it.
///
/// The timer is armed from [`start`](Self::start) until the job is idle. Only work items arm and
/// disarm it, and so callers of `start` never wait for each other.
#[pin_data]
pub(crate) struct Periodic<J: Job> {
    #[pin]
    timer: HrTimer<Self>,
    interval: Delta,
    /// The timer while it is armed. Only the work items and the drop of [`Ticking`] take this lock.
    #[pin]
    armed: Mutex<Option<ArcHrTimerHandle<Self>>>,
    #[pin]
    run: Work<Self, RUN>,
    #[pin]
    arm: Work<Self, ARM>,
    #[pin]
    announce: Work<Self, ANNOUNCE>,
    queue: Arc<OwnedQueue>,
    #[pin]
    job: J,
}

impl_has_hr_timer! {
    impl{J: Job} HasHrTimer<Self> for Periodic<J> {
        mode: RelativeSoftMode<Monotonic>,
        field: self.timer
    }
}

impl_has_work! {
    impl{J: Job} HasWork<Self, RUN> for Periodic<J> { self.run }
    impl{J: Job} HasWork<Self, ARM> for Periodic<J> { self.arm }
    impl{J: Job} HasWork<Self, ANNOUNCE> for Periodic<J> { self.announce }
}

impl<J: Job> Periodic<J> {
    /// Returns the job.
    pub(crate) fn job(&self) -> &J {
        &self.job
    }

    /// Has the timer armed for one full interval from now, unless the job is idle.
    ///
    /// Does nothing once the [`Ticking`] has been dropped.
    ///
    /// Context: any.
    pub(crate) fn start(self: ArcBorrow<'_, Self>) {
        // An error means that the work is queued already, or disabled.
        let _ = self.queue.enqueue::<Arc<Self>, ARM>(self.into());
    }

    /// Has the job run as soon as a worker takes it up, whatever the timer does.
    ///
    /// Does nothing once the [`Ticking`] has been dropped.
    ///
    /// Context: any.
    pub(crate) fn run_soon(self: ArcBorrow<'_, Self>) {
        // An error means that the work is queued already, or disabled.
        let _ = self.queue.enqueue::<Arc<Self>, RUN>(self.into());
    }
}

impl<J: Job> HrTimerCallback for Periodic<J> {
    type Pointer<'a> = Arc<Self>;

    fn run(
        this: ArcBorrow<'_, Self>,
        mut context: HrTimerCallbackContext<'_, Self>,
    ) -> HrTimerRestart {
        this.run_soon();
        context.forward_now(this.interval);
        HrTimerRestart::Restart
    }
}

impl<J: Job> WorkItem<RUN> for Periodic<J> {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if this.job.run() {
            // An error means that the work is queued already, or disabled.
            let _ = this.queue.enqueue::<Arc<Self>, ANNOUNCE>(this.clone());
        }
        let mut armed = this.armed.lock();
        if this.job.is_idle() {
            // Dropping the handle cancels the timer. Work that `start()` has queued meanwhile, or
            // will queue, arms it again.
            *armed = None;
        }
    }
}

impl<J: Job> WorkItem<ARM> for Periodic<J> {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let mut armed = this.armed.lock();
        // Dropping an old handle would cancel a timer that was started after it: cancel first.
        *armed = None;
        if !this.job.is_idle() {
            *armed = Some(this.clone().start(this.interval));
        }
    }
}

impl<J: Job> WorkItem<ANNOUNCE> for Periodic<J> {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.job.announce();
    }
}

/// The owner of a [`Periodic`]. Dropping this cancels the timer, waits for its callback, and then
/// ends the work items. From then on [`Periodic::start`] and [`Periodic::run_soon`] do nothing.
///
/// Only this creates a [`Periodic`], since an armed timer keeps itself alive.
///
/// Context: dropped where sleeping is allowed.
pub(crate) struct Ticking<J: Job>(Arc<Periodic<J>>);

impl<J: Job> Ticking<J> {
    /// Prepares `job` to be run on `queue` every `interval`, and arms nothing yet.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory.
    pub(crate) fn new(
        interval: Delta,
        queue: Arc<OwnedQueue>,
        job: impl PinInit<J>,
    ) -> Result<Self> {
        let periodic = Arc::pin_init(
            pin_init!(Periodic {
                timer <- HrTimer::new(),
                interval,
                armed <- new_mutex!(None, "Periodic::armed"),
                run <- new_work!("Periodic::run"),
                arm <- new_work!("Periodic::arm"),
                announce <- new_work!("Periodic::announce"),
                queue,
                job <- job,
            }),
            GFP_KERNEL,
        )?;
        Ok(Self(periodic))
    }

    /// Returns the timer with its job.
    pub(crate) fn periodic(&self) -> &Arc<Periodic<J>> {
        &self.0
    }
}

impl<J: Job> Drop for Ticking<J> {
    fn drop(&mut self) {
        let periodic = &self.0;
        // Nothing arms the timer any more.
        workqueue::disable_sync::<_, ARM>(periodic);
        *periodic.armed.lock() = None;
        workqueue::disable_sync::<_, RUN>(periodic);
        workqueue::disable_sync::<_, ANNOUNCE>(periodic);
    }
}
