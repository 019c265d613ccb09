// SPDX-License-Identifier: GPL-2.0

//! Compiles the C clients to static programs, which the tests carry inside them.

use std::env;
use std::path::{Path, PathBuf};

const CLIENTS: [&str; 3] = ["burn", "coursework", "stdio"];

fn main() {
    let sources = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"))
        .join("tests/guest/clients");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));

    for client in CLIENTS {
        let source = sources.join(client).with_extension("c");
        println!("cargo::rerun-if-changed={}", source.display());

        let status = cc::Build::new()
            .get_compiler()
            .to_command()
            .args([
                "-std=gnu17",
                "-O1",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-static",
                "-o",
            ])
            .arg(out.join(client))
            .arg(&source)
            .status()
            .expect("the C compiler starts");
        assert!(status.success(), "{} does not compile", source.display());
    }
}
