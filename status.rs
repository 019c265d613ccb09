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
const _: () = assert!(WRITE_MAX.div_ceil(2) <= UPDATE_DUE_AFTER.0);

/// The longest write for which no memory is allocated: one PID, and some white space.
const SHORT_WRITE: usize = 32;

/// The operations of the status file, which owns a reference to the updates of the registry.
pub(crate) struct StatusFile;

/// An open status file.
#[pin_data]
pub(crate) struct OpenStatus {
    updates: Arc<Periodic<Registry>>,
    /// What reads show, once there was one.
    #[pin]
    snapshot: SpinLock<Option<Arc<KVVec<u8>>>>,
}

impl OpenStatus {
    /// Takes as much of a write as `text` has room for, and returns how many bytes count as written.
    fn take(&self, mut data: UserSliceReader, text: &mut [u8]) -> Result<usize> {
        data.read_slice(text)?;
        let whole = data.is_empty();
        let list = if whole {
            pid_list::without_terminator(text)
        } else {
            pid_list::complete_part(text).ok_or(EINVAL)?
        };
        let written = self.register(list)?;
        // The terminator belongs to a list that was taken whole.
        Ok(if whole && written == list.len() {
            text.len()
        } else {
            written
        })
    }

    /// Registers the processes whose PIDs `text` lists, and returns how many of its bytes count as
    /// written.
    fn register(&self, text: &[u8]) -> Result<usize> {
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

        let updates = self.updates.as_arc_borrow();
        if updates.job().register(batch, || updates.run_now()) {
            updates.start();
        }
        Ok(if missing { written } else { text.len() })
    }

    /// Returns the snapshot, taken now if there is none.
    fn snapshot(&self) -> Result<Arc<KVVec<u8>>> {
        let snapshot = self.snapshot.lock().clone();
        match snapshot {
            Some(snapshot) => Ok(snapshot),
            None => self.new_snapshot(),
        }
    }

    /// Takes a snapshot as the process sees it that asks for it.
    fn new_snapshot(&self) -> Result<Arc<KVVec<u8>>> {
        let reader = current!();
        let ns = reader.active_pid_ns().ok_or(ESRCH)?;
        let snapshot = Arc::new(self.updates.job().text(ns)?, gfp::for_user())?;
        let old = self.snapshot.lock().replace(snapshot.clone());
        // The memory is given back where no lock is held.
        drop(old);
        Ok(snapshot)
    }
}

impl FileOps for StatusFile {
    type Data = Arc<Periodic<Registry>>;
    type OpenFile = Pin<KBox<OpenStatus>>;

    #[inline]
    fn open(updates: ArcBorrow<'_, Periodic<Registry>>) -> Result<Self::OpenFile> {
        KBox::pin_init(
            pin_init!(OpenStatus {
                updates: updates.into(),
                snapshot <- new_spinlock!(None, "mp1::OpenStatus::snapshot"),
            }),
            gfp::for_user(),
        )
    }

    #[inline]
    fn read_iter(mut kiocb: Kiocb<'_, Self::OpenFile>, iov: &mut IovIterDest<'_>) -> Result<usize> {
        if iov.is_empty() {
            return Ok(0);
        }
        let open = kiocb.file();
        let snapshot = if kiocb.ki_pos() == 0 {
            open.new_snapshot()?
        } else {
            open.snapshot()?
        };

        let position = kiocb.ki_pos();
        let read = iov.simple_read_from_buffer(kiocb.ki_pos_mut(), &snapshot)?;
        if read == 0 && usize::try_from(position).is_ok_and(|position| position < snapshot.len()) {
            // There was something to read, and nowhere to put it.
            return Err(EFAULT);
        }
        Ok(read)
    }

    #[inline]
    fn write(open: Pin<&OpenStatus>, data: UserSliceReader) -> Result<usize> {
        let len = data.len().min(WRITE_MAX);
        if len == 0 {
            return Ok(0);
        }

        if len <= SHORT_WRITE {
            let mut text = [0; SHORT_WRITE];
            open.take(data, &mut text[..len])
        } else {
            let mut text = KVec::from_elem(0, len, gfp::for_user())?;
            open.take(data, &mut text)
        }
    }

    #[inline]
    fn size(open: Pin<&OpenStatus>) -> Result<usize> {
        Ok(open.snapshot()?.len())
    }
}
