// SPDX-License-Identifier: GPL-2.0

//! The kernel's own tracer, for what happens at no call of ours: timers, work, and locking.

use std::collections::HashMap;
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
const LOCK_FUNCTIONS: &str = "_raw_spin_*";
const TIMERS: [&str; 2] = ["timer/timer_expire_entry", "timer/hrtimer_expire_entry"];

pub struct Event {
    /// In instructions, or microseconds; see [`record`].
    time: u64,
    pub name: String,
}

const ALLOCATIONS: [&str; 4] = [
    "kmem/kmalloc",
    "kmem/kmem_cache_alloc",
    "kmem/kfree",
    "kmem/kmem_cache_free",
];

/// What counts as the time of an interrupt: what comes between, in a span, is not the span's.
const INTERRUPTS: [&str; 4] = [
    "irq_vectors/local_timer_entry",
    "irq_vectors/local_timer_exit",
    "irq/softirq_entry",
    "irq/softirq_exit",
];

/// What the processor does before and after these, at most; so a short hold with an interrupt in it
/// does not count.
const AROUND_AN_INTERRUPT: u64 = 3000;

/// The largest pages of the tracer's buffer, so that it rarely turns one.
const LARGEST_PAGE_KB: &str = "512";

/// The timer and work functions of `module` that run within `time`.
pub fn watch(time: Duration, module: &str) -> Result<Vec<Event>> {
    record_events(&[WORK, TIMERS].concat(), module, || {
        // Not awaited with a blocking read of the trace: its wake-up would fall into an update.
        sleep(time);
        Ok(())
    })
}

/// The instructions of each update of `module` within `time`; on User Mode Linux, microseconds.
pub fn updates(time: Duration, module: &str) -> Result<Vec<u64>> {
    let runs = work(module, || {
        sleep(time);
        Ok(())
    })?;
    Ok(runs.iter().map(|run| run.end - run.start).collect())
}

/// When work functions of `module` ran during `action`.
pub fn work(module: &str, action: impl FnOnce() -> Result) -> Result<Vec<Range<u64>>> {
    let events = record_events(&WORK, module, action)?;
    let pairs = events
        .windows(2)
        .filter(|pair| pair[0].name.starts_with("workqueue_execute_start"));
    Ok(pairs.map(|pair| pair[0].time..pair[1].time).collect())
}

fn record_events(
    events: &[&str],
    module: &str,
    action: impl FnOnce() -> Result,
) -> Result<Vec<Event>> {
    enable(events, "1")?;
    record(action)?;
    enable(events, "0")?;
    // A line ends with "function NAME [MODULE]".
    let owner = format!("[{module}]");
    recorded(|line| line.contains(&owner))
}

/// The instructions from a spin lock's taking to its giving back, by `module` during `action`: the
/// longest, or 0 if it took none.
///
/// Those of interrupts are not in it. Those of the tracer are, once, for the taking; but not those
/// for locks that the kernel took meanwhile. If the tracer turns to its next buffer page during a
/// hold, that is in it, too.
pub fn longest_hold(module: &str, action: impl FnOnce() -> Result) -> Result<u64> {
    set("buffer_size_kb", "65536")?;
    set("buffer_subbuf_size_kb", LARGEST_PAGE_KB)?;
    set("set_ftrace_filter", LOCK_FUNCTIONS)?;
    set("options/sym-addr", "1")?;
    set("current_tracer", "function")?;
    enable(&INTERRUPTS, "1")?;
    record(action)?;
    enable(&INTERRUPTS, "0")?;
    expect_all_recorded()?;
    // A line ends with "FUNCTION <ADDRESS> <-CALLER <ADDRESS>".
    let text = text_of(module)?;
    let events = recorded(|line| {
        caller(line).is_some() || INTERRUPTS.iter().any(|event| names(line, event))
    })?;
    set("current_tracer", "nop")?;
    set("set_ftrace_filter", "")?;
    set("buffer_subbuf_size_kb", "4")?;
    set("buffer_size_kb", "2048")?;

    // In the shortest of all holds, next to nothing happens but that the taking is traced.
    let pairs = events.windows(2).filter(|pair| {
        pair[0].name.starts_with("_raw_spin_lock") && pair[1].name.starts_with("_raw_spin_unlock")
    });
    let traced = pairs.map(|pair| pair[1].time - pair[0].time).min();
    let traced = traced.unwrap_or_default();

    let (mut longest, mut held, mut interrupted_at) = (0, Vec::<Hold>::new(), None);
    let not_theirs = |held: &mut Vec<Hold>, time| {
        held.iter_mut().for_each(|hold| hold.others += time);
    };
    for event in &events {
        let name = event.name.as_str();
        let function = name.split(' ').next().unwrap_or_default();
        match caller(name) {
            Some(_) if interrupted_at.is_some() => {}
            Some(address) if text.contains(&address) => {
                if let Some(kind) = function.strip_prefix("_raw_spin_lock") {
                    held.push(Hold {
                        kind: kind.replace("irqsave", "irqrestore"),
                        start: event.time,
                        others: 0,
                    });
                } else if let Some(kind) = function.strip_prefix("_raw_spin_unlock") {
                    match held.pop() {
                        Some(last) if last.kind == kind => {
                            let hold = event.time.saturating_sub(last.start + last.others);
                            longest = longest.max(hold);
                        }
                        // It was taken before the recording, or by a function of the kernel.
                        other => held.extend(other),
                    }
                }
            }
            // The tracer reports a lock before it is taken. Its taker was preempted: it does not
            // hold it yet.
            Some(_) if name.contains("<-__schedule ") => held.clear(),
            Some(_) => not_theirs(&mut held, traced),
            None if name.contains("_entry") => interrupted_at = Some(event.time),
            None => {
                if let Some(start) = interrupted_at.take() {
                    not_theirs(&mut held, event.time - start + AROUND_AN_INTERRUPT);
                }
            }
        }
    }
    Ok(longest)
}

/// A spin lock that is held.
struct Hold {
    /// What the name of the function ends with that gives it back.
    kind: String,
    start: u64,
    /// What does not count.
    others: u64,
}

/// Whether `line` is of the event at this path.
fn names(line: &str, event: &str) -> bool {
    event
        .rsplit('/')
        .next()
        .is_some_and(|name| line.contains(&format!(": {name}: ")))
}

/// The bytes of the slab allocator's objects that were allocated during `action` and not freed
/// again.
pub fn kept(action: impl FnOnce() -> Result) -> Result<i64> {
    set("buffer_size_kb", "32768")?;
    // Hashed, all are the same as long as the kernel has no random numbers.
    set("options/hash-ptr", "0")?;
    enable(&ALLOCATIONS, "1")?;
    record(action)?;
    enable(&ALLOCATIONS, "0")?;
    expect_all_recorded()?;
    let field = |line: &str, name| {
        let mut fields = line.split_whitespace();
        fields.find_map(|field| field.strip_prefix(name).map(str::to_owned))
    };
    let mut kept = HashMap::new();
    for line in fs::read_to_string(Path::new(TRACING).join("trace"))?.lines() {
        let Some(pointer) = field(line, "ptr=") else {
            continue;
        };
        match field(line, "bytes_alloc=") {
            Some(bytes) => kept.insert(pointer, bytes.parse::<i64>()?),
            None => kept.remove(&pointer),
        };
    }
    set("buffer_size_kb", "2048")?;
    Ok(kept.values().sum())
}

fn expect_all_recorded() -> Result {
    let statistics = fs::read_to_string(Path::new(TRACING).join("per_cpu/cpu0/stats"))?;
    if !statistics.lines().any(|line| line == "overrun: 0") {
        return Err("the trace did not fit into its buffer".into());
    }
    Ok(())
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

/// Lets the tracer run during `action`.
fn record(action: impl FnOnce() -> Result) -> Result {
    // User Mode Linux has no such clock, and that of its scheduler counts jiffies.
    set("trace_clock", "x86-tsc").or_else(|_| set("trace_clock", "mono"))?;
    set("trace", "")?;
    set("tracing_on", "1")?;
    action()?;
    set("tracing_on", "0")
}

/// What the tracer has seen, in `relevant` lines: "TASK-PID [CPU] FLAGS TIME: NAME ...", where TIME
/// has a point and six digits if it is in seconds.
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
