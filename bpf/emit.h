/* SPDX-License-Identifier: GPL-2.0 */
/* The maps, and the one way by which a record leaves the kernel. */
#ifndef EMIT_H
#define EMIT_H

/*
 * 4 MiB: 25,000 records, a tenth of a second of the fastest flood of one task. With a
 * busy processor 256 KiB and 1 MiB lost some of 200,000 errors, 4 MiB none. The pages
 * are mapped twice in the monitor and count so: 8 MiB would take its RSS from 29 to 37 MB.
 */
BPF_RINGBUF_OUTPUT(events, 1024);

/*
 * Reports that found no room in the ring, per probe. Memory mapped, because the
 * monitor reads it after it has dropped the right to call bpf(2).
 */
BPF_F_TABLE("array", u32, u64, lost, FSERR_PROBE_MAX, BPF_F_MMAPABLE);

/* Written by the monitor through its mapping: a mark must not need bpf(2) either. */
BPF_F_TABLE("array", u32, struct fserr_marks, marks, 1, BPF_F_MMAPABLE);

static __always_inline bool fserr_is_marked(u32 dev)
{
	u32 zero = 0;
	struct fserr_marks *marked = marks.lookup(&zero);

	if (!marked || marked->count == FSERR_MARKS_ALL)
		return true;
#ifdef FSERR_PLACES
	u64 differ = ~0ULL;

	/* behind count there are zeros, which are no device */
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < FSERR_MARKS_MAX; i++)
		differ &= if_differ(marked->dev[i], dev);
	return !differ;
#else
	for (u32 i = 0; i < FSERR_MARKS_MAX; i++) {
		/* else clang compares with !=, from which the verifier of 5.10 learns nothing */
		asm volatile("" : "+r"(i));
		if (i >= marked->count)
			break;
		if (marked->dev[i] == dev)
			return true;
	}
	return false;
#endif
}

static __always_inline void fserr_set_superblock(struct fserr_record *record,
						 struct super_block *sb)
{
	unsigned long magic = 0, flags = 0;

	READ(record->dev, sb->s_dev);
	READ(magic, sb->s_magic);
	READ(flags, sb->s_flags);
	record->magic = magic;
	record->sb_flags = flags;
}

static __always_inline void fserr_set_inode(struct fserr_record *record, struct inode *inode)
{
	struct super_block *sb = NULL;

	record->flags |= FSERR_HAS_INODE;
	record->ino = inode_number(inode);
	READ(record->generation, inode->i_generation);
	READ(sb, inode->i_sb);
	fserr_set_superblock(record, sb);
	if (record->magic == BTRFS_SUPER_MAGIC)
		record->subvolume = btrfs_subvolume(inode);
}

static __always_inline void fserr_set_task(void *ctx, struct fserr_record *record)
{
	struct task_struct *task = (void *)bpf_get_current_task(), *leader = NULL;
	u64 id = bpf_get_current_pid_tgid();

	READ(leader, task->group_leader);
	record->tgid = visible_pid(leader, id >> 32);
	record->tid = visible_pid(task, id);
	READ(record->task_start, leader->start_time);
	record->own_tgid = own_pid(leader, &record->pid_namespace, &record->pid_level);
	record->own_tid = own_pid(task, &record->pid_namespace, &record->pid_level);
	bpf_get_current_comm(record->comm, sizeof(record->comm));
	if (in_soft_interrupt(ctx, task, record->comm))
		record->flags |= FSERR_NO_TASK;
}

/*
 * The record is complete but for its task and time. here is ctx, the program's context,
 * or anything else on the stack that runs. inode and type are for the side record.
 */
static __always_inline int fserr_emit_about(void *ctx, void *here, struct fserr_record *record,
					    u8 probe, struct inode *inode, u32 type)
{
	fserr_entry *slot;
	u32 key = probe;
	u64 *count;

	if (!fserr_is_marked(record->dev))
		return 0;
	slot = events.ringbuf_reserve(sizeof(*slot));
	if (!slot) {
		count = lost.lookup(&key);
		if (count)
			__sync_fetch_and_add(count, 1);
		return 0;
	}
	record->version = FSERR_VERSION;
	record->probe = probe;
	record->size = sizeof(*record);
	record->time_ns = bpf_ktime_get_ns();
	fserr_set_task(here, record);
	fserr_fill(ctx, slot, record, inode, type);
	events.ringbuf_submit(slot, 0);
	return 0;
}

static __always_inline int fserr_emit_inode(void *ctx, struct fserr_record *record, u8 probe,
					    struct inode *inode)
{
	return fserr_emit_about(ctx, ctx, record, probe, inode, 0);
}

static __always_inline int fserr_emit(void *ctx, struct fserr_record *record, u8 probe)
{
	return fserr_emit_about(ctx, ctx, record, probe, NULL, 0);
}

#endif
