// SPDX-License-Identifier: GPL-2.0

//! The registered processes.
//!
//! A registration is appended to the arrivals in [`Intake`], under a spin lock that is held for the
//! same time however many there are. Who walks over all registrations, an update or a snapshot, owns
//! those that have [`Settled`], behind a mutex, and first lets the arrivals settle after them, but
//! for processes that have settled before. So what is walked over is in the order of registration and
//! without duplicates, and who registers never waits for who walks.
//!
//! Lock order: `settled`, then `intake`.

#![forbid(unsafe_code)]

use crate::{
    gfp,
    process::Process,
    status_text::{
        Formatter,
        LINE_MAX, //
    },
    timer::Job, //
};
use core::{
    mem,
    sync::atomic::{
        AtomicU64,
        AtomicUsize,
        Ordering::Relaxed, //
    }, //
};
use kernel::{
    list::{
        impl_list_arc_safe,
        impl_list_item,
        List,
        ListArc,
        ListLinks, //
    },
    new_mutex,
    new_spinlock,
    pid_namespace::PidNamespace,
    prelude::*,
    sync::{
        rcu,
        Arc,
        Mutex,
        SpinLock,
        UniqueArc, //
    }, //
};
use pin_init::init_array_from_fn;

/// How many registrations may follow an update before the next one is due, whatever the timer says.
///
/// This bounds what is kept of processes that have exited, a registration and a `struct pid` each. It
/// is large, since the next registrations pay for a walk over all that there are.
pub(crate) const UPDATE_DUE_AFTER: usize = 16384;

/// For how many more lines than expected a reader makes room, so that it need not begin again where a
/// few have come meanwhile.
const SLACK: usize = 8;

/// How many registrations are walked over in one RCU read-side critical section.
const RCU_BATCH: usize = 64;

/// One registered process.
#[pin_data]
struct Registration {
    process: Process,
    /// Its CPU time at the latest update, in nanoseconds.
    ///
    /// Only who has `settled` locked uses it, so nothing of memory ordering matters here; the type
    /// of `kernel::sync` would cost the call of a C function each time.
    cpu_time: AtomicU64,
    /// In the order of registration.
    #[pin]
    in_order: ListLinks<0>,
    /// In a bucket of the index.
    #[pin]
    in_bucket: ListLinks<1>,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Registration { untracked; }
    impl ListArcSafe<1> for Registration { untracked; }
}

impl_list_item! {
    impl ListItem<0> for Registration { using ListLinks { self.in_order }; }
    impl ListItem<1> for Registration { using ListLinks { self.in_bucket }; }
}

/// Processes that are about to be registered, in order: all that can fail is done before the first
/// of them is.
#[derive(Default)]
pub(crate) struct Batch {
    list: List<Registration>,
    len: usize,
}

impl Batch {
    /// Adds `process` to the end.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory, or the writer's cgroup may not have more.
    #[inline]
    pub(crate) fn push(&mut self, process: Process) -> Result {
        self.list.push_back(ListArc::from(UniqueArc::pin_init(
            pin_init!(Registration {
                process,
                cpu_time: AtomicU64::new(0),
                in_order <- ListLinks::new(),
                in_bucket <- ListLinks::new(),
            }),
            gfp::for_user(),
        )?));
        self.len += 1;
        Ok(())
    }

    /// Returns whether nothing was added.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The logarithm of the number of buckets in an [`Index`].
const INDEX_BITS: u32 = 13;

/// All registrations by process: a hash table of [`Process::key`].
struct Index {
    buckets: KVBox<[List<Registration, 1>; 1 << INDEX_BITS]>,
}

impl Index {
    #[inline]
    fn new() -> Result<Self> {
        let buckets = KVBox::init(init_array_from_fn(|_| List::new()), GFP_KERNEL)?;
        Ok(Self { buckets })
    }

    fn bucket(&mut self, process: &Process) -> &mut List<Registration, 1> {
        // The upper bits of the product depend on all bits of the key.
        const GOLDEN_RATIO: u64 = 0x61c8_8646_80b5_83eb;
        let hash = (process.key() as u64).wrapping_mul(GOLDEN_RATIO);
        &mut self.buckets[(hash >> (u64::BITS - INDEX_BITS)) as usize]
    }

    /// Adds a registration, unless its process has one; then that is dropped.
    fn insert(&mut self, registration: ListArc<Registration>) -> Option<ListArc<Registration>> {
        // Nobody else has a reference to what has just arrived.
        let registration = Arc::into_unique_or_drop(registration.into_arc())?;
        let key = registration.process.key();
        let bucket = self.bucket(&registration.process);
        if bucket.iter().any(|other| other.process.key() == key) {
            return None;
        }
        let (in_order, in_bucket) = ListArc::pair_from_pin_unique(registration);
        bucket.push_front(in_bucket);
        Some(in_order)
    }

    fn remove(&mut self, process: &Process) -> Option<ListArc<Registration, 1>> {
        let mut cursor = self.bucket(process).cursor_front();
        while let Some(next) = cursor.peek_next() {
            if next.process.key() == process.key() {
                return Some(next.remove());
            }
            cursor.move_next();
        }
        None
    }
}

/// What registering a process needs.
struct Intake {
    /// The latest registrations: those that no walk has seen yet. A process may be among them twice,
    /// or be registered already.
    arrivals: List<Registration>,
    /// How many more may arrive before an update is due.
    until_update: usize,
    /// Whether nothing is registered.
    is_empty: bool,
}

/// The registrations that a walk has seen.
struct Settled {
    list: List<Registration>,
    index: Index,
}

impl Settled {
    /// Adds all of `arrivals` but those of processes that are registered already.
    fn settle(&mut self, mut arrivals: List<Registration>) {
        while let Some(arrival) = arrivals.pop_front() {
            if let Some(registration) = self.index.insert(arrival) {
                self.list.push_back(registration);
            }
        }
    }

    /// Reads the CPU time of every process, and drops those that have exited.
    fn update(&mut self) {
        let mut rcu = rcu::read_lock();
        let mut until_pause = RCU_BATCH;
        let mut cursor = self.list.cursor_front();
        while let Some(next) = cursor.peek_next() {
            match next.process.cpu_time(&rcu) {
                Some(time) => {
                    // A time that was read while threads ended may lag behind an earlier one.
                    let time = time.max(next.cpu_time.load(Relaxed));
                    next.cpu_time.store(time, Relaxed);
                    cursor.move_next();
                }
                None => {
                    let registration = next.remove();
                    self.index.remove(&registration.process);
                }
            }
            until_pause -= 1;
            if until_pause == 0 {
                drop(rcu);
                rcu = rcu::read_lock();
                until_pause = RCU_BATCH;
            }
        }
    }
}

/// The registered processes.
#[pin_data]
pub(crate) struct Registry {
    #[pin]
    intake: SpinLock<Intake>,
    /// The registrations before those in [`Intake::arrivals`].
    #[pin]
    settled: Mutex<Settled>,
    /// The length of the latest text, a hint.
    text_len: AtomicUsize,
}

impl Registry {
    /// Creates a registry without processes.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory.
    #[inline]
    pub(crate) fn new() -> Result<impl PinInit<Self>> {
        let index = Index::new()?;
        Ok(pin_init!(Self {
            intake <- new_spinlock!(Intake {
                arrivals: List::new(),
                until_update: UPDATE_DUE_AFTER,
                is_empty: true,
            }, "mp1::intake"),
            settled <- new_mutex!(Settled {
                list: List::new(),
                index,
            }, "mp1::settled"),
            text_len: AtomicUsize::new(0),
        }))
    }

    /// Registers the processes of `batch` in their order. Those that are registered already stay as
    /// they are.
    ///
    /// Calls `update` where an update is due before more can be registered; `batch` must not hold more
    /// than [`UPDATE_DUE_AFTER`]. Returns whether nothing was registered before.
    ///
    /// Context: may sleep.
    #[inline]
    pub(crate) fn register(&self, mut batch: Batch, update: impl Fn()) -> bool {
        loop {
            let mut guard = self.intake.lock();
            let intake = &mut *guard;
            if let Some(rest) = intake.until_update.checked_sub(batch.len) {
                intake.until_update = rest;
                intake.arrivals.push_all_back(&mut batch.list);
                return mem::replace(&mut intake.is_empty, false);
            }
            drop(guard);
            update();
        }
    }

    /// Returns whether nothing is registered.
    ///
    /// Context: any but interrupts.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.intake.lock().is_empty
    }

    /// Lets what has arrived be seen by a walk.
    fn settle(&self, settled: &mut Settled) {
        let arrivals = mem::replace(&mut self.intake.lock().arrivals, List::new());
        settled.settle(arrivals);
    }

    /// Reads the CPU time of every process, and drops those that have exited.
    ///
    /// Context: may sleep; must not be called by two at once.
    #[inline]
    pub(crate) fn update(&self) {
        let mut settled = self.settled.lock();
        self.settle(&mut settled);
        settled.update();

        let mut intake = self.intake.lock();
        intake.until_update = UPDATE_DUE_AFTER;
        intake.is_empty = settled.list.is_empty() && intake.arrivals.is_empty();
    }

    /// Returns a line for each process that `ns` sees, in the order of registration.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory, or the reader's cgroup may not have more.
    pub(crate) fn text(&self, ns: &PidNamespace) -> Result<KVVec<u8>> {
        // Most texts are about as long as the latest one was.
        let text_len = self.text_len.load(Relaxed);
        let mut room = text_len.saturating_add(SLACK * LINE_MAX);
        'again: loop {
            // Allocating may take its time, so it is done before the walk keeps others out.
            let mut text = KVVec::with_capacity(room, gfp::for_user())?;

            let mut settled = self.settled.lock();
            self.settle(&mut settled);

            let mut formatter = Formatter::new();
            for registration in settled.list.iter() {
                let Some(number) = registration.process.number_in(ns) else {
                    continue;
                };
                let line = formatter.line(number, registration.cpu_time.load(Relaxed));
                if text.spare_capacity_mut().len() < line.len() {
                    room = room.saturating_mul(2);
                    continue 'again;
                }
                text.extend_from_slice(line, gfp::for_user())?;
            }
            self.text_len.store(text.len(), Relaxed);
            return Ok(text);
        }
    }
}

impl Job for Registry {
    #[inline]
    fn run(&self) {
        self.update();
    }

    #[inline]
    fn is_idle(&self) -> bool {
        self.is_empty()
    }
}
