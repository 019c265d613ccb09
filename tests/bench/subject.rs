// SPDX-License-Identifier: GPL-2.0

//! The modules that are compared.

use std::ffi::CString;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use nix::kmod::DeleteModuleFlags;
use nix::kmod::ModuleInitFlags;
use nix::kmod::delete_module;
use nix::kmod::finit_module;

use crate::Result;
use crate::processes::in_few_writes;
use crate::write_one;

pub struct Subject {
    /// What the figures call it.
    pub name: &'static str,
    pub module: &'static str,
    pub status: &'static str,
    object: &'static str,
}

pub const SUBJECTS: [Subject; 3] = [
    Subject {
        name: "mp1",
        module: "mp1",
        status: "/proc/mp1/status",
        object: "mp1.ko",
    },
    Subject {
        name: "twin",
        module: "mp1_twin",
        status: "/proc/mp1_twin/status",
        object: "mp1_twin.ko",
    },
    Subject {
        name: "twin-clang",
        module: "mp1_twin",
        status: "/proc/mp1_twin/status",
        object: "mp1_twin_clang.ko",
    },
];

/// mp1 as it was at another commit; see [`Subject::is_there`].
pub const BEFORE: Subject = Subject {
    name: "before",
    module: "mp1",
    status: "/proc/mp1/status",
    object: "mp1_before.ko",
};

/// A module that does nothing.
pub const EMPTY: Subject = Subject {
    name: "empty",
    module: "mp1_empty",
    status: "/dev/null",
    object: "mp1_empty.ko",
};

/// A module that is loaded for as long as this lives.
pub struct Loaded(&'static str);

impl Subject {
    /// Whether it is to be measured.
    pub fn is_there(&self) -> bool {
        Path::new(self.object).exists()
    }

    pub fn load(&self, interval: Duration) -> Result<Loaded> {
        let file = File::open(self.object).map_err(|error| format!("{}: {error}", self.object))?;
        let parameters = CString::new(format!("interval_ms={}", interval.as_millis()))?;
        finit_module(&file, &parameters, ModuleInitFlags::empty())
            .map_err(|error| format!("loading {}: {error}", self.object))?;
        Ok(Loaded(self.module))
    }

    /// Whether one write may have many PIDs.
    pub fn takes_many(&self) -> bool {
        self.module == "mp1"
    }

    /// Registers all with as few writes as can be.
    pub fn register_fast(&self, pids: &[Vec<u8>]) -> Result {
        if !self.takes_many() {
            self.register(pids)?;
            return Ok(());
        }
        let mut file = self.register(&[])?;
        in_few_writes(pids)
            .iter()
            .try_for_each(|(text, _)| write_one(&mut file, text))
    }

    /// Registers all one by one, and returns the file that it was done through.
    pub fn register(&self, pids: &[Vec<u8>]) -> Result<File> {
        let mut file = File::options().write(true).open(self.status)?;
        for pid in pids {
            write_one(&mut file, pid)?;
        }
        Ok(file)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let name = CString::new(self.0).expect("a name has no NUL");
        delete_module(&name, DeleteModuleFlags::empty()).expect("the module unloads");
    }
}
