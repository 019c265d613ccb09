// SPDX-License-Identifier: GPL-2.0

//! `/proc/mp1/status`: what a write registers, and what a read shows.

#![forbid(unsafe_code)]

use crate::{
    gfp,
    pid_list::{
        self,
        ParseError,
        Pids, //
    },
    proc::FileOps,
    process::Process,
    registry::{
        Batch,
        Registry,
        UPDATE_DUE_AFTER, //
    },
    timer::Periodic, //
};
use kernel::{
    current,
    fs::Kiocb,
    iov::IovIterDest,
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow,
        SpinLock, //
    },
    uaccess::UserSliceReader, //
};

/// How much of a write is taken.
const WRITE_MAX: usize = 4096;

// A PID takes two bytes with the white space behind it. What one write registers at once must fit
// between two updates.
const _: () = assert!(WRITE_MAX.div_ceil(2) <= UPDATE_DUE_AFTER);

/// The longest write for which no memory is allocated: one PID, and some white space.
const SHORT_WRITE: usize = 32;

/// The operations of the status file, which owns a reference to the registry and its updates.
pub(crate) struct StatusFile;

/// An open status file.
#[pin_data]
pub(crate) struct OpenStatus {
    /// What reads show, once there was one.
    #[pin]
    snapshot: SpinLock<Option<Arc<KVVec<u8>>>>,
}

impl OpenStatus {
    /// Returns the snapshot. If there is none, or a `new` one is asked for, it is taken now, as the
    /// process sees it that asks for it.
    fn snapshot(&self, registry: &Registry, new: bool) -> Result<Arc<KVVec<u8>>> {
        if !new {
            let snapshot = self.snapshot.lock().clone();
            if let Some(snapshot) = snapshot {
                return Ok(snapshot);
            }
        }
        let reader = current!();
        let ns = reader.active_pid_ns().ok_or(ESRCH)?;
        let snapshot = Arc::new(registry.text(ns)?, gfp::for_user())?;
        let old = self.snapshot.lock().replace(snapshot.clone());
        // The memory is given back where no lock is held.
        drop(old);
        Ok(snapshot)
    }
}

/// Registers the processes whose PIDs `text` lists, and returns how many of its bytes count as
/// written.
#[inline]
fn register(updates: ArcBorrow<'_, Periodic<Registry>>, text: &[u8]) -> Result<usize> {
    let mut batch = Batch::default();
    let mut written = 0;
    let mut missing = false;
    for pid in Pids::new(text) {
        let pid = pid.map_err(|error| match error {
            ParseError::Invalid => EINVAL,
            ParseError::Range => ERANGE,
        })?;
        // After a PID of no process, what follows is looked at, but not looked up.
        if missing {
            continue;
        }
        match Process::find(pid.number) {
            Some(process) => {
                batch.push(process)?;
                written = pid.end;
            }
            None => missing = true,
        }
    }
    if batch.is_empty() {
        return Err(if missing { ESRCH } else { EINVAL });
    }

    if updates.job().register(batch, || updates.run_now()) {
        updates.start();
    }
    Ok(if missing { written } else { text.len() })
}

impl FileOps for StatusFile {
    type Data = Arc<Periodic<Registry>>;
    type OpenFile = Pin<KBox<OpenStatus>>;

    #[inline]
    fn open(_updates: ArcBorrow<'_, Periodic<Registry>>) -> Result<Self::OpenFile> {
        KBox::pin_init(
            pin_init!(OpenStatus {
                snapshot <- new_spinlock!(None, "mp1::snapshot"),
            }),
            gfp::for_user(),
        )
    }

    #[inline]
    fn read_iter(
        updates: ArcBorrow<'_, Periodic<Registry>>,
        mut kiocb: Kiocb<'_, Self::OpenFile>,
        iov: &mut IovIterDest<'_>,
    ) -> Result<usize> {
        if iov.is_empty() {
            return Ok(0);
        }
        let position = kiocb.ki_pos();
        let snapshot = kiocb.file().snapshot(updates.job(), position == 0)?;

        match iov.simple_read_from_buffer(kiocb.ki_pos_mut(), &snapshot) {
            // There was something to read, and nowhere to put it.
            Ok(0) if usize::try_from(position).is_ok_and(|start| start < snapshot.len()) => {
                Err(EFAULT)
            }
            result => result,
        }
    }

    #[inline]
    fn write(
        updates: ArcBorrow<'_, Periodic<Registry>>,
        _open: Pin<&OpenStatus>,
        mut from: UserSliceReader,
    ) -> Result<usize> {
        let len = from.len().min(WRITE_MAX);
        if len == 0 {
            return Ok(0);
        }

        let mut short = [0; SHORT_WRITE];
        let mut long;
        let text = if len <= SHORT_WRITE {
            &mut short[..len]
        } else {
            long = KVec::from_elem(0, len, gfp::for_user())?;
            &mut long[..]
        };
        from.read_slice(text)?;

        let whole = from.is_empty();
        let list = if whole {
            pid_list::without_terminator(text)
        } else {
            pid_list::complete_part(text).ok_or(EINVAL)?
        };
        let written = register(updates, list)?;
        // The terminator belongs to a list that was taken whole.
        Ok(if whole && written == list.len() {
            len
        } else {
            written
        })
    }

    #[inline]
    fn size(updates: ArcBorrow<'_, Periodic<Registry>>, open: Pin<&OpenStatus>) -> Result<usize> {
        Ok(open.snapshot(updates.job(), false)?.len())
    }
}
