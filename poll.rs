// SPDX-License-Identifier: GPL-2.0

//! Wait queues of files that are polled.
//!
//! [`kernel::sync::poll::PollCondVar`] is for files that keep their module loaded while they are
//! open. A file in `/proc` does not: the unload cuts the file off from the module, but what
//! `poll()`, `select()`, `epoll`, `io_uring` and `io_submit()` have put on a wait queue of the
//! module stays there. So a [`PollQueue`] empties itself before it goes: it wakes `poll()` and
//! `select()`, makes the others forget it, and waits for those that still look at it.
//!
//! C headers: [`include/linux/poll.h`](srctree/include/linux/poll.h),
//! [`include/linux/wait.h`](srctree/include/linux/wait.h).

use crate::{
    layout,
    lock_class::LockClass,
    once::read_once,
    rcu_tasks::TasksGracePeriod, //
};
use core::{
    mem::ManuallyDrop,
    ops::BitOr,
    sync::atomic::{
        AtomicBool,
        Ordering::Relaxed, //
    }, //
};
use kernel::{
    bindings,
    prelude::*,
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta,
        Msecs, //
    },
    types::Opaque, //
};

/// Events that a poll reports: `EPOLL*` of C.
#[derive(Clone, Copy)]
pub(crate) struct Events(u32);

impl Events {
    /// `EPOLLIN | EPOLLRDNORM`: there is something to read.
    pub(crate) const READABLE: Self = Self((layout::EVENT_IN | layout::EVENT_RDNORM) as u32);
    /// `EPOLLOUT | EPOLLWRNORM`: a write does not block.
    pub(crate) const WRITABLE: Self = Self((layout::EVENT_OUT | layout::EVENT_WRNORM) as u32);
    /// `EPOLLPRI | EPOLLERR`: the content has changed.
    pub(crate) const CHANGED: Self = Self((layout::EVENT_PRI | layout::EVENT_ERR) as u32);
    /// No event.
    pub(crate) const NONE: Self = Self(0);
    /// Every event: callers wake up whatever they wait for. `select()` for exceptions, say, looks
    /// at `EPOLLPRI` alone.
    pub(crate) const ALL: Self = Self(
        Self::READABLE.0
            | Self::WRITABLE.0
            | Self::CHANGED.0
            | (layout::EVENT_HUP
                | layout::EVENT_RDHUP
                | layout::EVENT_RDBAND
                | layout::EVENT_WRBAND) as u32,
    );

    /// Returns the mask for C.
    pub(crate) fn mask(self) -> bindings::__poll_t {
        self.0
    }
}

impl BitOr for Events {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A wait queue on which callers sleep and polls wait.
///
/// # Invariants
///
/// The head is initialised.
pub(crate) struct PollQueue {
    head: ManuallyDrop<Pin<KBox<Head>>>,
    /// Whether a poll has ever waited here.
    is_polled: AtomicBool,
    /// The wait for those that are preempted at the end.
    preempted_polls: Option<TasksGracePeriod>,
}

/// The head of a wait queue, and the class of its lock. Both may have to outlive the module.
#[pin_data]
struct Head {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
    _class: LockClass,
}

// SAFETY: A wait queue does its own locking.
unsafe impl Send for PollQueue {}
// SAFETY: As above.
unsafe impl Sync for PollQueue {}

/// How many times a queue wakes the callers that are still on it before it goes, and how long it
/// waits for them each time.
const HANG_UP_TRIES: usize = 40;
const HANG_UP_PAUSE: Delta = Delta::from_millis(1);

/// The timeout of the wait for preempted polls at the end of a queue. Where no processor is busy,
/// the wait takes some tenths of a second.
const PREEMPTED_TIMEOUT_MS: Msecs = 5000;

impl PollQueue {
    /// Creates a queue.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory.
    pub(crate) fn new(name: &CStr) -> Result<Self> {
        let preempted_polls = TasksGracePeriod::new()?;
        let class = LockClass::new(name)?;
        let (name, key) = (class.name(), class.key());
        let head = KBox::pin_init(
            pin_init!(Head {
                // SAFETY: The slot is valid for writes; name and key go with the head.
                head <- Opaque::ffi_init(|slot| unsafe {
                    bindings::__init_waitqueue_head(slot, name, key)
                }),
                _class: class,
            }),
            GFP_KERNEL,
        )?;
        // Nothing fails from here on, since a `ManuallyDrop` would leak the head.
        // INVARIANT: It was initialised above.
        Ok(Self {
            head: ManuallyDrop::new(head),
            is_polled: AtomicBool::new(false),
            preempted_polls: Some(preempted_polls),
        })
    }

    fn as_ptr(&self) -> *mut bindings::wait_queue_head {
        self.head.head.get()
    }

    /// Makes a poll wait for events of this queue: `poll_wait()`. The caller looks for events after
    /// this.
    ///
    /// Context: process context.
    ///
    /// # Safety
    ///
    /// `file` and `table` belong to a call of `poll` of that file. The queue is not dropped before
    /// the call has returned to the kernel.
    pub(crate) unsafe fn register(
        &self,
        file: *mut bindings::file,
        table: *mut bindings::poll_table,
    ) {
        self.is_polled.store(true, Relaxed);
        // SAFETY: By the invariant and by the caller's promise all are valid. The head outlives
        // what is put on the queue, see `drop`.
        unsafe { bindings::poll_wait(file, self.as_ptr(), table) };
    }

    /// Returns whether a task sleeps or polls here. A task that comes later sees what the caller
    /// has changed before.
    ///
    /// Context: any.
    pub(crate) fn has_waiters(&self) -> bool {
        // Pairs with the barriers in `prepare_to_wait_event()` and `poll_wait()`, as the barrier in
        // `wq_has_sleeper()` does.
        // SAFETY: A barrier may be anywhere.
        unsafe { bindings::smp_mb() };
        !self.is_empty()
    }

    fn is_empty(&self) -> bool {
        let head = self.as_ptr();
        // SAFETY: By the invariant the head is valid. `waitqueue_active()` reads it without the
        // lock, too.
        unsafe {
            let first = read_once(&raw const (*head).head.next);
            core::ptr::eq(first, &raw const (*head).head)
        }
    }

    /// Wakes all sleepers, and all polls for one of `events`.
    ///
    /// Context: any; the time grows with the number of waiters.
    pub(crate) fn wake(&self, events: Events) {
        self.wake_raw(events.mask());
    }

    fn wake_raw(&self, mask: bindings::__poll_t) {
        // SAFETY: By the invariant the head is valid. CAST: The key is the mask itself, as in
        // `poll_to_key()`.
        unsafe {
            bindings::__wake_up(
                self.as_ptr(),
                bindings::TASK_NORMAL,
                0,
                mask as usize as *mut c_void,
            )
        };
    }

    /// Sleeps until `ready` returns true. `ready` is called again after each [`wake`](Self::wake).
    /// `ready` must not sleep: the task state is already `TASK_INTERRUPTIBLE`.
    ///
    /// Context: process context; sleeps.
    ///
    /// # Errors
    ///
    /// [`ERESTARTSYS`] if a signal came first.
    pub(crate) fn wait_interruptible(&self, mut ready: impl FnMut() -> bool) -> Result {
        let entry = Opaque::<bindings::wait_queue_entry>::uninit();
        // SAFETY: The entry is valid for writes; it stays where it is until the end of this
        // function.
        unsafe { bindings::init_wait(entry.get()) };
        let result = loop {
            // SAFETY: Queue and entry are valid.
            let signal = unsafe {
                bindings::prepare_to_wait_event(
                    self.as_ptr(),
                    entry.get(),
                    bindings::TASK_INTERRUPTIBLE as c_int,
                )
            };
            if ready() {
                break Ok(());
            }
            if signal != 0 {
                break Err(ERESTARTSYS);
            }
            // SAFETY: Process context, and no lock is held.
            unsafe { bindings::schedule() };
        };
        // SAFETY: Queue and entry are valid.
        unsafe { bindings::finish_wait(self.as_ptr(), entry.get()) };
        result
    }

    /// Wakes all sleepers and polls with every event, and gives polls some time to ask the file
    /// again. The caller has made sure that the file reports every event by now. Entries of `epoll`
    /// stay on the queue.
    ///
    /// Context: sleeps for up to some 50 milliseconds.
    pub(crate) fn hang_up(&self) {
        for _ in 0..HANG_UP_TRIES {
            self.wake(Events::ALL);
            if self.is_empty() {
                break;
            }
            fsleep(HANG_UP_PAUSE);
        }
    }
}

impl Drop for PollQueue {
    fn drop(&mut self) {
        // `epoll`, `io_uring` and `io_submit()` forget the queue. A `poll()` or `select()` leaves
        // by itself.
        for _ in 0..HANG_UP_TRIES {
            self.wake_raw(Events::ALL.mask() | layout::EVENT_POLLFREE as u32);
            if self.is_empty() {
                break;
            }
            fsleep(HANG_UP_PAUSE);
        }
        if !self.is_empty() {
            // A `poll()` or `select()` that has not had a CPU all this time is still on the queue.
            // From now on only core code uses the head. The head, a few bytes, is leaked with its
            // lock class.
            pr_info!("a wait queue stays behind for a poll that does not end\n");
            return;
        }
        // The last caller to leave may still hold the lock. Wait until it has released the lock,
        // and then until it has left the section around that (of RCU, or with preemption off).
        // `epoll` and `io_uring` forget a queue under RCU as well.
        self.wake(Events::ALL);
        // SAFETY: Process context, and no lock is held.
        unsafe { bindings::synchronize_rcu() };
        // `aio_poll()` takes the lock once more after the file's `poll` has returned, unless
        // `POLLFREE` has cleared its pointer to the queue. A wake that completes the request does
        // not clear it. The task can have been preempted before it takes the lock, outside of RCU.
        // It does not sleep in between, so RCU-tasks waits for it. With `PREEMPT_RT` it can sleep
        // there, on its own `ctx_lock`, and nothing waits for it.
        let preempted_polls = self.preempted_polls.take();
        if *self.is_polled.get_mut()
            && (cfg!(CONFIG_PREEMPT_RT)
                || !preempted_polls
                    .is_some_and(|wait| wait.wait(msecs_to_jiffies(PREEMPTED_TIMEOUT_MS))))
        {
            pr_info!("a wait queue stays behind: a preempted poll may still use it\n");
            return;
        }
        // SAFETY: This is the only place where it is dropped.
        unsafe { ManuallyDrop::drop(&mut self.head) };
    }
}
