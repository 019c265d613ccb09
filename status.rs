// SPDX-License-Identifier: GPL-2.0

//! `/proc/mp1/status`: what a write registers, and what a read shows.

#![forbid(unsafe_code)]

use crate::{
    gfp,
    pid_list::{
        self,
        ParseError,
        Pid,
        Pids, //
    },
    poll::{
        Events,
        PollQueue, //
    },
    proc::{
        FileOps,
        Reader, //
    },
    process::Process,
    raw_spinlock::{
        new_raw_spinlock,
        RawSpinLock, //
    },
    registry::{
        Registry,
        Spare,
        Updates, //
    }, //
};
use kernel::{
    current,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    uaccess::UserSliceReader, //
};

/// How much of a write is taken.
const WRITE_MAX: usize = 4096;

/// The longest write for which no memory is allocated: one PID, and some white space.
const SHORT_WRITE: usize = 32;

/// How many PIDs are looked up at once.
const LOOKUP_MAX: usize = 18;

/// The operations of the status file, which owns a reference to the registry and its updates.
pub(crate) struct StatusFile;

/// An open status file.
#[pin_data]
pub(crate) struct OpenStatus {
    /// What reads show. There is none before the first read or seek from the end.
    #[pin]
    snapshot: RawSpinLock<Option<Snapshot>>,
}

#[derive(Clone)]
struct Snapshot {
    text: Arc<KVVec<u8>>,
    /// The number of updates before it.
    updates: u64,
}

impl OpenStatus {
    /// Returns the text of the snapshot. If there is none, or a `new` one is asked for, it is taken
    /// now, as the PID namespace of `current` sees it.
    fn snapshot(&self, registry: &Registry, new: bool) -> Result<Arc<KVVec<u8>>> {
        if !new {
            let snapshot = self.snapshot.lock().clone();
            if let Some(snapshot) = snapshot {
                return Ok(snapshot.text);
            }
        }
        let updates = registry.updates();
        let reader = current!();
        let ns = reader.active_pid_ns().ok_or(ESRCH)?;
        let text = Arc::new(registry.text(ns)?, gfp::user_account())?;
        let snapshot = Snapshot {
            text: text.clone(),
            updates,
        };
        let old = self.snapshot.lock().replace(snapshot);
        // This may free the old text: not with the lock held.
        drop(old);
        Ok(text)
    }

    /// Returns whether an update has come since the snapshot, or there is no snapshot.
    fn is_outdated(&self, registry: &Registry) -> bool {
        let snapshot = self.snapshot.lock();
        snapshot
            .as_ref()
            .is_none_or(|snapshot| snapshot.updates != registry.updates())
    }
}

/// Registers the processes of `pids`, `N` at once, and returns how many bytes of the text count as
/// written: `all`, unless one of the processes has exited or never existed.
fn register<const N: usize>(
    updates: ArcBorrow<'_, Updates>,
    pids: &[Pid],
    all: usize,
) -> Result<usize> {
    let mut spare = Spare::new(pids.len())?;
    let mut written = None;
    for pids in pids.chunks(N) {
        let mut numbers = [0; N];
        for (number, pid) in numbers.iter_mut().zip(pids) {
            *number = pid.number;
        }
        let mut found = Process::find_many::<N>(&numbers[..pids.len()]);
        let registered = match Registry::register(updates, &mut found[..pids.len()], &mut spare) {
            Err(_) if written.is_some() => 0,
            registered => registered?,
        };
        if let Some(last) = registered.checked_sub(1) {
            written = Some(pids[last].end as usize);
        }
        if registered < pids.len() {
            return written.ok_or(ESRCH);
        }
    }
    Ok(all)
}

/// Parses all of `text` into `pids`, and returns how many there are.
///
/// # Errors
///
/// [`EINVAL`] or [`ERANGE`] if a part of `text` is not a PID; [`EINVAL`] if there is no PID.
fn parse(text: &[u8], pids: &mut [Pid]) -> Result<usize> {
    let mut count = 0;
    for pid in Pids::new(text) {
        let pid = pid.map_err(|error| match error {
            ParseError::Invalid => EINVAL,
            ParseError::Range => ERANGE,
        })?;
        *pids.get_mut(count).ok_or(EINVAL)? = pid;
        count += 1;
    }
    if count == 0 {
        return Err(EINVAL);
    }
    Ok(count)
}

#[vtable]
impl FileOps for StatusFile {
    type Data = Arc<Updates>;
    type OpenFile = Pin<KBox<OpenStatus>>;

    fn open(_updates: ArcBorrow<'_, Updates>) -> Result<Self::OpenFile> {
        KBox::pin_init(
            pin_init!(OpenStatus {
                snapshot <- new_raw_spinlock!(None, "OpenStatus::snapshot"),
            }),
            gfp::user_account(),
        )
    }

    fn read(
        updates: ArcBorrow<'_, Updates>,
        open: Pin<&OpenStatus>,
        reader: &mut Reader<'_>,
    ) -> Result {
        if reader.room() == 0 {
            return Ok(());
        }
        let snapshot = open.snapshot(updates.job(), reader.position() == 0)?;
        reader.copy_from_content(&snapshot)
    }

    fn write(
        updates: ArcBorrow<'_, Updates>,
        _open: Pin<&OpenStatus>,
        mut from: UserSliceReader,
    ) -> Result<usize> {
        let len = from.len().min(WRITE_MAX);
        if len == 0 {
            return Ok(0);
        }

        let mut short = [0; SHORT_WRITE];
        let mut few = [Pid::default(); SHORT_WRITE / 2];
        let (mut long, mut many);
        let (text, pids) = if len <= SHORT_WRITE {
            (&mut short[..len], &mut few[..])
        } else {
            long = KVec::from_elem(0, len, gfp::user_account())?;
            // A PID takes at least two bytes with the white space behind it.
            many = KVVec::from_elem(Pid::default(), len.div_ceil(2), gfp::user_account())?;
            (&mut long[..], &mut many[..])
        };
        from.read_slice(text)?;

        let is_whole = from.is_empty();
        let list = if is_whole {
            pid_list::without_terminator(text)
        } else {
            pid_list::up_to_last_space(text).ok_or(EINVAL)?
        };
        // Nothing is registered unless the whole list is valid.
        let count = parse(list, pids)?;
        let written = if count == 1 {
            register::<1>(updates, &pids[..count], list.len())?
        } else {
            register::<LOOKUP_MAX>(updates, &pids[..count], list.len())?
        };
        // The terminator belongs to a list that was taken whole.
        Ok(if is_whole && written == list.len() {
            len
        } else {
            written
        })
    }

    fn size(updates: ArcBorrow<'_, Updates>, open: Pin<&OpenStatus>) -> Result<usize> {
        Ok(open.snapshot(updates.job(), false)?.len())
    }

    fn poll_queue(updates: ArcBorrow<'_, Updates>) -> Arc<PollQueue> {
        updates.job().pollers().clone()
    }

    fn poll(updates: ArcBorrow<'_, Updates>, open: Pin<&OpenStatus>) -> Events {
        let registry = updates.job();
        if registry.is_closed() {
            return Events::ALL;
        }
        let ready = Events::READABLE | Events::WRITABLE;
        if open.is_outdated(registry) {
            ready | Events::CHANGED
        } else {
            ready
        }
    }

    fn hang_up(updates: ArcBorrow<'_, Updates>) {
        updates.job().hang_up();
    }
}
