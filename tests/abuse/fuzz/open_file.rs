// SPDX-License-Identifier: GPL-2.0

//! One open file: its position and its snapshot, and the calls that change them.

use std::ffi::c_void;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use fastrand::Rng;
use nix::errno::Errno;
use nix::unistd::pipe;

use super::Counter;
use super::memory::USABLE;
use super::model::Model;
use super::text;
use support::status::{self, PATH};

/// More than a snapshot of all processes of a [`Model`] can be.
const MUCH: usize = 1 << 15;

/// Where `sendfile` stops, of a file system that has not said that it has larger files.
const SENDFILE_END: i64 = i32::MAX as i64;

/// Positions that have gone wrong elsewhere.
const OFFSETS: [i64; 18] = [
    -1,
    0,
    1,
    2,
    7,
    8,
    100,
    4095,
    4096,
    4097,
    65536,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    1 << 62,
    -4096,
    i64::MIN,
];

pub struct Pipe {
    from: File,
    to: OwnedFd,
}

impl Pipe {
    pub fn new() -> Self {
        let (from, to) = pipe().expect("pipe");
        Self {
            from: from.into(),
            to,
        }
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.from
            .read_exact(&mut bytes)
            .expect("what was put into the pipe");
        bytes
    }
}

pub struct OpenFile {
    file: File,
    readable: bool,
    writable: bool,
    position: i64,
    snapshot: Option<Vec<u8>>,
}

/// A call that reads, and what came of it.
struct Reading {
    at: i64,
    wanted: usize,
    /// How much of that could be stored.
    storable: usize,
    got: Result<usize, Errno>,
    bytes: Vec<u8>,
    /// Whether it may stop early: calls that move pages.
    may_be_short: bool,
}

impl OpenFile {
    pub fn open(rng: &mut Rng, counter: &mut Counter) -> Option<Self> {
        counter.call();
        let (access, readable, writable) = [
            (libc::O_RDONLY, true, false),
            (libc::O_WRONLY, false, true),
            (libc::O_RDWR, true, true),
        ][rng.usize(..3)];
        let mut flags = 0;
        for flag in [
            libc::O_APPEND,
            libc::O_TRUNC,
            libc::O_NONBLOCK,
            libc::O_SYNC,
            libc::O_NOFOLLOW,
            libc::O_CREAT,
        ] {
            if rng.u32(..8) == 0 {
                flags |= flag;
            }
        }
        let wrong = [
            (libc::O_DIRECTORY, Errno::ENOTDIR),
            (libc::O_EXCL | libc::O_CREAT, Errno::EEXIST),
        ];
        if let Some((flag, errno)) = wrong.get(rng.usize(..40)) {
            let got = open(access | flag).map(drop);
            assert_eq!(got, Err(*errno), "open with the flags {flag:#x}");
            return None;
        }
        let file = open(access | flags)
            .unwrap_or_else(|errno| panic!("open with the flags {flags:#x}: {errno}"));
        Some(Self {
            file,
            readable,
            writable,
            position: 0,
            snapshot: None,
        })
    }

    fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    pub fn write(&mut self, rng: &mut Rng, counter: &mut Counter, model: &mut Model) {
        counter.call();
        let bytes = text::any(rng, model);
        let readable = if rng.u32(..20) == 0 {
            rng.usize(..=bytes.len())
        } else {
            bytes.len()
        };
        model.edge.fill(readable, &bytes);
        let start = model.edge.before(readable).cast::<c_void>();

        let mut offset = 0;
        let got = match rng.u32(..4) {
            0 | 1 => call(|| unsafe { libc::write(self.fd(), start, bytes.len()) }),
            2 => {
                offset = *pick(rng, &OFFSETS);
                call(|| unsafe { libc::pwrite(self.fd(), start, bytes.len(), offset) })
            }
            _ => return self.write_vectors(rng, model, &bytes),
        };
        if offset < 0 {
            assert_eq!(got, Err(Errno::EINVAL), "a write at {offset}");
        } else if !self.writable {
            assert_eq!(got, Err(Errno::EBADF));
        } else if offset == 0 && self.is_beyond_all(bytes.len()) && got == Err(Errno::EINVAL) {
            // The kernel asks no file about such a write.
        } else {
            model.wrote(&bytes, readable, got);
        }
    }

    /// Writes `bytes` in some pieces, each of which counts as a write of its own.
    fn write_vectors(&mut self, rng: &mut Rng, model: &mut Model, bytes: &[u8]) {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        for _ in 0..rng.usize(..4) {
            let (piece, others) = rest.split_at(rng.usize(..=rest.len()));
            pieces.push(piece);
            rest = others;
        }
        pieces.push(rest);
        let vectors: Vec<libc::iovec> = pieces
            .iter()
            .map(|piece| libc::iovec {
                iov_base: piece.as_ptr().cast_mut().cast(),
                iov_len: piece.len(),
            })
            .collect();
        let got =
            call(|| unsafe { libc::writev(self.fd(), vectors.as_ptr(), vectors.len() as i32) });
        if !self.writable {
            assert_eq!(got, Err(Errno::EBADF));
            return;
        }

        if self.is_beyond_all(bytes.len()) && got == Err(Errno::EINVAL) {
            return;
        }
        // The total tells how far it came: each piece before that was taken whole.
        let mut total = got.unwrap_or_default();
        for piece in pieces {
            if total < piece.len() {
                match got {
                    Err(_) => model.wrote(piece, piece.len(), got),
                    Ok(_) if total > 0 => model.wrote(piece, piece.len(), Ok(total)),
                    Ok(_) => model.failed_to_write(piece),
                }
                return;
            }
            model.wrote(piece, piece.len(), Ok(piece.len()));
            total -= piece.len();
        }
        assert!(got.is_ok(), "writev: {got:?}");
    }

    pub fn read(&mut self, rng: &mut Rng, counter: &mut Counter, model: &mut Model) {
        counter.call();
        let wanted = match rng.u32(..8) {
            0 => rng.usize(..3),
            1 => USABLE,
            2 => 4096,
            3..6 => rng.usize(..64),
            _ => rng.usize(..USABLE),
        };
        let storable = if rng.u32(..20) == 0 {
            rng.usize(..=wanted)
        } else {
            wanted
        };
        match rng.u32(..16) {
            0..6 => {
                let start = model.edge.before(storable).cast();
                let got = call(|| unsafe { libc::read(self.fd(), start, wanted) });
                self.did_read(self.position, wanted, storable, got, model, true);
            }
            6..10 => {
                let at = if rng.bool() {
                    rng.i64(..300)
                } else {
                    *pick(rng, &OFFSETS)
                };
                let start = model.edge.before(storable).cast();
                let got = call(|| unsafe { libc::pread(self.fd(), start, wanted, at) });
                if at < 0 {
                    assert_eq!(got, Err(Errno::EINVAL), "a read at {at}");
                } else {
                    self.did_read(at, wanted, storable, got, model, false);
                }
            }
            10..13 => {
                // Pieces that lie side by side, so that they can be compared like one.
                let mut vectors = Vec::new();
                let mut start = model.edge.before(storable);
                let mut rest = wanted;
                while rest > 0 && vectors.len() < 5 {
                    let len = if vectors.len() == 4 {
                        rest
                    } else {
                        rng.usize(..=rest)
                    };
                    vectors.push(libc::iovec {
                        iov_base: start.cast(),
                        iov_len: len,
                    });
                    start = start.wrapping_add(len);
                    rest -= len;
                }
                let wanted = wanted - rest;
                let got = call(|| unsafe {
                    libc::readv(self.fd(), vectors.as_ptr(), vectors.len() as i32)
                });
                self.did_read(self.position, wanted, storable, got, model, true);
            }
            other => {
                let (fd, to) = (self.fd(), model.pipe.to.as_raw_fd());
                let null = std::ptr::null_mut();
                let got = if other == 13 {
                    call(|| unsafe { libc::sendfile(to, fd, null, wanted) })
                } else {
                    call(|| unsafe { libc::splice(fd, null, to, null, wanted, 0) })
                };
                if got == Err(Errno::EOVERFLOW)
                    && other == 13
                    && self.position >= SENDFILE_END
                    && self.readable
                {
                    // The kernel refuses such a position.
                    return;
                }
                let bytes = model.pipe.take(got.unwrap_or_default());
                let reading = Reading {
                    at: self.position,
                    wanted,
                    storable: wanted,
                    got,
                    bytes,
                    may_be_short: true,
                };
                self.check_reading(&reading, model);
                self.position += got.unwrap_or_default() as i64;
            }
        }
    }

    /// Compares a read into the memory at the edge.
    fn did_read(
        &mut self,
        at: i64,
        wanted: usize,
        storable: usize,
        got: Result<usize, Errno>,
        model: &mut Model,
        moves: bool,
    ) {
        let bytes = model.edge.copy(storable, got.unwrap_or_default());
        // Where the memory ends early, how much of the last part is stored is up to the processor.
        let reading = Reading {
            at,
            wanted,
            storable,
            got,
            bytes,
            may_be_short: storable < wanted,
        };
        self.check_reading(&reading, model);
        if moves {
            self.position += got.unwrap_or_default() as i64;
        }
    }

    fn check_reading(&mut self, reading: &Reading, model: &mut Model) {
        let Reading {
            at,
            wanted,
            storable,
            got,
            ..
        } = *reading;
        if wanted == 0 && got == Ok(0)
            || at == self.position && self.is_beyond_all(wanted) && got == Err(Errno::EINVAL)
        {
            return;
        }
        if !self.readable {
            assert_eq!(got, Err(Errno::EBADF));
            return;
        }
        assert!(wanted > 0, "a read of no bytes: {got:?}");
        if at == 0 || self.snapshot.is_none() {
            self.snapshot = None;
            let first = if at == 0 {
                reading.bytes.first().copied()
            } else {
                None
            };
            self.learn(first, model).unwrap_or_else(|why| panic!("after a read of {wanted} bytes, {storable} of them storable, at {at}: {got:?}: {why}"));
        }
        let snapshot = self.snapshot.as_ref().expect("just taken");
        let rest = usize::try_from(at)
            .ok()
            .and_then(|at| snapshot.get(at..))
            .unwrap_or_default();
        let possible = rest.len().min(wanted);
        let what = format!(
            "a read of {wanted} bytes, {storable} of them storable, at {at} of {}",
            snapshot.len()
        );
        match got {
            Ok(len) if reading.may_be_short && possible > 0 => {
                assert!(len > 0 && len <= possible.min(storable), "{what}: {len}");
            }
            Ok(len) => assert_eq!(len, possible, "{what}"),
            Err(errno) => {
                assert!(
                    errno == Errno::EFAULT && storable == 0 && possible > 0,
                    "{what}: {errno}"
                );
                return;
            }
        }
        assert_eq!(reading.bytes, rest[..reading.bytes.len()], "{what}");
    }

    /// Looks at all of the snapshot that was just taken: at its first byte, if it was seen, and at
    /// the rest at position 1, where no other snapshot is taken.
    fn learn(&mut self, first: Option<u8>, model: &mut Model) -> Result<(), String> {
        let mut rest = vec![0u8; MUCH];
        let len =
            call(|| unsafe { libc::pread(self.fd(), rest.as_mut_ptr().cast(), rest.len(), 1) })
                .expect("reading the rest of a snapshot");
        assert!(len < MUCH, "a snapshot of more than all processes");
        rest.truncate(len);

        let firsts: Vec<Vec<u8>> = match first {
            Some(first) => vec![vec![first]],
            None if rest.is_empty() => vec![vec![]],
            None => (b'1'..=b'9').map(|first| vec![first]).collect(),
        };
        let mut reasons = Vec::new();
        for mut text in firsts {
            text.extend_from_slice(&rest);
            match model.accept(&text) {
                Ok(()) => {
                    self.snapshot = Some(text);
                    return Ok(());
                }
                Err(reason) => reasons.push(reason),
            }
        }
        reasons.dedup();
        Err(format!(
            "{}\nin, but for the first byte:\n{}\nA new file shows:\n{}",
            reasons.join("\nor "),
            String::from_utf8_lossy(&rest),
            status::text()
        ))
    }

    pub fn seek(&mut self, rng: &mut Rng, counter: &mut Counter, model: &mut Model) {
        counter.call();
        const WHENCES: [i32; 8] = [
            libc::SEEK_SET,
            libc::SEEK_SET,
            libc::SEEK_CUR,
            libc::SEEK_END,
            libc::SEEK_DATA,
            libc::SEEK_HOLE,
            5,
            -1,
        ];
        let whence = *pick(rng, &WHENCES);
        let offset = match rng.u32(..4) {
            0 => 0,
            1 => *pick(rng, &OFFSETS),
            _ => rng.i64(-50..300),
        };
        let got = Errno::result(unsafe { libc::lseek(self.fd(), offset, whence) });

        let needs_size = [libc::SEEK_END, libc::SEEK_DATA, libc::SEEK_HOLE].contains(&whence);
        if needs_size && !self.readable {
            // Nobody can tell the size of what cannot be read.
            self.position = self.told_position();
            return;
        }
        if needs_size && self.snapshot.is_none() {
            self.learn(None, model)
                .unwrap_or_else(|why| panic!("after a seek of {whence}: {got:?}: {why}"));
        }
        let size = self.snapshot.as_ref().map_or(0, Vec::len) as i64;
        let expected = match whence {
            libc::SEEK_SET => not_negative(offset),
            libc::SEEK_CUR => not_negative(self.position.wrapping_add(offset)),
            libc::SEEK_END => not_negative(size.wrapping_add(offset)),
            libc::SEEK_DATA | libc::SEEK_HOLE if !(0..size).contains(&offset) => Err(Errno::ENXIO),
            libc::SEEK_DATA => Ok(offset),
            libc::SEEK_HOLE => Ok(size),
            _ => Err(Errno::EINVAL),
        };
        assert_eq!(
            got, expected,
            "lseek from {} by {offset}, whence {whence}, size {size}",
            self.position
        );
        if let Ok(position) = got {
            self.position = position;
        }
    }

    /// Whether that many bytes from the position on would end where no position is.
    fn is_beyond_all(&self, len: usize) -> bool {
        self.position.checked_add(len as i64).is_none()
    }

    fn told_position(&self) -> i64 {
        Errno::result(unsafe { libc::lseek(self.fd(), 0, libc::SEEK_CUR) }).expect("the position")
    }

    /// Calls that the file has nothing to say to; none of them may change anything.
    pub fn try_something_odd(&mut self, rng: &mut Rng, counter: &mut Counter) {
        counter.call();
        let fd = self.fd();
        // SAFETY: Addresses are null or of variables that live through the call.
        unsafe {
            match rng.u32(..9) {
                0 => assert_eq!(libc::ioctl(fd, rng.u64(..) as _, 0), -1),
                1 => {
                    let mut one = libc::pollfd {
                        fd,
                        events: libc::POLLIN | libc::POLLOUT,
                        revents: 0,
                    };
                    assert_eq!(libc::poll(&mut one, 1, 0), 1, "poll");
                }
                2 => {
                    let address = libc::mmap(
                        std::ptr::null_mut(),
                        4096,
                        libc::PROT_READ,
                        libc::MAP_SHARED,
                        fd,
                        0,
                    );
                    assert_eq!(address, libc::MAP_FAILED, "mmap");
                }
                3 => _ = libc::ftruncate(fd, 0),
                4 => _ = libc::fsync(fd),
                5 => _ = libc::fallocate(fd, 0, 0, 4096),
                6 => _ = libc::flock(fd, libc::LOCK_EX | libc::LOCK_NB),
                7 => _ = libc::posix_fadvise(fd, 0, 4096, libc::POSIX_FADV_WILLNEED),
                _ => {
                    let flags = [0, libc::O_APPEND, libc::O_NONBLOCK][rng.usize(..3)];
                    assert_eq!(libc::fcntl(fd, libc::F_SETFL, flags), 0, "F_SETFL");
                }
            }
        }
        assert_eq!(
            self.told_position(),
            self.position,
            "the position after an odd call"
        );
    }
}

fn open(flags: i32) -> Result<File, Errno> {
    std::fs::OpenOptions::new()
        .read(flags & libc::O_ACCMODE != libc::O_WRONLY)
        .write(flags & libc::O_ACCMODE != libc::O_RDONLY)
        .custom_flags(flags & !libc::O_ACCMODE)
        .open(PATH)
        .map_err(|e| Errno::from_raw(e.raw_os_error().expect("an error of the system")))
}

fn not_negative(position: i64) -> Result<i64, Errno> {
    if position < 0 {
        Err(Errno::EINVAL)
    } else {
        Ok(position)
    }
}

fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}

fn call(call: impl FnOnce() -> isize) -> Result<usize, Errno> {
    Errno::result(call()).map(|len| len as usize)
}
