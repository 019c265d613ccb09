// SPDX-License-Identifier: GPL-2.0

//! What all suites use: the module loaded, the file read and written, and processes that do as told.

pub mod child;
pub mod client;
pub mod cputime;
pub mod crowd;
pub mod kernel_log;
pub mod module;
pub mod status;
pub mod trace;
pub mod wait;
