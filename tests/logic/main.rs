// SPDX-License-Identifier: GPL-2.0

//! The module's pure logic, compiled for the host and compared with what the contract says.

#[allow(dead_code, reason = "the module uses all of it")]
#[path = "../../line.rs"]
mod line;
#[allow(dead_code, reason = "the module uses all of it")]
#[path = "../../pid_list.rs"]
mod pid_list;

mod parsing;
mod printing;
