/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a record has no room for: with FSERR_DETAIL each ring entry is a record and
 * one of these behind it. fserr_bpf/uapi/side.py mirrors it. Zeroed before it is filled.
 */
#ifndef SIDE_H
#define SIDE_H

#define FSERR_STACK_MAX 10
#define FSERR_NAMES_MAX 8
#define FSERR_NAME_SIZE 64

/* name_flags */
#define FSERR_NAME_WHOLE (1u << 0)   /* names[] goes up to the root of the file system */
#define FSERR_NAME_DELETED (1u << 1) /* the dentry was unhashed: unlinked, still in use */

struct fserr_side {
	__u64 stack[FSERR_STACK_MAX]; /* return addresses, innermost first, 0 behind the last */
	__u64 task_cgroup;  /* cgroup2 id of the current task */
	__u64 inode_cgroup; /* cgroup id of the inode's writeback, 0 without one */
	__u32 type;         /* 7.x: enum fserror_type plus one; 0 elsewhere */
	__u32 name_flags;
	char names[FSERR_NAMES_MAX][FSERR_NAME_SIZE]; /* the inode's own, its parent's ... */
};

struct fserr_detailed {
	struct fserr_record record;
	struct fserr_side side;
};

_Static_assert(sizeof(struct fserr_side) == 616, "fserr_side: fixed by version 1");

#endif
