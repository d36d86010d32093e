/* SPDX-License-Identifier: GPL-2.0 */
/* What the probes read of btrfs. */
#ifndef BTRFS_H
#define BTRFS_H

#define BTRFS_SUPER_MAGIC 0x9123683eu

/* btrfs_inode.root: all versions; absent from BTF while the module is not loaded. */
static __always_inline u64 btrfs_subvolume(struct inode *inode)
{
	u64 objectid = 0;
#if defined(HAVE_btrfs_inode_vfs_inode) && defined(HAVE_btrfs_root_root_key)
	struct btrfs_inode *binode = (void *)inode - FSERR_OFFSET_btrfs_inode_vfs_inode;
	struct btrfs_root *root = NULL;

	READ(root, binode->root);
	READ(objectid, root->root_key);
#endif
	return objectid;
}

/* enum btrfs_dev_stat_values, all versions (include/uapi/linux/btrfs.h) */
#define BTRFS_DEV_STAT_CORRUPTION_ERRS 3
#define BTRFS_DEV_STAT_GENERATION_ERRS 4

/* What the counters of a device count: a wrong checksum, a block of the past, or a failed bio. */
static __always_inline s32 btrfs_device_error(u32 counter)
{
	if (counter == BTRFS_DEV_STAT_CORRUPTION_ERRS)
		return -EFSBADCRC;
	return counter == BTRFS_DEV_STAT_GENERATION_ERRS ? -EFSCORRUPTED : -EIO;
}

#ifdef HAVE_btrfs_fs_info_sb
/*
 * kernel ..6.5: bit 0 of fs_state (BTRFS_FS_STATE_ERROR)
 * kernel 6.6..: fs_error (ae3364e5215b, "btrfs: store the error that turned the fs into
 *   error state")
 */
static __always_inline bool btrfs_has_failed(struct btrfs_fs_info *fs_info)
{
	unsigned long state = 0;
#if defined(HAVE_btrfs_fs_info_fs_error)
	int error = 0;

	READ(error, fs_info->fs_error);
	return error != 0;
#elif defined(HAVE_btrfs_fs_info_fs_state)
	READ(state, fs_info->fs_state);
#endif
	return state & 1;
}
#endif

#endif
