// SPDX-License-Identifier: GPL-2.0
/*
 * What proc.rs has to know of linux/proc_fs.h, asked of the compiler that
 * built the kernel. Nothing of this file ends up in the module: Kbuild turns
 * the offsets into proc_layout.rs, which proc.rs compares with its own.
 */
#include <linux/build_bug.h>
#include <linux/kbuild.h>
#include <linux/proc_fs.h>

#define MEMBER(name) OFFSET(OFFSET_##name, proc_ops, name)

int main(void)
{
	DEFINE(SIZE, sizeof(struct proc_ops));
	MEMBER(proc_flags);
	MEMBER(proc_open);
	MEMBER(proc_read_iter);
	MEMBER(proc_write);
	MEMBER(proc_lseek);
	MEMBER(proc_release);

	/* The functions that proc.rs declares and the types of its callbacks. */
	static_assert(__same_type(proc_mkdir_mode,
		struct proc_dir_entry *(const char *, umode_t, struct proc_dir_entry *)));
	static_assert(__same_type(proc_create_data,
		struct proc_dir_entry *(const char *, umode_t, struct proc_dir_entry *,
					const struct proc_ops *, void *)));
	static_assert(__same_type(proc_remove, void (struct proc_dir_entry *)));
	static_assert(__same_type(((struct proc_ops *)0)->proc_open,
		int (*)(struct inode *, struct file *)));
	static_assert(__same_type(((struct proc_ops *)0)->proc_read_iter,
		ssize_t (*)(struct kiocb *, struct iov_iter *)));
	static_assert(__same_type(((struct proc_ops *)0)->proc_write,
		ssize_t (*)(struct file *, const char __user *, size_t, loff_t *)));
	static_assert(__same_type(((struct proc_ops *)0)->proc_lseek,
		loff_t (*)(struct file *, loff_t, int)));
	static_assert(__same_type(((struct proc_ops *)0)->proc_release,
		int (*)(struct inode *, struct file *)));
	return 0;
}
