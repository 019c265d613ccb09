// SPDX-License-Identifier: GPL-2.0

//! The contract, line by line, against the loaded module. Runs as root inside a virtual machine.

mod client;
mod clients;
mod exercises;
mod exits;
mod format;
mod identity;
mod memory;
mod namespaces;
mod poll;
mod read;
mod time;
mod timing;
mod unload;
mod write;
