/* SPDX-License-Identifier: GPL-2.0 */
/* What the probes read of XFS. */
#ifndef XFS_H
#define XFS_H

/* of b_length and daddr (BBSIZE in fs/xfs/libxfs/xfs_fs.h), whatever the device has */
#define XFS_SECTOR_SIZE 512
/* bit 2 of b_flags, 5.10 to 7.3 (fs/xfs/xfs_buf.h) */
#define XBF_READ_AHEAD (1u << 2)
/* bit 2 of m_opstate (fs/xfs/xfs_mount.h) */
#define XFS_OPSTATE_SHUTDOWN (1UL << 2)
/* XFS_SICK_INO_CORE, 5.10 to 7.3 (fs/xfs/libxfs/xfs_health.h) */
#define XFS_SICK_INO_CORE (1u << 0)

/* why it is shut down, 5.10 to 7.3 (fs/xfs/xfs_mount.h); the last in 6.12, not yet in 6.1 */
#define SHUTDOWN_META_IO_ERROR (1u << 0)
#define SHUTDOWN_LOG_IO_ERROR (1u << 1)
#define SHUTDOWN_FORCE_UMOUNT (1u << 2)
#define SHUTDOWN_CORRUPT ((1u << 3) | (1u << 4)) /* in memory, on the disk */
#define SHUTDOWN_DEVICE_REMOVED (1u << 5)

/* Who asked for a shutdown may have the log dropped, which is passed as an error of it. */
static __always_inline u32 xfs_reason(u32 flags)
{
	if (flags & SHUTDOWN_FORCE_UMOUNT)
		return FSERR_REQUESTED;
	if (flags & SHUTDOWN_LOG_IO_ERROR)
		return FSERR_LOG_IO;
	if (flags & SHUTDOWN_CORRUPT)
		return FSERR_CORRUPTION;
	if (flags & SHUTDOWN_DEVICE_REMOVED)
		return FSERR_DEVICE_REMOVED;
	return flags & SHUTDOWN_META_IO_ERROR ? FSERR_METADATA_IO : 0;
}

#ifdef HAVE_xfs_mount_m_super
static __always_inline struct super_block *xfs_superblock(struct xfs_mount *mp)
{
	struct super_block *sb = NULL;

	READ(sb, mp->m_super);
	return sb;
}

/*
 * kernel ..5.14: in m_flags, which is not read: the one such kernel has no BTF of modules
 * kernel 5.15..: m_opstate (2e973b2cd4cd, "xfs: convert remaining mount flags to state flags")
 */
static __always_inline bool xfs_is_shut_down(struct xfs_mount *mp)
{
	unsigned long state = 0;
#ifdef HAVE_xfs_mount_m_opstate
	READ(state, mp->m_opstate);
#endif
	return state & XFS_OPSTATE_SHUTDOWN;
}

/* xfs_buf_daddr(): the first piece of the buffer, all versions */
static __always_inline u64 xfs_buffer_block(struct xfs_buf *bp)
{
	u64 block = 0;
#if defined(HAVE_xfs_buf_b_maps) && defined(HAVE_xfs_buf_map_bm_bn)
	struct xfs_buf_map *maps = NULL;

	READ(maps, bp->b_maps);
	READ(block, maps->bm_bn);
#endif
	return block;
}

/* b_length is in sectors, all versions */
static __always_inline u64 xfs_buffer_length(struct xfs_buf *bp)
{
	u32 sectors = 0;
#if defined(HAVE_xfs_buf_b_length)
	READ(sectors, bp->b_length);
#endif
	return (u64)sectors * XFS_SECTOR_SIZE;
}

/* "xfs_agf", "xfs_dir3_data" ...: the name in the kernel's own message, all versions */
static __always_inline void xfs_set_buffer_type(struct fserr_record *record, struct xfs_buf *bp)
{
#if defined(HAVE_xfs_buf_b_ops) && defined(HAVE_xfs_buf_ops_name)
	struct xfs_buf_ops *ops = NULL;
	char *name = NULL;

	READ(ops, bp->b_ops);
	READ(name, ops->name);
	bpf_probe_read_kernel_str(record->function, sizeof(record->function), name);
#endif
}

/*
 * kernel ..6.12: xfs_perag
 * kernel 6.13..: xfs_group (e9c4d8bfb26c, "xfs: factor out a generic xfs_group structure")
 */
static __always_inline struct xfs_mount *xfs_group_mount(void *group)
{
	struct xfs_mount *mp = NULL;
#if defined(HAVE_xfs_group_xg_mount)
	READ(mp, ((struct xfs_group *)group)->xg_mount);
#elif defined(HAVE_xfs_perag_pag_mount)
	READ(mp, ((struct xfs_perag *)group)->pag_mount);
#endif
	return mp;
}
#endif

#endif
