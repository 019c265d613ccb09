// SPDX-License-Identifier: GPL-2.0

use std::arch::x86_64::_rdtsc;

/// How many instructions the machine has executed: under `-icount shift=0` its time stamp counter
/// counts nothing else, unlike `clock_gettime`, whose scale the kernel has measured for itself.
pub fn instructions() -> u64 {
    // SAFETY: every x86_64 has the instruction, and Linux lets programs use it.
    unsafe { _rdtsc() }
}
