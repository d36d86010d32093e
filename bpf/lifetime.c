/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The end of all marks of a superblock, in order with its errors
 * (fs/notify/fsnotify.c, called from generic_shutdown_super()).
 */
int kprobe_fsnotify_sb_delete(struct pt_regs *ctx)
{
	struct super_block *sb = (void *)PT_REGS_PARM1(ctx);
	struct fserr_record record = {};

	fserr_forget_end(sb);
	fserr_set_superblock(&record, sb);
	return fserr_emit(ctx, &record, FSERR_PROBE_SB_DELETE);
}
