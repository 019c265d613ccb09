// SPDX-License-Identifier: GPL-2.0

//! What the module's files use of the `kernel` crate. Memory stays until a model ends, so
//! references are not counted, and RCU waits for no reader.

#[macro_export]
macro_rules! container_of {
    ($ptr:expr, $container:ty, $field:ident) => {
        $ptr.byte_sub(core::mem::offset_of!($container, $field))
            .cast::<$container>()
    };
}

pub mod pid_namespace {
    use crate::bindings;

    #[repr(transparent)]
    pub struct PidNamespace(bindings::pid_namespace);

    impl PidNamespace {
        pub fn initial() -> &'static Self {
            // SAFETY: The type is transparent.
            unsafe { &*(&raw const bindings::init_pid_ns).cast() }
        }

        pub fn as_ptr(&self) -> *mut bindings::pid_namespace {
            (&raw const self.0).cast_mut()
        }
    }
}

/// The models have threads of loom in place of tasks.
#[macro_export]
macro_rules! current {
    () => {
        $crate::kernel_crate::task::CurrentTask
    };
}

pub mod task {
    use super::pid_namespace::PidNamespace;
    use crate::bindings;

    pub struct CurrentTask;

    impl CurrentTask {
        pub fn active_pid_ns(&self) -> Option<&PidNamespace> {
            Some(PidNamespace::initial())
        }
    }

    #[repr(transparent)]
    pub struct Task(bindings::task_struct);

    impl Task {
        pub fn as_ptr(&self) -> *mut bindings::task_struct {
            (&raw const self.0).cast_mut()
        }
    }
}

pub mod sync {
    pub mod aref {
        pub struct ARef<T>(*const T);

        impl<T> From<&T> for ARef<T> {
            fn from(object: &T) -> Self {
                Self(object)
            }
        }

        impl<T> core::ops::Deref for ARef<T> {
            type Target = T;

            fn deref(&self) -> &T {
                // SAFETY: It stays until the model ends.
                unsafe { &*self.0 }
            }
        }
    }

    pub mod rcu {
        pub struct Guard;

        pub fn read_lock() -> Guard {
            Guard
        }
    }
}
