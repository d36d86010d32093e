/* SPDX-License-Identifier: GPL-2.0 */
/*
 * File systems with one function for every error of their metadata, whose first argument is
 * the superblock and which knows neither inode nor error number:
 * __fat_fs_error() (fs/fat/misc.c), __nilfs_error() (fs/nilfs2/super.c),
 * jfs_error() (fs/jfs/super.c), __ocfs2_error() (fs/ocfs2/super.c).
 */
static __always_inline int superblock_error(struct pt_regs *ctx, u8 probe)
{
	struct fserr_record record = {};

	fserr_set_superblock(&record, (void *)PT_REGS_PARM1(ctx));
	record.error = -EFSCORRUPTED;
	record.failaddr = caller_of(ctx);
	return fserr_emit(ctx, &record, probe);
}

int kprobe_fat_error(struct pt_regs *ctx)
{
	return superblock_error(ctx, FSERR_PROBE_FAT_ERROR);
}

int kprobe_ocfs2_error(struct pt_regs *ctx)
{
	return superblock_error(ctx, FSERR_PROBE_OCFS2_ERROR);
}

int kprobe_nilfs2_error(struct pt_regs *ctx)
{
	return superblock_error(ctx, FSERR_PROBE_NILFS2_ERROR);
}

int kprobe_jfs_error(struct pt_regs *ctx)
{
	return superblock_error(ctx, FSERR_PROBE_JFS_ERROR);
}
