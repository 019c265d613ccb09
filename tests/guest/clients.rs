// SPDX-License-Identifier: GPL-2.0

//! Real clients: shells, Python, C through stdio and the usual tools, used as people use them.

use std::process::Command;

use crate::client::{self, COURSEWORK, STDIO};
use support::child::{self, Child};
use support::cputime::{self, TICK_MS};
use support::module::Module;
use support::status;

const SHELLS: [&[&str]; 3] = [&["dash"], &["bash"], &["busybox", "sh"]];

/// Runs a script in a shell and returns what it prints.
fn sh(shell: &[&str], script: &str) -> String {
    client::run(
        Command::new(shell[0])
            .args(&shell[1..])
            .args(["-euc", script]),
    )
}

/// Runs a script in each shell, `$PID` being a process of its own each time, and expects that one registered.
fn each_shell_registers(script: &str) {
    let _module = Module::without_updates();
    for shell in SHELLS {
        let child = Child::sleeper();
        sh(shell, &format!("PID={}; {script}", child.pid()));
        assert_eq!(
            status::pids().last(),
            Some(&child.pid()),
            "{shell:?}: {script}"
        );
    }
}

#[test]
fn shells_register_by_echo() {
    each_shell_registers("echo $PID > /proc/mp1/status");
}

#[test]
fn shells_register_by_echo_without_a_newline() {
    each_shell_registers("echo -n $PID > /proc/mp1/status");
}

#[test]
fn shells_register_by_printf() {
    each_shell_registers("printf %d $PID > /proc/mp1/status");
}

#[test]
fn shells_register_by_appending() {
    each_shell_registers("echo $PID >> /proc/mp1/status");
}

#[test]
fn shells_register_by_opening_for_both() {
    each_shell_registers("exec 3<> /proc/mp1/status; echo $PID >&3; exec 3>&-");
}

#[test]
fn shells_register_through_a_pipe() {
    each_shell_registers("echo $PID | tee /proc/mp1/status > /dev/null");
    each_shell_registers("echo $PID | cat > /proc/mp1/status");
    each_shell_registers("echo $PID | dd of=/proc/mp1/status 2> /dev/null");
}

#[test]
fn shells_register_themselves_and_read_the_file() {
    let _module = Module::without_updates();
    for shell in SHELLS {
        let text = sh(
            shell,
            "echo $$ > /proc/mp1/status; echo $$; cat /proc/mp1/status",
        );
        let (own, lines) = text.split_once('\n').expect("the shell's own PID");
        let own: i32 = own.parse().expect("a PID");
        assert_eq!(
            status::parse(lines).last().map(|line| line.pid),
            Some(own),
            "{shell:?}"
        );
    }
}

#[test]
fn shells_read_line_by_line() {
    let _module = Module::without_updates();
    status::register_all(&[1, 2, child::getpid()]);
    for shell in SHELLS {
        let script = "while read -r pid ms; do echo \"$pid $ms\"; done < /proc/mp1/status";
        assert_eq!(sh(shell, script), status::text(), "{shell:?}");
    }
}

#[test]
fn shells_are_told_of_a_refused_write() {
    let _module = Module::without_updates();
    for shell in SHELLS {
        for text in ["abc", "2147483647", "2147483648"] {
            let script = format!("echo {text} > /proc/mp1/status");
            let output = client::output(
                Command::new(shell[0])
                    .args(&shell[1..])
                    .args(["-c", &script]),
            );
            assert!(
                !output.status.success() && !output.stderr.is_empty(),
                "{shell:?}: {script}"
            );
        }
    }
    assert_eq!(status::text(), "");
}

#[test]
fn pgrep_registers_all_of_a_name() {
    let _module = Module::without_updates();
    let mut sleepers: Vec<_> = (0..3)
        .map(|_| {
            Command::new("busybox")
                .args(["sleep", "1000"])
                .spawn()
                .expect("sleep")
        })
        .collect();
    let mut expected: Vec<_> = sleepers.iter().map(|sleeper| sleeper.id() as i32).collect();
    expected.sort_unstable();
    sh(
        SHELLS[0],
        "pgrep -f '^busybox sleep 1000$' > /proc/mp1/status",
    );
    assert_eq!(status::pids(), expected);

    sh(
        SHELLS[0],
        "pgrep -d ' ' -f '^busybox sleep 1000$' > /proc/mp1/status",
    );
    assert_eq!(status::pids(), expected, "the same in one line");
    for sleeper in &mut sleepers {
        sleeper
            .kill()
            .and_then(|()| sleeper.wait())
            .expect("ending a sleeper");
    }
}

#[test]
fn the_usual_tools_read_the_file() {
    let _module = Module::without_updates();
    status::register_all(&[1, 2, child::getpid()]);
    let own = child::getpid();
    let all = status::text();
    for (script, expected) in [
        ("cat", all.clone()),
        ("busybox cat", all.clone()),
        ("tac", format!("{own}: 0\n2: 0\n1: 0\n")),
        ("head -n 1", "1: 0\n".to_owned()),
        ("tail -n 1", format!("{own}: 0\n")),
        ("tail -n +2", format!("2: 0\n{own}: 0\n")),
        ("tail -c 3", " 0\n".to_owned()),
        ("grep ^2:", "2: 0\n".to_owned()),
        ("sort -r -n", format!("{own}: 0\n2: 0\n1: 0\n")),
        ("busybox awk '{ print $2 }'", "0\n0\n0\n".to_owned()),
        ("sed -n 2p", "2: 0\n".to_owned()),
    ] {
        assert_eq!(
            sh(SHELLS[0], &format!("{script} /proc/mp1/status")),
            expected,
            "{script}"
        );
    }
    for (script, expected) in [
        ("dd bs=1 2> /dev/null", all.as_str()),
        ("dd bs=8M 2> /dev/null", &all),
        ("dd bs=5 skip=1 2> /dev/null", &all[5..]),
        ("wc -l", "3\n"),
        ("wc -c", &format!("{}\n", all.len())),
    ] {
        assert_eq!(
            sh(SHELLS[0], &format!("{script} < /proc/mp1/status")),
            expected,
            "{script}"
        );
    }
    let copy = sh(
        SHELLS[0],
        "cp /proc/mp1/status /tmp/copy; cat /tmp/copy; rm /tmp/copy",
    );
    assert_eq!(copy, all);
}

#[test]
fn ps_shows_the_same_time() {
    let _module = Module::with_interval(10);
    let child = Child::burnt(1200);
    status::register(child.pid());
    child.stop();
    status::await_update();
    let pid = child.pid();
    let seconds = sh(SHELLS[0], &format!("ps -o cputimes= -p {pid}"));
    let shown = status::ms_of(pid);
    let seconds: u64 = seconds.trim().parse().expect("seconds");
    // It is made of the clock ticks of user and system time, both of which are rounded down.
    assert!(
        (seconds * 1000..(seconds + 1) * 1000 + 2 * TICK_MS).contains(&shown),
        "{shown} ms, ps: {seconds} s"
    );
    assert_eq!(shown, cputime::clock_ms(pid));
}

/// Registers a process through `fopen` in a mode, by the C library that Debian has.
fn stdio_registers(mode: &str) {
    let _module = Module::without_updates();
    status::register(1);
    let child = Child::sleeper();
    let read = STDIO.run(&[mode, &child.pid().to_string()]);
    let text = format!("1: 0\n{}: 0\n", child.pid());
    assert_eq!(status::text(), text);
    assert_eq!(
        read,
        if mode.contains('+') { &text } else { "" },
        "what the client has read"
    );
}

#[test]
fn stdio_mode_w_registers() {
    stdio_registers("w");
}

#[test]
fn stdio_mode_a_registers() {
    stdio_registers("a");
}

#[test]
fn stdio_mode_r_plus_registers_and_reads() {
    stdio_registers("r+");
}

#[test]
fn stdio_mode_w_plus_registers_and_reads() {
    stdio_registers("w+");
}

#[test]
fn stdio_mode_a_plus_registers_and_reads() {
    stdio_registers("a+");
}

/// Runs a program that registers itself, uses the CPU, and prints the file with its own line.
fn coursework(way: &str) {
    let _module = Module::with_interval(50);
    let text = COURSEWORK.run(&[way]);
    let (own, lines) = text.split_once('\n').expect("the program's own PID");
    let own: i32 = own
        .strip_prefix("pid ")
        .expect("pid")
        .parse()
        .expect("a PID");
    let lines = status::parse(lines);
    assert!(
        matches!(lines[..], [line] if line.pid == own && line.ms > 0),
        "{lines:?}"
    );
    status::await_gone(own);
}

#[test]
fn coursework_that_registers_by_fprintf() {
    coursework("fprintf");
}

#[test]
fn coursework_that_registers_by_write_with_the_nul() {
    coursework("write");
}

#[test]
fn coursework_that_registers_by_a_shell() {
    coursework("shell");
}

#[test]
fn many_programs_at_once() {
    let _module = Module::with_interval(20);
    let programs: Vec<_> = (0..4)
        .map(|_| {
            let mut command = Command::new(COURSEWORK.path());
            command.arg("fprintf").stdout(std::process::Stdio::piped());
            command.spawn().expect("coursework")
        })
        .collect();
    for program in programs {
        let own = program.id() as i32;
        let output = program.wait_with_output().expect("coursework");
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).expect("text");
        let (_, lines) = text.split_once('\n').expect("its own PID");
        assert!(
            status::parse(lines)
                .iter()
                .any(|line| line.pid == own && line.ms > 0)
        );
    }
}

/// Runs a Python script, which has `pid` and `path`, and returns what it prints.
fn python(pid: i32, script: &str) -> String {
    let script = format!("import os, sys\npid = {pid}\npath = '/proc/mp1/status'\n{script}");
    client::run(Command::new("python3").args(["-I", "-S", "-c", &script]))
}

#[test]
fn python_registers_as_people_write_it() {
    let _module = Module::without_updates();
    for script in [
        "with open(path, 'w') as f: f.write(str(pid))",
        "with open(path, 'w') as f: print(pid, file=f)",
        "with open(path, 'a') as f: f.write(f'{pid}\\n')",
        "with open(path, 'wb', buffering=0) as f: assert f.write(b'%d\\n' % pid) > 0",
        "fd = os.open(path, os.O_WRONLY); os.write(fd, str(pid).encode()); os.close(fd)",
    ] {
        let child = Child::sleeper();
        python(child.pid(), script);
        assert_eq!(status::pids().last(), Some(&child.pid()), "{script}");
    }
}

#[test]
fn python_reads_the_file() {
    let _module = Module::without_updates();
    status::register_all(&[1, 2, child::getpid()]);
    let text = status::text();
    for script in [
        "print(open(path).read(), end='')",
        "for line in open(path): print(line, end='')",
        "print(''.join(open(path).readlines()), end='')",
        "for line in open(path): pid, ms = line.split(': '); print(f'{int(pid)}: {int(ms)}')",
        "f = open(path, 'rb', buffering=0)\nwhile b := f.read(1): sys.stdout.write(b.decode())",
        "fd = os.open(path, os.O_RDONLY); sys.stdout.write(os.pread(fd, 4096, 0).decode())",
    ] {
        assert_eq!(python(1, script), text, "{script}");
    }
}

#[test]
fn python_registers_and_reads_through_one_file() {
    let _module = Module::without_updates();
    let child = Child::sleeper();
    for mode in ["r+", "w+", "a+"] {
        let script = format!(
            "with open(path, '{mode}') as f:\n f.write(str(pid)); f.flush(); f.seek(0); print(f.read(), end='')"
        );
        assert_eq!(
            python(child.pid(), &script),
            format!("{}: 0\n", child.pid()),
            "{mode}"
        );
    }
}

#[test]
fn python_is_told_of_a_refused_write() {
    let _module = Module::without_updates();
    let script = "
for text, errno in ('abc', 22), (str(2**31 - 1), 3), (str(2**31), 34):
    try:
        with open(path, 'w') as f: f.write(text)
    except OSError as e:
        print(e.errno == errno)";
    assert_eq!(python(1, script), "True\nTrue\nTrue\n");
}
