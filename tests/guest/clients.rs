// SPDX-License-Identifier: GPL-2.0

//! Real clients: shells, Python, C through stdio and the usual tools, used as people use them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

use nix::sys::signal::Signal;

use crate::client::{self, BURN, COURSEWORK, STDIO};
use support::child::{self, Child};
use support::cputime::{self, TICK_MS};
use support::exits::{self, Stream};
use support::module::Module;
use support::status::{self, Line};
use support::wait;

const SHELLS: [&[&str]; 3] = [&["dash"], &["bash"], &["busybox", "sh"]];

/// Runs a script in a shell and returns what it prints.
fn sh(shell: &[&str], script: &str) -> String {
    client::run(
        Command::new(shell[0])
            .args(&shell[1..])
            .args(["-euc", script]),
    )
}

/// Runs a script in each shell, `$PID` being a process of its own each time, and expects that one
/// registered.
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
            command.arg("fprintf").stdout(Stdio::piped());
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

/// A program that follows exits, and prints each line as it comes.
struct Follower {
    process: std::process::Child,
    lines: BufReader<ChildStdout>,
    name: String,
}

impl Follower {
    /// Starts it, and returns once it has opened the file.
    fn start(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let out = process.stdout.take().expect("a pipe");
        wait::until("the program to open exits", || {
            has_open(process.id(), exits::PATH)
        });
        Self {
            process,
            lines: BufReader::new(out),
            name,
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        if self.lines.buffer().is_empty() {
            wait::readable(&self.name, self.lines.get_ref());
        }
        self.lines.read_line(&mut line).expect("reading");
        line
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        self.process.wait().expect("waiting");
    }
}

/// Returns whether a process, or a child of it, has the file open.
fn has_open(pid: u32, path: &str) -> bool {
    let Ok(children) = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")) else {
        return false;
    };
    let open = fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|fds| {
        fds.flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == Path::new(path)))
    });
    open || children
        .split_whitespace()
        .any(|child| has_open(child.parse().expect("a number"), path))
}

/// Lets a program follow two exits, and expects a line for each as soon as it comes.
fn follows(arguments: &[&str]) {
    follows_as(arguments, |pid, ms| format!("{pid}: {ms}\n"));
}

fn follows_as(arguments: &[&str], expected: impl Fn(i32, u64) -> String) {
    let _module = Module::without_updates();
    let mut stream = Stream::open();
    let mut follower = Follower::start(Command::new(arguments[0]).args(&arguments[1..]));
    for _ in 0..3 {
        let child = Child::burnt(5);
        status::register(child.pid());
        child.signal(Signal::SIGKILL);
        child.reap();
        let ms = stream.ms_of(child.pid());
        assert_eq!(follower.line(), expected(child.pid(), ms), "{arguments:?}");
    }
}

#[test]
fn cat_follows_exits() {
    follows(&["cat", exits::PATH]);
    follows(&["busybox", "cat", exits::PATH]);
    follows(&["sh", "-c", "cat <$0", exits::PATH]);
}

#[test]
fn dd_follows_exits() {
    follows(&["dd", "if=/proc/mp1/exits", "bs=1"]);
    follows(&["dd", "if=/proc/mp1/exits", "bs=4096"]);
}

#[test]
fn read_of_the_shells_follows_exits() {
    let script = "exec 3</proc/mp1/exits; while read -r line <&3; do echo \"$line\"; done";
    follows(&["bash", "-c", script]);
    follows(&["dash", "-c", script]);
    follows(&["zsh", "-f", "-c", script]);
    follows(&["busybox", "sh", "-c", script]);
    let script = "while read -r pid ms; do echo \"$pid $ms\"; done </proc/mp1/exits";
    follows(&["bash", "-c", script]);
    follows(&["dash", "-c", script]);
    follows(&["zsh", "-f", "-c", script]);
}

#[test]
fn awk_follows_exits() {
    let script = "{ print $1, $2; fflush() }";
    follows(&["gawk", script, exits::PATH]);
    follows(&["mawk", "-W", "interactive", script, exits::PATH]);
    follows(&["busybox", "awk", script, exits::PATH]);
    follows_as(
        &["gawk", "-F", ": ", "{ print $2; fflush() }", exits::PATH],
        |_, ms| format!("{ms}\n"),
    );
}

#[test]
fn stdbuf_lets_a_filter_follow_exits() {
    follows(&["stdbuf", "-oL", "grep", ":", exits::PATH]);
    follows(&["stdbuf", "-oL", "sed", "-n", "p", exits::PATH]);
    follows_as(
        &["stdbuf", "-oL", "cut", "-d:", "-f1", exits::PATH],
        |pid, _| format!("{pid}\n"),
    );
    follows(&["sh", "-c", "cat /proc/mp1/exits | stdbuf -oL tr a-z a-z"]);
}

#[test]
fn socat_follows_exits() {
    follows(&["socat", "-u", "OPEN:/proc/mp1/exits,rdonly", "STDOUT"]);
    follows(&[
        "socat",
        "-u",
        "-b1",
        "OPEN:/proc/mp1/exits,rdonly",
        "STDOUT",
    ]);
}

#[test]
fn python_follows_exits() {
    for script in [
        "for line in open('/proc/mp1/exits'): print(line, end='', flush=True)",
        "
with open('/proc/mp1/exits', 'rb', buffering=0) as f:
    while True:
        sys.stdout.buffer.write(f.read(100)); sys.stdout.buffer.flush()",
        "
import select
f = open('/proc/mp1/exits', 'rb', buffering=0)
os.set_blocking(f.fileno(), False)
e = select.epoll()
e.register(f, select.EPOLLIN | select.EPOLLET)
while True:
    for fd, events in e.poll():
        assert events == select.EPOLLIN
        while data := f.read(100):
            sys.stdout.buffer.write(data); sys.stdout.buffer.flush()",
        "
import select
fd = os.open('/proc/mp1/exits', os.O_RDONLY)
while True:
    read, write, other = select.select([fd], [], [fd])
    assert read == [fd] and not other
    os.write(1, os.read(fd, 100))",
        "
import selectors
f = open('/proc/mp1/exits', 'rb', buffering=0)
s = selectors.DefaultSelector()
s.register(f, selectors.EVENT_READ)
while s.select():
    os.write(1, f.read(4096))",
    ] {
        let script = format!("import os, sys\n{script}");
        follows(&["python3", "-I", "-S", "-c", &script]);
    }
}

#[test]
fn a_shell_registers_a_job_and_reads_its_final_time() {
    let _module = Module::without_updates();
    let burn = BURN.path();
    for shell in SHELLS.iter().copied().chain([&["zsh", "-f"][..]]) {
        let mut stream = Stream::open();
        let script = format!(
            "exec 3</proc/mp1/exits; {} 30 & echo $! >/proc/mp1/status; echo $!; kill -9 $!; read -r line <&3; echo \"$line\"",
            burn.display()
        );
        let text = client::output(
            Command::new(shell[0])
                .args(&shell[1..])
                .args(["-c", &script]),
        )
        .stdout;
        let text = String::from_utf8(text).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        let [Line { pid, ms }] = stream.lines()[..] else {
            panic!("{shell:?}: not one exit")
        };
        assert_eq!(
            lines,
            [pid.to_string(), format!("{pid}: {ms}")],
            "{shell:?}"
        );
    }
}

#[test]
fn programs_that_follow_exits_end_when_the_module_goes() {
    let module = Module::without_updates();
    let mut followers: Vec<_> = [
        &["cat", exits::PATH][..],
        &["busybox", "cat", exits::PATH],
        &["gawk", "{ print }", exits::PATH],
        &[
            "bash",
            "-c",
            "while read -r line; do echo $line; done </proc/mp1/exits",
        ],
        &[
            "dash",
            "-c",
            "while read -r line; do echo $line; done </proc/mp1/exits",
        ],
        &[
            "zsh",
            "-f",
            "-c",
            "while read -r line; do echo $line; done </proc/mp1/exits",
        ],
        &["socat", "-u", "OPEN:/proc/mp1/exits,rdonly", "STDOUT"],
        &[
            "python3",
            "-I",
            "-S",
            "-c",
            "for line in open('/proc/mp1/exits'): print(line)",
        ],
    ]
    .into_iter()
    .map(|arguments| Follower::start(Command::new(arguments[0]).args(&arguments[1..])))
    .collect();
    drop(module);
    for follower in &mut followers {
        assert_eq!(
            follower.line(),
            "",
            "{}: nothing was to be read",
            follower.name
        );
    }
}
