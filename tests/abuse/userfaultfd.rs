// SPDX-License-Identifier: GPL-2.0

//! Readers and writers that block inside the module for any length of time: in a page fault that
//! userfaultfd catches, and answers only at the end.
//!
//! C header: `include/uapi/linux/userfaultfd.h`.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;
use std::process;
use std::ptr::NonNull;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::uio::pread;

use support::PAGE;
use support::child::Child;
use support::module::{Machine, insmod, rmmod};
use support::status;
use support::wait;

/// Calls that are not done after this long hang; it is many times what they need.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the kernel sends for each access to missing memory.
const MESSAGE: usize = 32;

#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct UffdioRegister {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

const UFFD_API: u64 = 0xaa;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

nix::ioctl_readwrite!(uffdio_api, 0xaa, 0x3f, UffdioApi);
nix::ioctl_readwrite!(uffdio_register, 0xaa, 0x00, UffdioRegister);

/// A page that is missing until [`give`](Self::give).
struct MissingPage {
    address: NonNull<libc::c_void>,
    userfault: Option<File>,
}

impl MissingPage {
    fn new() -> Self {
        // SAFETY: It takes an integer, and returns a descriptor that no other code has.
        let userfault = unsafe {
            let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC);
            File::from_raw_fd(Errno::result(fd).expect("userfaultfd") as i32)
        };
        let mut api = UffdioApi {
            api: UFFD_API,
            features: 0,
            ioctls: 0,
        };
        // SAFETY: This is the structure that the call wants.
        unsafe { uffdio_api(userfault.as_raw_fd(), &mut api) }.expect("UFFDIO_API");

        let len = PAGE.try_into().expect("not zero");
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: Memory of its own, at an address that the kernel chooses.
        let address =
            unsafe { mmap_anonymous(None, len, access, MapFlags::MAP_PRIVATE) }.expect("mmap");
        let mut range = UffdioRegister {
            start: address.as_ptr() as u64,
            len: PAGE as u64,
            mode: UFFDIO_REGISTER_MODE_MISSING,
            ioctls: 0,
        };
        // SAFETY: This is the structure that the call wants.
        unsafe { uffdio_register(userfault.as_raw_fd(), &mut range) }.expect("UFFDIO_REGISTER");
        Self {
            address,
            userfault: Some(userfault),
        }
    }

    /// The address, for a system call of another thread.
    fn address(&self) -> usize {
        self.address.as_ptr() as usize
    }

    /// Waits until a thread blocks in a fault of the page.
    fn await_fault(&mut self) {
        let mut message = [0; MESSAGE];
        let userfault = self.userfault.as_mut().expect("not given yet");
        userfault.read_exact(&mut message).expect("a page fault");
    }

    /// Resolves the fault with an empty page.
    fn give(&mut self) {
        self.userfault = None;
    }
}

impl Drop for MissingPage {
    fn drop(&mut self) {
        self.give();
        // SAFETY: From `new`, and not used any more.
        unsafe { munmap(self.address, PAGE) }.expect("munmap");
    }
}

/// A system call on the page at an address.
type Call = fn(file: &File, address: usize) -> Result<usize, Errno>;

fn read(file: &File, address: usize) -> Result<usize, Errno> {
    // SAFETY: The page is mapped, and there is no reference to it.
    let len = unsafe { libc::pread(file.as_raw_fd(), address as *mut libc::c_void, PAGE, 0) };
    Errno::result(len).map(|len| len as usize)
}

fn write(file: &File, address: usize) -> Result<usize, Errno> {
    // SAFETY: As above.
    let len = unsafe { libc::write(file.as_raw_fd(), address as *const libc::c_void, 100) };
    Errno::result(len).map(|len| len as usize)
}

/// Ends the program with a message if it is still doing `what` after [`PATIENCE`]; until the result
/// is dropped. A thread that waits inside the kernel could not say so itself.
fn expect_to_end(what: &'static str) -> Sender<()> {
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        if end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            eprintln!("  others wait for the blocked {what}");
            process::exit(1);
        }
    });
    ended
}

pub fn run() {
    let machine = Machine::take();
    // An empty page is no list of PIDs.
    let calls: [(&str, Call, _); 2] = [
        ("reader", read, None),
        ("writer", write, Some(Errno::EINVAL)),
    ];
    for (what, call, error) in calls {
        let ended = expect_to_end(what);
        insmod(&[("interval_ms", "20")]).expect("insmod");
        let child = Child::burnt(30);
        status::register(child.pid());
        status::await_update();
        // What the waiting has registered for itself goes with the next update.
        wait::until("one line", || status::pids() == [child.pid()]);
        let text_len = status::text().len();

        let file = status::reader_and_writer();
        let mut page = MissingPage::new();
        let address = page.address();
        let result = thread::scope(|scope| {
            let blocked = scope.spawn(|| call(&file, address));
            page.await_fault();

            // The blocked call delays no other: neither on the same open file, nor on another one,
            // nor an update.
            let mut buffer = [0; PAGE];
            let len = pread(&file, &mut buffer, 0).expect("the same open file");
            status::parse(std::str::from_utf8(&buffer[..len]).expect("text"));
            for _ in 0..10 {
                let other = Child::sleeper();
                status::register(other.pid());
                assert!(status::pids().contains(&other.pid()));
                let number = other.pid();
                drop(other);
                wait::until("an update", || !status::pids().contains(&number));
            }

            // Unloading waits for them, and for nothing else.
            let unload = scope.spawn(rmmod);
            wait::until("the file to go", || !Path::new(status::PATH).exists());
            assert!(!blocked.is_finished() && !unload.is_finished());
            page.give();
            unload.join().expect("no panic").expect("rmmod");
            blocked.join().expect("no panic")
        });
        drop(ended);
        assert_eq!(result, error.map_or(Ok(text_len), Err), "the {what}");
        println!(
            "  a {what} was blocked; nobody else was, and the module was unloaded with it inside"
        );
    }
    drop(machine);
}
