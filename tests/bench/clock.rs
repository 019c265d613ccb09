// SPDX-License-Identifier: GPL-2.0

#[cfg(target_arch = "aarch64")]
use std::arch::asm;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::_rdtsc;

/// How many instructions the machine has executed: under `-icount shift=0` its time stamp counter
/// counts nothing else, unlike `clock_gettime`, whose scale the kernel has measured for itself.
#[cfg(target_arch = "x86_64")]
pub fn instructions() -> u64 {
    // SAFETY: every x86_64 has the instruction, and Linux lets programs use it.
    unsafe { _rdtsc() }
}

/// The same by the counter of arm64, which emulated processors run at 1 GHz. Not tried.
#[cfg(target_arch = "aarch64")]
pub fn instructions() -> u64 {
    let count;
    // SAFETY: every arm64 has the register, and Linux lets programs read it.
    unsafe { asm!("isb", "mrs {count}, cntvct_el0", count = out(reg) count) };
    count
}
