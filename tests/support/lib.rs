// SPDX-License-Identifier: GPL-2.0

//! What the guest tests, the attacks and the bench share: the module loaded, its files read and
//! written, processes that do as they are told, and what the kernel says of it all.

pub mod aio;
pub mod cgroup;
pub mod child;
pub mod contract;
pub mod cputime;
pub mod crowd;
pub mod exits;
pub mod kernel_log;
pub mod leaks;
pub mod module;
pub mod shared;
pub mod status;
pub mod trace;
pub mod wait;
pub mod waiter;

/// The size of the largest pages that a tested kernel has: those of others divide it.
pub const PAGE: usize = 16 << 10;
