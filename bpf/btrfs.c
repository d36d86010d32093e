/* SPDX-License-Identifier: GPL-2.0 */
/* btrfs: the first fatal error of a file system (fs/btrfs/messages.c). */
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

#endif
