/* SPDX-License-Identifier: GPL-2.0 */
/* The maps, and the one way by which a record leaves the kernel. */
#ifndef EMIT_H
#define EMIT_H

/*
 * 4 MiB: 25,000 records, a tenth of a second of the fastest flood of one task. With a
 * busy processor 256 KiB and 1 MiB lost some of 200,000 errors, 4 MiB none. The pages
 * are mapped twice in the monitor and count so: 8 MiB would take its RSS from 29 to 37 MB.
 */
BPF_RINGBUF_OUTPUT(events, 1024);

/*
 * Reports that found no room in the ring, per probe. Memory mapped, because the
 * monitor reads it after it has dropped the right to call bpf(2).
 */
BPF_F_TABLE("array", u32, u64, lost, FSERR_PROBE_MAX, BPF_F_MMAPABLE);

/* Written by the monitor through its mapping: a mark must not need bpf(2) either. */
BPF_F_TABLE("array", u32, struct fserr_marks, marks, 1, BPF_F_MMAPABLE);

static __always_inline bool fserr_is_marked(u32 dev)
{
	u32 zero = 0;
	struct fserr_marks *marked = marks.lookup(&zero);
	bool found = false;

	if (!marked || marked->count == FSERR_MARKS_ALL)
		return true;
	for (u32 i = 0; i < FSERR_MARKS_MAX; i++) {
		/* else clang compares with !=, from which the verifier of 5.10 learns nothing */
		asm volatile("" : "+r"(i));
		if (i >= marked->count)
			break;
		if (marked->dev[i] == dev) {
			found = true;
			break;
		}
	}
	/*
	 * else clang jumps from within the loop to what each result leads to, and the verifier
	 * of 5.10 follows every turn's jump through all that comes behind: it refuses programs
	 * with FSERR_PLACES, and takes eight times as long for the others
	 */
	asm volatile("" : "+r"(found));
	return found;
}

typedef struct fserr_entry fserr_entry;

static __always_inline void fserr_fill(void *ctx, fserr_entry *slot, struct fserr_record *record,
				       struct inode *inode, u32 type)
{
	slot->record = *record;
#ifdef FSERR_PLACES
	fserr_set_place(&slot->place, inode, record->magic == BTRFS_SUPER_MAGIC);
#endif
#ifdef FSERR_DETAIL
	fserr_set_detail(ctx, &slot->detail, inode, type);
#endif
}

/*
 * The record is complete but for its task and time. here is ctx, the program's context,
 * or anything else on the stack that runs. inode and type are for the detail record.
 */
static __always_inline int fserr_emit_about(void *ctx, void *here, struct fserr_record *record,
					    u8 probe, struct inode *inode, u32 type)
{
	fserr_entry *slot;
	u32 key = probe;
	u64 *count;

	if (!fserr_is_marked(record->dev))
		return 0;
	slot = events.ringbuf_reserve(sizeof(*slot));
	if (!slot) {
		count = lost.lookup(&key);
		if (count)
			__sync_fetch_and_add(count, 1);
		return 0;
	}
	record->version = FSERR_VERSION;
	record->probe = probe;
	record->size = sizeof(*record);
	record->time_ns = bpf_ktime_get_ns();
	fserr_set_task(here, record);
	fserr_fill(ctx, slot, record, inode, type);
	events.ringbuf_submit(slot, 0);
	return 0;
}

static __always_inline int fserr_emit_inode(void *ctx, struct fserr_record *record, u8 probe,
					    struct inode *inode)
{
	return fserr_emit_about(ctx, ctx, record, probe, inode, 0);
}

static __always_inline int fserr_emit(void *ctx, struct fserr_record *record, u8 probe)
{
	return fserr_emit_about(ctx, ctx, record, probe, NULL, 0);
}

#endif
