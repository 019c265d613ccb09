// SPDX-License-Identifier: GPL-2.0

//! Reading exits: a stream that blocks, whatever the size of the reads, and of which nothing is
//! lost.

use std::fs::{self, File, OpenOptions};
use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use nix::poll::PollFlags;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use nix::sys::sendfile::sendfile;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::uio::{pread, preadv, readv};
use nix::unistd::{self, Whence, lseek};

use super::{end, end_and_measure, registered};
use support::PAGE;
use support::child::{self, Child};
use support::exits::{self, Record, Stream, events};
use support::module::Module;
use support::wait;

/// Ends so many registered processes, and returns their numbers.
fn some_exits(count: usize) -> Vec<i32> {
    (0..count).map(|_| end(registered())).collect()
}

fn pids_in(text: &[u8]) -> Vec<i32> {
    exits::parse(text)
        .into_iter()
        .map(|record| match record {
            Record::Exit(line) => line.pid,
            Record::Lost(_) => panic!("{record:?}"),
        })
        .collect()
}

/// Reads what is there in pieces of that size.
fn read_in_pieces(file: &File, size: usize) -> Vec<u8> {
    let mut text = Vec::new();
    let mut piece = vec![0; size];
    loop {
        match unistd::read(file, &mut piece) {
            Ok(len) => {
                assert!(len > 0, "an end");
                text.extend_from_slice(&piece[..len]);
            }
            Err(errno) => {
                assert_eq!(errno, Errno::EAGAIN);
                return text;
            }
        }
    }
}

/// Starts a child that reads once, and returns when it sleeps. It tells the bytes read, or the
/// error as a negative number.
fn blocked_reader(file: &File) -> Child {
    support::waiter::Way::Read.start(file)
}

#[test]
fn with_nothing_there_a_read_blocks_until_an_exit() {
    let _module = Module::without_updates();
    let file = exits::open();
    let reader = blocked_reader(&file);
    // An exit of another kind does not wake it.
    end(Child::sleeper());
    assert_eq!(child::state_of(reader.pid()), 'S');
    let len = end_and_measure(registered(), &mut Stream::open());
    assert_eq!(reader.hear(), len as i64);
}

#[test]
fn with_nothing_there_a_read_of_a_nonblocking_file_gets_eagain() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let mut buffer = [0; 64];
    for _ in 0..3 {
        assert_eq!(unistd::read(&file, &mut buffer), Err(Errno::EAGAIN));
    }
    some_exits(1);
    assert!(unistd::read(&file, &mut buffer).is_ok());
    assert_eq!(unistd::read(&file, &mut buffer), Err(Errno::EAGAIN));
}

#[test]
fn o_nonblock_can_be_set_later() {
    let _module = Module::without_updates();
    let file = exits::open();
    // SAFETY: The call takes integers only.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    assert_eq!(Errno::result(result), Ok(0));
    assert_eq!(unistd::read(&file, &mut [0; 64]), Err(Errno::EAGAIN));
}

#[test]
fn reads_of_any_size_give_the_same_bytes() {
    let _module = Module::without_updates();
    for size in [1, 2, 3, 5, 7, 8, 16, 64, 4095, 4096, 4097, 1 << 20] {
        let file = exits::open_nonblocking();
        let pids = some_exits(7);
        assert_eq!(
            pids_in(&read_in_pieces(&file, size)),
            pids,
            "in pieces of {size}"
        );
    }
}

#[test]
fn a_large_read_gives_many_lines() {
    let _module = Module::without_updates();
    let file = exits::open();
    let pids = some_exits(5);
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    let mut reads = 0;
    while text.iter().filter(|byte| **byte == b'\n').count() < pids.len() {
        let len = unistd::read(&file, &mut buffer).expect("read");
        text.extend_from_slice(&buffer[..len]);
        reads += 1;
    }
    assert_eq!(pids_in(&text), pids);
    assert_eq!(reads, 1, "all that is there, and no wait for more");
}

#[test]
fn exits_between_the_bytes_of_a_line_come_after_it() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let mut pids = some_exits(1);
    let mut text = vec![0; 2];
    assert_eq!(unistd::read(&file, &mut text), Ok(2));
    pids.extend(some_exits(2));
    text.extend(read_in_pieces(&file, 1));
    assert_eq!(pids_in(&text), pids);
}

#[test]
fn readv_gives_the_same_bytes() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let pids = some_exits(4);
    let (mut a, mut b, mut c) = ([0; 3], [0; 1], [0; 4096]);
    let len = {
        let mut vectors = [&mut a[..], &mut b, &mut c].map(IoSliceMut::new);
        readv(&file, &mut vectors).expect("readv")
    };
    let mut text = [&a[..], &b, &c].concat();
    text.truncate(len);
    text.extend(read_in_pieces(&file, 64));
    assert_eq!(pids_in(&text), pids);
}

/// The kernel holds a pipe's lock while it splices into it. If a read blocked then, the reader of
/// the pipe could neither go on nor be killed.
#[test]
fn it_cannot_be_spliced() {
    let _module = Module::without_updates();
    for file in [exits::open(), exits::open_nonblocking()] {
        let (from, to) = unistd::pipe().expect("pipe");
        let child = Child::start(|parent| {
            let spliced = splice(&file, None, &to, None, 100, SpliceFFlags::empty());
            assert_eq!(spliced, Err(Errno::EINVAL), "splice");
            assert_eq!(
                sendfile(&to, &file, None, 100),
                Err(Errno::EINVAL),
                "sendfile"
            );
            parent.tell(0);
        });
        wait::readable("splice to return", child.ear());
        child.hear();
        drop((from, to));
    }
}

#[test]
fn zero_bytes_read_nothing_and_do_not_block() {
    let _module = Module::without_updates();
    let file = exits::open();
    assert_eq!(unistd::read(&file, &mut []), Ok(0));
    let pids = some_exits(1);
    assert_eq!(unistd::read(&file, &mut []), Ok(0));
    let mut buffer = [0; 64];
    let len = unistd::read(&file, &mut buffer).expect("read");
    assert_eq!(pids_in(&buffer[..len]), pids);
}

extern "C" fn count(_: libc::c_int) {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    CALLS.fetch_add(1, Ordering::Relaxed);
}

/// Starts a child that is blocked in a read, with a handler of SIGUSR1 that has these flags.
fn blocked_reader_with_handler(file: &File, flags: SaFlags) -> Child {
    let child = Child::start(|parent| {
        let action = SigAction::new(SigHandler::Handler(count), flags, SigSet::empty());
        // SAFETY: The handler does nothing that a handler must not do.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("sigaction");
        parent.tell(0);
        let mut buffer = [0; 64];
        let result = match unistd::read(file, &mut buffer) {
            Ok(len) => len as i64,
            Err(errno) => -(errno as i64),
        };
        parent.tell(result);
    });
    child.hear();
    child.await_sleep();
    child
}

#[test]
fn a_signal_with_a_handler_interrupts_a_blocked_read() {
    let _module = Module::without_updates();
    let file = exits::open();
    let child = blocked_reader_with_handler(&file, SaFlags::empty());
    child.signal(Signal::SIGUSR1);
    assert_eq!(child.hear(), -(Errno::EINTR as i64));
    // And loses nothing.
    let pids = some_exits(1);
    let mut buffer = [0; 64];
    let len = unistd::read(&file, &mut buffer).expect("read");
    assert_eq!(pids_in(&buffer[..len]), pids);
}

#[test]
fn a_signal_whose_handler_restarts_calls_restarts_a_blocked_read() {
    let _module = Module::without_updates();
    let file = exits::open();
    let child = blocked_reader_with_handler(&file, SaFlags::SA_RESTART);
    let switches = || voluntary_switches(child.pid());
    for _ in 0..3 {
        let before = switches();
        child.signal(Signal::SIGUSR1);
        // It woke for the handler, and sleeps again.
        wait::until("the handler", || switches() > before);
        child.await_sleep();
    }
    let len = end_and_measure(registered(), &mut Stream::open());
    assert_eq!(child.hear(), len as i64);
}

/// Returns how often a process has gone to sleep.
fn voluntary_switches(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("/proc/PID/status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
        .expect("the switches");
    line.trim().parse().expect("a number")
}

#[test]
fn a_stop_and_a_continuation_restart_a_blocked_read() {
    let _module = Module::without_updates();
    let file = exits::open();
    let child = blocked_reader(&file);
    child.stop();
    child.signal(Signal::SIGCONT);
    child.await_sleep();
    let len = end_and_measure(registered(), &mut Stream::open());
    assert_eq!(child.hear(), len as i64);
}

#[test]
fn a_blocked_read_dies_of_sigkill() {
    let _module = Module::without_updates();
    let file = exits::open();
    let child = blocked_reader(&file);
    child.kill();
    drop(child);
    let pids = some_exits(1);
    let mut buffer = [0; 64];
    let len = unistd::read(&file, &mut buffer).expect("read");
    assert_eq!(pids_in(&buffer[..len]), pids, "nothing went with it");
}

#[test]
fn a_bad_pointer_gets_efault_and_nothing_is_lost() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let pids = some_exits(3);
    for address in [
        std::ptr::null_mut(),
        8 as *mut libc::c_void,
        0xffff_ffff_8100_0000_usize as *mut libc::c_void,
    ] {
        // SAFETY: The kernel checks the address; that is what this test is about.
        let len = unsafe { libc::read(file.as_raw_fd(), address, 100) };
        assert_eq!(Errno::result(len), Err(Errno::EFAULT), "{address:?}");
    }
    assert_eq!(pids_in(&read_in_pieces(&file, 64)), pids);
}

#[test]
fn where_memory_ends_in_a_line_nothing_is_lost() {
    let _module = Module::without_updates();
    let len = (2 * PAGE).try_into().expect("not zero");
    let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: A new mapping, and the protection of its second half, which nothing uses yet.
    let start = unsafe {
        let start = mmap_anonymous(None, len, both, MapFlags::MAP_PRIVATE).expect("mmap");
        mprotect(start.byte_add(PAGE), PAGE, ProtFlags::PROT_NONE).expect("mprotect");
        start
    };
    for usable in [1, 3, 5, 8, 12] {
        let file = exits::open_nonblocking();
        let pids = some_exits(3);
        let mut text = Vec::new();
        // SAFETY: So many bytes can be used, and the kernel checks the rest.
        unsafe {
            let edge = start.byte_add(PAGE - usable);
            let len = libc::read(file.as_raw_fd(), edge.as_ptr(), 100);
            match Errno::result(len) {
                Ok(len) => text.extend_from_slice(std::slice::from_raw_parts(
                    edge.as_ptr().cast_const().cast(),
                    len as usize,
                )),
                Err(errno) => assert_eq!(errno, Errno::EFAULT),
            }
        }
        assert!(text.len() <= usable);
        text.extend(read_in_pieces(&file, 7));
        assert_eq!(
            pids_in(&text),
            pids,
            "{usable} bytes before the end of memory"
        );
    }
    // SAFETY: It is from `mmap_anonymous`, and nothing refers to it any more.
    unsafe { munmap(start, 2 * PAGE) }.expect("munmap");
}

#[test]
fn it_has_no_positions() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let pids = some_exits(2);
    let mut buffer = [0; 64];
    for (offset, whence) in [
        (0, Whence::SeekSet),
        (5, Whence::SeekSet),
        (0, Whence::SeekCur),
        (0, Whence::SeekEnd),
    ] {
        assert_eq!(
            lseek(&file, offset, whence),
            Err(Errno::ESPIPE),
            "{whence:?}"
        );
    }
    for offset in [0, 3, 1 << 40] {
        assert_eq!(pread(&file, &mut buffer, offset), Err(Errno::ESPIPE));
        let mut vectors = [IoSliceMut::new(&mut buffer)];
        assert_eq!(preadv(&file, &mut vectors, offset), Err(Errno::ESPIPE));
    }
    assert_eq!(pids_in(&read_in_pieces(&file, 64)), pids);
}

#[test]
fn a_duplicate_shares_the_position() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let pids = some_exits(3);
    let duplicate = file.try_clone().expect("dup");
    let mut text = Vec::new();
    for turn in 0.. {
        let mut piece = [0; 3];
        match unistd::read([&file, &duplicate][turn % 2], &mut piece) {
            Ok(len) => text.extend_from_slice(&piece[..len]),
            Err(errno) => {
                assert_eq!(errno, Errno::EAGAIN);
                break;
            }
        }
    }
    assert_eq!(pids_in(&text), pids);
}

#[test]
fn a_fork_shares_the_position() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let pids = some_exits(2);
    let mut start = [0; 3];
    assert_eq!(unistd::read(&file, &mut start), Ok(3));
    let child = Child::start(|parent| {
        let mut piece = [0; 4];
        assert_eq!(unistd::read(&file, &mut piece), Ok(4));
        parent.tell(u32::from_ne_bytes(piece).into());
    });
    let middle = (child.hear() as u32).to_ne_bytes();
    child.finish();
    let rest = read_in_pieces(&file, 64);
    assert_eq!(pids_in(&[&start[..], &middle, &rest].concat()), pids);
}

#[test]
fn a_file_that_was_opened_before_a_fork_gets_what_comes_after() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let child = Child::start(|parent| {
        let pids = some_exits(2);
        assert_eq!(pids_in(&read_in_pieces(&file, 64)), pids);
        parent.tell(0);
    });
    child.hear();
    child.finish();
    assert_eq!(read_in_pieces(&file, 64), b"");
}

#[test]
fn many_readers_get_all_of_it() {
    let _module = Module::without_updates();
    let mut streams: Vec<Stream> = (0..50).map(|_| Stream::open()).collect();
    let pids = some_exits(20);
    for stream in &mut streams {
        assert_eq!(stream.pids(), pids);
    }
}

#[test]
fn many_readers_at_once_wait_for_all_of_it() {
    const READERS: usize = 12;
    const EXITS: usize = 100;

    let _module = Module::without_updates();
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            Child::start(|parent| {
                let mut stream = Stream::open();
                parent.tell(0);
                let lines = stream.await_count(EXITS);
                lines.iter().for_each(|line| parent.tell(line.pid.into()));
            })
        })
        .collect();
    readers.iter().for_each(|reader| _ = reader.hear());
    let pids = some_exits(EXITS);
    for reader in readers {
        for pid in &pids {
            assert_eq!(reader.hear(), i64::from(*pid));
        }
        reader.finish();
    }
}

#[test]
fn readers_of_one_open_file_share_the_lines() {
    const READERS: usize = 4;
    const EXITS: usize = 200;

    let _module = Module::without_updates();
    let file = exits::open();
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            Child::start(|parent| {
                loop {
                    // So small that readers cut lines between them.
                    let mut buffer = [0; 7];
                    let len = unistd::read(&file, &mut buffer).expect("read");
                    parent.tell(len as i64);
                }
            })
        })
        .collect();
    let mut stream = Stream::open();
    let expected: usize = (0..EXITS)
        .map(|_| end_and_measure(registered(), &mut stream))
        .sum();
    let mut read = 0;
    wait::until("all bytes to be read", || {
        for reader in &readers {
            while events(reader.ear(), PollFlags::POLLIN).contains(PollFlags::POLLIN) {
                read += reader.hear() as usize;
            }
        }
        assert!(read <= expected, "{read} bytes of {expected}");
        read == expected
    });
}

#[test]
fn the_file_has_mode_0444_and_cannot_be_written() {
    let _module = Module::without_updates();
    let file = fs::metadata(exits::PATH).expect("stat");
    assert!(file.is_file());
    assert_eq!(file.permissions().mode() & 0o7777, 0o444);
    assert_eq!(unistd::write(exits::open(), b"1"), Err(Errno::EBADF));
    child::as_nobody(|| {
        exits::open_nonblocking();
        for (read, write) in [(false, true), (true, true)] {
            let error = OpenOptions::new()
                .read(read)
                .write(write)
                .custom_flags(libc::O_NONBLOCK)
                .open(exits::PATH)
                .expect_err("it is not writable");
            assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        }
    });
}

#[test]
fn any_user_reads() {
    let _module = Module::without_updates();
    let child = registered();
    let reader = Child::start(|parent| {
        nix::unistd::setgid(65534.into()).expect("setgid");
        nix::unistd::setuid(65534.into()).expect("setuid");
        let mut stream = Stream::open();
        parent.tell(0);
        stream.await_ms_of(child.pid());
        parent.tell(0);
    });
    reader.hear();
    child.signal(Signal::SIGKILL);
    reader.hear();
}
