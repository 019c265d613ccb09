// SPDX-License-Identifier: GPL-2.0

//! Tasks of the lowest priority that share a processor with two busy loops. Each of them is
//! preempted wherever it is, and runs on only long after.

use std::fs;

use support::child::{self, Child};
use support::cputime;

/// How many times slower an idle task runs beside the busy loops, by the weights of the scheduler.
pub const IDLE_SHARE: u32 = 2 * 1024 / 3;

/// Keeps one of two processors for the caller, with priority, and returns the other.
pub fn split_processors() -> usize {
    let cpus = cputime::cpus();
    let [ours, .., theirs] = cpus[..] else {
        panic!("this takes two processors, and there are {cpus:?}")
    };
    cputime::pin(ours);
    set_nice(-10);
    expect_starved_tasks();
    theirs
}

/// Has the kernel not report what the busy loops do to it: a grace period of RCU waits for an idle
/// task that is preempted in a read-side section, of this module or of the kernel, and the unload
/// waits for the calls that are inside.
fn expect_starved_tasks() {
    for (path, value) in [
        (
            "/sys/module/rcupdate/parameters/rcu_cpu_stall_suppress",
            "1",
        ),
        ("/proc/sys/kernel/hung_task_timeout_secs", "0"),
    ] {
        // Not each kernel has them.
        if fs::exists(path).expect("looking for a setting") {
            fs::write(path, value).expect("changing a setting");
        }
    }
}

fn set_nice(value: i32) {
    // SAFETY: The call takes integers only.
    let error = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) };
    assert_eq!(error, 0, "nice");
}

/// Moves the calling process to a processor, with the usual priority.
pub fn move_to(cpu: usize) {
    cputime::pin(cpu);
    set_nice(0);
}

/// From now on, the calling process runs only when its processor is idle.
pub fn become_idle() {
    cputime::set_policy(0, libc::SCHED_IDLE, 0);
}

/// Starts the busy loops, and returns when both run. They end when each has had so many
/// milliseconds of the processor.
pub fn start_busy_loops(cpu: usize, ms: u64) -> [Child; 2] {
    let busy = [(); 2].map(|()| {
        Child::start(|parent| {
            move_to(cpu);
            parent.tell(0);
            child::burn_ms(ms);
            parent.wait_forever()
        })
    });
    busy.iter().for_each(|busy| _ = busy.hear());
    busy
}
