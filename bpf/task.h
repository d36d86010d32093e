/* SPDX-License-Identifier: GPL-2.0 */
/* The current task: its numbers, its cgroup, and whether the error has to do with it. */
#ifndef TASK_H
#define TASK_H

#define PF_KTHREAD 0x00200000u /* include/linux/sched.h, all versions */
/* the bit of "a soft interrupt is being served" (include/linux/preempt.h, all versions) */
#define SOFTIRQ_OFFSET (1u << 8)

/*
 * Whether an interrupt, hard or soft, has taken the processor from the task. Both have
 * stacks of their own on x86-64, and a probe's context lies on the stack that runs.
 * Asking preempt_count would need the address of a per-CPU variable, which has moved
 * twice since 6.1.
 */
static __always_inline bool on_irq_stack(void *ctx, struct task_struct *task)
{
	unsigned long here = 0, stack = 0;

	/* read back through memory: the verifier allows no arithmetic on ctx */
	bpf_probe_read_kernel(&here, sizeof(here), &ctx);
	READ(stack, task->stack);
	return here - stack >= FSERR_THREAD_SIZE;
}

/*
 * Whether the task runs soft interrupts on its own stack, for whoever they are. ksoftirqd
 * always does; anybody may take its name, but not the flag. With PREEMPT_RT any task may,
 * and counts it (since 5.12: 8b1c04acad08, "softirq: Make softirq control and processing
 * RT aware"); no other kernel has that member.
 */
static __always_inline bool serves_softirq(struct task_struct *task, char *comm)
{
	u32 flags = 0, count = 0;

#ifdef HAVE_task_struct_softirq_disable_cnt
	READ(count, task->softirq_disable_cnt);
#endif
	READ(flags, task->flags);
	return (count & SOFTIRQ_OFFSET) ||
	       ((flags & PF_KTHREAD) && __builtin_memcmp(comm, "ksoftirq", 8) == 0);
}

/*
 * The number of a task in the monitor's pid namespace, 0 where it has none, as
 * pid_vnr() gives it to the reader of a fanotify group. FSERR_PID_NAMESPACE is set
 * when that is not the initial namespace. numbers[] goes from the initial one down.
 */
#define FSERR_PID_LEVELS 32 /* MAX_PID_NS_LEVEL, include/linux/pid_namespace.h */

static __always_inline u32 visible_pid(struct task_struct *task, u32 initial)
{
#ifdef FSERR_PID_NAMESPACE
	struct pid *pid = NULL;
	struct upid upid = {};
	u32 level = 0, inum = 0;

	READ(pid, task->thread_pid);
	READ(level, pid->level);
	for (u32 i = 1; i < FSERR_PID_LEVELS; i++) {
		if (i > level)
			break;
		READ(upid, ((struct upid *)&pid->numbers)[i]);
		READ(inum, upid.ns->ns_inum);
		if (inum == FSERR_PID_NAMESPACE)
			return upid.nr;
	}
	return 0;
#else
	return initial;
#endif
}

/* The innermost number of a task below the initial namespace; 0 and nothing set if there is none. */
static __always_inline u32 own_pid(struct task_struct *task, u32 *inum, u32 *level)
{
	struct pid *pid = NULL;
	struct upid upid = {};

	READ(pid, task->thread_pid);
	READ(*level, pid->level);
	if (!*level)
		return 0;
	READ(upid, ((struct upid *)&pid->numbers)[*level]);
	READ(*inum, upid.ns->ns_inum);
	return upid.nr;
}

/* task_dfl_cgroup() of the current task; NULL without CONFIG_CGROUPS */
static __always_inline struct kernfs_node *task_cgroup_node(void)
{
	struct kernfs_node *node = NULL;
#ifdef HAVE_task_struct_cgroups
	struct task_struct *task = (void *)bpf_get_current_task();
	struct css_set *set = NULL;
	struct cgroup *cgroup = NULL;

	READ(set, task->cgroups);
	READ(cgroup, set->dfl_cgrp);
	READ(node, cgroup->kn);
#endif
	return node;
}

#endif
