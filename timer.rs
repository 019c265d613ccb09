// SPDX-License-Identifier: GPL-2.0

//! Periodic work: a timer that queues a work item as long as there is something to do.
//!
//! C headers: [`include/linux/hrtimer.h`](srctree/include/linux/hrtimer.h),
//! [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h).

#![forbid(unsafe_code)]

use crate::workqueue::OwnedQueue;
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

/// What is to be done periodically.
pub(crate) trait Job: Send + Sync + 'static {
    /// Does it once. Runs on the work queue, so it may sleep; never twice at the same time.
    fn run(&self);

    /// Returns whether there is nothing to do until somebody calls [`Periodic::start`].
    ///
    /// Context: process context, with a mutex held.
    fn is_idle(&self) -> bool;
}

/// A [`Job`] with the timer and the work item that run it.
///
/// The timer is armed from [`start`](Self::start) until the job is idle.
#[pin_data]
pub(crate) struct Periodic<J: Job> {
    #[pin]
    timer: HrTimer<Self>,
    interval: Delta,
    #[pin]
    work: Work<Self>,
    queue: Arc<OwnedQueue>,
    job: Arc<J>,
    /// The armed timer. The handle refers to `self`; [`Timer`] breaks that circle.
    #[pin]
    armed: Mutex<Option<ArcHrTimerHandle<Self>>>,
}

impl_has_hr_timer! {
    impl{J: Job} HasHrTimer<Self> for Periodic<J> {
        mode: RelativeSoftMode<Monotonic>,
        field: self.timer
    }
}

impl_has_work! {
    impl{J: Job} HasWork<Self> for Periodic<J> { self.work }
}

impl<J: Job> Periodic<J> {
    /// Arms the timer for one full interval from now, unless it is armed.
    ///
    /// Context: may sleep.
    pub(crate) fn start(self: ArcBorrow<'_, Self>) {
        let mut armed = self.armed.lock();
        // Whoever saw the job idle before us will look again under this lock, and so will we.
        if armed.is_none() && !self.job.is_idle() {
            *armed = Some(Arc::from(self).start(self.interval));
        }
    }

    /// Disarms the timer, and waits for its callback.
    fn stop(&self) {
        self.armed.lock().take();
    }

    /// Runs the job now, whatever the timer does, and waits until that is done.
    ///
    /// Context: may sleep.
    pub(crate) fn run_now(self: ArcBorrow<'_, Self>) {
        // An error means that it is queued already, which serves as well.
        let _ = self.queue.enqueue(Arc::from(self));
        self.queue.flush();
    }
}

impl<J: Job> HrTimerCallback for Periodic<J> {
    type Pointer<'a> = Arc<Self>;

    fn run(
        this: ArcBorrow<'_, Self>,
        mut context: HrTimerCallbackContext<'_, Self>,
    ) -> HrTimerRestart {
        // An error means that the last run is still waiting for its turn: one is enough.
        let _ = this.queue.enqueue(Arc::from(this));
        context.forward_now(this.interval);
        HrTimerRestart::Restart
    }
}

impl<J: Job> WorkItem for Periodic<J> {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.job.run();

        let mut armed = this.armed.lock();
        if this.job.is_idle() {
            armed.take();
        }
    }
}

/// The owner of a [`Periodic`]: when it is dropped, the timer is disarmed and its callback done.
///
/// Nobody may call [`Periodic::start`] after that; work that was queued may still run.
pub(crate) struct Timer<J: Job>(Arc<Periodic<J>>);

impl<J: Job> Timer<J> {
    /// Prepares `job` to be run on `queue` every `interval`, and arms nothing yet.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory.
    pub(crate) fn new(interval: Delta, queue: Arc<OwnedQueue>, job: Arc<J>) -> Result<Self> {
        let periodic = Arc::pin_init(
            pin_init!(Periodic {
                timer <- HrTimer::new(),
                interval,
                work <- new_work!("mp1::Periodic::work"),
                queue,
                job,
                armed <- new_mutex!(None, "mp1::Periodic::armed"),
            }),
            GFP_KERNEL,
        )?;
        Ok(Self(periodic))
    }

    /// Returns a reference to start the timer with.
    pub(crate) fn periodic(&self) -> Arc<Periodic<J>> {
        self.0.clone()
    }
}

impl<J: Job> Drop for Timer<J> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
