// SPDX-License-Identifier: GPL-2.0

//! Files in `/proc`.
//!
//! A [`Dir`] and a [`File`] are there as long as the values that stand for them. Removing a file
//! waits for calls that are inside its operations and releases what open files own, so a module
//! whose files are gone is one that no user can reach; open files answer with `EIO` from then on.
//!
//! C header: [`include/linux/proc_fs.h`](srctree/include/linux/proc_fs.h).

use core::{
    borrow::Borrow,
    marker::PhantomData,
    mem::offset_of,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    error::from_result,
    fs::Kiocb,
    iov::IovIterDest,
    prelude::*,
    types::ForeignOwnable,
    uaccess::{
        UserPtr,
        UserSlice,
        UserSliceReader, //
    }, //
};

/// What the kernel's C compiler says of `struct proc_ops`.
#[expect(non_upper_case_globals)]
mod layout {
    include!(env!("MP1_PROC_LAYOUT"));
}

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
    proc_read: Option<unsafe extern "C" fn()>,
    proc_read_iter: unsafe extern "C" fn(*mut bindings::kiocb, *mut bindings::iov_iter) -> isize,
    proc_write: unsafe extern "C" fn(
        *mut bindings::file,
        *const c_char,
        usize,
        *mut bindings::loff_t,
    ) -> isize,
    proc_lseek:
        unsafe extern "C" fn(*mut bindings::file, bindings::loff_t, c_int) -> bindings::loff_t,
    proc_release: unsafe extern "C" fn(*mut bindings::inode, *mut bindings::file) -> c_int,
    proc_poll: Option<unsafe extern "C" fn()>,
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
    /// [`ENOMEM`] if there is no memory, or such an entry already.
    #[inline]
    pub(crate) fn new(name: &CStr, mode: u16) -> Result<Self> {
        // SAFETY: The name ends with NUL and is copied; no parent means `/proc` itself.
        let entry = unsafe { proc_mkdir_mode(name.as_char_ptr(), mode, core::ptr::null_mut()) };
        // INVARIANT: What is not null is a new entry, and nobody else will remove it.
        Ok(Self(NonNull::new(entry).ok_or(ENOMEM)?))
    }
}

impl Drop for Dir {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the entry is there until now. The files in it own the
        // directory, or a share or a borrow of it, so none of them is left.
        unsafe { proc_remove(self.0.as_ptr()) };
    }
}

/// The operations of a file in `/proc`.
///
/// All of them run in the context of the process that made the system call and may sleep. `data` is
/// what the file itself owns, `file` what the open file does.
pub(crate) trait FileOps: Sized {
    /// What the file itself owns.
    type Data: ForeignOwnable + Send + Sync;
    /// What each open file owns.
    type OpenFile: ForeignOwnable + Send + Sync;

    /// Called at `open()`.
    fn open(data: <Self::Data as ForeignOwnable>::Borrowed<'_>) -> Result<Self::OpenFile>;

    /// Called for all that reads: `read()`, `pread()`, `readv()`, `splice()`, `sendfile()`.
    fn read_iter(
        data: <Self::Data as ForeignOwnable>::Borrowed<'_>,
        kiocb: Kiocb<'_, Self::OpenFile>,
        iov: &mut IovIterDest<'_>,
    ) -> Result<usize>;

    /// Called at `write()` and, for each of its vectors, at `writev()`.
    fn write(
        data: <Self::Data as ForeignOwnable>::Borrowed<'_>,
        file: <Self::OpenFile as ForeignOwnable>::Borrowed<'_>,
        from: UserSliceReader,
    ) -> Result<usize>;

    /// Returns the number of bytes that there are to read, from which `SEEK_END` counts.
    fn size(
        data: <Self::Data as ForeignOwnable>::Borrowed<'_>,
        file: <Self::OpenFile as ForeignOwnable>::Borrowed<'_>,
    ) -> Result<usize>;
}

/// A file in `/proc`. Dropping it waits until no operation of it runs, and none will any more.
///
/// # Invariants
///
/// - `entry` points at an entry that only `drop` removes, whose operations are those of `T`.
/// - `data` comes from `T::Data::into_foreign()`; the entry's operations borrow it.
pub(crate) struct File<T: FileOps, D: Borrow<Dir> = Dir> {
    entry: NonNull<ProcDirEntry>,
    data: *mut c_void,
    /// Removing a directory removes what is in it, so it has to stay.
    _dir: D,
    _ops: PhantomData<T>,
}

// SAFETY: An entry may be removed by any thread, and `T::Data` is `Send`.
unsafe impl<T: FileOps, D: Borrow<Dir> + Send> Send for File<T, D> {}
// SAFETY: There are no operations on a shared `File`.
unsafe impl<T: FileOps, D: Borrow<Dir>> Sync for File<T, D> {}

impl<T: FileOps, D: Borrow<Dir>> File<T, D> {
    /// Creates the file `name` in `dir` with the permission bits `mode`.
    ///
    /// Its operations may be called before this returns.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory, or such a file already.
    pub(crate) fn new(dir: D, name: &CStr, mode: u16, data: T::Data) -> Result<Self> {
        let data = data.into_foreign();

        // SAFETY: The name ends with NUL and is copied. `dir` is there as long as this file, and
        // the operations are there as long as the module. They are the ones that take `data` for
        // what it is.
        let entry = unsafe {
            proc_create_data(
                name.as_char_ptr(),
                mode,
                dir.borrow().0.as_ptr(),
                core::ptr::from_ref(&Operations::<T>::TABLE).cast(),
                data.cast(),
            )
        };
        let Some(entry) = NonNull::new(entry) else {
            // SAFETY: It comes from `into_foreign()` above, and no file has got it.
            drop(unsafe { T::Data::from_foreign(data) });
            return Err(ENOMEM);
        };

        // INVARIANT: The entry is new and nobody else will remove it; `data` is as required.
        Ok(Self {
            entry,
            data: data.cast(),
            _dir: dir,
            _ops: PhantomData,
        })
    }
}

impl<T: FileOps, D: Borrow<Dir>> Drop for File<T, D> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the entry is there until now.
        unsafe { proc_remove(self.entry.as_ptr()) };
        // SAFETY: By the type's invariant it comes from `into_foreign()`. All that borrowed it was
        // an operation of the entry, and `proc_remove()` has waited for those.
        drop(unsafe { T::Data::from_foreign(self.data.cast()) });
    }
}

/// The functions that C calls for a [`File`].
///
/// What all of them rely on: procfs calls the operations of an entry only between its creation and
/// the end of `proc_remove()`; `i_private` of the inode is the `data` of `proc_create_data()`; it
/// calls `proc_open` once for each open file, before all others, and, where that succeeded,
/// `proc_release` once, after all others.
struct Operations<T>(PhantomData<T>);

impl<T: FileOps> Operations<T> {
    const TABLE: ProcOps = {
        assert!(size_of::<ProcOps>() == layout::SIZE);
        assert!(offset_of!(ProcOps, proc_flags) == layout::OFFSET_proc_flags);
        assert!(offset_of!(ProcOps, proc_open) == layout::OFFSET_proc_open);
        assert!(offset_of!(ProcOps, proc_read_iter) == layout::OFFSET_proc_read_iter);
        assert!(offset_of!(ProcOps, proc_write) == layout::OFFSET_proc_write);
        assert!(offset_of!(ProcOps, proc_lseek) == layout::OFFSET_proc_lseek);
        assert!(offset_of!(ProcOps, proc_release) == layout::OFFSET_proc_release);

        ProcOps {
            proc_flags: 0,
            proc_open: Self::open,
            proc_read: None,
            proc_read_iter: Self::read_iter,
            proc_write: Self::write,
            proc_lseek: Self::lseek,
            proc_release: Self::release,
            proc_poll: None,
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
    /// `inode` belongs to a [`File<T>`], in an operation of which we are during `'a`.
    unsafe fn data<'a>(inode: *const bindings::inode) -> <T::Data as ForeignOwnable>::Borrowed<'a> {
        // SAFETY: `i_private` is what `File::new()` gave, and is there until `proc_remove()` has
        // waited for the operation.
        unsafe { <T::Data as ForeignOwnable>::borrow((*inode).i_private.cast()) }
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
                // SAFETY: The file is being opened: its private data are ours, and nobody reads
                // them yet.
                unsafe { (*file).private_data = open_file.into_foreign().cast() };
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
        // SAFETY: `kiocb` is valid, and its file, an open `File<T>`, has an inode.
        let data = unsafe { Self::data((*(*kiocb).ki_filp).f_inode) };
        // SAFETY: The file is open, so its private data are a `T::OpenFile`.
        let kiocb = unsafe { Kiocb::from_raw(kiocb) };
        // SAFETY: A valid `struct iov_iter` to write to.
        let iov = unsafe { IovIterDest::from_raw(iter) };
        from_result(|| Ok(T::read_iter(data, kiocb, iov)? as isize))
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
        from_result(|| Ok(T::write(data, file, from)? as isize))
    }

    /// # Safety
    ///
    /// `file` is an open [`File<T>`].
    unsafe extern "C" fn lseek(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        whence: c_int,
    ) -> bindings::loff_t {
        // Those who count from the beginning, or from where they are, need not know the size.
        let size = if whence != bindings::SEEK_SET as c_int && whence != bindings::SEEK_CUR as c_int
        {
            // SAFETY: The file is an open `File<T>`, and so has an inode.
            let data = unsafe { Self::data((*file).f_inode) };
            // SAFETY: The file stays open until we return.
            let open_file = unsafe { Self::open_file(file) };
            match T::size(data, open_file) {
                Ok(size) => size as bindings::loff_t,
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
    /// `file` is an open [`File<T>`], and this is its last operation.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: `open` has stored what comes from `into_foreign()`, and nobody will borrow it any
        // more.
        drop(unsafe { T::OpenFile::from_foreign((*file).private_data.cast()) });
        0
    }
}
