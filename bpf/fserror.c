/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Linux 7.0 and later: the worker that hands every error to fsnotify
 * (fs/fserror.c). Task, handle and order are those of the real event.
 *
 * kernel 7.0..: struct fserror_event
 */
#ifdef HAVE_fserror_event_work

#define SB_ACTIVE (1u << 30)

int kprobe_fserror_worker(struct pt_regs *ctx)
{
	struct fserror_event *event = (void *)PT_REGS_PARM1(ctx) - FSERR_OFFSET_fserror_event_work;
	struct fserr_record record = {};
	struct super_block *sb = NULL;
	struct inode *inode = NULL;
	u32 type = 0;

	READ(sb, event->sb);
	READ(inode, event->inode);
	if (inode)
		fserr_set_inode(&record, inode);
	else
		fserr_set_superblock(&record, sb);
	if (!(record.sb_flags & SB_ACTIVE))
		return 0;
	READ(record.error, event->error);
	READ(record.block, event->pos);
	READ(record.length, event->len);
	READ(type, event->type);
	return fserr_emit_about(ctx, ctx, &record, FSERR_PROBE_FSERROR, inode, type + 1);
}

#endif
