// SPDX-License-Identifier: GPL-2.0

//! What the kernel itself tells of the module's timer and work: its tracepoints, and its list of
//! armed timers.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind};
use std::mem;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const TRACEFS: &str = "/sys/kernel/tracing";
const EVENTS: [&str; 4] = [
    "timer/hrtimer_expire_entry",
    "workqueue/workqueue_queue_work",
    "workqueue/workqueue_execute_start",
    "workqueue/workqueue_execute_end",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The timer's callback begins.
    TimerFired,
    /// A work item was put on the queue of this name.
    Queued(String),
    WorkBegan,
    WorkEnded,
}

/// Something that the module did.
#[derive(Clone, Debug)]
pub struct Event {
    /// Microseconds since the boot.
    pub at: u64,
    pub what: What,
}

/// Records what the module does; stops when it goes out of scope.
pub struct Trace {
    instance: PathBuf,
    pipe: BufReader<File>,
    /// The beginning of a line whose end has not been read yet.
    begun: String,
    events: Vec<Event>,
}

impl Trace {
    pub fn start() -> Self {
        let instance = Path::new(TRACEFS).join("instances/mp1");
        fs::create_dir(&instance).expect("an instance of tracefs");
        let set = |file: String, value| {
            fs::write(instance.join(&file), value).unwrap_or_else(|e| panic!("{file}: {e}"))
        };
        set("trace_clock".to_owned(), "mono");
        for event in EVENTS {
            set(format!("events/{event}/enable"), "1");
        }
        let pipe = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(instance.join("trace_pipe"))
            .expect("trace_pipe");
        Self {
            instance,
            pipe: BufReader::new(pipe),
            begun: String::new(),
            events: Vec::new(),
        }
    }

    /// Returns what the module has done since the start. While it is loaded: its functions have no
    /// names afterwards.
    pub fn events(&mut self) -> &[Event] {
        loop {
            match self.pipe.read_line(&mut self.begun) {
                Ok(0) => return &self.events,
                Ok(_) => {
                    let line = mem::take(&mut self.begun);
                    if line.contains("[mp1]") {
                        self.events.push(parse(&line));
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return &self.events,
                Err(e) => panic!("trace_pipe: {e}"),
            }
        }
    }

    /// Returns the moments at which this happened.
    pub fn times_of(&mut self, what: &What) -> Vec<u64> {
        self.events()
            .iter()
            .filter(|event| event.what == *what)
            .map(|event| event.at)
            .collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // An instance whose pipe is open cannot be removed; a directory as good as any other takes
        // its place.
        self.pipe = BufReader::new(File::open(TRACEFS).expect("tracefs"));
        fs::remove_dir(&self.instance).expect("removing the instance of tracefs");
    }
}

/// Parses ` <idle>-0 [001] d.h1. 12.345678: hrtimer_expire_entry: hrtimer=... function=...`.
fn parse(line: &str) -> Event {
    let mut words = line.split_whitespace().skip_while(|word| !is_time(word));
    let time = words
        .next()
        .unwrap_or_else(|| panic!("no time in {line:?}"));
    let name = words
        .next()
        .unwrap_or_else(|| panic!("no event in {line:?}"));
    let at = time
        .trim_end_matches(':')
        .replace('.', "")
        .parse()
        .expect("microseconds");
    let what = match name {
        "hrtimer_expire_entry:" => What::TimerFired,
        "workqueue_queue_work:" => {
            let queue = words
                .find_map(|word| word.strip_prefix("workqueue="))
                .expect("the name of the queue");
            What::Queued(queue.to_owned())
        }
        "workqueue_execute_start:" => What::WorkBegan,
        "workqueue_execute_end:" => What::WorkEnded,
        _ => panic!("an event that nobody asked for: {line:?}"),
    };
    Event { at, what }
}

fn is_time(word: &str) -> bool {
    word.strip_suffix(':')
        .and_then(|word| word.split_once('.'))
        .is_some_and(|(s, us)| {
            (s.to_owned() + us).bytes().all(|b| b.is_ascii_digit()) && us.len() == 6
        })
}

/// Returns how many timers of the module are armed.
pub fn armed_timers() -> usize {
    timer_list()
        .lines()
        .filter(|line| line.contains("[mp1]"))
        .count()
}

/// Returns how many timers are armed whose callback is no function of the kernel, or of a module
/// that is loaded.
pub fn orphaned_timers() -> usize {
    // A line reads ` #0: <address of the timer>, callback, S:01`, with a number for a callback that
    // has no name.
    timer_list()
        .lines()
        .filter(|line| line.starts_with(" #") && line.contains(">, 0x"))
        .count()
}

fn timer_list() -> String {
    let list = fs::read("/proc/timer_list").expect("/proc/timer_list");
    String::from_utf8_lossy(&list).into_owned()
}
