// SPDX-License-Identifier: GPL-2.0

//! Reading: one snapshot for each open file, whatever the way it is read.

use std::collections::HashSet;
use std::fs::File;
use std::io::{IoSliceMut, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile;
use nix::sys::uio::{preadv, readv};
use nix::unistd::{Whence, lseek, pipe};

use support::child::{self, Child};
use support::crowd::Crowd;
use support::module::Module;
use support::status;

/// Registers some processes, and returns them with what the file then holds.
fn some_content() -> (Vec<Child>, String) {
    let children: Vec<_> = (0..5).map(|_| Child::sleeper()).collect();
    status::register_all(&children.iter().map(Child::pid).collect::<Vec<_>>());
    let text = status::text();
    assert_eq!(status::parse(&text).len(), children.len());
    (children, text)
}

/// Reads to the end in pieces of that size.
fn read_in_pieces(file: &mut File, size: usize) -> String {
    let mut text = Vec::new();
    let mut piece = vec![0; size];
    loop {
        match file.read(&mut piece).expect("read") {
            0 => break,
            n => text.extend_from_slice(&piece[..n]),
        }
    }
    String::from_utf8(text).expect("text")
}

#[test]
fn reads_of_any_size_give_the_same_bytes() {
    let _module = Module::without_updates();
    let (_children, text) = some_content();
    for size in [1, 2, 3, 5, 7, 8, 16, 64, 4095, 4096, 4097, 8 << 20] {
        assert_eq!(
            read_in_pieces(&mut status::reader(), size),
            text,
            "in pieces of {size}"
        );
    }
}

#[test]
fn byte_by_byte_gives_the_same_bytes() {
    let _module = Module::without_updates();
    let (_children, text) = some_content();
    let mut file = status::reader();
    for expected in text.bytes() {
        let mut byte = [0];
        assert_eq!(file.read(&mut byte).expect("read"), 1);
        assert_eq!(byte[0], expected);
    }
    for _ in 0..3 {
        assert_eq!(
            file.read(&mut [0]).expect("read"),
            0,
            "the end stays the end"
        );
    }
}

#[test]
fn pread_of_3_bytes_at_every_offset_gives_the_same_bytes() {
    let _module = Module::without_updates();
    let (_children, text) = some_content();
    let file = status::reader();
    for offset in 0..=text.len() + 3 {
        let mut piece = [0; 3];
        let length = file.read_at(&mut piece, offset as u64).expect("pread");
        let expected = text.as_bytes().get(offset..).unwrap_or_default();
        assert_eq!(
            &piece[..length],
            &expected[..expected.len().min(3)],
            "at {offset}"
        );
    }
}

#[test]
fn pread_on_a_fresh_descriptor_gives_the_same_bytes() {
    let _module = Module::without_updates();
    let (_children, text) = some_content();
    for offset in [1, text.len() - 1, text.len(), text.len() + 1, 1 << 40] {
        let mut piece = vec![0; 4096];
        let length = status::reader()
            .read_at(&mut piece, offset as u64)
            .expect("pread");
        assert_eq!(
            &piece[..length],
            text.as_bytes().get(offset..).unwrap_or_default(),
            "at {offset}"
        );
    }
}

#[test]
fn readv_gives_the_same_bytes() {
    let _module = Module::without_updates();
    let (_children, text) = some_content();
    let (mut a, mut b, mut c) = (vec![0; 3], vec![0; 1], vec![0; 4096]);
    let length = {
        let mut vectors = [&mut a, &mut b, &mut c].map(|v| IoSliceMut::new(v));
        readv(status::reader(), &mut vectors).expect("readv")
    };
    assert_eq!(length, text.len());
    assert_eq!(&[&a[..], &b, &c].concat()[..length], text.as_bytes());

    let mut vectors = [&mut a, &mut b].map(|v| IoSliceMut::new(v));
    assert_eq!(preadv(status::reader(), &mut vectors, 2), Ok(4));
    assert_eq!([a, b].concat(), text.as_bytes()[2..6]);
}

#[test]
fn splice_gives_the_same_bytes() {
    let _module = Module::without_updates();
    let (_children, text) = some_content();
    for piece in [1, 3, 4096] {
        let file = status::reader();
        let mut spliced = Vec::new();
        loop {
            let (from, to) = pipe().expect("pipe");
            match splice(&file, None, &to, None, piece, SpliceFFlags::empty()).expect("splice") {
                0 => break,
                length => {
                    let mut bytes = vec![0; length];
                    File::from(from).read_exact(&mut bytes).expect("the pipe");
                    spliced.extend(bytes);
                }
            }
        }
        assert_eq!(
            String::from_utf8(spliced),
            Ok(text.clone()),
            "in pieces of {piece}"
        );
    }
}

#[test]
fn sendfile_gives_the_same_bytes() {
    let _module = Module::without_updates();
    let (_children, text) = some_content();
    for piece in [1, 3, 4096] {
        let file = status::reader();
        let mut to = somewhere();
        while sendfile(&to, &file, None, piece).expect("sendfile") > 0 {}
        to.rewind().expect("seek");
        assert_eq!(read_in_pieces(&mut to, 64), text, "in pieces of {piece}");
    }

    let (mut to, mut offset) = (somewhere(), 2);
    assert_eq!(sendfile(&to, status::reader(), Some(&mut offset), 3), Ok(3));
    to.rewind().expect("seek");
    assert_eq!(
        (read_in_pieces(&mut to, 64).as_str(), offset),
        (&text[2..5], 5)
    );
}

/// Returns an empty file without a name.
fn somewhere() -> File {
    memfd_create("somewhere", MFdFlags::MFD_CLOEXEC)
        .expect("memfd")
        .into()
}

#[test]
fn seek_set_and_seek_cur_move_in_the_same_bytes() {
    let _module = Module::without_updates();
    let (_children, text) = some_content();
    let mut file = status::reader();
    let mut piece = [0; 4];
    assert_eq!(file.seek(SeekFrom::Start(5)).expect("seek"), 5);
    file.read_exact(&mut piece).expect("read");
    assert_eq!(piece, text.as_bytes()[5..9]);
    assert_eq!(file.stream_position().expect("seek"), 9);
    assert_eq!(file.seek(SeekFrom::Current(-8)).expect("seek"), 1);
    file.read_exact(&mut piece).expect("read");
    assert_eq!(piece, text.as_bytes()[1..5]);
    assert_eq!(file.seek(SeekFrom::Current(2)).expect("seek"), 7);
    file.read_exact(&mut piece).expect("read");
    assert_eq!(piece, text.as_bytes()[7..11]);
}

#[test]
fn seek_end_counts_from_the_end_of_the_content() {
    let _module = Module::without_updates();
    assert_eq!(
        status::reader().seek(SeekFrom::End(0)).expect("seek"),
        0,
        "an empty file"
    );

    let (_children, text) = some_content();
    let length = text.len() as u64;
    let mut file = status::reader();
    assert_eq!(
        file.seek(SeekFrom::End(0)).expect("seek"),
        length,
        "a file that nobody has read yet"
    );
    assert_eq!(read_in_pieces(&mut file, 64), "");
    assert_eq!(file.seek(SeekFrom::End(-3)).expect("seek"), length - 3);
    assert_eq!(read_in_pieces(&mut file, 64), text[text.len() - 3..]);
    assert_eq!(file.seek(SeekFrom::End(5)).expect("seek"), length + 5);
    assert_eq!(read_in_pieces(&mut file, 64), "");
}

#[test]
fn seek_end_counts_from_the_end_of_the_snapshot() {
    let _module = Module::without_updates();
    let (_children, text) = some_content();
    let mut file = status::reader();
    file.read_exact(&mut [0; 3]).expect("read");
    status::register(child::getpid());
    assert_eq!(
        file.seek(SeekFrom::End(0)).expect("seek"),
        text.len() as u64
    );
}

#[test]
fn beyond_the_end_nothing_is_read() {
    let _module = Module::without_updates();
    let (_children, text) = some_content();
    for offset in [
        text.len() as u64,
        text.len() as u64 + 1,
        1 << 31,
        1 << 32,
        i64::MAX as u64 - 4096,
    ] {
        let mut file = status::reader();
        assert_eq!(file.seek(SeekFrom::Start(offset)).expect("seek"), offset);
        assert_eq!(read_in_pieces(&mut file, 16), "", "at {offset}");
    }
}

#[test]
fn seeking_before_the_start_gets_einval() {
    let _module = Module::without_updates();
    let (_children, text) = some_content();
    let file = status::reader();
    assert_eq!(lseek(&file, -1, Whence::SeekSet), Err(Errno::EINVAL));
    assert_eq!(lseek(&file, -1, Whence::SeekCur), Err(Errno::EINVAL));
    assert_eq!(
        lseek(&file, -(text.len() as i64) - 1, Whence::SeekEnd),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        lseek(&file, 0, Whence::SeekCur),
        Ok(0),
        "the position has not moved"
    );
}

#[test]
fn an_open_file_is_one_snapshot() {
    let _module = Module::with_interval(10);
    let (mut children, _) = some_content();
    let burner = Child::burnt(20);
    status::register(burner.pid());
    status::await_update();

    let mut file = status::reader();
    let mut start = [0; 3];
    file.read_exact(&mut start).expect("read");
    let reference = {
        // The whole snapshot, by reads that are not at offset 0.
        let mut text = start.to_vec();
        let mut rest = [0; 4096];
        let length = file.read_at(&mut rest, 3).expect("pread");
        text.extend_from_slice(&rest[..length]);
        String::from_utf8(text).expect("text")
    };

    // Time goes on, one goes, one comes.
    status::await_gone(children.remove(1).end());
    status::register(child::getpid());
    status::await_update();
    assert_ne!(status::text(), reference);

    assert_eq!(read_in_pieces(&mut file, 5), reference[3..]);
    file.seek(SeekFrom::Start(1)).expect("seek");
    assert_eq!(read_in_pieces(&mut file, 5), reference[1..]);
}

#[test]
fn a_read_at_offset_0_takes_a_new_snapshot() {
    let _module = Module::without_updates();
    let (_children, text) = some_content();
    let mut file = status::reader();
    assert_eq!(read_in_pieces(&mut file, 4096), text);
    status::register(child::getpid());
    assert_eq!(
        read_in_pieces(&mut file, 4096),
        "",
        "no new lines at the old end"
    );

    file.rewind().expect("seek");
    let present = format!("{text}{}: 0\n", child::getpid());
    assert_eq!(read_in_pieces(&mut file, 4096), present);

    status::register(1);
    let mut piece = [0; 4096];
    let length = file.read_at(&mut piece, 0).expect("pread");
    assert_eq!(&piece[..length], format!("{present}1: 0\n").as_bytes());
}

#[test]
fn a_second_open_sees_the_present() {
    let _module = Module::without_updates();
    let (_children, text) = some_content();
    let mut first = status::reader();
    first.read_exact(&mut [0]).expect("read");
    status::register(child::getpid());

    let mut second = status::reader();
    assert_eq!(
        read_in_pieces(&mut second, 4096),
        format!("{text}{}: 0\n", child::getpid())
    );
    assert_eq!(read_in_pieces(&mut first, 4096), text[1..]);
}

#[test]
fn the_snapshot_is_taken_by_the_first_read_not_by_open() {
    let _module = Module::without_updates();
    let mut file = status::reader();
    let (_children, text) = some_content();
    assert_eq!(read_in_pieces(&mut file, 4096), text);
}

#[test]
fn a_file_open_for_both_reads_what_it_has_written() {
    let _module = Module::without_updates();
    let mut file = status::reader_and_writer();
    assert_eq!(nix::unistd::write(&file, b"1\n"), Ok(2));
    file.rewind().expect("seek");
    assert_eq!(read_in_pieces(&mut file, 4096), "1: 0\n");
}

#[test]
fn zero_bytes_read_nothing() {
    let _module = Module::without_updates();
    let (_children, text) = some_content();
    let mut file = status::reader();
    assert_eq!(file.read(&mut []).expect("read"), 0);
    assert_eq!(read_in_pieces(&mut file, 4096), text);
}

#[test]
fn a_bad_pointer_gets_efault_and_the_file_reads_on() {
    let _module = Module::without_updates();
    let (_children, text) = some_content();
    let mut file = status::reader();
    for address in [
        std::ptr::null_mut(),
        8 as *mut libc::c_void,
        0xffff_ffff_8100_0000_usize as *mut libc::c_void,
    ] {
        // SAFETY: The kernel checks the address; that is what this test is about.
        let length = unsafe { libc::read(file.as_raw_fd(), address, 100) };
        assert_eq!(Errno::result(length), Err(Errno::EFAULT), "{address:?}");
        // SAFETY: As before.
        let length = unsafe { libc::pread(file.as_raw_fd(), address, 100, 3) };
        assert_eq!(Errno::result(length), Err(Errno::EFAULT), "{address:?}");
    }
    assert_eq!(read_in_pieces(&mut file, 4096), text);
}

#[test]
fn five_thousand_registrations_read_whole() {
    let _module = Module::with_interval(50);
    let crowd = Crowd::of(5000);
    status::register_all(crowd.pids());
    assert_eq!(status::pids(), crowd.pids());
    status::await_update();
    for size in [13, 4096, 1 << 20] {
        let text = read_in_pieces(&mut status::reader(), size);
        let pids: Vec<_> = status::parse(&text)
            .iter()
            .map(|line| line.pid)
            .take(5000)
            .collect();
        assert_eq!(pids, crowd.pids(), "in pieces of {size}");
    }
}

#[test]
fn no_line_is_torn_doubled_or_lost_while_others_register_and_exit() {
    let _module = Module::with_interval(10);
    let mut permanent = Vec::new();
    let mut passing = Vec::new();
    for _ in 0..10 {
        permanent.push(Child::sleeper());
        passing.push(Child::sleeper());
        status::register(permanent.last().expect("just pushed").pid());
        status::register(passing.last().expect("just pushed").pid());
    }
    let expected: Vec<_> = permanent.iter().map(Child::pid).collect();
    let churn = Child::start(|_| {
        loop {
            let crowd = Crowd::of(10);
            status::register_all(crowd.pids());
        }
    });

    for round in 0..150 {
        let size = [1, 7, 64, 4096, 1 << 16][round % 5];
        if round % 15 == 14 {
            // Lines go between lines that stay.
            passing.pop();
        }
        let text = read_in_pieces(&mut status::reader(), size);
        let mut pids: Vec<_> = status::parse(&text).iter().map(|line| line.pid).collect();
        let found: Vec<_> = pids
            .iter()
            .copied()
            .filter(|pid| expected.contains(pid))
            .collect();
        assert_eq!(found, expected, "in round {round}");
        pids.sort_unstable();
        let lines = pids.len();
        pids.dedup();
        assert_eq!(pids.len(), lines, "in round {round}");
    }
    drop(churn);
}

/// Expects each process at most once, and those of `permanent` in their order.
fn check_snapshot(text: &str, permanent: &[i32]) {
    let mut pids: Vec<_> = status::parse(text).iter().map(|line| line.pid).collect();
    let stays: HashSet<_> = permanent.iter().collect();
    let found: Vec<_> = pids
        .iter()
        .copied()
        .filter(|pid| stays.contains(pid))
        .collect();
    assert!(
        found == permanent,
        "{} lines of {}",
        found.len(),
        permanent.len()
    );
    let lines = pids.len();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), lines, "a process has two lines");
}

/// Each sees each line whole, in order and once, and none is left out that was there before the
/// first read and still is.
#[test]
fn many_readers_at_once_get_a_consistent_snapshot_each() {
    const READERS: usize = 6;
    const ROUNDS: usize = 40;

    let _module = Module::with_interval(10);
    let crowd = Crowd::of(700);
    let mut children: Vec<_> = (0..50).map(|_| Child::sleeper()).collect();
    // Some that will go lie among those that stay.
    for (some, child) in crowd.pids().chunks(14).zip(&children) {
        status::register_all(some);
        status::register(child.pid());
    }
    let permanent = crowd.pids();
    let churn = Child::start(|parent| {
        parent.tell(0);
        loop {
            let crowd = Crowd::of(30);
            status::register_all(crowd.pids());
        }
    });
    churn.hear();

    let readers: Vec<_> = (0..READERS)
        .map(|nth| {
            Child::start(move |parent| {
                for round in 0..ROUNDS {
                    let size = [5, 100, 4096, 1 << 16][(nth + round) % 4];
                    let text = read_in_pieces(&mut status::reader(), size);
                    check_snapshot(&text, permanent);
                    parent.tell(0);
                }
            })
        })
        .collect();
    for reader in readers {
        for _ in 0..ROUNDS {
            reader.hear();
            children.pop();
        }
        reader.finish();
    }
    drop(churn);
}

#[test]
fn readers_that_share_a_descriptor_share_the_bytes() {
    let _module = Module::without_updates();
    let (_children, text) = some_content();
    let mut file = status::reader();
    let mut start = [0; 5];
    file.read_exact(&mut start).expect("read");
    child::in_child(|| {
        let mut file = file.try_clone().expect("dup");
        let mut middle = [0; 5];
        file.read_exact(&mut middle).expect("read");
        assert_eq!(middle, text.as_bytes()[5..10]);
    });
    assert_eq!(read_in_pieces(&mut file, 4096), text[10..]);
}
