/* SPDX-License-Identifier: GPL-2.0 */
/*
 * XFS where its module carries no BTF (Debian 5.10): the classic tracepoint, whose
 * fields tracefs describes. It knows device, block, error and place; the structures
 * behind xfs_inode_verifier_error() and a shutdown cannot be read there.
 *
 * kernel ..5.10: no BTF of modules
 * kernel 5.11..: modules have it, with CONFIG_DEBUG_INFO_BTF_MODULES (36e68442d1af, "bpf:
 *   Load and verify kernel module BTFs")
 */
#if defined(HAVE_trace_xfs_buf_ioerror_error) && !defined(HAVE_xfs_mount_m_super)

#define XFS_SUPER_MAGIC 0x58465342

int classic_xfs_buf_ioerror(struct trace_xfs_buf_ioerror *ctx)
{
	struct fserr_record record = {};
	u32 flags = 0;

	READ(record.error, ctx->error);
	if (!record.error)
		return 0;
	READ(flags, ctx->flags);
	if (flags & XBF_READ_AHEAD)
		return 0;
	READ(record.dev, ctx->dev);
	READ(record.block, ctx->bno);
	READ(record.length, ctx->buffer_length);
	READ(record.failaddr, ctx->caller_ip);
	record.magic = XFS_SUPER_MAGIC;
	/* this context is a per-CPU buffer, so our own frame tells which stack runs */
	return fserr_emit_about(ctx, &record, &record, FSERR_PROBE_XFS_BUF_TRACE, NULL, 0);
}

#endif
