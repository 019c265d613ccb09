// SPDX-License-Identifier: GPL-2.0

//! `/proc/mp1/exits`: which exits it tells of, to which open files, and in which order.

mod poll;
mod read;
mod time;
mod unload;

use std::collections::HashMap;
use std::fs;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use nix::unistd::Pid;

use support::child::{self, Child, Parent};
use support::crowd::Crowd;
use support::exits::{self, KEPT, Record, Stream, events};
use support::module::Module;
use support::status;
use support::wait;
use support::waiter::Way;

/// Starts a child and registers it.
fn registered() -> Child {
    let child = Child::sleeper();
    status::register(child.pid());
    child
}

/// Kills a child and reaps it; nothing more can come of it.
fn end(child: Child) -> i32 {
    child.signal(Signal::SIGKILL);
    child.reap();
    child.pid()
}

/// Kills a child and reaps it. Returns how long its line is, as another open file has it.
fn end_and_measure(child: Child, stream: &mut Stream) -> usize {
    let pid = end(child);
    format!("{pid}: {}\n", stream.ms_of(pid)).len()
}

#[test]
fn a_registered_process_that_exits_gives_one_line() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    stream.expect_nothing();
    let child = registered();
    stream.expect_nothing();
    let pid = end(child);
    assert_eq!(stream.pids(), [pid]);
    stream.expect_nothing();
}

#[test]
fn a_line_is_there_once_wait4_has_returned() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    for round in 0..200 {
        let child = Child::start(|parent| parent.wait());
        status::register(child.pid());
        child.go();
        child.reap();
        assert_eq!(stream.pids(), [child.pid()], "in round {round}");
    }
}

#[test]
fn a_line_is_there_for_a_zombie_and_no_second_one_once_it_is_reaped() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let child = registered();
    child.kill();
    assert_eq!(stream.pids(), [child.pid()]);
    child.reap();
    stream.expect_nothing();
}

#[test]
fn an_unregistered_process_gives_none() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    end(Child::sleeper());
    let child = registered();
    end(Child::sleeper());
    stream.expect_nothing();
    let pid = end(child);
    assert_eq!(stream.pids(), [pid]);
}

#[test]
fn an_exit_before_the_open_gives_none() {
    let _module = Module::without_updates();
    let (first, second, third) = (registered(), registered(), registered());
    end(first);
    second.kill();
    let mut stream = Stream::open();
    drop(second);
    stream.expect_nothing();
    let pid = end(third);
    assert_eq!(
        stream.pids(),
        [pid],
        "registered before the open, and exited after it"
    );
}

#[test]
fn each_open_file_gets_what_comes_after_its_open() {
    let _module = Module::without_updates();
    let mut streams = Vec::new();
    let mut pids = Vec::new();
    for _ in 0..5 {
        streams.push(Stream::open());
        pids.push(end(registered()));
    }
    for (i, stream) in streams.iter_mut().enumerate() {
        assert_eq!(stream.pids(), pids[i..]);
    }
}

#[test]
fn between_a_close_and_an_open_nothing_is_kept() {
    let _module = Module::without_updates();
    for _ in 0..3 {
        let mut stream = Stream::open();
        stream.expect_nothing();
        let pid = end(registered());
        assert_eq!(stream.pids(), [pid]);
        end(registered());
        drop(stream);
        end(registered());
    }
}

#[test]
fn lines_are_in_the_order_of_the_exits() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let mut children: Vec<_> = (0..6).map(|_| Some(registered())).collect();
    let order = [3, 0, 5, 1, 4, 2].map(|i: usize| end(children[i].take().expect("not ended yet")));
    assert_eq!(stream.pids(), order);
}

#[test]
fn registering_twice_gives_one_line() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let child = registered();
    status::register(child.pid());
    status::register_all(&[child.pid(), child.pid()]);
    let pid = end(child);
    assert_eq!(stream.pids(), [pid]);
}

#[test]
fn an_exited_process_cannot_be_registered() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let child = Child::sleeper();
    child.kill();
    assert_eq!(status::write(child.pid().to_string()), Err(Errno::ESRCH));
    let pid = child.end();
    assert_eq!(status::write(pid.to_string()), Err(Errno::ESRCH));
    stream.expect_nothing();
}

#[test]
fn a_registered_process_that_has_exited_cannot_be_registered_again() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let child = registered();
    child.kill();
    assert_eq!(
        status::write(child.pid().to_string()),
        Err(Errno::ESRCH),
        "a zombie whose line of status is still there"
    );
    assert_eq!(stream.pids(), [child.pid()]);
    drop(child);
    stream.expect_nothing();
}

#[test]
fn updates_add_no_line_and_lose_none() {
    let _module = Module::with_interval(10);
    let mut stream = Stream::open();
    let child = registered();
    status::await_update();
    // The waiting registers processes of its own.
    stream.records();
    child.kill();
    let witness = registered();
    wait::until("an update", || !status::pids().contains(&child.pid()));
    assert_eq!(stream.pids(), [child.pid()]);
    drop(child);
    let pid = end(witness);
    assert_eq!(stream.pids(), [pid]);
}

#[test]
fn all_threads_of_a_process_give_one_line() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let child = Child::start(|parent| {
        for _ in 0..4 {
            std::thread::spawn(|| child::burn_ms(u64::MAX));
        }
        parent.tell(child::gettid().into());
        parent.wait();
    });
    child.hear();
    let threads: Vec<i32> = fs::read_dir(format!("/proc/{}/task", child.pid()))
        .expect("/proc/PID/task")
        .map(|entry| entry.expect("a thread").file_name())
        .map(|name| {
            name.to_str()
                .and_then(|name| name.parse().ok())
                .expect("a number")
        })
        .collect();
    assert_eq!(threads.len(), 5);
    status::register_all(&threads);
    child.go();
    child.reap();
    assert_eq!(stream.pids(), [child.pid()]);
}

#[test]
fn threads_that_end_give_none_while_others_run() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let child = Child::start(|parent| {
        // SAFETY: It lies on the stack of the first thread, which never goes on nor frees it: it
        // stays valid.
        let parent: &'static mut Parent = unsafe { &mut *std::ptr::from_mut(parent) };
        std::thread::spawn(|| {
            parent.wait();
            child::end_this_process()
        });
        child::end_this_thread()
    });
    wait::until("the first thread to end", || {
        child::state_of(child.pid()) == 'Z'
    });
    status::register(child.pid());
    stream.expect_nothing();
    assert!(!child.can_be_reaped());
    child.go();
    child.reap();
    assert_eq!(stream.pids(), [child.pid()]);
}

#[test]
fn a_line_keeps_its_number_when_somebody_else_has_it() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let pid = end(registered());
    let new = Child::start_numbered(pid, |parent| parent.wait_forever());
    status::register(pid);
    assert_eq!(stream.pids(), [pid], "of the process that has exited");
    end(new);
    assert_eq!(stream.pids(), [pid], "of the new owner of the number");
}

#[test]
fn many_registered_in_one_write_give_a_line_each() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let crowd = Crowd::of(2000);
    status::register_all(crowd.pids());
    let mut expected = crowd.pids().to_vec();
    drop(crowd);
    let mut pids = stream.pids();
    pids.sort_unstable();
    expected.sort_unstable();
    assert_eq!(pids, expected);
}

#[test]
fn processes_that_register_themselves_and_exit_are_told_of_once_each() {
    const COUNT: usize = 1500;

    let _module = Module::with_interval(100);
    let mut stream = Stream::open();
    let forker = Child::start(|parent| {
        let file = status::writer();
        for _ in 0..COUNT {
            let child = Child::start(|_| {
                let own = child::getpid().to_string();
                assert_eq!(nix::unistd::write(&file, own.as_bytes()), Ok(own.len()));
                child::burn_ms(1);
            });
            child.reap();
            parent.tell(child.pid().into());
        }
        parent.wait_forever()
    });

    let mut lines: HashMap<i32, u64> = HashMap::new();
    for nth in 0..COUNT {
        let pid = forker.hear() as i32;
        for line in stream.lines() {
            // Numbers come back only after all others had their turn.
            assert_eq!(
                lines.insert(line.pid, line.ms),
                None,
                "{line:?} comes twice"
            );
        }
        let ms = lines.get(&pid);
        assert!(ms.is_some_and(|ms| *ms >= 1), "no. {nth}, {pid}: {ms:?}");
    }
    stream.expect_nothing();
}

#[test]
fn numbers_are_those_of_the_readers_namespace() {
    let _module = Module::without_updates();
    let mut outside = Stream::open();
    let child = Child::start_in_new_pid_namespace(|parent| {
        let mut inside = Stream::open();
        let other = registered();
        assert_eq!(other.pid(), 2);
        end(other);
        assert_eq!(inside.pids(), [2]);
        parent.tell(0);
        parent.wait();
        inside.expect_nothing();
    });
    child.hear();
    let pids = outside.pids();
    assert!(
        matches!(pids[..], [pid] if pid > child.pid()),
        "{pids:?}, of a process of the namespace whose first is {}",
        child.pid()
    );

    // What happens outside cannot be seen inside.
    let pid = end(registered());
    assert_eq!(outside.pids(), [pid]);
    child.go();
    child.finish();
}

#[test]
fn an_invisible_exit_wakes_nobody() {
    let _module = Module::without_updates();
    let mut outside = Stream::open();
    let child = Child::start_in_new_pid_namespace(|parent| {
        let other = registered();
        let mut inside = Stream::open();
        parent.tell(0);
        // Returns once, and then there is something.
        Way::Poll(PollFlags::POLLIN)
            .wait(inside.file())
            .expect("poll");
        assert_eq!(inside.pids(), [other.pid()]);
        parent.tell(0);
    });
    child.hear();
    child.await_sleep();
    for _ in 0..20 {
        let pid = end(registered());
        outside.await_ms_of(pid);
        let returned = events(child.ear(), PollFlags::POLLIN);
        assert_eq!(returned, PollFlags::empty(), "poll has returned");
    }
    let inner = numbers_of_children(child.pid())[0];
    kill(Pid::from_raw(inner), Signal::SIGKILL).expect("kill");
    child.hear();
}

/// Returns the numbers of the children of a process.
fn numbers_of_children(pid: i32) -> Vec<i32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .expect("the children of a process")
        .split_whitespace()
        .map(|number| number.parse().expect("a number"))
        .collect()
}

#[test]
fn an_inherited_file_is_read_in_the_namespace_of_its_reader() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let child = Child::start_in_new_pid_namespace(|_| read_inside(&file));
    child.finish();
}

#[test]
fn a_file_that_was_sent_is_read_in_the_namespace_of_its_reader() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let (here, there) = match socketpair(
        AddressFamily::Unix,
        SockType::Stream,
        None,
        SockFlag::SOCK_CLOEXEC,
    ) {
        Ok(pair) => pair,
        Err(errno) => {
            assert!(
                matches!(errno, Errno::EAFNOSUPPORT | Errno::ENOSYS),
                "{errno}"
            );
            println!("(this kernel has no sockets: nothing can be sent)");
            return;
        }
    };
    let child = Child::start_in_new_pid_namespace(|_| read_inside(&receive(&there)));
    let (bytes, fds) = ([IoSlice::new(b"x")], [file.as_raw_fd()]);
    let message = ControlMessage::ScmRights(&fds);
    sendmsg::<()>(
        here.as_raw_fd(),
        &bytes,
        &[message],
        MsgFlags::empty(),
        None,
    )
    .expect("sendmsg");
    child.finish();
}

fn receive(socket: &OwnedFd) -> File {
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!([RawFd; 1]);
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut bytes,
        Some(&mut space),
        MsgFlags::empty(),
    )
    .expect("recvmsg");
    match message.cmsgs().expect("control messages").next() {
        // SAFETY: The descriptor was made for us, and no other code has it.
        Some(ControlMessageOwned::ScmRights(fds)) => unsafe { File::from_raw_fd(fds[0]) },
        other => panic!("no descriptor: {other:?}"),
    }
}

/// Reads a file that was opened outside the namespace of the caller.
fn read_inside(file: &File) {
    let mut buffer = [0; 100];
    let other = registered();
    assert_eq!(nix::unistd::read(file, &mut buffer), Err(Errno::EAGAIN));
    let pid = end(other);
    let len = nix::unistd::read(file, &mut buffer).expect("a line");
    assert!(
        matches!(exits::parse(&buffer[..len])[..], [Record::Exit(line)] if line.pid == pid && pid < 10),
        "{:?}",
        String::from_utf8_lossy(&buffer[..len])
    );
}

#[test]
fn a_reader_that_never_reads_holds_nobody_up_and_loses_the_oldest() {
    let _module = Module::without_updates();
    let mut idle = Stream::open();
    let mut keen = Stream::open();
    let mut pids = Vec::new();
    while pids.len() <= KEPT + 100 {
        let crowd = Crowd::of(1000);
        status::register_all(crowd.pids());
        drop(crowd);
        pids.extend(keen.pids());
    }
    let records = idle.records();
    let Some((Record::Lost(lost), rest)) = records.split_first() else {
        panic!(
            "nothing was lost: {:?} and {} more",
            records[0],
            records.len() - 1
        )
    };
    let rest: Vec<_> = rest
        .iter()
        .map(|record| match record {
            Record::Exit(line) => line.pid,
            Record::Lost(_) => panic!("{record:?} among the rest"),
        })
        .collect();
    assert_eq!(
        *lost as usize + rest.len(),
        pids.len(),
        "each is told of or counted"
    );
    assert!(rest.len() <= KEPT, "{} were kept", rest.len());
    assert_eq!(
        rest,
        pids[pids.len() - rest.len()..],
        "the latest, in order"
    );

    // It goes on.
    let pid = end(registered());
    assert_eq!(idle.records().len(), 1);
    assert_eq!(keen.pids(), [pid]);
}

#[test]
fn as_many_as_are_kept_are_not_lost() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let mut left = KEPT;
    while left > 0 {
        let crowd = Crowd::of(left.min(1024));
        status::register_all(crowd.pids());
        left -= crowd.pids().len();
    }
    assert_eq!(stream.lines().len(), KEPT);
}

#[test]
fn half_a_line_is_finished_before_a_gap() {
    let _module = Module::without_updates();
    let file = exits::open_nonblocking();
    let first = end(registered());
    let mut start = [0; 2];
    assert_eq!(nix::unistd::read(&file, &mut start), Ok(2));
    let mut total = 0;
    while total <= KEPT + 100 {
        let crowd = Crowd::of(1000);
        status::register_all(crowd.pids());
        total += crowd.pids().len();
    }
    let mut text = start.to_vec();
    let mut buffer = [0; 4096];
    while let Ok(len) = nix::unistd::read(&file, &mut buffer) {
        text.extend_from_slice(&buffer[..len]);
    }
    let records = exits::parse(&text);
    assert!(
        matches!(records[0], Record::Exit(line) if line.pid == first),
        "{:?}",
        records[0]
    );
    let Record::Lost(lost) = records[1] else {
        panic!("no gap: {:?}", records[1])
    };
    assert_eq!(lost as usize + records.len() - 2, total);
}

#[test]
fn all_of_a_namespace_that_is_killed_are_told_of() {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let child = Child::start_in_new_pid_namespace(|parent| {
        let others: Vec<_> = (0..5).map(|_| Child::sleeper()).collect();
        status::register(1);
        status::register_all(&others.iter().map(Child::pid).collect::<Vec<_>>());
        parent.tell(0);
        parent.wait_forever()
    });
    child.hear();
    let mut expected = status::pids();
    let init = end(child);
    let pids = stream.pids();
    assert_eq!(
        pids.last(),
        Some(&init),
        "the first process of a namespace exits last"
    );
    let mut sorted = pids;
    sorted.sort_unstable();
    expected.sort_unstable();
    assert_eq!(sorted, expected);
}
