// SPDX-License-Identifier: GPL-2.0

//! Files in `/proc`.
//!
//! A [`Dir`] and a [`File`] exist in `/proc` as long as their Rust values do. Removing a file waits
//! for calls that are inside its operations and releases what open files own. So no user can reach
//! a module whose files are gone; open files answer with `EIO` from then on.
//!
//! This relies on the drop. Code that leaks a [`File`] by `mem::forget()` keeps the entry, whose
//! operations are in the module's text: then the module must not be unloaded. Rust calls a leak
//! safe, and the `kernel` crate has the same limit for everything that is registered.
//!
//! C header: [`include/linux/proc_fs.h`](srctree/include/linux/proc_fs.h).

use crate::{
    layout,
    once::read_once,
    poll::{
        Events,
        PollQueue, //
    }, //
};
use core::{
    marker::PhantomData,
    mem::offset_of,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    build_error,
    error::{
        code::EIOCBQUEUED,
        VTABLE_DEFAULT_ERROR, //
    },
    iov::IovIterDest,
    prelude::*,
    sync::Arc,
    types::{
        ForeignOwnable,
        Opaque, //
    },
    uaccess::{
        UserPtr,
        UserSlice,
        UserSliceReader, //
    }, //
};

/// The longest name that `/proc` takes.
const NAME_MAX: usize = 255;

/// `struct proc_dir_entry`, which is private to the C side.
#[repr(C)]
struct ProcDirEntry {
    _opaque: [u8; 0],
}

/// `struct proc_ops`, for which there are no bindings.
///
/// The operations that [`FileOps`] does not have are null pointers here, whatever their type.
#[repr(C)]
struct ProcOps {
    proc_flags: c_uint,
    proc_open: unsafe extern "C" fn(*mut bindings::inode, *mut bindings::file) -> c_int,
    proc_read: Option<
        unsafe extern "C" fn(
            *mut bindings::file,
            *mut c_char,
            usize,
            *mut bindings::loff_t,
        ) -> isize,
    >,
    proc_read_iter:
        Option<unsafe extern "C" fn(*mut bindings::kiocb, *mut bindings::iov_iter) -> isize>,
    proc_write: Option<
        unsafe extern "C" fn(
            *mut bindings::file,
            *const c_char,
            usize,
            *mut bindings::loff_t,
        ) -> isize,
    >,
    proc_lseek: Option<
        unsafe extern "C" fn(*mut bindings::file, bindings::loff_t, c_int) -> bindings::loff_t,
    >,
    proc_release: unsafe extern "C" fn(*mut bindings::inode, *mut bindings::file) -> c_int,
    proc_poll: Option<
        unsafe extern "C" fn(*mut bindings::file, *mut bindings::poll_table) -> bindings::__poll_t,
    >,
    proc_ioctl: Option<unsafe extern "C" fn()>,
    #[cfg(CONFIG_COMPAT)]
    proc_compat_ioctl: Option<unsafe extern "C" fn()>,
    proc_mmap: Option<unsafe extern "C" fn()>,
    proc_get_unmapped_area: Option<unsafe extern "C" fn()>,
}

extern "C" {
    fn proc_mkdir_mode(
        name: *const c_char,
        mode: bindings::umode_t,
        parent: *mut ProcDirEntry,
    ) -> *mut ProcDirEntry;
    fn proc_create_data(
        name: *const c_char,
        mode: bindings::umode_t,
        parent: *mut ProcDirEntry,
        // A `ProcOps`, not named here since the types of its callbacks confuse a lint on C types.
        ops: *const c_void,
        data: *mut c_void,
    ) -> *mut ProcDirEntry;
    fn proc_remove(entry: *mut ProcDirEntry);
}

/// Checks that `name` names one entry. To `/proc`, a name with a slash is a path: the entry could
/// be in a directory of another owner, and be removed with it.
fn check_name(name: &CStr) -> Result {
    let name = name.to_bytes();
    if name.is_empty()
        || name.len() > NAME_MAX
        || name.contains(&b'/')
        || matches!(name, b"." | b"..")
    {
        return Err(EINVAL);
    }
    Ok(())
}

/// Checks that `mode` has permission bits and nothing else. To `/proc`, other bits change the type
/// of the entry, and no bits at all stand for a default.
fn check_mode(mode: u16) -> Result {
    if mode == 0 || mode & !0o7777 != 0 {
        return Err(EINVAL);
    }
    Ok(())
}

/// A directory directly in `/proc`.
///
/// # Invariants
///
/// `0` points at an entry that only `drop` removes.
pub(crate) struct Dir(NonNull<ProcDirEntry>);

// SAFETY: An entry may be used and removed by any thread.
unsafe impl Send for Dir {}
// SAFETY: The functions that are called with a shared entry do their own locking.
unsafe impl Sync for Dir {}

impl Dir {
    /// Creates the directory `name` with the permission bits `mode`.
    ///
    /// The kernel warns if there is such an entry already.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if `name` is no name of an entry: empty, too long, `.`, `..`, or with a slash;
    ///   if it is a number, which names a process; or if `mode` is 0 or has other bits.
    /// - [`ENOMEM`] if there is no memory, or such an entry already.
    pub(crate) fn new(name: &CStr, mode: u16) -> Result<Self> {
        check_name(name)?;
        check_mode(mode)?;
        if name.to_bytes().iter().all(u8::is_ascii_digit) {
            return Err(EINVAL);
        }
        // SAFETY: The name ends with NUL and is copied; no parent means `/proc` itself.
        let entry = unsafe { proc_mkdir_mode(name.as_char_ptr(), mode, core::ptr::null_mut()) };
        // INVARIANT: What is not null is a new entry. No other code removes it: names have no
        // slashes, so no `Dir` is inside another one.
        Ok(Self(NonNull::new(entry).ok_or(ENOMEM)?))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the entry still exists. Each `File` in it holds a
        // reference to the directory until the file has been removed.
        unsafe { proc_remove(self.0.as_ptr()) };
    }
}

/// The operations of a file in `/proc`.
///
/// All of them run in the context of the process that made the system call and may sleep. `data` is
/// what the file itself owns, `file` is what the open file owns.
///
/// A file without [`size`](Self::size) is a stream: it has no position, and `lseek()` and `pread()`
/// fail with `ESPIPE`. A read of it may sleep for as long as it likes, and so it cannot be spliced:
/// the kernel would hold the lock of the pipe meanwhile (`splice_file_to_pipe()`).
#[vtable]
pub(crate) trait FileOps: Sized + 'static {
    /// What the file itself owns.
    type Data: ForeignOwnable + Send + Sync + 'static;
    /// What each open file owns.
    type OpenFile: ForeignOwnable + Send + Sync + 'static;

    /// Called at `open()`.
    fn open(data: <Self::Data as ForeignOwnable>::Borrowed<'_>) -> Result<Self::OpenFile>;

    /// Called for every read: `read()`, `readv()`, and, unless the file is a stream, `pread()`,
    /// `splice()` and `sendfile()`. What it copies to `reader` counts as read.
    fn read(
        data: <Self::Data as ForeignOwnable>::Borrowed<'_>,
        file: <Self::OpenFile as ForeignOwnable>::Borrowed<'_>,
        reader: &mut Reader<'_>,
    ) -> Result;

    /// Called at `write()` and, for each of its vectors, at `writev()`. Returns how many bytes
    /// count as written, at most as many as there are.
    fn write(
        _data: <Self::Data as ForeignOwnable>::Borrowed<'_>,
        _file: <Self::OpenFile as ForeignOwnable>::Borrowed<'_>,
        _from: UserSliceReader,
    ) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns the size in bytes of what there is to read. `SEEK_END` is relative to this size.
    fn size(
        _data: <Self::Data as ForeignOwnable>::Borrowed<'_>,
        _file: <Self::OpenFile as ForeignOwnable>::Borrowed<'_>,
    ) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called at `poll()`, `select()` and the like, when the caller is on the
    /// [queue](Self::poll_queue): returns the current events.
    fn poll(
        _data: <Self::Data as ForeignOwnable>::Borrowed<'_>,
        _file: <Self::OpenFile as ForeignOwnable>::Borrowed<'_>,
    ) -> Events {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called once, before the file is created, if there is a [`poll`](Self::poll): returns the
    /// queue on which events are announced. The file keeps it.
    fn poll_queue(_data: <Self::Data as ForeignOwnable>::Borrowed<'_>) -> Arc<PollQueue> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called once, before the file is removed: wakes all callers that sleep inside its operations,
    /// and makes later ones return instead of sleeping. A caller that keeps sleeping would delay
    /// the removal.
    fn hang_up(_data: <Self::Data as ForeignOwnable>::Borrowed<'_>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// What a read asks for: where from, how much, and the memory to copy to.
///
/// # Invariants
///
/// `position` and `iov` belong to a running read. `copied` is how much has been copied to `iov`,
/// and so how much of it can be reverted.
pub(crate) struct Reader<'a> {
    position: &'a mut bindings::loff_t,
    iov: &'a mut IovIterDest<'a>,
    copied: usize,
    is_nonblocking: bool,
}

impl Reader<'_> {
    /// Returns the position in the file: always 0 in a stream.
    pub(crate) fn position(&self) -> i64 {
        *self.position
    }

    /// Returns whether the read must not sleep (`O_NONBLOCK`, `RWF_NOWAIT`).
    pub(crate) fn is_nonblocking(&self) -> bool {
        self.is_nonblocking
    }

    /// Returns how many more bytes are asked for.
    pub(crate) fn room(&self) -> usize {
        self.iov.len()
    }

    /// Copies `bytes` as far as there is room and the user's memory can be written. Returns how
    /// many it copied.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> usize {
        let len = self.iov.copy_to_iter(bytes);
        // INVARIANT: That much more has been copied.
        self.copied += len;
        len
    }

    /// Takes back the latest `len` bytes that were copied. The user's memory keeps them, but they
    /// do not count as read.
    pub(crate) fn undo(&mut self, len: usize) {
        let len = len.min(self.copied);
        // INVARIANT: That much less has been copied.
        self.copied -= len;
        // SAFETY: By the type's invariant that much was copied.
        unsafe { bindings::iov_iter_revert(self.iov.as_raw(), len) };
    }

    /// Copies from `content` what is at the file's position, and advances the position.
    ///
    /// # Errors
    ///
    /// - [`EFAULT`] if there is something to copy, and none of it could be.
    /// - [`EINVAL`] if the position is negative.
    pub(crate) fn copy_from_content(&mut self, content: &[u8]) -> Result {
        let start = usize::try_from(self.position()).map_err(|_| EINVAL)?;
        let Some(rest) = content.get(start..).filter(|rest| !rest.is_empty()) else {
            return Ok(());
        };
        if self.room() == 0 {
            return Ok(());
        }
        match self.copy(rest) {
            0 => Err(EFAULT),
            len => {
                *self.position += len as bindings::loff_t;
                Ok(())
            }
        }
    }
}

/// A file in `/proc`. Dropping it removes the file, and waits until none of its operations runs.
///
/// # Invariants
///
/// - `entry` points at an entry that only `drop` removes, whose operations are those of `T`.
/// - `owned` comes from `KBox::into_raw()`; the entry's operations borrow it.
pub(crate) struct File<T: FileOps> {
    entry: NonNull<ProcDirEntry>,
    owned: NonNull<Owned<T>>,
    /// Removing a directory removes its entries, so the directory must outlive the file.
    _dir: Arc<Dir>,
}

/// What a file owns.
///
/// # Invariants
///
/// `data` comes from `T::Data::into_foreign()`.
struct Owned<T: FileOps> {
    data: *mut c_void,
    queue: Option<Arc<PollQueue>>,
    _ops: PhantomData<T>,
}

impl<T: FileOps> Owned<T> {
    fn new(data: T::Data) -> Self {
        // INVARIANT: As required.
        let mut owned = Self {
            data: data.into_foreign().cast(),
            queue: None,
            _ops: PhantomData,
        };
        if T::HAS_POLL {
            owned.queue = Some(T::poll_queue(owned.data()));
        }
        owned
    }

    fn data(&self) -> <T::Data as ForeignOwnable>::Borrowed<'_> {
        // SAFETY: By the type's invariant, and it is taken back only in `drop`.
        unsafe { <T::Data as ForeignOwnable>::borrow(self.data.cast()) }
    }
}

impl<T: FileOps> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant, and what has borrowed it borrows `self`.
        drop(unsafe { T::Data::from_foreign(self.data.cast()) });
    }
}

// SAFETY: An entry may be removed by any thread, and `T::Data` and the queue are `Send`.
unsafe impl<T: FileOps> Send for File<T> {}
// SAFETY: There are no operations on a shared `File`.
unsafe impl<T: FileOps> Sync for File<T> {}

impl<T: FileOps> File<T> {
    /// Creates the file `name` in `dir` with the permission bits `mode`.
    ///
    /// Its operations may be called before this returns.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if `name` is no name of an entry: empty, too long, `.`, `..`, or with a slash;
    ///   or if `mode` is 0 or has other bits.
    /// - [`ENOMEM`] if there is no memory, or such a file already.
    pub(crate) fn new(dir: Arc<Dir>, name: &CStr, mode: u16, data: T::Data) -> Result<Self> {
        check_name(name)?;
        check_mode(mode)?;
        let owned = KBox::into_raw(KBox::new(Owned::<T>::new(data), GFP_KERNEL)?);
        let ops: &'static ProcOps = &Operations::<T>::TABLE;

        // SAFETY: The name ends with NUL and is copied. `dir` lives as long as this file, and `ops`
        // as long as the module. The type of `owned` is the one that `ops` expects.
        let entry = unsafe {
            proc_create_data(
                name.as_char_ptr(),
                mode,
                dir.0.as_ptr(),
                core::ptr::from_ref(ops).cast(),
                owned.cast(),
            )
        };
        let Some(entry) = NonNull::new(entry) else {
            // SAFETY: It comes from `into_raw()` above, and there is no entry that uses it.
            drop(unsafe { KBox::from_raw(owned) });
            return Err(ENOMEM);
        };

        // INVARIANT: The entry is new and no other code removes it; `owned` is as required.
        Ok(Self {
            entry,
            // SAFETY: A box is not null.
            owned: unsafe { NonNull::new_unchecked(owned) },
            _dir: dir,
        })
    }
}

impl<T: FileOps> Drop for File<T> {
    fn drop(&mut self) {
        if T::HAS_HANG_UP {
            // SAFETY: By the type's invariant it comes from `into_raw()`, and is taken back only
            // below.
            T::hang_up(unsafe { self.owned.as_ref() }.data());
        }
        // SAFETY: By the type's invariant the entry is there until now.
        unsafe { proc_remove(self.entry.as_ptr()) };
        // SAFETY: By the type's invariant it comes from `into_raw()`. Only operations of the entry
        // borrowed it, and `proc_remove()` has waited for them.
        drop(unsafe { KBox::from_raw(self.owned.as_ptr()) });
    }
}

/// Returns the error of a read or write for C. To C, `EIOCBQUEUED` means that the call is still
/// running: `read()` calls `BUG()` on it, and asynchronous callers wait for a completion that never
/// comes.
fn errno(error: Error) -> c_int {
    let error = if error == EIOCBQUEUED { EIO } else { error };
    error.to_errno()
}

/// The functions that C calls for a [`File`].
///
/// All of them rely on this: procfs calls the operations of an entry only between its creation and
/// the end of `proc_remove()`. `i_private` of the inode is the `data` of `proc_create_data()`.
/// procfs calls `proc_open` once for each open file, before all others, and, if it succeeded,
/// `proc_release` once, after all others.
struct Operations<T>(PhantomData<T>);

impl<T: FileOps> Operations<T> {
    const TABLE: ProcOps = {
        assert!(size_of::<ProcOps>() == layout::SIZE_proc_ops);
        assert!(offset_of!(ProcOps, proc_flags) == layout::OFFSET_proc_flags);
        assert!(offset_of!(ProcOps, proc_open) == layout::OFFSET_proc_open);
        assert!(offset_of!(ProcOps, proc_read) == layout::OFFSET_proc_read);
        assert!(offset_of!(ProcOps, proc_read_iter) == layout::OFFSET_proc_read_iter);
        assert!(offset_of!(ProcOps, proc_write) == layout::OFFSET_proc_write);
        assert!(offset_of!(ProcOps, proc_lseek) == layout::OFFSET_proc_lseek);
        assert!(offset_of!(ProcOps, proc_release) == layout::OFFSET_proc_release);
        assert!(offset_of!(ProcOps, proc_poll) == layout::OFFSET_proc_poll);

        ProcOps {
            proc_flags: 0,
            proc_open: Self::open,
            proc_read: if T::HAS_SIZE { None } else { Some(Self::read) },
            proc_read_iter: if T::HAS_SIZE {
                Some(Self::read_iter)
            } else {
                None
            },
            proc_write: if T::HAS_WRITE {
                Some(Self::write)
            } else {
                None
            },
            proc_lseek: if T::HAS_SIZE { Some(Self::lseek) } else { None },
            proc_release: Self::release,
            proc_poll: if T::HAS_POLL { Some(Self::poll) } else { None },
            proc_ioctl: None,
            #[cfg(CONFIG_COMPAT)]
            proc_compat_ioctl: None,
            proc_mmap: None,
            proc_get_unmapped_area: None,
        }
    };

    /// Borrows what the file owns.
    ///
    /// # Safety
    ///
    /// `inode` belongs to a [`File<T>`], one of whose operations runs during `'a`.
    unsafe fn owned<'a>(inode: *const bindings::inode) -> &'a Owned<T> {
        // SAFETY: `i_private` is what `File::new()` passed, and is valid until `proc_remove()` has
        // waited for the operation.
        unsafe { &*(*inode).i_private.cast() }
    }

    /// Borrows the data that the file owns.
    ///
    /// # Safety
    ///
    /// As for [`owned`](Self::owned).
    unsafe fn data<'a>(inode: *const bindings::inode) -> <T::Data as ForeignOwnable>::Borrowed<'a> {
        // SAFETY: By the caller's promise.
        unsafe { Self::owned(inode) }.data()
    }

    /// Borrows what the open file owns.
    ///
    /// # Safety
    ///
    /// `file` is open, and stays so during `'a`.
    unsafe fn open_file<'a>(
        file: *mut bindings::file,
    ) -> <T::OpenFile as ForeignOwnable>::Borrowed<'a> {
        // SAFETY: The file is open by the caller's promise, so `open` has stored what comes from
        // `into_foreign()` and `release` has not yet taken it back.
        unsafe { <T::OpenFile as ForeignOwnable>::borrow((*file).private_data.cast()) }
    }

    /// # Safety
    ///
    /// `inode` belongs to a [`File<T>`], and `file` is being opened.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: The inode is that of a `File<T>`, of which this is an operation.
        let data = unsafe { Self::data(inode) };
        match T::open(data) {
            Ok(open_file) => {
                // SAFETY: The file is being opened: its private data are ours, and no operation
                // reads them yet.
                unsafe { (*file).private_data = open_file.into_foreign().cast() };
                if !T::HAS_SIZE {
                    // SAFETY: The file is being opened. `stream_open()` never fails.
                    unsafe { bindings::stream_open(inode, file) };
                }
                0
            }
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// `kiocb` and `iter` are valid, and the file of `kiocb` is an open [`File<T>`].
    unsafe extern "C" fn read_iter(
        kiocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: `kiocb` is valid, and so is its file.
        unsafe {
            let nowait = (*kiocb).ki_flags & layout::IOCB_NOWAIT_FLAG as c_int != 0;
            Self::read_to((*kiocb).ki_filp, iter, &mut (*kiocb).ki_pos, nowait)
        }
    }

    /// # Safety
    ///
    /// `file` is an open [`File<T>`].
    unsafe extern "C" fn read(
        file: *mut bindings::file,
        buf: *mut c_char,
        count: usize,
        _pos: *mut bindings::loff_t,
    ) -> isize {
        let iter = Opaque::<bindings::iov_iter>::uninit();
        // SAFETY: `iter` is valid for writes. The user address is only used by a checked copy.
        let error = unsafe {
            bindings::import_ubuf(bindings::ITER_DEST as c_int, buf.cast(), count, iter.get())
        };
        if error != 0 {
            return error as isize;
        }
        // A stream has no position: `_pos` is null (`file_ppos()`).
        let mut position = 0;
        // SAFETY: `iter` has just been initialised; `file` is as promised by the caller.
        unsafe { Self::read_to(file, iter.get(), &mut position, false) }
    }

    /// # Safety
    ///
    /// `file` is an open [`File<T>`], and `iter` is valid.
    unsafe fn read_to(
        file: *mut bindings::file,
        iter: *mut bindings::iov_iter,
        position: &mut bindings::loff_t,
        nowait: bool,
    ) -> isize {
        // SAFETY: The file is an open `File<T>`, and so has an inode.
        let data = unsafe { Self::data((*file).f_inode) };
        // SAFETY: The file stays open until we return.
        let open_file = unsafe { Self::open_file(file) };
        // SAFETY: The file is open. `fcntl()` may change the flags meanwhile; C reads them without
        // a lock, too.
        let flags = unsafe { read_once(&raw const (*file).f_flags) };
        // SAFETY: A valid `struct iov_iter` to write to.
        let iov = unsafe { IovIterDest::from_raw(iter) };
        // INVARIANT: Both are those of this read. Nothing has been copied yet.
        let mut reader = Reader {
            position,
            iov,
            copied: 0,
            is_nonblocking: nowait || flags & bindings::O_NONBLOCK != 0,
        };
        // Only what was copied counts: `splice()` would pass on memory that was never written.
        match T::read(data, open_file, &mut reader) {
            Ok(()) => reader.copied as isize,
            Err(error) => errno(error) as isize,
        }
    }

    /// # Safety
    ///
    /// `file` is an open [`File<T>`].
    unsafe extern "C" fn write(
        file: *mut bindings::file,
        buf: *const c_char,
        count: usize,
        _pos: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: The file is an open `File<T>`, and so has an inode.
        let data = unsafe { Self::data((*file).f_inode) };
        // SAFETY: The file stays open until we return.
        let file = unsafe { Self::open_file(file) };
        let from = UserSlice::new(UserPtr::from_addr(buf as usize), count).reader();
        match T::write(data, file, from) {
            Ok(len) => len.min(count) as isize,
            Err(error) => errno(error) as isize,
        }
    }

    /// # Safety
    ///
    /// `file` is an open [`File<T>`].
    unsafe extern "C" fn lseek(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        whence: c_int,
    ) -> bindings::loff_t {
        // `SEEK_SET` and `SEEK_CUR` do not depend on the size.
        let size = if whence != bindings::SEEK_SET as c_int && whence != bindings::SEEK_CUR as c_int
        {
            // SAFETY: The file is an open `File<T>`, and so has an inode.
            let data = unsafe { Self::data((*file).f_inode) };
            // SAFETY: The file stays open until we return.
            let open_file = unsafe { Self::open_file(file) };
            let size = T::size(data, open_file)
                .and_then(|size| bindings::loff_t::try_from(size).map_err(|_| EOVERFLOW));
            match size {
                Ok(size) => size,
                Err(error) => return bindings::loff_t::from(error.to_errno()),
            }
        } else {
            0
        };
        // SAFETY: The file is open.
        unsafe {
            bindings::generic_file_llseek_size(file, offset, whence, bindings::loff_t::MAX, size)
        }
    }

    /// # Safety
    ///
    /// `file` is an open [`File<T>`], and `table` belongs to a poll of it.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table,
    ) -> bindings::__poll_t {
        // SAFETY: The file is an open `File<T>`, and so has an inode.
        let owned = unsafe { Self::owned((*file).f_inode) };
        // SAFETY: The file stays open until we return.
        let open_file = unsafe { Self::open_file(file) };
        if let Some(queue) = &owned.queue {
            // SAFETY: `file` and `table` belong to this call. The `File` keeps the queue until
            // `proc_remove()` has waited for us.
            unsafe { queue.register(file, table) };
        }
        T::poll(owned.data(), open_file).mask()
    }

    /// # Safety
    ///
    /// `file` is an open [`File<T>`], and this is its last operation.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: `open` has stored what comes from `into_foreign()`, and no operation borrows it
        // any more.
        drop(unsafe { T::OpenFile::from_foreign((*file).private_data.cast()) });
        0
    }
}
