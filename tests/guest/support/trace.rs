// SPDX-License-Identifier: GPL-2.0

//! What the kernel itself tells of the module's timer and work: its tracepoints, and its list of armed timers.

use std::fs;
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
}

impl Trace {
    pub fn start() -> Self {
        let trace = Self { instance: Path::new(TRACEFS).join("instances/mp1") };
        fs::create_dir(&trace.instance).expect("an instance of tracefs");
        trace.set("trace_clock", "mono");
        for event in EVENTS {
            trace.set(&format!("events/{event}/enable"), "1");
        }
        trace
    }

    fn set(&self, file: &str, value: &str) {
        fs::write(self.instance.join(file), value).unwrap_or_else(|e| panic!("{file}: {e}"));
    }

    /// Returns what the module did since the start, while the module is loaded: its functions have no names afterwards.
    pub fn events(&self) -> Vec<Event> {
        let text = fs::read_to_string(self.instance.join("trace")).expect("the trace");
        text.lines().filter(|line| line.contains("[mp1]")).map(parse).collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        fs::remove_dir(&self.instance).expect("removing the instance of tracefs");
    }
}

/// Parses ` <idle>-0 [001] d.h1. 12.345678: hrtimer_expire_entry: hrtimer=... function=...`.
fn parse(line: &str) -> Event {
    let mut words = line.split_whitespace().skip_while(|word| !is_time(word));
    let time = words.next().unwrap_or_else(|| panic!("no time in {line:?}"));
    let name = words.next().unwrap_or_else(|| panic!("no event in {line:?}"));
    let at = time.trim_end_matches(':').replace('.', "").parse().expect("microseconds");
    let what = match name {
        "hrtimer_expire_entry:" => What::TimerFired,
        "workqueue_queue_work:" => {
            let queue = words.find_map(|word| word.strip_prefix("workqueue=")).expect("the name of the queue");
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
        .is_some_and(|(s, us)| (s.to_owned() + us).bytes().all(|b| b.is_ascii_digit()) && us.len() == 6)
}

/// Returns how many timers of the module are armed.
pub fn armed_timers() -> usize {
    let list = fs::read("/proc/timer_list").expect("/proc/timer_list");
    String::from_utf8_lossy(&list).lines().filter(|line| line.contains("[mp1]")).count()
}
