// SPDX-License-Identifier: GPL-2.0

//! The kernel's own tracer, for what happens at no call of ours: timers, work, and locking.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::Result;

const TRACING: &str = "/sys/kernel/tracing";
const WORK: [&str; 2] = [
    "workqueue/workqueue_execute_start",
    "workqueue/workqueue_execute_end",
];
const TIMERS: [&str; 2] = ["timer/timer_expire_entry", "timer/hrtimer_expire_entry"];

pub struct Event {
    /// In instructions, or microseconds; see [`record`].
    time: u64,
    pub name: String,
}

/// The timer and work functions of `module` that run within `time`.
pub fn watch(time: Duration, module: &str) -> Result<Vec<Event>> {
    record_events(&[WORK, TIMERS].concat(), time, module)
}

/// The instructions of each update of `module` within `time`; on User Mode Linux, microseconds.
pub fn updates(time: Duration, module: &str) -> Result<Vec<u64>> {
    Ok(spans(
        &record_events(&WORK, time, module)?,
        "workqueue_execute_start",
    ))
}

fn record_events(events: &[&str], time: Duration, module: &str) -> Result<Vec<Event>> {
    enable(events, "1")?;
    record(|| {
        // Not awaited with a blocking read of the trace: its wake-up would fall into an update.
        sleep(time);
        Ok(())
    })?;
    enable(events, "0")?;
    // A line ends with "function NAME [MODULE]".
    let owner = format!("[{module}]");
    recorded(|line| line.contains(&owner))
}

/// The instructions from a spin lock's taking to its giving back, by `module` during `action`: the
/// longest. Those of the tracer itself are in it.
pub fn longest_hold(module: &str, action: impl FnOnce() -> Result) -> Result<u64> {
    set("set_ftrace_filter", "_raw_spin_*")?;
    set("options/sym-addr", "1")?;
    set("current_tracer", "function")?;
    record(action)?;
    // A line ends with "FUNCTION <ADDRESS> <-CALLER <ADDRESS>".
    let text = text_of(module)?;
    let calls = recorded(|line| caller(line).is_some_and(|address| text.contains(&address)))?;
    set("current_tracer", "nop")?;
    set("set_ftrace_filter", "")?;
    let longest = spans(&calls, "_raw_spin_lock").into_iter().max();
    Ok(longest.ok_or("no spin lock was taken")?)
}

fn caller(line: &str) -> Option<u64> {
    let (_, address) = line.strip_suffix('>')?.rsplit_once('<')?;
    u64::from_str_radix(address, 16).ok()
}

/// Where `module` was loaded to.
fn text_of(module: &str) -> Result<Range<u64>> {
    let modules = fs::read_to_string("/proc/modules")?;
    let mut lines = modules
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let fields = lines
        .find(|fields| fields[0] == module)
        .ok_or("the module is not loaded")?;
    let start = u64::from_str_radix(fields[5].trim_start_matches("0x"), 16)?;
    Ok(start..start + fields[1].parse::<u64>()?)
}

/// The time from each event whose name begins with `start` to the one after it.
fn spans(events: &[Event], start: &str) -> Vec<u64> {
    let pairs = events
        .windows(2)
        .filter(|pair| pair[0].name.starts_with(start));
    pairs.map(|pair| pair[1].time - pair[0].time).collect()
}

/// Lets the tracer run during `action`.
fn record(action: impl FnOnce() -> Result) -> Result {
    // User Mode Linux has no such clock, and that of its scheduler counts jiffies.
    set("trace_clock", "x86-tsc").or_else(|_| set("trace_clock", "mono"))?;
    set("trace", "")?;
    set("tracing_on", "1")?;
    action()?;
    set("tracing_on", "0")
}

/// What the tracer has seen, in `relevant` lines: "TASK-PID [CPU] FLAGS TIME: NAME ...", where TIME has
/// a point and six digits if it is in seconds.
fn recorded(relevant: impl Fn(&str) -> bool) -> Result<Vec<Event>> {
    let text = fs::read_to_string(Path::new(TRACING).join("trace"))?;
    text.lines()
        .filter(|line| relevant(line))
        .map(parse)
        .collect()
}

fn parse(line: &str) -> Result<Event> {
    let (start, name) = line.split_once(": ").ok_or("a trace line without a name")?;
    let time = start
        .split_whitespace()
        .last()
        .ok_or("a trace line without a time")?;
    Ok(Event {
        time: time.replace('.', "").parse()?,
        name: name.to_owned(),
    })
}

fn enable(events: &[&str], value: &str) -> Result {
    for event in events {
        set(&format!("events/{event}/enable"), value)?;
    }
    Ok(())
}

fn set(file: &str, value: &str) -> Result {
    let path = Path::new(TRACING).join(file);
    fs::write(&path, value).map_err(|error| format!("{}: {error}", path.display()).into())
}
