// SPDX-License-Identifier: GPL-2.0

//! Files whose operations misuse what they get: users.py is their user.

#![forbid(unsafe_code)]

use crate::{
    poll::{
        Events,
        PollQueue,
        PollTable, //
    },
    proc::{
        Dir,
        File,
        FileOps,
        Reader, //
    }, //
};
use core::sync::atomic::{
    AtomicU64,
    Ordering::Relaxed, //
};
use kernel::{
    error::code::EIOCBQUEUED,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    uaccess::UserSliceReader, //
};

type Nothing = KBox<u64>;

fn nothing() -> Result<Nothing> {
    Ok(KBox::new(0, GFP_KERNEL)?)
}

/// Gives and takes more than it is asked for.
pub(crate) struct Greedy;

#[vtable]
impl FileOps for Greedy {
    type Data = Nothing;
    type OpenFile = Nothing;

    fn open(_: &u64) -> Result<Nothing> {
        nothing()
    }

    fn read(_: &u64, _: &u64, reader: &mut Reader<'_>) -> Result {
        reader.copy(b"undone");
        reader.undo(usize::MAX);
        while reader.copy(&[b'x'; 64]) > 0 {}
        Ok(())
    }

    fn write(_: &u64, _: &u64, _: UserSliceReader) -> Result<usize> {
        Ok(usize::MAX)
    }

    fn size(_: &u64, _: &u64) -> Result<usize> {
        Ok(usize::MAX)
    }
}

/// Reads at a position, which a stream does not have.
struct Stream;

#[vtable]
impl FileOps for Stream {
    type Data = Nothing;
    type OpenFile = Nothing;

    fn open(_: &u64) -> Result<Nothing> {
        nothing()
    }

    fn read(_: &u64, _: &u64, reader: &mut Reader<'_>) -> Result {
        match reader.position() {
            0 => reader.copy_from_content(b"stream"),
            _ => Err(EIO),
        }
    }
}

/// Says that a call goes on which has ended.
struct Unending;

#[vtable]
impl FileOps for Unending {
    type Data = Nothing;
    type OpenFile = Nothing;

    fn open(_: &u64) -> Result<Nothing> {
        nothing()
    }

    fn read(_: &u64, _: &u64, _: &mut Reader<'_>) -> Result {
        Err(EIOCBQUEUED)
    }

    fn write(_: &u64, _: &u64, _: UserSliceReader) -> Result<usize> {
        Err(EIOCBQUEUED)
    }

    fn size(_: &u64, _: &u64) -> Result<usize> {
        Err(EIOCBQUEUED)
    }
}

/// Drops the queues of its polls under them: one inside the poll, the other at a write.
struct Polled;

#[pin_data]
struct Queue {
    #[pin]
    queue: Mutex<Option<PollQueue>>,
    polls: AtomicU64,
}

#[vtable]
impl FileOps for Polled {
    type Data = Pin<KBox<Queue>>;
    type OpenFile = Nothing;

    fn open(_: Pin<&Queue>) -> Result<Nothing> {
        nothing()
    }

    /// Gives how often the file was polled.
    fn read(data: Pin<&Queue>, _: &u64, reader: &mut Reader<'_>) -> Result {
        reader.copy(&data.polls.load(Relaxed).to_ne_bytes());
        Ok(())
    }

    fn write(data: Pin<&Queue>, _: &u64, from: UserSliceReader) -> Result<usize> {
        let queue = data.queue.lock().take();
        drop(queue.ok_or(ENOENT)?);
        Ok(from.len())
    }

    fn poll(data: Pin<&Queue>, _: &u64, table: &PollTable<'_>) -> Events {
        if let Ok(queue) = PollQueue::new(c"misuse-inside") {
            queue.register(table);
        }
        if let Some(queue) = &*data.queue.lock() {
            queue.register(table);
        }
        data.polls.fetch_add(1, Relaxed);
        Events::NONE
    }
}

/// The files, in `/proc/misuse`.
pub(crate) struct Files {
    _greedy: File<Greedy>,
    _stream: File<Stream>,
    _unending: File<Unending>,
    _polled: File<Polled>,
}

impl Files {
    pub(crate) fn new() -> Result<Self> {
        let queue = PollQueue::new(c"misuse")?;
        let polled = KBox::pin_init(
            pin_init!(Queue {
                queue <- new_mutex!(Some(queue)),
                polls: AtomicU64::new(0),
            }),
            GFP_KERNEL,
        )?;
        let dir = Arc::new(Dir::new(c"misuse", 0o555)?, GFP_KERNEL)?;
        Ok(Self {
            _greedy: File::new(dir.clone(), c"greedy", 0o600, nothing()?)?,
            _stream: File::new(dir.clone(), c"stream", 0o400, nothing()?)?,
            _unending: File::new(dir.clone(), c"unending", 0o600, nothing()?)?,
            _polled: File::new(dir, c"polled", 0o600, polled)?,
        })
    }
}
