// SPDX-License-Identifier: GPL-2.0
/*
 * The C twin: what mp1 is compared with by the bench.
 *
 * This is the classic coursework design, written with care: a list of numbers
 * behind a spin lock, a timer that never stops, one work queue, and the user
 * time of the one thread that carries the number when the work runs. It keeps
 * no identity, checks no duplicates, and looks nothing up when it registers.
 *
 * /proc/mp1_twin/null does nothing at all: the cost of a call to it is what
 * the kernel itself spends around a call to /proc/mp1_twin/status.
 */
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/pid.h>
#include <linux/proc_fs.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/timer.h>
#include <linux/workqueue.h>

static unsigned int interval_ms = 5000;
module_param(interval_ms, uint, 0444);
MODULE_PARM_DESC(interval_ms, "time between updates in milliseconds");

struct registration {
	struct list_head node;
	pid_t pid;
	unsigned long utime_ms;
};

static LIST_HEAD(registrations);
static DEFINE_SPINLOCK(registrations_lock);
static struct workqueue_struct *update_queue;
static struct proc_dir_entry *directory;

/* Says whether a thread of that number exists, and what it has used. */
static bool read_utime(pid_t pid, unsigned long *utime_ms)
{
	struct task_struct *task;

	rcu_read_lock();
	task = pid_task(find_vpid(pid), PIDTYPE_PID);
	if (task)
		*utime_ms = task->utime / NSEC_PER_MSEC;
	rcu_read_unlock();
	return task;
}

static void update(struct work_struct *work)
{
	struct registration *entry, *next;

	spin_lock(&registrations_lock);
	list_for_each_entry_safe(entry, next, &registrations, node) {
		if (!read_utime(entry->pid, &entry->utime_ms)) {
			list_del(&entry->node);
			kfree(entry);
		}
	}
	spin_unlock(&registrations_lock);
}

static DECLARE_WORK(update_work, update);

static void tick(struct timer_list *timer)
{
	queue_work(update_queue, &update_work);
	mod_timer(timer, jiffies + msecs_to_jiffies(interval_ms));
}

static DEFINE_TIMER(update_timer, tick);

static int status_show(struct seq_file *seq, void *unused)
{
	struct registration *entry;

	spin_lock(&registrations_lock);
	list_for_each_entry(entry, &registrations, node)
		seq_printf(seq, "%d: %lu\n", entry->pid, entry->utime_ms);
	spin_unlock(&registrations_lock);
	return 0;
}

static int status_open(struct inode *inode, struct file *file)
{
	return single_open(file, status_show, NULL);
}

static ssize_t status_write(struct file *file, const char __user *buffer,
			    size_t count, loff_t *position)
{
	struct registration *entry;
	pid_t pid;
	int error;

	error = kstrtoint_from_user(buffer, count, 10, &pid);
	if (error)
		return error;

	entry = kmalloc(sizeof(*entry), GFP_KERNEL);
	if (!entry)
		return -ENOMEM;
	entry->pid = pid;
	entry->utime_ms = 0;

	spin_lock(&registrations_lock);
	list_add_tail(&entry->node, &registrations);
	spin_unlock(&registrations_lock);
	return count;
}

static const struct proc_ops status_ops = {
	.proc_open = status_open,
	.proc_read = seq_read,
	.proc_write = status_write,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
};

static ssize_t null_read(struct file *file, char __user *buffer, size_t count,
			 loff_t *position)
{
	return 0;
}

static ssize_t null_write(struct file *file, const char __user *buffer,
			  size_t count, loff_t *position)
{
	return count;
}

static const struct proc_ops null_ops = {
	.proc_read = null_read,
	.proc_write = null_write,
	.proc_lseek = noop_llseek,
};

static int __init twin_init(void)
{
	update_queue = alloc_workqueue("mp1_twin", WQ_UNBOUND, 0);
	if (!update_queue)
		return -ENOMEM;

	directory = proc_mkdir("mp1_twin", NULL);
	if (!directory)
		goto no_directory;
	if (!proc_create("status", 0666, directory, &status_ops) ||
	    !proc_create("null", 0666, directory, &null_ops))
		goto no_file;

	mod_timer(&update_timer, jiffies + msecs_to_jiffies(interval_ms));
	return 0;

no_file:
	proc_remove(directory);
no_directory:
	destroy_workqueue(update_queue);
	return -ENOMEM;
}

static void __exit twin_exit(void)
{
	struct registration *entry, *next;

	proc_remove(directory);
	timer_shutdown_sync(&update_timer);
	destroy_workqueue(update_queue);
	list_for_each_entry_safe(entry, next, &registrations, node)
		kfree(entry);
}

module_init(twin_init);
module_exit(twin_exit);

MODULE_DESCRIPTION("mp1's C twin, for comparison only");
MODULE_LICENSE("GPL");
