// SPDX-License-Identifier: GPL-2.0

//! Numbers are those of the writer's PID namespace, and of the reader's.

use std::fs;
use std::io::{Read, Seek};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use support::child::{self, Child};
use support::module::Module;
use support::status;

#[test]
fn pid_1_of_a_namespace_registers_itself() {
    let _module = Module::without_updates();
    let child = Child::start_in_new_pid_namespace(|parent| {
        status::register(1);
        assert_eq!(status::pids(), [1], "read inside");
        parent.tell(0);
        parent.wait_forever()
    });
    child.hear();
    assert_eq!(status::pids(), [child.pid()], "read outside");
}

#[test]
fn others_of_a_namespace_are_registered_by_their_numbers_inside() {
    let _module = Module::without_updates();
    let child = Child::start_in_new_pid_namespace(|parent| {
        let (second, third) = (Child::sleeper(), Child::sleeper());
        assert_eq!((second.pid(), third.pid()), (2, 3));
        status::register_all(&[3, 2]);
        assert_eq!(status::pids(), [3, 2], "read inside");
        parent.tell(0);
        parent.wait_forever()
    });
    child.hear();
    let outside = status::pids();
    assert_eq!(outside.len(), 2);
    for (pid, inside) in outside.iter().zip([3, 2]) {
        let numbers = fs::read_to_string(format!("/proc/{pid}/status")).expect("/proc/PID/status");
        let numbers = numbers
            .lines()
            .find(|line| line.starts_with("NSpid:"))
            .expect("NSpid");
        assert_eq!(numbers, format!("NSpid:\t{pid}\t{inside}"));
    }
}

#[test]
fn a_process_outside_the_writers_namespace_gets_esrch() {
    let _module = Module::without_updates();
    let outside = Child::sleeper();
    let child = Child::start_in_new_pid_namespace(|_| {
        assert_eq!(status::write(outside.pid().to_string()), Err(Errno::ESRCH));
        let text = format!("1 {}", outside.pid());
        assert_eq!(
            status::write(&text),
            Ok(1),
            "the one before it is registered"
        );
        assert_eq!(status::pids(), [1]);
    });
    child.finish();
    assert!(!status::pids().contains(&outside.pid()));
}

#[test]
fn a_number_inside_is_not_the_same_number_outside() {
    let _module = Module::without_updates();
    // The number 2 is that of a kernel thread outside.
    let child = Child::start_in_new_pid_namespace(|parent| {
        let second = Child::sleeper();
        status::register(second.pid());
        parent.tell(second.pid().into());
        parent.wait_forever()
    });
    assert_eq!(child.hear(), 2);
    let outside = status::pids();
    assert_eq!(outside.len(), 1);
    assert_ne!(outside[0], 2);
    status::register(2);
    assert_eq!(status::pids(), [outside[0], 2]);
}

#[test]
fn a_registration_from_outside_shows_inside_under_the_inner_number() {
    let _module = Module::without_updates();
    let child = Child::start_in_new_pid_namespace(|parent| {
        parent.wait();
        assert_eq!(status::pids(), [1]);
    });
    status::register(1);
    status::register(child.pid());
    assert_eq!(status::pids(), [1, child.pid()]);
    child.go();
    child.finish();
}

#[test]
fn a_reader_that_sees_none_reads_nothing() {
    let _module = Module::without_updates();
    status::register_all(&[1, 2, child::getpid()]);
    Child::start_in_new_pid_namespace(|_| {
        assert_eq!(status::text(), "");
        assert_eq!(
            status::reader()
                .seek(std::io::SeekFrom::End(0))
                .expect("seek"),
            0
        );
    })
    .finish();
    assert_eq!(status::pids().len(), 3);
}

#[test]
fn what_a_reader_cannot_see_is_left_out_and_the_rest_stays_in_order() {
    let _module = Module::without_updates();
    let outside: Vec<_> = (0..3).map(|_| Child::sleeper()).collect();
    let child = Child::start_in_new_pid_namespace(|parent| {
        let inside: Vec<_> = (0..3).map(|_| Child::sleeper()).collect();
        for other in inside.iter().rev() {
            parent.wait();
            status::register(other.pid());
            parent.tell(0);
        }
        parent.wait();
        assert_eq!(status::pids(), [4, 3, 2]);
        parent.tell(0);
        parent.wait_forever()
    });
    for other in &outside {
        status::register(other.pid());
        child.go();
        child.hear();
    }
    child.go();
    child.hear();
    let pids = status::pids();
    assert_eq!(pids.len(), 6);
    assert_eq!(
        [pids[0], pids[2], pids[4]],
        [outside[0].pid(), outside[1].pid(), outside[2].pid()]
    );
}

#[test]
fn nested_twice_each_level_has_its_own_numbers() {
    let _module = Module::without_updates();
    let outer = Child::start_in_new_pid_namespace(|parent| {
        let _filler = Child::sleeper();
        let inner = Child::start_in_new_pid_namespace(|parent| {
            status::register(1);
            let other = Child::sleeper();
            status::register(other.pid());
            assert_eq!(
                status::write("3"),
                Err(Errno::ESRCH),
                "that is a number of the middle level"
            );
            assert_eq!(status::pids(), [1, 2], "the innermost level");
            parent.tell(0);
            parent.wait_forever()
        });
        inner.hear();
        assert_eq!(inner.pid(), 3);
        status::register(1);
        assert_eq!(status::pids(), [3, 4, 1], "the middle level");
        parent.tell(0);
        parent.wait_forever()
    });
    outer.hear();
    let pids = status::pids();
    assert_eq!(pids.len(), 3, "the outermost level");
    assert_eq!(pids[2], outer.pid());
    assert!(pids[..2].iter().all(|pid| *pid > outer.pid()));
}

#[test]
fn an_inherited_descriptor_writes_in_the_namespace_of_its_writer() {
    let _module = Module::without_updates();
    let file = status::writer();
    let child = Child::start_in_new_pid_namespace(|parent| {
        assert_eq!(nix::unistd::write(&file, b"1\n"), Ok(2));
        parent.tell(0);
        parent.wait_forever()
    });
    child.hear();
    assert_eq!(status::pids(), [child.pid()]);
}

#[test]
fn an_inherited_descriptor_reads_in_the_namespace_of_its_reader() {
    let _module = Module::without_updates();
    let mut file = status::reader();
    status::register(2);
    let child = Child::start_in_new_pid_namespace(|_| {
        status::register(1);
        let mut text = String::new();
        (&file).read_to_string(&mut text).expect("read");
        assert_eq!(text, "1: 0\n");
    });
    child.finish();
    file.rewind().expect("seek");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("read");
    assert!(text.starts_with("2: 0\n"));
}

#[test]
fn a_proc_mounted_inside_shows_the_same() {
    let _module = Module::without_updates();
    let child = Child::start_in_new_pid_namespace(|parent| {
        let proc = "/tmp/proc-of-a-namespace";
        fs::create_dir_all(proc).expect("mkdir");
        unshare(CloneFlags::CLONE_NEWNS).expect("unshare");
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .expect("private");
        mount(
            Some("proc"),
            proc,
            Some("proc"),
            MsFlags::empty(),
            None::<&str>,
        )
        .expect("mount");
        let inside = format!("{proc}/mp1/status");
        fs::write(&inside, "1").expect("write");
        assert_eq!(status::text_at(&inside), "1: 0\n");
        assert_eq!(
            status::text(),
            "1: 0\n",
            "the outer mount, too: what counts is who reads"
        );
        umount2(proc, MntFlags::MNT_DETACH).expect("umount");
        parent.tell(0);
        parent.wait_forever()
    });
    child.hear();
    assert_eq!(status::pids(), [child.pid()]);
}

#[test]
fn who_has_only_unshared_is_still_in_the_old_namespace() {
    let _module = Module::without_updates();
    child::in_child(|| {
        unshare(CloneFlags::CLONE_NEWPID).expect("unshare");
        status::register(child::getpid());
        assert_eq!(status::pids(), [child::getpid()]);
        let first = Child::start(|_| assert_eq!(status::text(), ""));
        first.finish();
    });
}

#[test]
fn a_number_that_somebody_else_has_inside_is_left_out_inside() {
    let _module = Module::without_updates();
    let child = Child::start_in_new_pid_namespace(|parent| {
        let old = Child::sleeper();
        status::register_all(&[1, old.pid()]);
        let number = old.end();
        let _new = Child::start_numbered(number, |parent| parent.wait_forever());
        assert_eq!(status::pids(), [1]);
        status::register(number);
        assert_eq!(status::pids(), [1, number]);
        parent.tell(0);
        parent.wait_forever()
    });
    child.hear();
    // Outside they are the numbers of two processes, and the first one may be free by now.
    let pids = status::pids();
    assert!(pids.len() == 2 || pids.len() == 3, "{pids:?}");
    assert_eq!(pids[0], child.pid());
}

#[test]
fn all_of_a_namespace_that_ends_are_dropped() {
    let _module = Module::with_interval(10);
    let child = Child::start_in_new_pid_namespace(|parent| {
        let others: Vec<_> = (0..5).map(|_| Child::sleeper()).collect();
        status::register(1);
        status::register_all(&others.iter().map(Child::pid).collect::<Vec<_>>());
        parent.tell(0);
        parent.wait_forever()
    });
    child.hear();
    status::register(child::getpid());
    assert_eq!(status::pids().len(), 7);
    drop(child);
    status::await_update();
    assert_eq!(status::pids()[0], child::getpid());
}

#[test]
fn updates_reach_processes_of_all_namespaces() {
    let _module = Module::with_interval(10);
    let child = Child::start_in_new_pid_namespace(|parent| {
        status::register(1);
        child::burn_ms(30);
        status::await_update();
        assert!(status::ms_of(1) >= 30);
        parent.tell(0);
        parent.wait_forever()
    });
    child.hear();
    assert!(status::ms_of(child.pid()) >= 30);
}
