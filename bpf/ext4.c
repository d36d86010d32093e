/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ext4: the five functions that call fsnotify_sb_error() up to 6.19 (fs/ext4/super.c), and
 * __ext4_grp_locked_error(), which never sends one and fires the ext4_error tracepoint too.
 * Its end is in ext4_end.c.
 */

static __always_inline void ext4_set_place(struct fserr_record *record, void *function, u32 line)
{
	record->line = line;
	bpf_probe_read_kernel_str(record->function, sizeof(record->function), function);
}

/* The functions whose arguments begin with (sb, function, line). */
static __always_inline int ext4_superblock_error(struct pt_regs *ctx, s32 error, u64 block,
						 u8 probe)
{
	struct super_block *sb = (void *)PT_REGS_PARM1(ctx);
	struct fserr_record record = {};

	if (ext4_is_silent(sb))
		return 0;
	fserr_set_superblock(&record, sb);
	ext4_set_place(&record, (void *)PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx));
	record.error = error;
	record.block = block;
	record.failaddr = caller_of(ctx);
	if (error == ESHUTDOWN) { /* remount,abort: what follows is the same end */
		record.flags |= FSERR_REQUESTED;
		fserr_ends_now(sb);
	}
	return fserr_emit(ctx, &record, probe);
}

/* Those that begin with (inode or file, function, line, block). */
static __always_inline int ext4_inode_error(struct pt_regs *ctx, struct inode *inode, s32 error,
					    u8 probe)
{
	struct super_block *sb = NULL;
	struct fserr_record record = {};

	READ(sb, inode->i_sb);
	if (ext4_is_silent(sb))
		return 0;
	fserr_set_inode(&record, inode);
	ext4_set_place(&record, (void *)PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx));
	record.error = error;
	record.block = PT_REGS_PARM4(ctx);
	record.failaddr = caller_of(ctx);
	return fserr_emit_inode(ctx, &record, probe, inode);
}

int kprobe_ext4_error(struct pt_regs *ctx)
{
	return ext4_superblock_error(ctx, EXT4_ERROR_ARGUMENT(ctx), EXT4_BLOCK_ARGUMENT(ctx),
				     FSERR_PROBE_EXT4_ERROR);
}

int kprobe_ext4_error_inode(struct pt_regs *ctx)
{
	return ext4_inode_error(ctx, (void *)PT_REGS_PARM1(ctx), PT_REGS_PARM5(ctx),
				FSERR_PROBE_EXT4_ERROR_INODE);
}

int kprobe_ext4_error_file(struct pt_regs *ctx)
{
	struct file *file = (void *)PT_REGS_PARM1(ctx);
	struct inode *inode = NULL;

	READ(inode, file->f_inode);
	return ext4_inode_error(ctx, inode, EFSCORRUPTED, FSERR_PROBE_EXT4_ERROR_FILE);
}

int kprobe_ext4_std_error(struct pt_regs *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	s32 error = PT_REGS_PARM4(ctx);
	void *handle = NULL;

	/* a read-only file system outside a transaction is no error there either */
	READ(handle, task->journal_info);
	if (error == -EROFS && !handle && sb_is_read_only((void *)PT_REGS_PARM1(ctx)))
		return 0;
	return ext4_superblock_error(ctx, error, 0, FSERR_PROBE_EXT4_STD_ERROR);
}

/*
 * kernel ..5.10: __ext4_abort() (sb, function, line, error, format)
 * kernel 5.11..: comes through __ext4_error(), see ext4.h
 */
int kprobe_ext4_abort(struct pt_regs *ctx)
{
	return ext4_superblock_error(ctx, PT_REGS_PARM4(ctx), 0, FSERR_PROBE_EXT4_ABORT);
}

/* (function, line, sb, group, inode number, block, format) */
int kprobe_ext4_group_locked(struct pt_regs *ctx)
{
	struct super_block *sb = (void *)PT_REGS_PARM3(ctx);
	struct fserr_record record = {};

	if (ext4_is_silent(sb))
		return 0;
	fserr_set_superblock(&record, sb);
	ext4_set_place(&record, (void *)PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx));
	record.error = EFSCORRUPTED;
	record.block = PT_REGS_PARM6(ctx);
	record.failaddr = caller_of(ctx);
	return fserr_emit(ctx, &record, FSERR_PROBE_EXT4_GROUP_LOCKED);
}

/*
 * Where there are no kprobes: place and task only, to be joined in user space
 * with the event of the kernel's own group.
 */
int tracepoint_ext4_error(struct bpf_raw_tracepoint_args *ctx)
{
	struct fserr_record record = {};

	fserr_set_superblock(&record, (void *)ctx->args[0]);
	ext4_set_place(&record, (void *)ctx->args[1], ctx->args[2]);
	return fserr_emit(ctx, &record, FSERR_PROBE_EXT4_TRACE);
}

int tracepoint_ext4_shutdown(struct bpf_raw_tracepoint_args *ctx)
{
	struct fserr_record record = {};

	fserr_set_superblock(&record, (void *)ctx->args[0]);
	record.error = -ESHUTDOWN;
	return fserr_emit(ctx, &record, FSERR_PROBE_EXT4_SHUTDOWN);
}
