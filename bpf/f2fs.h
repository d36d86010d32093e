/* SPDX-License-Identifier: GPL-2.0 */
/* What the probes read of f2fs. */
#ifndef F2FS_H
#define F2FS_H

/* ckpt_flags, little endian as all here (include/linux/f2fs_fs.h, all versions) */
#define CP_ERROR_FLAG 0x8u
/* enum stop_cp_reason (include/linux/f2fs_fs.h); more were added behind them */
#define STOP_CP_REASON_SHUTDOWN 0
#define STOP_CP_REASON_META_PAGE 2
#define STOP_CP_REASON_WRITE_FAIL 3
#define STOP_CP_REASON_CORRUPTED_SUMMARY 4
#define STOP_CP_REASON_FLUSH_FAIL 6
#define STOP_CP_REASON_CORRUPTED_FREE_BITMAP 8
#define STOP_CP_REASON_CORRUPTED_NID 9

#ifdef HAVE_f2fs_sb_info_sb
static __always_inline bool f2fs_has_stopped(struct f2fs_sb_info *sbi)
{
	struct f2fs_checkpoint *checkpoint = NULL;
	u32 flags = 0;

	READ(checkpoint, sbi->ckpt);
	READ(flags, checkpoint->ckpt_flags);
	return flags & CP_ERROR_FLAG;
}

static __always_inline u32 f2fs_reason(u8 reason)
{
	switch (reason) {
	case STOP_CP_REASON_SHUTDOWN:
		return FSERR_REQUESTED;
	case STOP_CP_REASON_META_PAGE:
	case STOP_CP_REASON_WRITE_FAIL:
	case STOP_CP_REASON_FLUSH_FAIL:
		return FSERR_METADATA_IO;
	case STOP_CP_REASON_CORRUPTED_SUMMARY:
	case STOP_CP_REASON_CORRUPTED_FREE_BITMAP:
	case STOP_CP_REASON_CORRUPTED_NID:
		return FSERR_CORRUPTION;
	}
	return 0;
}
#endif

#endif
