// SPDX-License-Identifier: GPL-2.0

//! Files whose operations misuse what they get: users.py is their user.

#![forbid(unsafe_code)]

use crate::{
    exit_watch::{
        ExitHandler,
        ExitWatch, //
    },
    poll::{
        Events,
        PollQueue, //
    },
    proc::{
        Dir,
        File,
        FileOps,
        Reader, //
    },
    process::{
        ExitedGroup,
        Process, //
    }, //
};
use core::sync::atomic::{
    AtomicU64,
    Ordering::Relaxed, //
};
use kernel::{
    current,
    error::code::EIOCBQUEUED,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow,
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

/// Gives the file a queue that only the file keeps, and drops another reference to it at a write.
struct Polled;

#[pin_data]
struct Queue {
    #[pin]
    queue: Mutex<Option<Arc<PollQueue>>>,
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

    fn poll_queue(data: Pin<&Queue>) -> Arc<PollQueue> {
        let queue = data.queue.lock();
        queue.clone().expect("the file has just been created")
    }

    fn poll(data: Pin<&Queue>, _: &u64) -> Events {
        data.polls.fetch_add(1, Relaxed);
        Events::NONE
    }
}

/// Watches the process that writes to it, and looks up a process from within the handler.
struct Watched;

#[pin_data]
struct Watch {
    #[pin]
    watch: Mutex<Option<Pin<KBox<ExitWatch<Finder>>>>>,
    finder: Arc<Finder>,
}

/// Counts the exits.
struct Finder(AtomicU64);

impl ExitHandler for Finder {
    /// `current` has no PID namespace here, if the first thread has exited before this one.
    fn exited(this: ArcBorrow<'_, Self>, _: &Process, _: ExitedGroup<'_>) {
        let [_init] = Process::find_many::<1>(&[1]);
        this.0.fetch_add(1, Relaxed);
    }
}

#[vtable]
impl FileOps for Watched {
    type Data = Pin<KBox<Watch>>;
    type OpenFile = Nothing;

    fn open(_: Pin<&Watch>) -> Result<Nothing> {
        nothing()
    }

    fn read(data: Pin<&Watch>, _: &u64, reader: &mut Reader<'_>) -> Result {
        reader.copy(&data.finder.0.load(Relaxed).to_ne_bytes());
        Ok(())
    }

    fn write(data: Pin<&Watch>, _: &u64, from: UserSliceReader) -> Result<usize> {
        let [process] = Process::find_many::<1>(&[current!().pid()]);
        let watch = ExitWatch::new(process.ok_or(ESRCH)?, data.finder.clone());
        let watch = KBox::pin_init(watch, GFP_KERNEL)?;
        watch.start()?;
        *data.watch.lock() = Some(watch);
        Ok(from.len())
    }
}

/// The files, in `/proc/misuse`.
pub(crate) struct Files {
    _greedy: File<Greedy>,
    _stream: File<Stream>,
    _unending: File<Unending>,
    _polled: File<Polled>,
    _watched: File<Watched>,
}

impl Files {
    pub(crate) fn new() -> Result<Self> {
        let queue = Arc::new(PollQueue::new(c"misuse")?, GFP_KERNEL)?;
        let polled = KBox::pin_init(
            pin_init!(Queue {
                queue <- new_mutex!(Some(queue)),
                polls: AtomicU64::new(0),
            }),
            GFP_KERNEL,
        )?;
        let finder = Arc::new(Finder(AtomicU64::new(0)), GFP_KERNEL)?;
        let watched = KBox::pin_init(
            pin_init!(Watch {
                watch <- new_mutex!(None),
                finder,
            }),
            GFP_KERNEL,
        )?;
        let dir = Arc::new(Dir::new(c"misuse", 0o555)?, GFP_KERNEL)?;
        Ok(Self {
            _greedy: File::new(dir.clone(), c"greedy", 0o600, nothing()?)?,
            _stream: File::new(dir.clone(), c"stream", 0o400, nothing()?)?,
            _unending: File::new(dir.clone(), c"unending", 0o600, nothing()?)?,
            _polled: File::new(dir.clone(), c"polled", 0o600, polled)?,
            _watched: File::new(dir, c"watched", 0o600, watched)?,
        })
    }
}
