/* SPDX-License-Identifier: GPL-2.0 */
/* What the probes read of ext4. */
#ifndef EXT4_H
#define EXT4_H

/*
 * The arguments of __ext4_error(); __ext4_abort() went away with the change.
 * kernel ..5.10: (sb, function, line, error, block, format)
 * kernel 5.11..: "bool force_ro" is in front of the error (014c9caa29d3, "ext4: make
 *   ext4_abort() use __ext4_error()")
 */
#ifdef FSERR_EXT4_FORCE_RO
#define EXT4_ERROR_ARGUMENT PT_REGS_PARM5
#define EXT4_BLOCK_ARGUMENT PT_REGS_PARM6
#else
#define EXT4_ERROR_ARGUMENT PT_REGS_PARM4
#define EXT4_BLOCK_ARGUMENT PT_REGS_PARM5
#endif

/*
 * ext4 says nothing once the file system is shut down (bit 1 of s_ext4_flags, all
 * versions) or in emergency read-only state: bit 3 since 6.15 (f3054e53c2f3, "ext4: add
 * EXT4_FLAGS_EMERGENCY_RO bit"), unused before, so it may be asked everywhere. 6.12 sets
 * bit 1 in ext4_handle_error() as well.
 */
#define EXT4_SUPER_MAGIC 0xef53u
#define EXT4_SILENT ((1UL << 1) | (1UL << 3))

static __always_inline bool ext4_is_silent(struct super_block *sb)
{
	unsigned long flags = 0;
#ifdef HAVE_ext4_sb_info_s_ext4_flags
	struct ext4_sb_info *sbi = NULL;

	READ(sbi, sb->s_fs_info);
	READ(flags, sbi->s_ext4_flags);
#endif
	return flags & EXT4_SILENT;
}

#define EXT4_MOUNT_ERRORS_CONT 0x10u /* s_mount_opt, all versions (fs/ext4/ext4.h) */
#define EXT4_GOING_FLAGS_NOLOGFLUSH 2 /* the last (fs/ext4/ext4.h) */
#define JBD2_ABORT 0x2u              /* j_flags, all versions (include/linux/jbd2.h) */

#ifdef HAVE_journal_s_j_flags
static __always_inline bool jbd2_is_aborted(struct journal_s *journal)
{
	unsigned long flags = 0;

	READ(flags, journal->j_flags);
	return flags & JBD2_ABORT;
}
#endif

#endif
