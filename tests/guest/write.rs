// SPDX-License-Identifier: GPL-2.0

//! What a write may hold, what comes of it, and the errors to the byte.

use std::fs::OpenOptions;
use std::io::{IoSlice, Seek, SeekFrom, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, mprotect};
use nix::sys::uio::{pwrite, pwritev, writev};

use support::PAGE;
use support::child::{self, Child};
use support::module::Module;
use support::status;

/// The bytes of a write that are looked at.
const WRITE_MAX: usize = 4096;

/// Writes that text, `{}` standing for a process's number, and expects it to be taken whole and to
/// register that process.
#[track_caller]
fn accepts(form: &str) {
    let child = Child::sleeper();
    let text = form.replace("{}", &child.pid().to_string());
    assert_eq!(status::write(&text), Ok(text.len()), "{text:?}");
    assert_eq!(status::pids().last(), Some(&child.pid()), "{text:?}");
}

/// Writes that text and expects this error, and nothing registered.
#[track_caller]
fn refuses(text: impl AsRef<[u8]>, errno: Errno) {
    let shown = String::from_utf8_lossy(text.as_ref()).into_owned();
    assert_eq!(status::write(text), Err(errno), "{shown:?}");
    assert_eq!(status::text(), "", "{shown:?}");
}

/// The same for a text in which `{}` stands for a process that could be registered.
#[track_caller]
fn refuses_around_a_good_pid(form: &str, errno: Errno) {
    let child = Child::sleeper();
    refuses(form.replace("{}", &child.pid().to_string()), errno);
}

#[test]
fn digits_alone_register() {
    let _module = Module::without_updates();
    accepts("{}");
}

#[test]
fn digits_and_a_newline_register() {
    let _module = Module::without_updates();
    accepts("{}\n");
}

#[test]
fn digits_and_a_nul_register() {
    let _module = Module::without_updates();
    accepts("{}\0");
    accepts("{}\n\0");
}

#[test]
fn white_space_around_a_pid_is_fine() {
    let _module = Module::without_updates();
    for form in [
        " {}",
        "{} ",
        "\t{}\t",
        "\n{}\n",
        "  \t\n {} \n\n",
        "{}\r\n",
        "\x0b{}\x0c",
    ] {
        accepts(form);
    }
}

#[test]
fn several_pids_with_white_space_between_register() {
    let _module = Module::without_updates();
    for separator in [" ", "\n", "\t", " \n ", "\r\n"] {
        let children: Vec<_> = (0..3).map(|_| Child::sleeper()).collect();
        let pids: Vec<_> = children.iter().map(Child::pid).collect();
        let text = pids
            .iter()
            .map(i32::to_string)
            .collect::<Vec<_>>()
            .join(separator);
        assert_eq!(status::write(&text), Ok(text.len()), "{text:?}");
        assert!(status::pids().ends_with(&pids), "{text:?}");
    }
}

#[test]
fn the_same_pid_twice_in_a_write_is_one_line() {
    let _module = Module::without_updates();
    let child = Child::sleeper();
    let text = format!("{0} {0}\n{0}", child.pid());
    assert_eq!(status::write(&text), Ok(text.len()));
    assert_eq!(status::pids(), [child.pid()]);
}

#[test]
fn what_is_no_pid_gets_einval_and_registers_nothing() {
    let _module = Module::without_updates();
    for text in [
        "abc", "1x", "x1", "1,2", "0x10", "1.5", "-1", "0", "00", "+1", "1 -1", "1e3", "--", "1;",
        "\u{b9}",
    ] {
        refuses(text, Errno::EINVAL);
    }
}

#[test]
fn a_nul_inside_gets_einval_and_registers_nothing() {
    let _module = Module::without_updates();
    for text in ["1\0 1", "\x0001", "1\x001", "1\0\0", "\0", "1\0\n"] {
        refuses(text, Errno::EINVAL);
    }
}

#[test]
fn four_raw_bytes_get_einval_and_register_nothing() {
    let _module = Module::without_updates();
    refuses(child::getpid().to_ne_bytes(), Errno::EINVAL);
    // The raw bytes of these read "1", then NULs.
    refuses(i32::from(b'1').to_ne_bytes(), Errno::EINVAL);
    refuses(u64::from(b'1').to_ne_bytes(), Errno::EINVAL);
}

#[test]
fn blank_content_gets_einval() {
    let _module = Module::without_updates();
    for text in [" ", "\n", "\t \n", " \0"] {
        refuses(text, Errno::EINVAL);
    }
    refuses([b' '; WRITE_MAX], Errno::EINVAL);
}

#[test]
fn a_number_beyond_an_int_gets_erange_and_registers_nothing() {
    let _module = Module::without_updates();
    for text in [
        "2147483648",
        "4294967297",
        "9223372036854775808",
        "18446744073709551617",
        "99999999999999999999999999",
    ] {
        refuses(text, Errno::ERANGE);
    }
    refuses_around_a_good_pid("{} 2147483648", Errno::ERANGE);
    refuses_around_a_good_pid("2147483648 {}", Errno::ERANGE);
}

#[test]
fn the_greatest_int_is_a_number_that_no_process_has() {
    let _module = Module::without_updates();
    refuses("2147483647", Errno::ESRCH);
}

#[test]
fn all_of_a_write_is_parsed_before_any_of_it_takes_effect() {
    let _module = Module::without_updates();
    refuses_around_a_good_pid("{} abc", Errno::EINVAL);
    refuses_around_a_good_pid("{}\n{}\n{}\n0\n", Errno::EINVAL);
    refuses_around_a_good_pid("{}\n{} \0 {}", Errno::EINVAL);
    refuses_around_a_good_pid("{} -1", Errno::EINVAL);
    // The error in the text comes before the process that is missing.
    refuses(format!("{} abc", child::unused_number()), Errno::EINVAL);
    refuses(
        format!("{} 9999999999", child::unused_number()),
        Errno::ERANGE,
    );
    refuses_around_a_good_pid(
        &format!("{} {{}} abc", child::unused_number()),
        Errno::EINVAL,
    );
}

#[test]
fn no_such_process_gets_esrch() {
    let _module = Module::without_updates();
    refuses(child::unused_number().to_string(), Errno::ESRCH);
}

#[test]
fn an_exited_process_gets_esrch() {
    let _module = Module::without_updates();
    let child = Child::sleeper();
    child.kill();
    refuses(child.pid().to_string(), Errno::ESRCH);
}

#[test]
fn pids_before_a_missing_one_are_registered_and_counted() {
    let _module = Module::without_updates();
    let (first, second, third) = (Child::sleeper(), Child::sleeper(), Child::sleeper());
    let missing = child::unused_number();
    let taken = format!(" {} \n{}", first.pid(), second.pid());
    let rest = format!(" \n{missing} {}\n", third.pid());

    assert_eq!(status::write(format!("{taken}{rest}")), Ok(taken.len()));
    assert_eq!(status::pids(), [first.pid(), second.pid()]);
    // What a loop around `write` does next.
    assert_eq!(status::write(rest), Err(Errno::ESRCH));
    assert_eq!(status::pids(), [first.pid(), second.pid()]);
}

#[test]
fn an_exited_process_behind_others_makes_a_short_write_and_the_retry_gets_esrch() {
    let _module = Module::without_updates();
    let (first, second, zombie, last) = (
        Child::sleeper(),
        Child::sleeper(),
        Child::sleeper(),
        Child::sleeper(),
    );
    zombie.kill();
    let good = format!("{}  {}", first.pid(), second.pid());
    let text = format!("{good} {} {}\n", zombie.pid(), last.pid());
    assert_eq!(
        status::write(&text),
        Ok(good.len()),
        "up to the second and with it"
    );
    assert_eq!(status::pids(), [first.pid(), second.pid()]);
    assert_eq!(
        status::write(&text[good.len()..]),
        Err(Errno::ESRCH),
        "the retry"
    );
    assert_eq!(status::pids(), [first.pid(), second.pid()]);
}

#[test]
fn a_missing_pid_at_the_front_registers_nothing_behind_it() {
    let _module = Module::without_updates();
    let child = Child::sleeper();
    refuses(
        format!("{} {}", child::unused_number(), child.pid()),
        Errno::ESRCH,
    );
}

#[test]
fn known_pids_before_a_missing_one_are_counted_as_well() {
    let _module = Module::without_updates();
    let child = Child::sleeper();
    status::register(child.pid());
    let taken = child.pid().to_string();
    assert_eq!(
        status::write(format!("{taken} {}", child::unused_number())),
        Ok(taken.len())
    );
}

#[test]
fn exactly_4096_bytes_are_taken_whole() {
    let _module = Module::without_updates();
    let child = Child::sleeper();
    for end in ["", " ", "\n", "\0"] {
        let text = format!(
            "{:>width$}{end}",
            child.pid(),
            width = WRITE_MAX - end.len()
        );
        assert_eq!(status::write(&text), Ok(WRITE_MAX), "ending with {end:?}");
    }
    assert_eq!(status::pids(), [child.pid()]);
}

#[test]
fn of_more_than_4096_bytes_those_up_to_the_last_white_space_are_taken() {
    let _module = Module::without_updates();
    let (first, second) = (Child::sleeper(), Child::sleeper());
    // The second number begins within the first 4096 bytes and ends beyond.
    let text = format!(
        "{:>width$} {}",
        first.pid(),
        second.pid(),
        width = WRITE_MAX - 2
    );
    assert_eq!(status::write(&text), Ok(WRITE_MAX - 1));
    assert_eq!(status::pids(), [first.pid()]);
    // What is wrong behind the first 4096 bytes is for the next write.
    let text = format!(
        "{:>width$} {}",
        second.pid(),
        "abc".repeat(1000),
        width = WRITE_MAX - 10
    );
    assert_eq!(status::write(&text), Ok(WRITE_MAX - 9));
    assert_eq!(status::pids(), [first.pid(), second.pid()]);
}

#[test]
fn a_token_longer_than_4096_bytes_gets_einval() {
    let _module = Module::without_updates();
    refuses("1".repeat(WRITE_MAX + 1), Errno::EINVAL);
    refuses(
        format!("{:0>width$}", 1, width = WRITE_MAX + 1),
        Errno::EINVAL,
    );
    refuses("1".repeat(1 << 20), Errno::EINVAL);
}

#[test]
fn a_mebibyte_is_taken_by_a_loop_of_writes() {
    let _module = Module::without_updates();
    let children = [(); 3].map(|()| Child::sleeper());
    let pids = children.each_ref().map(Child::pid);
    let some = pids.map(|pid| format!("{pid:<300}\n")).concat();
    let mut text = some.repeat((1 << 20) / some.len());
    text.push_str(&" ".repeat((1 << 20) - text.len() - 1));
    text.push('\n');
    // The last piece may not be blank, as that would be an error of its own.
    let last = Child::sleeper();
    let end = format!("{}\n", last.pid());
    text.replace_range(text.len() - end.len().., &end);

    assert_eq!(text.len(), 1 << 20);
    status::writer()
        .write_all(text.as_bytes())
        .expect("a loop of writes");
    assert_eq!(status::pids(), [pids[0], pids[1], pids[2], last.pid()]);
}

#[test]
fn a_mebibyte_of_dense_pids_is_taken_by_a_loop_of_writes() {
    let _module = Module::without_updates();
    let (first, second) = (Child::sleeper(), Child::sleeper());
    let some = format!("{} {}\n", first.pid(), second.pid());
    let text = some.repeat((1 << 20) / some.len());
    status::writer()
        .write_all(text.as_bytes())
        .expect("a loop of writes");
    assert_eq!(status::pids(), [first.pid(), second.pid()]);
}

#[test]
fn zero_bytes_return_zero() {
    let _module = Module::without_updates();
    assert_eq!(status::write(""), Ok(0));
    assert_eq!(write_from(std::ptr::null(), 0), Ok(0));
    assert_eq!(status::text(), "");
}

/// Writes from any address, as only a faulty program does.
fn write_from(address: *const u8, length: usize) -> Result<usize, Errno> {
    use std::os::fd::AsRawFd;
    // SAFETY: The kernel checks the address; that is what these tests are about.
    let written = unsafe { libc::write(status::writer().as_raw_fd(), address.cast(), length) };
    Errno::result(written).map(|written| written as usize)
}

#[test]
fn a_bad_pointer_gets_efault_and_registers_nothing() {
    let _module = Module::without_updates();
    let kernel = 0xffff_ffff_8100_0000_usize as *const u8;
    for (address, length) in [
        (std::ptr::null(), 5),
        (8 as *const u8, 2),
        (kernel, 5),
        (kernel, 1 << 20),
    ] {
        assert_eq!(
            write_from(address, length),
            Err(Errno::EFAULT),
            "{address:?}"
        );
    }
    assert_eq!(status::text(), "");
}

/// Maps two pages and puts the text so that it ends `behind` bytes behind the start of the second.
/// Returns where the text is.
fn straddling(text: &[u8], behind: usize) -> (*mut u8, *mut u8) {
    let length = NonZeroUsize::new(2 * PAGE).expect("not zero");
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: A new mapping, at a place of the kernel's choice. It stays for good, small as it is.
    let first =
        unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE) }.expect("mmap");
    // SAFETY: All of the text lies in the two pages.
    unsafe {
        let second = first.as_ptr().cast::<u8>().add(PAGE);
        let start = second.add(behind).sub(text.len());
        std::ptr::copy_nonoverlapping(text.as_ptr(), start, text.len());
        (start, second)
    }
}

#[test]
fn a_number_split_by_a_page_boundary_registers() {
    let _module = Module::without_updates();
    let child = Child::sleeper();
    let text = child.pid().to_string();
    for behind in 0..=text.len() {
        let (start, _) = straddling(text.as_bytes(), behind);
        assert_eq!(write_from(start, text.len()), Ok(text.len()));
    }
    assert_eq!(status::pids(), [child.pid()]);
}

#[test]
fn a_number_split_by_the_end_of_memory_gets_efault_and_registers_nothing() {
    let _module = Module::without_updates();
    let child = Child::sleeper();
    let text = format!("{0} {0}", child.pid());
    for behind in 1..text.len() {
        let (start, second) = straddling(text.as_bytes(), behind);
        // SAFETY: The second of the two pages, which nothing refers to.
        unsafe {
            let second = std::ptr::NonNull::new(second.cast()).expect("not null");
            madvise(second, PAGE, MmapAdvise::MADV_DONTNEED).expect("madvise");
            mprotect(second, PAGE, ProtFlags::PROT_NONE).expect("mprotect");
        }
        assert_eq!(write_from(start, text.len()), Err(Errno::EFAULT));
        assert_eq!(status::text(), "");
    }
}

#[test]
fn the_position_means_nothing_to_a_write() {
    let _module = Module::without_updates();
    let mut file = status::reader_and_writer();
    for position in [0, 1, 4095, 4096, 1 << 31, 1 << 40] {
        let child = Child::sleeper();
        let text = format!("{}\n", child.pid());
        assert_eq!(
            pwrite(&file, text.as_bytes(), position),
            Ok(text.len()),
            "pwrite at {position}"
        );
        assert_eq!(status::pids().last(), Some(&child.pid()));

        let child = Child::sleeper();
        let text = format!("{}\n", child.pid());
        file.seek(SeekFrom::Start(position as u64)).expect("seek");
        assert_eq!(
            nix::unistd::write(&file, text.as_bytes()),
            Ok(text.len()),
            "write at {position}"
        );
        assert_eq!(status::pids().last(), Some(&child.pid()));
    }
}

#[test]
fn every_flag_of_open_lets_a_write_register() {
    let _module = Module::without_updates();
    let flags = [
        0,
        libc::O_TRUNC,
        libc::O_APPEND,
        libc::O_CREAT | libc::O_TRUNC,
        libc::O_CREAT | libc::O_APPEND,
        libc::O_NONBLOCK,
        libc::O_SYNC,
    ];
    for read in [false, true] {
        for flags in flags {
            let child = Child::sleeper();
            let file = OpenOptions::new()
                .read(read)
                .write(true)
                .custom_flags(flags)
                .open(status::PATH)
                .expect("open");
            let text = format!("{}\n", child.pid());
            assert_eq!(
                nix::unistd::write(&file, text.as_bytes()),
                Ok(text.len()),
                "{flags:#o}"
            );
            assert_eq!(status::pids().last(), Some(&child.pid()), "{flags:#o}");
        }
    }
}

#[test]
fn opening_to_write_loses_nothing() {
    let _module = Module::without_updates();
    status::register(1);
    drop(status::writer());
    assert_eq!(status::pids(), [1]);
}

#[test]
fn one_descriptor_serves_many_writes() {
    let _module = Module::without_updates();
    let file = status::writer();
    let children: Vec<_> = (0..20).map(|_| Child::sleeper()).collect();
    for child in &children {
        let text = child.pid().to_string();
        assert_eq!(nix::unistd::write(&file, text.as_bytes()), Ok(text.len()));
    }
    assert_eq!(nix::unistd::write(&file, b"abc"), Err(Errno::EINVAL));
    assert_eq!(
        status::pids(),
        children.iter().map(Child::pid).collect::<Vec<_>>()
    );
}

#[test]
fn vectors_register() {
    let _module = Module::without_updates();
    let children: Vec<_> = (0..4).map(|_| Child::sleeper()).collect();
    let text: Vec<_> = children
        .iter()
        .map(|child| format!("{}\n", child.pid()))
        .collect();
    let vectors: Vec<_> = text
        .iter()
        .map(|text| IoSlice::new(text.as_bytes()))
        .collect();
    let length = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
    assert_eq!(
        writev(status::writer(), &vectors[..2]),
        Ok(length(&text[..2]))
    );
    assert_eq!(
        pwritev(status::writer(), &vectors[2..], 77),
        Ok(length(&text[2..]))
    );
    assert_eq!(
        status::pids(),
        children.iter().map(Child::pid).collect::<Vec<_>>()
    );
}

#[test]
fn any_user_registers_and_reads() {
    let _module = Module::without_updates();
    child::as_nobody(|| {
        status::register(child::getpid());
        assert_eq!(status::pids(), [child::getpid()]);
        // Processes of others as well: their CPU time is no secret in /proc/PID/stat either.
        status::register(1);
        assert_eq!(status::pids(), [child::getpid(), 1]);
        assert_eq!(status::write("abc"), Err(Errno::EINVAL));
    });
}

#[test]
fn a_descriptor_that_was_inherited_registers() {
    let _module = Module::without_updates();
    let file = status::reader_and_writer();
    child::as_nobody(|| {
        let text = child::getpid().to_string();
        assert_eq!(nix::unistd::write(&file, text.as_bytes()), Ok(text.len()));
        assert_eq!(status::pids(), [child::getpid()]);
    });
}

#[test]
fn writers_at_the_same_moment_register_each_process_once() {
    let _module = Module::without_updates();
    let targets: Vec<_> = (0..20).map(|_| Child::sleeper()).collect();
    let mut pids: Vec<_> = targets.iter().map(Child::pid).collect();
    let text = status::list(&pids);
    pids.sort_unstable();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            Child::start(|parent| {
                parent.wait();
                for _ in 0..20 {
                    assert_eq!(status::write(&text), Ok(text.len()));
                }
            })
        })
        .collect();
    writers.iter().for_each(Child::go);
    writers.into_iter().for_each(Child::finish);
    // A writer that another one overtakes leaves a process to it, which has its line at the other
    // one's place.
    let mut registered = status::pids();
    registered.sort_unstable();
    assert_eq!(registered, pids);
}
