/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Writeback errors of every file system: mapping_set_error() is inline, the
 * function behind it is __filemap_set_wb_err() (mm/filemap.c).
 */

#define ERRSEQ_ERRNO 0xfffu /* MAX_ERRNO, the errno bits of an errseq_t (lib/errseq.c) */

static __always_inline int writeback_error(void *ctx, struct address_space *mapping, s32 error,
					   u64 failaddr)
{
	struct fserr_record record = {};
	struct inode *inode = NULL;

	READ(inode, mapping->host);
	fserr_set_inode(&record, inode);
	record.error = error;
	record.failaddr = failaddr;
	if (record.magic == BDEVFS_MAGIC) {
		/* metadata through the block device: its file system is that device's */
		record.flags = FSERR_BLOCK_DEVICE;
		record.ino = 0;
		record.generation = 0;
		READ(record.dev, inode->i_rdev);
		return fserr_emit(ctx, &record, FSERR_PROBE_WRITEBACK);
	}
	return fserr_emit_inode(ctx, &record, FSERR_PROBE_WRITEBACK, inode);
}

int kprobe_filemap_set_wb_err(struct pt_regs *ctx)
{
	return writeback_error(ctx, (void *)PT_REGS_PARM1(ctx), (s32)PT_REGS_PARM2(ctx),
			       caller_of(ctx));
}

/* The tracepoint's own argument is the previous errseq: read the new one. */
int tracepoint_filemap_set_wb_err(struct bpf_raw_tracepoint_args *ctx)
{
	struct address_space *mapping = (void *)ctx->args[0];
	u32 errseq = 0;

	READ(errseq, mapping->wb_err);
	return writeback_error(ctx, mapping, -(s32)(errseq & ERRSEQ_ERRNO), 0);
}
