// SPDX-License-Identifier: GPL-2.0

//! Lock classes of locks that may outlive the module.
//!
//! Lockdep follows the key and the name of a class for as long as its locks are used. Static ones
//! go with the module.
//!
//! C header: [`include/linux/lockdep.h`](srctree/include/linux/lockdep.h).

#![forbid(unsafe_code)]

use kernel::{
    bindings,
    prelude::*,
    str::CString,
    sync::LockClassKey, //
};

/// A lock class whose key and name are on the heap.
pub(crate) struct LockClass {
    // In this order: lockdep uses the name until the key has gone.
    key: Pin<KBox<LockClassKey>>,
    name: CString,
}

impl LockClass {
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory.
    pub(crate) fn new(name: &CStr) -> Result<Self> {
        Ok(Self {
            key: KBox::pin_init(LockClassKey::new_dynamic(), GFP_KERNEL)?,
            name: CString::try_from(name)?,
        })
    }

    /// Returns the key. It is valid until `self` is dropped.
    pub(crate) fn key(&self) -> *mut bindings::lock_class_key {
        self.key.as_ptr()
    }

    /// Returns the name. It is valid until `self` is dropped.
    pub(crate) fn name(&self) -> *const c_char {
        self.name.as_char_ptr()
    }
}
