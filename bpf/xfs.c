/* SPDX-License-Identifier: GPL-2.0 */
/*
 * XFS: buffer errors and verifiers for the proposed stream; the mark_sick family
 * and shutdown for what Linux 7.x sends (fs/xfs/xfs_health.c, xfs_fsops.c).
 */
#ifdef HAVE_xfs_mount_m_super

/*
 * An error of a buffer passes up to three probes, in this order and on one processor:
 *
 *   kprobe xfs_buf_verifier_error()     a verifier refuses the buffer
 *   kprobe __xfs_buf_ioerror()          called by that one, or by the file system itself
 *   tracepoint xfs_buf_ioerror          inside of the last, also where gcc has inlined it
 *
 * The tracepoint alone sees every error. Counted on 6.1, 6.12 and 7.3: of corrupt buffers
 * (AGF, AGI, btrees, directory, attributes, a superblock refused on its way to the disk)
 * each of the three sees every error; of a device that fails, when metadata is read or
 * written back or the log is shut down, only the tracepoint sees any, because xfs_buf.c
 * sets these errors by inlined copies. The kprobe sees nothing that the tracepoint misses.
 * It stays because that function is what the proposal names, and where it sees an error
 * the stack begins at who set it, not with the tracepoint's own frames.
 *
 * So the first two leave here who has seen the buffer: FSERR_PROBE_XFS_BUF_VERIFIER while
 * nobody has reported it, FSERR_PROBE_XFS_BUF_IOERROR when the kprobe has.
 */
BPF_TABLE("lru_hash", u64, u8, xfs_seen, 1024);

int kprobe_xfs_buf_verifier_error(struct pt_regs *ctx)
{
	u64 buffer = PT_REGS_PARM1(ctx);
	u8 probe = FSERR_PROBE_XFS_BUF_VERIFIER;

	xfs_seen.update(&buffer, &probe);
	return 0;
}

static __always_inline int xfs_buffer_error(void *ctx, struct xfs_buf *bp, s32 error,
					    u64 failaddr, u8 probe)
{
	struct fserr_record record = {};
	struct xfs_mount *mp = NULL;
	u32 flags = 0;

	READ(flags, bp->b_flags);
	if (flags & XBF_READ_AHEAD) /* nobody asked yet; who asks reads it again */
		return 0;
	READ(mp, bp->b_mount);
	if (error == -EIO && xfs_is_shut_down(mp)) /* every buffer fails from then on */
		return 0;
	fserr_set_superblock(&record, xfs_superblock(mp));
	record.error = error;
	record.failaddr = failaddr;
	record.block = xfs_buffer_block(bp);
	record.length = xfs_buffer_length(bp);
	xfs_set_buffer_type(&record, bp);
	return fserr_emit(ctx, &record, probe);
}

/* Every read clears the error of an earlier use: error 0 is the common case. */
int kprobe_xfs_buf_ioerror(struct pt_regs *ctx)
{
	u64 buffer = PT_REGS_PARM1(ctx);
	s32 error = PT_REGS_PARM2(ctx);
	u8 reported = FSERR_PROBE_XFS_BUF_IOERROR, probe = reported, *seen;

	if (!error)
		return 0;
	seen = xfs_seen.lookup(&buffer);
	if (seen)
		probe = *seen;
	xfs_seen.update(&buffer, &reported);
	return xfs_buffer_error(ctx, (void *)buffer, error, PT_REGS_PARM3(ctx), probe);
}

int tracepoint_xfs_buf_ioerror(struct bpf_raw_tracepoint_args *ctx)
{
	u64 buffer = ctx->args[0];
	s32 error = ctx->args[1];
	u8 probe = FSERR_PROBE_XFS_BUF_TRACE, *seen;

	if (!error)
		return 0;
	seen = xfs_seen.lookup(&buffer);
	if (seen) {
		probe = *seen;
		xfs_seen.delete(&buffer);
		if (probe == FSERR_PROBE_XFS_BUF_IOERROR)
			return 0;
	}
	return xfs_buffer_error(ctx, (void *)buffer, error, ctx->args[2], probe);
}

static __always_inline struct inode *xfs_vfs_inode(struct xfs_inode *ip)
{
	return (void *)ip + FSERR_OFFSET_xfs_inode_i_vnode;
}

/*
 * The number: that of i_vnode is set late during iget.
 * kernel ..7.1: i_ino, there from the start
 * kernel 7.2..: i_vnode.i_ino only
 */
static __always_inline void xfs_set_inode(struct fserr_record *record, struct xfs_inode *ip)
{
	struct inode *inode = xfs_vfs_inode(ip);

	fserr_set_inode(record, inode);
#ifdef HAVE_xfs_inode_i_ino
	READ(record->ino, ip->i_ino);
#endif
	if (inode_is_new(inode))
		record->flags |= FSERR_IGET;
}

int kprobe_xfs_inode_verifier_error(struct pt_regs *ctx)
{
	struct fserr_record record = {};

	xfs_set_inode(&record, (void *)PT_REGS_PARM1(ctx));
	record.error = (s32)PT_REGS_PARM2(ctx);
	record.failaddr = PT_REGS_PARM6(ctx);
	if (!record.failaddr) /* then the kernel takes the caller */
		record.failaddr = caller_of(ctx);
	bpf_probe_read_kernel_str(record.function, sizeof(record.function),
				  (void *)PT_REGS_PARM3(ctx));
	return fserr_emit_inode(ctx, &record, FSERR_PROBE_XFS_INODE_VERIFIER,
				xfs_vfs_inode((void *)PT_REGS_PARM1(ctx)));
}

static __always_inline int xfs_inode_sick(void *ctx, struct xfs_inode *ip, u32 mask)
{
	struct fserr_record record = {};

	xfs_set_inode(&record, ip);
	if (mask & XFS_SICK_INO_CORE)
		record.flags |= FSERR_SICK_CORE;
	record.error = -EFSCORRUPTED;
	return fserr_emit_inode(ctx, &record, FSERR_PROBE_XFS_INODE_SICK, xfs_vfs_inode(ip));
}

int kprobe_xfs_inode_sick(struct pt_regs *ctx)
{
	return xfs_inode_sick(ctx, (void *)PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx));
}

int tracepoint_xfs_inode_sick(struct bpf_raw_tracepoint_args *ctx)
{
	return xfs_inode_sick(ctx, (void *)ctx->args[0], ctx->args[1]);
}

static __always_inline int xfs_mount_event(void *ctx, struct xfs_mount *mp, s32 error, u8 probe)
{
	struct fserr_record record = {};

	fserr_set_superblock(&record, xfs_superblock(mp));
	record.error = error;
	return fserr_emit(ctx, &record, probe);
}

int kprobe_xfs_group_sick(struct pt_regs *ctx)
{
	return xfs_mount_event(ctx, xfs_group_mount((void *)PT_REGS_PARM1(ctx)), -EFSCORRUPTED,
			       FSERR_PROBE_XFS_GROUP_SICK);
}

int tracepoint_xfs_group_sick(struct bpf_raw_tracepoint_args *ctx)
{
	return xfs_mount_event(ctx, xfs_group_mount((void *)ctx->args[0]), -EFSCORRUPTED,
			       FSERR_PROBE_XFS_GROUP_SICK);
}

/*
 * kernel ..6.12: (mp, agno, mask)
 * kernel 6.13..: xfs_group_mark_sick instead, see above (e9c4d8bfb26c and what follows it)
 */
int tracepoint_xfs_ag_sick(struct bpf_raw_tracepoint_args *ctx)
{
	return xfs_mount_event(ctx, (void *)ctx->args[0], -EFSCORRUPTED,
			       FSERR_PROBE_XFS_GROUP_SICK);
}

int kprobe_xfs_fs_sick(struct pt_regs *ctx)
{
	return xfs_mount_event(ctx, (void *)PT_REGS_PARM1(ctx), -EFSCORRUPTED,
			       FSERR_PROBE_XFS_FS_SICK);
}

int tracepoint_xfs_fs_sick(struct bpf_raw_tracepoint_args *ctx)
{
	return xfs_mount_event(ctx, (void *)ctx->args[0], -EFSCORRUPTED, FSERR_PROBE_XFS_FS_SICK);
}

/* The tracepoint fires once per shutdown; the function runs for every caller. */
int tracepoint_xfs_shutdown(struct bpf_raw_tracepoint_args *ctx)
{
	return xfs_mount_event(ctx, (void *)ctx->args[0], -ESHUTDOWN, FSERR_PROBE_XFS_SHUTDOWN);
}

#endif
