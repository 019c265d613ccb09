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

/// A [`Job`] with the timer and the work queue that run it.
///
/// The timer is armed from [`start`](Self::start) until the job is idle. It and the work item own
/// references to this, so it has to be told to end, by its [`Owner`].
#[pin_data]
pub(crate) struct Periodic<J: Job> {
    #[pin]
    timer: HrTimer<Self>,
    interval: Delta,
    /// The timer while it is armed.
    #[pin]
    armed: Mutex<Option<ArcHrTimerHandle<Self>>>,
    #[pin]
    work: Work<Self>,
    queue: OwnedQueue,
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
    impl{J: Job} HasWork<Self> for Periodic<J> { self.work }
}

impl<J: Job> Periodic<J> {
    /// Prepares `job` to be run on `queue` every `interval`, and arms nothing yet.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory.
    pub(crate) fn new(
        interval: Delta,
        queue: OwnedQueue,
        job: impl PinInit<J>,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                timer <- HrTimer::new(),
                interval,
                armed <- new_mutex!(None, "mp1::armed"),
                work <- new_work!("mp1::work"),
                queue,
                job <- job,
            }),
            GFP_KERNEL,
        )
    }

    /// Returns the job.
    pub(crate) fn job(&self) -> &J {
        &self.job
    }

    /// Arms the timer for one full interval from now, unless the job is idle.
    ///
    /// Context: may sleep.
    #[cold]
    pub(crate) fn start(self: ArcBorrow<'_, Self>) {
        self.adjust(true);
    }

    /// Disarms the timer if the job is idle. If not, and if asked to, arms it `anew`, for one full
    /// interval from now.
    ///
    /// Context: may sleep.
    fn adjust(self: ArcBorrow<'_, Self>, anew: bool) {
        let mut armed = self.armed.lock();
        // Whoever finds the job idle looks again under this lock, and so do we.
        let is_idle = self.job.is_idle();
        if is_idle || anew {
            // Dropping a handle stops the timer, even one that was started anew, so this comes
            // first. It may be armed still, if the job was idle but for a moment.
            armed.take();
        }
        if anew && !is_idle {
            armed.get_or_insert_with(|| Arc::from(self).start(self.interval));
        }
    }

    /// Runs the job now, whatever the timer does, and waits until that is done.
    ///
    /// Context: may sleep.
    #[cold]
    pub(crate) fn run_now(self: ArcBorrow<'_, Self>) {
        self.enqueue();
        self.queue.flush();
    }

    /// Has the job run as soon as a worker takes it up.
    ///
    /// Context: any.
    #[cold]
    fn enqueue(self: ArcBorrow<'_, Self>) {
        // An error means that the last run is still waiting for its turn: one is enough.
        let _ = self.queue.enqueue(Arc::from(self));
    }
}

impl<J: Job> HrTimerCallback for Periodic<J> {
    type Pointer<'a> = Arc<Self>;

    fn run(
        this: ArcBorrow<'_, Self>,
        mut context: HrTimerCallbackContext<'_, Self>,
    ) -> HrTimerRestart {
        this.enqueue();
        context.forward_now(this.interval);
        HrTimerRestart::Restart
    }
}

impl<J: Job> WorkItem for Periodic<J> {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.job.run();
        this.as_arc_borrow().adjust(false);
    }
}

/// The owner of a [`Periodic`]: dropping it ends first the timer, which waits for its callback, and
/// then the work, which runs to its end. Neither refers to the job any more after that.
///
/// Nobody may call [`Periodic::start`] or [`Periodic::run_now`] from then on.
///
/// Context: dropped where sleeping is allowed.
pub(crate) struct Owner<J: Job>(pub(crate) Arc<Periodic<J>>);

impl<J: Job> Drop for Owner<J> {
    #[inline]
    fn drop(&mut self) {
        self.0.armed.lock().take();
        self.0.queue.drain();
    }
}
