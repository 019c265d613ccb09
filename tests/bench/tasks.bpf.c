// SPDX-License-Identifier: GPL-2.0
/*
 * What root could do instead of loading a module: programs that keep tasks and
 * read their CPU times into an array, which user space has mapped.
 *
 * It reads what the kernel's own totals are made of, like mp1, but only of the
 * first thread and of those that have ended.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define PROCESSES_MAX 32768

struct sched_entity {
	__u64 sum_exec_runtime;
} __attribute__((preserve_access_index));

struct signal_struct {
	unsigned long long sum_sched_runtime;
} __attribute__((preserve_access_index));

struct task_struct {
	struct sched_entity se;
	struct signal_struct *signal;
} __attribute__((preserve_access_index));

struct task_struct *bpf_task_from_pid(__s32 pid) __ksym;
void bpf_task_release(struct task_struct *task) __ksym;
void bpf_rcu_read_lock(void) __ksym;
void bpf_rcu_read_unlock(void) __ksym;

struct slot {
	struct task_struct __kptr *task;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PROCESSES_MAX);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

/* Which slots a run is about. */
struct range {
	__u32 first;
	__u32 count;
};

/* Both are mapped by user space: the numbers to register, and the times. */
__s32 pids[PROCESSES_MAX] SEC(".data.pids");
__u64 times[PROCESSES_MAX] SEC(".data.times");

static long register_one(__u32 i, struct range *range)
{
	struct task_struct *task;
	struct slot *slot;
	__u32 at = range->first + i;

	slot = bpf_map_lookup_elem(&slots, &at);
	if (!slot || at >= PROCESSES_MAX)
		return 1;
	task = bpf_task_from_pid(pids[at]);
	if (!task)
		return 0;
	task = bpf_kptr_xchg(&slot->task, task);
	if (task)
		bpf_task_release(task);
	return 0;
}

SEC("syscall")
int register_tasks(struct range *context)
{
	struct range range = *context;

	return bpf_loop(range.count, register_one, &range, 0);
}

static long read_one(__u32 i, void *unused)
{
	struct task_struct *task;
	struct slot *slot;

	slot = bpf_map_lookup_elem(&slots, &i);
	if (!slot || i >= PROCESSES_MAX)
		return 1;
	task = slot->task;
	if (task)
		times[i] = task->se.sum_exec_runtime + task->signal->sum_sched_runtime;
	return 0;
}

SEC("syscall")
int read_times(struct range *context)
{
	__u32 count = context->count;
	long done;

	bpf_rcu_read_lock();
	done = bpf_loop(count, read_one, NULL, 0);
	bpf_rcu_read_unlock();
	return done;
}

char license_text[] SEC("license") = "GPL";
