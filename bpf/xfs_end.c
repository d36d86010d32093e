/* SPDX-License-Identifier: GPL-2.0 */
/*
 * XFS: corruption that is found outside of the verifiers (fs/xfs/xfs_error.c), and the
 * shutdown, by whoever (xfs_do_force_shutdown(), fs/xfs/xfs_fsops.c) or by the log alone
 * (xlog_force_shutdown(), fs/xfs/xfs_log.c).
 */
#ifdef HAVE_xfs_mount_m_super

/*
 * xfs_corruption_error() reports through xfs_error_report(), which others call too. Both are
 * in one file, so a compiler may put the one into the other: here is what each task has
 * reported at the first, so that the second says nothing of it.
 */
BPF_TABLE("lru_hash", u64, u64, xfs_corruption, 1024);

static __always_inline int xfs_corrupt(struct pt_regs *ctx, u32 line, u64 failaddr,
				       u32 attachment)
{
	struct xfs_mount *mp = (void *)PT_REGS_PARM3(ctx);
	struct fserr_record record = {};

	if (!mp) /* a few callers do not know whose it is */
		return 0;
	fserr_set_superblock(&record, xfs_superblock(mp));
	record.flags = FSERR_ATTACHMENT(attachment);
	record.error = -EFSCORRUPTED;
	record.failaddr = failaddr;
	record.line = line;
	bpf_probe_read_kernel_str(record.function, sizeof(record.function),
				  (void *)PT_REGS_PARM1(ctx));
	return fserr_emit(ctx, &record, FSERR_PROBE_XFS_CORRUPTION);
}

/* (tag, level, mp, buffer, its size, file, line, failaddr): the last two are on the stack */
int kprobe_xfs_corruption_error(struct pt_regs *ctx)
{
	u64 task = bpf_get_current_pid_tgid(), failaddr = 0;
	u32 line = 0;

	READ(line, *(u32 *)(PT_REGS_SP(ctx) + 8));
	READ(failaddr, *(u64 *)(PT_REGS_SP(ctx) + 16));
	xfs_corruption.update(&task, &failaddr);
	return xfs_corrupt(ctx, line, failaddr, 0);
}

/* (tag, level, mp, file, line, failaddr) */
int kprobe_xfs_error_report(struct pt_regs *ctx)
{
	u64 task = bpf_get_current_pid_tgid(), failaddr = PT_REGS_PARM6(ctx), *reported;

	reported = xfs_corruption.lookup(&task);
	if (reported && *reported == failaddr) {
		xfs_corruption.delete(&task);
		return 0;
	}
	return xfs_corrupt(ctx, PT_REGS_PARM5(ctx), failaddr, 1);
}

int kprobe_xfs_buf_corruption_error(struct pt_regs *ctx)
{
	struct xfs_buf *bp = (void *)PT_REGS_PARM1(ctx);

	return xfs_buffer_error(ctx, bp, -EFSCORRUPTED, PT_REGS_PARM2(ctx),
				FSERR_PROBE_XFS_BUF_CORRUPT);
}

/* (mp, flags, file, line): called for every caller, the first of which sets the state. */
int kprobe_xfs_force_shutdown(struct pt_regs *ctx)
{
	struct xfs_mount *mp = (void *)PT_REGS_PARM1(ctx);
	struct fserr_record record = {};

	if (xfs_is_shut_down(mp))
		return 0;
	record.line = PT_REGS_PARM4(ctx);
	return fserr_emit_end(ctx, xfs_superblock(mp), &record, xfs_reason(PT_REGS_PARM2(ctx)),
			      FSERR_PROBE_XFS_END);
}

/* Called from the above too, which has set the state then. */
int kprobe_xfs_log_shutdown(struct pt_regs *ctx)
{
	struct xlog *log = (void *)PT_REGS_PARM1(ctx);
	struct xfs_mount *mp = NULL;
	struct fserr_record record = {};

	READ(mp, log->l_mp);
	if (!mp || xfs_is_shut_down(mp))
		return 0;
	record.flags = FSERR_ATTACHMENT(1);
	return fserr_emit_end(ctx, xfs_superblock(mp), &record, xfs_reason(PT_REGS_PARM2(ctx)),
			      FSERR_PROBE_XFS_END);
}

/* Without kprobes: of the first shutdown, unless the log did it. (mp, tag, flags, file, line) */
int tracepoint_xfs_end(struct bpf_raw_tracepoint_args *ctx)
{
	struct fserr_record record = {};

	fserr_set_superblock(&record, xfs_superblock((void *)ctx->args[0]));
	record.flags |= xfs_reason(ctx->args[2]);
	record.error = -ESHUTDOWN;
	record.line = ctx->args[4];
	return fserr_emit(ctx, &record, FSERR_PROBE_XFS_END);
}

#endif
