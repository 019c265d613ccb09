// SPDX-License-Identifier: GPL-2.0

//! The names of things, and the form of a line.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use support::child::{self, Child};
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

#[test]
fn nothing_else_is_in_the_directory() {
    let _module = Module::without_updates();
    let names: Vec<_> = fs::read_dir(status::DIRECTORY)
        .expect("readdir")
        .map(|entry| entry.expect("readdir").file_name())
        .collect();
    assert_eq!(names, ["status"]);
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
