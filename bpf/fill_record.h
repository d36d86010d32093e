/* SPDX-License-Identifier: GPL-2.0 */
/* Filling the record: of which superblock, inode and task it is. */
#ifndef FILL_RECORD_H
#define FILL_RECORD_H

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
	READ(record->task_start, leader->start_boottime);
	record->own_tgid = own_pid(leader, &record->pid_namespace, &record->pid_level);
	record->own_tid = own_pid(task, &record->pid_namespace, &record->pid_level);
	bpf_get_current_comm(record->comm, sizeof(record->comm));
	if (on_irq_stack(ctx, task) || serves_softirq(task, record->comm))
		record->flags |= FSERR_IN_INTERRUPT;
}

#endif
