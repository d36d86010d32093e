/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ext4: the five functions that call fsnotify_sb_error() up to 6.19, and none
 * else (fs/ext4/super.c). __ext4_grp_locked_error() never sends one and is left
 * out, though it fires the ext4_error tracepoint too.
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

/* 5.10 only; later kernels come through __ext4_error() with force_ro */
int kprobe_ext4_abort(struct pt_regs *ctx)
{
	return ext4_superblock_error(ctx, PT_REGS_PARM4(ctx), 0, FSERR_PROBE_EXT4_ABORT);
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
