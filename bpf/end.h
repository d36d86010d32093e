/* SPDX-License-Identifier: GPL-2.0 */
/* The end of a file system: once per superblock, with the reason as far as the kernel has one. */
#ifndef END_H
#define END_H

/*
 * Each file system has a flag that says that it has ended, and sets it soon after the
 * function that is probed. Two tasks may pass that function before the flag is set; here
 * is who was first, and when. The flag is what decides afterwards, so an entry counts for a
 * moment only, and goes with its superblock, whose memory may soon be that of another one.
 */
#define FSERR_END_MOMENT 1000000000ULL /* ns */

BPF_TABLE("lru_hash", u64, u64, fserr_ended, 1024);

static __always_inline bool fserr_ends_now(struct super_block *sb)
{
	u64 key = (u64)sb, now = bpf_ktime_get_ns(), *last;

	if (!fserr_ended.insert(&key, &now))
		return true;
	last = fserr_ended.lookup(&key);
	if (last && now - *last < FSERR_END_MOMENT)
		return false;
	fserr_ended.update(&key, &now);
	return true;
}

static __always_inline void fserr_forget_end(struct super_block *sb)
{
	u64 key = (u64)sb;

	fserr_ended.delete(&key);
}

/* What an error that ends a file system says of the reason. */
static __always_inline u32 fserr_reason_of(s32 error)
{
	if (error < 0)
		error = -error;
	if (!error || error == EFSCORRUPTED || error == EFSBADCRC)
		return FSERR_CORRUPTION;
	if (error == EIO)
		return FSERR_METADATA_IO;
	return error == ESHUTDOWN ? FSERR_REQUESTED : 0;
}

static __always_inline int fserr_emit_end(struct pt_regs *ctx, struct super_block *sb,
					  struct fserr_record *record, u32 reason, u8 probe)
{
	if (!fserr_ends_now(sb))
		return 0;
	fserr_set_superblock(record, sb);
	record->flags |= reason;
	record->error = -ESHUTDOWN;
	record->failaddr = caller_of(ctx);
	return fserr_emit(ctx, record, probe);
}

#endif
