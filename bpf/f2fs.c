/* SPDX-License-Identifier: GPL-2.0 */
/*
 * f2fs: what it finds corrupt, and the stop of its checkpoints, after which nothing is
 * written any more (fs/f2fs/super.c, fs/f2fs/checkpoint.c).
 * 5.10 has no f2fs_handle_error(), and no BTF of f2fs either.
 */
#ifdef HAVE_f2fs_sb_info_sb

int kprobe_f2fs_error(struct pt_regs *ctx)
{
	struct f2fs_sb_info *sbi = (void *)PT_REGS_PARM1(ctx);
	struct super_block *sb = NULL;
	struct fserr_record record = {};

	READ(sb, sbi->sb);
	fserr_set_superblock(&record, sb);
	record.error = -EFSCORRUPTED;
	record.failaddr = caller_of(ctx);
	return fserr_emit(ctx, &record, FSERR_PROBE_F2FS_ERROR);
}

int kprobe_f2fs_end(struct pt_regs *ctx)
{
	struct f2fs_sb_info *sbi = (void *)PT_REGS_PARM1(ctx);
	struct super_block *sb = NULL;
	struct fserr_record record = {};

	if (f2fs_has_stopped(sbi))
		return 0;
	READ(sb, sbi->sb);
	return fserr_emit_end(ctx, sb, &record, f2fs_reason(PT_REGS_PARM3(ctx)),
			      FSERR_PROBE_F2FS_END);
}

#endif
