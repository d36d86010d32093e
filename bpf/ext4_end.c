/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The end of an ext4: an error makes it read-only (ext4_handle_error(), fs/ext4/super.c), its
 * journal aborts by itself (jbd2_journal_abort(), fs/jbd2/journal.c), somebody asks for it
 * (ext4_force_shutdown(), fs/ext4/ioctl.c), or its device goes (ext4_shutdown(), in 6.12 and
 * not yet in 6.1).
 * Each but the last leads to an abort of the journal as well, which is the same end.
 */
#if defined(HAVE_ext4_sb_info_s_journal) && defined(HAVE_journal_s_j_flags)

/*
 * (sb, force_ro, error, inode number, block, function, line); 5.10 has (sb), and no BTF of
 * ext4, so nothing of this is attached there.
 */
int kprobe_ext4_handle_error(struct pt_regs *ctx)
{
	struct super_block *sb = (void *)PT_REGS_PARM1(ctx);
	struct ext4_sb_info *sbi = NULL;
	struct journal_s *journal = NULL;
	struct fserr_record record = {};
	u32 options = 0;

	READ(sbi, sb->s_fs_info);
	READ(options, sbi->s_mount_opt);
	READ(journal, sbi->s_journal);
	if (!(u8)PT_REGS_PARM2(ctx) && (options & EXT4_MOUNT_ERRORS_CONT))
		return 0;
	if (sb_is_read_only(sb) || ext4_is_silent(sb) || (journal && jbd2_is_aborted(journal)))
		return 0;
	record.block = PT_REGS_PARM5(ctx);
	bpf_probe_read_kernel_str(record.function, sizeof(record.function),
				  (void *)PT_REGS_PARM6(ctx));
	READ(record.line, *(u32 *)(PT_REGS_SP(ctx) + 8)); /* behind the return address */
	return fserr_emit_end(ctx, sb, &record, fserr_reason_of(PT_REGS_PARM3(ctx)),
			      FSERR_PROBE_EXT4_END);
}

/*
 * An abort with ESHUTDOWN is that of a shutdown. 6.1 has all of it in its ext4_shutdown(),
 * behind a check of the caller's rights, so there the abort is what tells of it.
 */
int kprobe_ext4_journal_abort(struct pt_regs *ctx)
{
	bool requested = (s32)PT_REGS_PARM2(ctx) == -ESHUTDOWN;
	struct journal_s *journal = (void *)PT_REGS_PARM1(ctx);
	struct super_block *sb = NULL;
	struct fserr_record record = {};
	unsigned long magic = 0;

#ifdef FSERR_EXT4_FORCE_SHUTDOWN
	if (requested)
		return 0;
#endif
	if (jbd2_is_aborted(journal))
		return 0;
	READ(sb, journal->j_private); /* ocfs2 leaves it empty */
	READ(magic, sb->s_magic);
	if (magic != EXT4_SUPER_MAGIC)
		return 0;
	record.flags = FSERR_ATTACHMENT(1);
	return fserr_emit_end(ctx, sb, &record, requested ? FSERR_REQUESTED : FSERR_LOG_IO,
			      FSERR_PROBE_EXT4_END);
}

static __always_inline int ext4_shut_down(struct pt_regs *ctx, u32 reason, u32 attachment)
{
	struct super_block *sb = (void *)PT_REGS_PARM1(ctx);
	struct fserr_record record = {};

	if (ext4_is_silent(sb))
		return 0;
	record.flags = FSERR_ATTACHMENT(attachment);
	return fserr_emit_end(ctx, sb, &record, reason, FSERR_PROBE_EXT4_END);
}

/* (sb, flags): refused unless the flags are known */
int kprobe_ext4_force_shutdown(struct pt_regs *ctx)
{
	if ((u32)PT_REGS_PARM2(ctx) > EXT4_GOING_FLAGS_NOLOGFLUSH)
		return 0;
	return ext4_shut_down(ctx, FSERR_REQUESTED, 2);
}

/* Calls the above, which finds that the end has been told. That of 6.1 is another function. */
int kprobe_ext4_device_removed(struct pt_regs *ctx)
{
#ifdef FSERR_EXT4_FORCE_SHUTDOWN
	return ext4_shut_down(ctx, FSERR_DEVICE_REMOVED, 3);
#else
	return 0;
#endif
}

#endif
