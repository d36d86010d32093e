/* SPDX-License-Identifier: GPL-2.0 */
/*
 * btrfs: the first fatal error of a file system and what it does to it (fs/btrfs/messages.c),
 * and the errors that are counted per device (fs/btrfs/volumes.c).
 */
#ifdef HAVE_btrfs_fs_info_sb

int kprobe_btrfs_handle_fs_error(struct pt_regs *ctx)
{
	struct btrfs_fs_info *fs_info = (void *)PT_REGS_PARM1(ctx);
	struct super_block *sb = NULL;
	s32 error = (s32)PT_REGS_PARM4(ctx);
	struct fserr_record record = {};

	READ(sb, fs_info->sb);
	/* called again for every handle of an aborted transaction */
	if (btrfs_has_failed(fs_info) || (error == -EROFS && sb_is_read_only(sb)))
		return 0;
	fserr_set_superblock(&record, sb);
	record.error = error;
	record.failaddr = caller_of(ctx);
	record.line = PT_REGS_PARM3(ctx);
	bpf_probe_read_kernel_str(record.function, sizeof(record.function),
				  (void *)PT_REGS_PARM2(ctx));
	return fserr_emit(ctx, &record, FSERR_PROBE_BTRFS_ERROR);
}

/* The first fatal error also ends a file system that may be written to. */
int kprobe_btrfs_end(struct pt_regs *ctx)
{
	struct btrfs_fs_info *fs_info = (void *)PT_REGS_PARM1(ctx);
	struct super_block *sb = NULL;
	struct fserr_record record = {};

	READ(sb, fs_info->sb);
	/* before it is born the mount fails instead, and nobody has a mark */
	if (btrfs_has_failed(fs_info) || (sb_flags(sb) & (SB_RDONLY | SB_BORN)) != SB_BORN)
		return 0;
	record.line = PT_REGS_PARM3(ctx);
	bpf_probe_read_kernel_str(record.function, sizeof(record.function),
				  (void *)PT_REGS_PARM2(ctx));
	return fserr_emit_end(ctx, sb, &record, fserr_reason_of(PT_REGS_PARM4(ctx)),
			      FSERR_PROBE_BTRFS_END);
}

/*
 * 7.2: the shutdown by ioctl, and that of a device that is gone, are in functions of which
 * only these can be probed: what 7.x itself reports of it, and who calls for the device.
 */
int kprobe_btrfs_removed(struct pt_regs *ctx)
{
	struct fserr_record record = {.flags = FSERR_ATTACHMENT(1)};

	return fserr_emit_end(ctx, (void *)PT_REGS_PARM1(ctx), &record, FSERR_DEVICE_REMOVED,
			      FSERR_PROBE_BTRFS_END);
}

/* fserror_report(sb, inode, type, pos, len, error, gfp) */
int kprobe_btrfs_shutdown(struct pt_regs *ctx)
{
	struct super_block *sb = (void *)PT_REGS_PARM1(ctx);
	struct fserr_record record = {.flags = FSERR_ATTACHMENT(2)};
	unsigned long magic = 0;

	READ(magic, sb->s_magic);
	if (magic != BTRFS_SUPER_MAGIC || (s32)PT_REGS_PARM6(ctx) != -ESHUTDOWN)
		return 0;
	return fserr_emit_end(ctx, sb, &record, FSERR_REQUESTED, FSERR_PROBE_BTRFS_END);
}

int kprobe_btrfs_device(struct pt_regs *ctx)
{
	struct btrfs_device *device = (void *)PT_REGS_PARM1(ctx);
	struct btrfs_fs_info *fs_info = NULL;
	struct super_block *sb = NULL;
	struct fserr_record record = {};

	READ(fs_info, device->fs_info);
	READ(sb, fs_info->sb);
	fserr_set_superblock(&record, sb);
	record.error = btrfs_device_error(PT_REGS_PARM2(ctx));
	record.failaddr = caller_of(ctx);
	return fserr_emit(ctx, &record, FSERR_PROBE_BTRFS_DEVICE);
}

#endif
