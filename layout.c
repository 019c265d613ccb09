// SPDX-License-Identifier: GPL-2.0
/*
 * The compiler that built the kernel checks here what the Rust code assumes
 * about C beyond the kernel's bindings. Nothing in this file ends up in the
 * module: Kbuild turns the constants into layout.rs, and a declaration that no
 * longer matches breaks the build here.
 */
#include <linux/build_bug.h>
#include <linux/fs.h>
#include <linux/kbuild.h>
#include <linux/pid.h>
#include <linux/poll.h>
#include <linux/proc_fs.h>
#include <linux/rcupdate_wait.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/spinlock.h>
#include <linux/wait.h>

#define MEMBER(name) OFFSET(OFFSET_##name, proc_ops, name)
#define TYPE_OF(type, member, ...) \
	static_assert(__same_type(((type *)0)->member, __VA_ARGS__))

int main(void)
{
	/* proc.rs: struct proc_ops, and the functions that proc.rs declares. */
	DEFINE(SIZE_proc_ops, sizeof(struct proc_ops));
	MEMBER(proc_flags);
	MEMBER(proc_open);
	MEMBER(proc_read);
	MEMBER(proc_read_iter);
	MEMBER(proc_write);
	MEMBER(proc_lseek);
	MEMBER(proc_release);
	MEMBER(proc_poll);
	static_assert(__same_type(proc_mkdir_mode,
		struct proc_dir_entry *(const char *, umode_t, struct proc_dir_entry *)));
	static_assert(__same_type(proc_create_data,
		struct proc_dir_entry *(const char *, umode_t, struct proc_dir_entry *,
					const struct proc_ops *, void *)));
	static_assert(__same_type(proc_remove, void (struct proc_dir_entry *)));
	TYPE_OF(struct proc_ops, proc_open, int (*)(struct inode *, struct file *));
	TYPE_OF(struct proc_ops, proc_read, ssize_t (*)(struct file *, char __user *, size_t, loff_t *));
	TYPE_OF(struct proc_ops, proc_read_iter, ssize_t (*)(struct kiocb *, struct iov_iter *));
	TYPE_OF(struct proc_ops, proc_write,
		ssize_t (*)(struct file *, const char __user *, size_t, loff_t *));
	TYPE_OF(struct proc_ops, proc_lseek, loff_t (*)(struct file *, loff_t, int));
	TYPE_OF(struct proc_ops, proc_release, int (*)(struct inode *, struct file *));
	TYPE_OF(struct proc_ops, proc_poll, __poll_t (*)(struct file *, struct poll_table_struct *));
	DEFINE(IOCB_NOWAIT_FLAG, IOCB_NOWAIT);

	/* poll.rs: events, which are typed constants in C. */
	DEFINE(EVENT_IN, (__force unsigned int)EPOLLIN);
	DEFINE(EVENT_PRI, (__force unsigned int)EPOLLPRI);
	DEFINE(EVENT_OUT, (__force unsigned int)EPOLLOUT);
	DEFINE(EVENT_ERR, (__force unsigned int)EPOLLERR);
	DEFINE(EVENT_HUP, (__force unsigned int)EPOLLHUP);
	DEFINE(EVENT_RDNORM, (__force unsigned int)EPOLLRDNORM);
	DEFINE(EVENT_RDBAND, (__force unsigned int)EPOLLRDBAND);
	DEFINE(EVENT_WRNORM, (__force unsigned int)EPOLLWRNORM);
	DEFINE(EVENT_WRBAND, (__force unsigned int)EPOLLWRBAND);
	DEFINE(EVENT_RDHUP, (__force unsigned int)EPOLLRDHUP);
	DEFINE(EVENT_POLLFREE, (__force unsigned int)POLLFREE);

	/* rcu_tasks.rs: what wakeme_after_rcu() completes. */
	OFFSET(OFFSET_rcu_head, rcu_synchronize, head);
	OFFSET(OFFSET_rcu_completion, rcu_synchronize, completion);
	static_assert(__same_type(wakeme_after_rcu, void (struct rcu_head *)));
	TYPE_OF(struct rcu_synchronize, completion, struct completion);

	/* exit_watch.rs: the wait queue of a process, and the callback on it. */
	TYPE_OF(struct pid, wait_pidfd, wait_queue_head_t);
	TYPE_OF(struct wait_queue_entry, func,
		int (*)(struct wait_queue_entry *, unsigned int, int, void *));

#if defined(CONFIG_SMP) && !defined(CONFIG_DEBUG_SPINLOCK)
	/* raw_spinlock.rs: a lock that is free. */
	static const arch_spinlock_t spin_unlocked = __ARCH_SPIN_LOCK_UNLOCKED;
	static_assert(sizeof(arch_spinlock_t) == sizeof(unsigned int));
	static_assert(offsetof(raw_spinlock_t, raw_lock) == 0);
	static_assert(sizeof(raw_spinlock_t) == sizeof(unsigned int));
	DEFINE(SPIN_UNLOCKED, *(const unsigned int *)&spin_unlocked);
#endif

	/* process.rs: fields read without a lock must be read in one access. */
	TYPE_OF(struct task_struct, se.sum_exec_runtime, u64);
	TYPE_OF(struct task_struct, exit_state, int);
	static_assert(sizeof_field(struct task_struct, on_cpu) <= sizeof(int));
	TYPE_OF(struct signal_struct, sum_sched_runtime, unsigned long long);
	TYPE_OF(struct signal_struct, stats_lock, seqlock_t);
	TYPE_OF(struct signal_struct, live, atomic_t);
	return 0;
}
