// SPDX-License-Identifier: GPL-2.0

//! The kernel's structures, as far as the module's files read them, built from loom's variables;
//! and what the kernel's C code does to them.

#![allow(non_camel_case_types, reason = "the names of C")]
#![allow(non_upper_case_globals, reason = "the names of C")]

use loom::sync::{
    Mutex, MutexGuard,
    atomic::{
        AtomicI32, AtomicPtr, AtomicU32, AtomicU64,
        Ordering::{Relaxed, Release},
        fence,
    },
};
use std::{
    cell::{Cell, UnsafeCell},
    mem::transmute,
    ptr::null_mut,
};

pub type pid_type = u32;
pub const pid_type_PIDTYPE_PID: pid_type = 0;
pub const pid_type_PIDTYPE_TGID: pid_type = 1;

pub const TASK_DEAD: u32 = 0x80;

/// `smp_wmb()`. This orders earlier reads, too, which no model here depends on.
pub fn smp_wmb() {
    fence(Release);
}

pub struct spinlock_t {
    mutex: Mutex<()>,
    guard: UnsafeCell<Option<MutexGuard<'static, ()>>>,
}

// SAFETY: The guard is used by the holder of the lock alone.
unsafe impl Sync for spinlock_t {}

impl spinlock_t {
    fn new() -> Self {
        Self {
            mutex: Mutex::new(()),
            guard: UnsafeCell::new(None),
        }
    }

    /// What a CPU wrote under a lock comes before what it writes under one that it takes later, for
    /// all CPUs, also those that take neither (`po-unlock-lock-po` of the kernel's model). C11 says
    /// so only to those that take it, hence the fence.
    pub fn lock(&self) {
        let guard = self.mutex.lock().unwrap();
        fence(Release);
        // SAFETY: `unlock` drops the guard, and so before the mutex goes.
        let guard = unsafe { transmute::<MutexGuard<'_, ()>, MutexGuard<'static, ()>>(guard) };
        // SAFETY: The lock is held.
        unsafe { *self.guard.get() = Some(guard) };
    }

    pub fn unlock(&self) {
        // SAFETY: The lock is held.
        drop(unsafe { (*self.guard.get()).take() });
    }
}

pub struct seqcount_t {
    pub sequence: AtomicU32,
}

pub struct seqcount_spinlock_t {
    pub seqcount: seqcount_t,
}

pub struct seqlock_t {
    pub seqcount: seqcount_spinlock_t,
    pub lock: spinlock_t,
}

impl seqlock_t {
    fn new() -> Self {
        Self {
            seqcount: seqcount_spinlock_t {
                seqcount: seqcount_t {
                    sequence: AtomicU32::new(0),
                },
            },
            lock: spinlock_t::new(),
        }
    }

    /// `write_seqlock()`, `section`, `write_sequnlock()`.
    pub fn write(&self, section: impl FnOnce()) {
        let sequence = &self.seqcount.seqcount.sequence;
        self.lock.lock();
        // Not by a load: loom would take that for the latest use of the count, and try no other
        // order of the store and of earlier loads by readers.
        // SAFETY: Stores are made under the lock alone.
        let count = unsafe { sequence.unsync_load() };
        sequence.store(count + 1, Relaxed);
        smp_wmb();
        section();
        smp_wmb();
        sequence.store(count + 2, Relaxed);
        self.lock.unlock();
    }
}

#[derive(Default)]
pub struct hlist_node {
    _next: usize,
}

pub struct hlist_head {
    pub first: AtomicPtr<hlist_node>,
}

#[derive(Default)]
pub struct list_head {
    pub next: AtomicPtr<list_head>,
    pub prev: AtomicPtr<list_head>,
}

pub struct refcount_t;

pub struct wait_queue_head;

pub struct pid_namespace {
    pub level: u32,
}

pub static init_pid_ns: pid_namespace = pid_namespace { level: 0 };

pub struct upid {
    pub nr: i32,
    pub ns: *mut pid_namespace,
}

/// A flexible array, of one element here.
pub struct upids([upid; 1]);

impl upids {
    /// # Safety
    ///
    /// The array has `len` elements.
    pub unsafe fn as_slice(&self, len: usize) -> &[upid] {
        &self.0[..len]
    }
}

pub struct pid {
    pub count: refcount_t,
    pub level: u32,
    pub tasks: [hlist_head; 4],
    pub wait_pidfd: wait_queue_head,
    pub numbers: upids,
}

pub struct atomic_t {
    pub counter: AtomicI32,
}

pub struct signal_struct {
    pub live: atomic_t,
    pub thread_head: list_head,
    pub pids: [AtomicPtr<pid>; 4],
    pub stats_lock: seqlock_t,
    pub sum_sched_runtime: u64,
    /// The same, as [`read_once`](crate::once::read_once) reads it.
    pub sum_shared: AtomicU64,
}

pub struct sched_entity {
    pub sum_exec_runtime: AtomicU64,
}

pub struct task_struct {
    pub __state: AtomicU32,
    pub on_cpu: AtomicI32,
    pub se: sched_entity,
    pub exit_state: AtomicI32,
    pub pid_links: [hlist_node; 4],
    pub thread_node: list_head,
    pub signal: *mut signal_struct,
}

impl task_struct {
    fn new() -> Self {
        Self {
            __state: AtomicU32::new(0),
            on_cpu: AtomicI32::new(1),
            se: sched_entity {
                sum_exec_runtime: AtomicU64::new(0),
            },
            exit_state: AtomicI32::new(0),
            pid_links: Default::default(),
            thread_node: list_head::default(),
            signal: null_mut(),
        }
    }

    fn thread_node(&self) -> *mut list_head {
        (&raw const self.thread_node).cast_mut()
    }
}

/// A process, whose first thread is the only one in its list, and another thread of it.
pub struct Group {
    pub tasklist_lock: spinlock_t,
    pub pid: pid,
    pub signal: signal_struct,
    pub leader: task_struct,
    pub thread: task_struct,
}

// SAFETY: All that changes in it is atomic, or protected by a lock.
unsafe impl Send for Group {}
// SAFETY: As above.
unsafe impl Sync for Group {}

impl Group {
    pub fn new() -> Box<Self> {
        let mut group = Box::new(Self {
            tasklist_lock: spinlock_t::new(),
            pid: pid {
                count: refcount_t,
                level: 0,
                tasks: [(); 4].map(|()| hlist_head {
                    first: AtomicPtr::new(null_mut()),
                }),
                wait_pidfd: wait_queue_head,
                numbers: upids([upid {
                    nr: 1,
                    ns: (&raw const init_pid_ns).cast_mut(),
                }]),
            },
            signal: signal_struct {
                live: atomic_t {
                    counter: AtomicI32::new(1),
                },
                thread_head: list_head::default(),
                pids: [(); 4].map(|()| AtomicPtr::new(null_mut())),
                stats_lock: seqlock_t::new(),
                sum_sched_runtime: 0,
                sum_shared: AtomicU64::new(0),
            },
            leader: task_struct::new(),
            thread: task_struct::new(),
        });
        let signal = &raw mut group.signal;
        group.leader.signal = signal;
        group.thread.signal = signal;
        for kind in [pid_type_PIDTYPE_PID, pid_type_PIDTYPE_TGID] {
            let kind = kind as usize;
            let link = &raw mut group.leader.pid_links[kind];
            group.pid.tasks[kind].first.store(link, Relaxed);
            group.signal.pids[kind].store(&raw mut group.pid, Relaxed);
        }
        let (head, node) = (group.head(), group.leader.thread_node());
        group.signal.thread_head.next.store(node, Relaxed);
        group.signal.thread_head.prev.store(node, Relaxed);
        group.leader.thread_node.next.store(head, Relaxed);
        group.leader.thread_node.prev.store(head, Relaxed);
        group
    }

    fn head(&self) -> *mut list_head {
        (&raw const self.signal.thread_head).cast_mut()
    }

    /// As `copy_process()` does: the leader starts the other thread.
    pub fn start_thread(&self) {
        self.tasklist_lock.lock();
        self.signal.live.counter.fetch_add(1, Relaxed);
        // `list_add_tail_rcu()`
        let node = self.thread.thread_node();
        self.thread.thread_node.next.store(self.head(), Relaxed);
        self.thread
            .thread_node
            .prev
            .store(self.leader.thread_node(), Relaxed);
        self.leader.thread_node.next.store(node, Release);
        self.signal.thread_head.prev.store(node, Relaxed);
        self.tasklist_lock.unlock();
    }

    /// As `exit_notify()` does, up to what it tells others of.
    pub fn exit_leader(&self) {
        self.tasklist_lock.lock();
        self.leader.exit_state.store(32, Relaxed);
        self.tasklist_lock.unlock();
    }

    /// As `release_task()` does: the other thread has ended.
    pub fn release_thread(&self) {
        self.tasklist_lock.lock();
        self.signal.stats_lock.write(|| {
            let time = self.thread.se.sum_exec_runtime.load(Relaxed);
            self.signal.sum_shared.fetch_add(time, Relaxed);
            // `list_del_rcu()`
            let leader = self.leader.thread_node();
            self.signal.thread_head.prev.store(leader, Relaxed);
            self.leader.thread_node.next.store(self.head(), Relaxed);
        });
        self.tasklist_lock.unlock();
    }
}

thread_local! {
    /// The only process.
    static FOUND: Cell<*mut pid> = const { Cell::new(null_mut()) };
}

/// Has `group` be the process with every number.
pub fn let_find(group: &Group) {
    FOUND.set((&raw const group.pid).cast_mut());
}

/// # Safety
///
/// None; it is one in C.
pub unsafe fn find_pid_ns(_nr: i32, _ns: *mut pid_namespace) -> *mut pid {
    FOUND.get()
}

/// # Safety
///
/// As above.
pub unsafe fn refcount_inc(_count: *mut refcount_t) {}

/// # Safety
///
/// As above.
pub unsafe fn put_pid(_pid: *mut pid) {}
