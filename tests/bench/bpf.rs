// SPDX-License-Identifier: GPL-2.0

//! What root could do without a module: BPF programs (`tasks.bpf.c`) that keep tasks and fill an
//! array that is mapped here, loaded with libbpf.

use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::hint::black_box;
use std::io::Error;
use std::ptr::NonNull;
use std::ptr::null;
use std::slice;

use nix::unistd::Pid;

use crate::Result;
use crate::measure::Cost;
use crate::measure::batch;
use crate::measure::least;
use crate::measure::once;
use crate::report;

const OBJECT: &CStr = c"tasks.bpf.o";

/// The context of the programs, `struct range` there.
#[repr(C)]
struct Range {
    first: u32,
    count: u32,
}

/// `struct bpf_test_run_opts`.
#[repr(C)]
struct RunOptions {
    size: usize,
    data_in: *const c_void,
    data_out: *mut c_void,
    data_size_in: u32,
    data_size_out: u32,
    context_in: *const Range,
    context_out: *mut Range,
    context_size_in: u32,
    context_size_out: u32,
    result: u32,
    repeat: c_int,
    flags: u32,
    cpu: u32,
    duration: u32,
    batch_size: u32,
}

// As `bpf/libbpf.h` and `bpf/bpf.h` declare them, with structures that are not looked into.
#[link(name = "bpf")]
#[link(name = "elf")]
#[link(name = "z")]
#[link(name = "zstd")]
unsafe extern "C" {
    fn bpf_object__open(path: *const c_char) -> *mut c_void;
    fn bpf_object__load(object: *mut c_void) -> c_int;
    fn bpf_object__close(object: *mut c_void);
    fn bpf_object__find_program_by_name(object: *mut c_void, name: *const c_char) -> *mut c_void;
    fn bpf_object__find_map_by_name(object: *mut c_void, name: *const c_char) -> *mut c_void;
    fn bpf_program__fd(program: *mut c_void) -> c_int;
    fn bpf_map__initial_value(map: *mut c_void, size: *mut usize) -> *mut c_void;
    fn bpf_prog_test_run_opts(program: c_int, options: *mut RunOptions) -> c_int;
}

// elfutils 0.192 has left these two out of its libelf.a (its bug 32293), which calls them whenever
// a file is opened or closed. The tree is one of `elf_getdata_rawchunk()`, which libbpf does not
// use, so it stays empty.

// SAFETY: No other function has the name, and this is how C declares it.
#[unsafe(no_mangle)]
extern "C" fn eu_search_tree_init(_tree: *mut c_void, _compare: *const c_void) {}

// SAFETY: As above.
#[unsafe(no_mangle)]
extern "C" fn eu_search_tree_fini(_tree: *mut c_void, _free_node: *const c_void) {}

/// The loaded programs and maps.
struct Tasks(NonNull<c_void>);

impl Tasks {
    fn load() -> Result<Self> {
        // SAFETY: The path is a string.
        let object = NonNull::new(unsafe { bpf_object__open(OBJECT.as_ptr()) })
            .ok_or_else(Error::last_os_error)?;
        let tasks = Self(object);
        // SAFETY: The object is open, and not loaded yet.
        match unsafe { bpf_object__load(object.as_ptr()) } {
            0 => Ok(tasks),
            error => Err(Error::from_raw_os_error(-error).into()),
        }
    }

    fn program(&self, name: &CStr) -> Result<c_int> {
        // SAFETY: The object is open, and the name a string.
        let program = unsafe { bpf_object__find_program_by_name(self.0.as_ptr(), name.as_ptr()) };
        let program = NonNull::new(program).ok_or("no such program")?;
        // SAFETY: The program is one of the loaded object.
        Ok(unsafe { bpf_program__fd(program.as_ptr()) })
    }

    /// The memory of the global variables of a section, shared with the programs.
    ///
    /// # Safety
    ///
    /// They are a `T` each, and no program writes to them as long as the slice is in use.
    unsafe fn section<T>(&self, name: &CStr) -> Result<&mut [T]> {
        let mut size = 0;
        // SAFETY: The object is loaded, the name a string; libbpf has mapped the memory until the
        // close.
        unsafe {
            let map = bpf_object__find_map_by_name(self.0.as_ptr(), name.as_ptr());
            let map = NonNull::new(map).ok_or("no such map")?;
            let start = NonNull::new(bpf_map__initial_value(map.as_ptr(), &mut size));
            let start = start.ok_or("the map is not mapped")?.cast::<T>();
            Ok(slice::from_raw_parts_mut(
                start.as_ptr(),
                size / size_of::<T>(),
            ))
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // SAFETY: The object is open, and closed once.
        unsafe { bpf_object__close(self.0.as_ptr()) };
    }
}

/// Runs a program for `range`, and returns what it did.
fn run(program: c_int, range: Range) -> Result<u32> {
    let mut options = RunOptions {
        size: size_of::<RunOptions>(),
        data_in: null(),
        data_out: std::ptr::null_mut(),
        data_size_in: 0,
        data_size_out: 0,
        context_in: &range,
        context_out: std::ptr::null_mut(),
        context_size_in: size_of::<Range>() as u32,
        context_size_out: 0,
        result: 0,
        repeat: 0,
        flags: 0,
        cpu: 0,
        duration: 0,
        batch_size: 0,
    };
    // SAFETY: The structure says how large it and the context are, and lives as long as the call.
    match unsafe { bpf_prog_test_run_opts(program, &mut options) } {
        0 => Ok(options.result),
        error => Err(Error::from_raw_os_error(-error).into()),
    }
}

/// Counts the registration of `pids` one by one and in one run, a pass over them, and the reading
/// of the array.
pub fn measure(pids: &[Pid]) -> Result {
    let count = pids.len() as u32;
    let each = |whole: f64| whole / pids.len() as f64;

    // Registering replaces the tasks of the repetition before, so the object is loaded again for
    // each.
    let mut one_run = f64::MAX;
    let single = least(|| {
        let tasks = load_for(pids)?;
        let register = tasks.program(c"register_tasks")?;
        let all = batch(1, |_| {
            expect(run(register, Range { first: 0, count })?, count)
        })?;
        one_run = one_run.min(all.median);
        let tasks = load_for(pids)?;
        let register = tasks.program(c"register_tasks")?;
        batch(pids.len(), |i| {
            let range = Range {
                first: i as u32,
                count: 1,
            };
            expect(run(register, range)?, 1)
        })
    })?;
    let Cost { median, mean, .. } = single;
    report("register", "bpf", pids.len(), median);
    report("register-mean", "bpf", pids.len(), mean);
    report("register-many", "bpf", pids.len(), each(one_run));

    let tasks = load_for(pids)?;
    expect(
        run(tasks.program(c"register_tasks")?, Range { first: 0, count })?,
        count,
    )?;
    let pass = tasks.program(c"read_times")?;
    let update = once(|| expect(run(pass, Range { first: 0, count })?, count))?;
    report("update", "bpf", pids.len(), each(update));

    // SAFETY: The section holds `u64`, and no program runs meanwhile.
    let times = unsafe { tasks.section::<u64>(c".data.times") }?;
    if times[..pids.len()].contains(&0) {
        return Err("a process without a time".into());
    }
    let read = once(|| {
        for time in &times[..pids.len()] {
            black_box(*time);
        }
        Ok(())
    })?;
    report("read", "bpf", pids.len(), each(read));
    Ok(())
}

/// Loads the programs, with `pids` where they look for them.
fn load_for(pids: &[Pid]) -> Result<Tasks> {
    let tasks = Tasks::load()?;
    // SAFETY: The section holds `s32`, and no program runs meanwhile.
    let numbers = unsafe { tasks.section::<i32>(c".data.pids") }?;
    for (number, pid) in numbers.iter_mut().zip(pids) {
        *number = pid.as_raw();
    }
    Ok(tasks)
}

fn expect(done: u32, count: u32) -> Result {
    if done != count {
        return Err(format!("a BPF program did {done} of {count}").into());
    }
    Ok(())
}
