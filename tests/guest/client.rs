// SPDX-License-Identifier: GPL-2.0

//! Programs as users write them: run to their end, with what they print.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The C clients that were compiled together with the tests.
pub const BURN: Client = Client("burn", include_bytes!(concat!(env!("OUT_DIR"), "/burn")));
pub const COURSEWORK: Client = Client(
    "coursework",
    include_bytes!(concat!(env!("OUT_DIR"), "/coursework")),
);
pub const STDIO: Client = Client("stdio", include_bytes!(concat!(env!("OUT_DIR"), "/stdio")));

/// A program that this test binary carries inside it.
pub struct Client(&'static str, &'static [u8]);

impl Client {
    /// Returns the path of the program, which is written to the guest's disk at first use.
    pub fn path(&self) -> PathBuf {
        let path = Path::new("/tmp").join(self.0);
        if !path.exists() {
            let unfinished = path.with_extension("new");
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o755)
                .open(&unfinished)
                .expect("creating a client");
            file.write_all(self.1).expect("writing a client");
            drop(file);
            fs::rename(&unfinished, &path).expect("naming a client");
        }
        path
    }

    pub fn run(&self, arguments: &[&str]) -> String {
        run(Command::new(self.path()).args(arguments))
    }
}

/// Runs a program that must succeed and complain of nothing, and returns what it prints.
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}: {complaint}",
        output.status
    );
    assert!(complaint.is_empty(), "{command:?}: {complaint}");
    String::from_utf8(output.stdout).expect("text")
}

pub fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"))
}
