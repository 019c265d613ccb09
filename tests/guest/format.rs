// SPDX-License-Identifier: GPL-2.0

//! The names of things, and the form of a line.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};

use support::child::{self, Child};
use support::exits;
use support::module::Module;
use support::status::{self, Line};

#[test]
fn the_directory_is_proc_mp1_and_has_mode_0555() {
    let _module = Module::without_updates();
    let directory = fs::metadata(status::DIRECTORY).expect("stat");
    assert!(directory.is_dir());
    assert_eq!(directory.permissions().mode() & 0o7777, 0o555);
    assert_eq!((directory.uid(), directory.gid()), (0, 0));
}

#[test]
fn the_file_is_status_and_has_mode_0666() {
    let _module = Module::without_updates();
    let file = fs::metadata(status::PATH).expect("stat");
    assert!(file.is_file() && !file.file_type().is_char_device());
    assert_eq!(file.permissions().mode() & 0o7777, 0o666);
    assert_eq!((file.uid(), file.gid()), (0, 0));
}

/// Gives both files to a group, and takes them from all others.
fn narrow() {
    for path in [status::PATH, exits::PATH] {
        chown(path, None, Some(65534)).expect("chgrp");
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).expect("chmod");
    }
}

/// Returns group and mode of both files.
fn groups_and_modes() -> [(u32, u32); 2] {
    [status::PATH, exits::PATH].map(|path| {
        let file = fs::metadata(path).expect("stat");
        (file.gid(), file.permissions().mode() & 0o7777)
    })
}

#[test]
fn chmod_and_chgrp_hold_until_the_unload() {
    let module = Module::with_interval(10);
    let before = groups_and_modes();
    narrow();
    status::register(1);
    status::await_update();
    // The inodes are made again at the next lookup.
    fs::write("/proc/sys/vm/drop_caches", "2").expect("dropping caches");
    assert_eq!(groups_and_modes(), [(65534, 0o640); 2]);
    drop(module);
    let _module = Module::without_updates();
    assert_eq!(groups_and_modes(), before);
}

#[test]
fn chmod_and_chgrp_keep_others_out() {
    let _module = Module::without_updates();
    narrow();
    let may = |path, write: bool| {
        OpenOptions::new()
            .read(!write)
            .write(write)
            .open(path)
            .is_ok()
    };
    let as_user = |gid: u32, expected: [bool; 4]| {
        child::in_child(|| {
            nix::unistd::setgroups(&[]).expect("setgroups");
            nix::unistd::setgid(gid.into()).expect("setgid");
            nix::unistd::setuid(65533.into()).expect("setuid");
            let got = [
                may(status::PATH, false),
                may(status::PATH, true),
                may(exits::PATH, false),
                may(exits::PATH, true),
            ];
            assert_eq!(got, expected, "as a user of group {gid}");
        });
    };
    as_user(65533, [false; 4]);
    as_user(65534, [true, false, true, false]);
    fs::set_permissions(status::PATH, fs::Permissions::from_mode(0o620)).expect("chmod");
    as_user(65534, [false, true, true, false]);
}

#[test]
fn nobody_else_narrows_them() {
    let _module = Module::without_updates();
    let before = groups_and_modes();
    child::as_nobody(|| {
        for path in [status::PATH, exits::PATH] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect_err("chmod");
            chown(path, None, Some(65534)).expect_err("chgrp");
        }
    });
    assert_eq!(groups_and_modes(), before);
}

#[test]
fn status_and_exits_are_in_the_directory_and_nothing_else() {
    let _module = Module::without_updates();
    let names: Vec<_> = fs::read_dir(status::DIRECTORY)
        .expect("readdir")
        .map(|entry| entry.expect("readdir").file_name())
        .collect();
    let mut names = names;
    names.sort();
    assert_eq!(names, ["exits", "status"]);
}

#[test]
fn with_nothing_registered_the_file_is_empty() {
    let _module = Module::without_updates();
    assert_eq!(status::text(), "");
}

#[test]
fn a_line_is_pid_colon_space_ms_newline() {
    let _module = Module::with_interval(10);
    let child = Child::burnt(15);
    status::register(child.pid());
    status::await_update();
    child.stop();
    status::await_update();

    let line = status::text().lines().next().map(str::to_owned);
    let ms = support::cputime::clock_ms(child.pid());
    assert_eq!(line, Some(format!("{}: {ms}", child.pid())));
}

#[test]
fn both_numbers_are_plain_decimals() {
    let _module = Module::without_updates();
    let child = Child::start_numbered(30_007, |parent| parent.wait_forever());
    status::register(1);
    status::register(child.pid());
    assert_eq!(status::text(), "1: 0\n30007: 0\n");
}

#[test]
fn lines_are_in_order_of_registration() {
    let _module = Module::with_interval(10);
    let children: Vec<_> = (0..5).map(|_| Child::sleeper()).collect();
    let order = [3, 0, 4, 1, 2].map(|i: usize| children[i].pid());
    for pid in order {
        status::register(pid);
        // Walks in between must not disturb the order.
        status::await_update();
        assert!(status::pids().contains(&pid));
    }
    status::await_update();
    let pids: Vec<_> = status::pids()
        .into_iter()
        .filter(|pid| order.contains(pid))
        .collect();
    assert_eq!(pids, order);
}

#[test]
fn pids_of_one_write_are_in_the_order_of_the_write() {
    let _module = Module::without_updates();
    let children: Vec<_> = (0..4).map(|_| Child::sleeper()).collect();
    let order = [2, 0, 3, 1].map(|i: usize| children[i].pid());
    status::register_all(&order);
    assert_eq!(status::lines(), order.map(|pid| Line { pid, ms: 0 }));
}

#[test]
fn order_stays_when_some_in_between_exit() {
    let _module = Module::with_interval(10);
    let mut children: Vec<_> = (0..7).map(|_| Child::sleeper()).collect();
    let all: Vec<_> = children.iter().map(Child::pid).collect();
    status::register_all(&all);
    for i in [5, 3, 0] {
        status::await_gone(children.remove(i).end());
    }
    status::register(child::getpid());
    let left = [all[1], all[2], all[4], all[6], child::getpid()];
    assert_eq!(status::pids(), left);
}
