/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a record has no room for: behind it each ring entry has a detail record with
 * FSERR_DETAIL, then a place with FSERR_PLACES. fserr_bpf/uapi/entry.py mirrors them.
 * Zeroed before they are filled.
 */
#ifndef ENTRY_H
#define ENTRY_H

#define FSERR_STACK_MAX 10
#define FSERR_NAMES_MAX 8
#define FSERR_NAME_SIZE 64

/* name_flags */
#define FSERR_NAME_WHOLE (1u << 0)   /* names[] goes up to the root of the file system */
#define FSERR_NAME_DELETED (1u << 1) /* the dentry was unhashed: unlinked, still in use */

struct fserr_detail {
	__u64 stack[FSERR_STACK_MAX]; /* return addresses, innermost first, 0 behind the last */
	__u64 task_cgroup;  /* cgroup2 id of the current task */
	__u64 inode_cgroup; /* cgroup id of the inode's writeback, 0 without one */
	__u32 type;         /* 7.x: enum fserror_type plus one; 0 elsewhere */
	__u32 name_flags;
	char names[FSERR_NAMES_MAX][FSERR_NAME_SIZE]; /* the inode's own, its parent's ... */
};

/* Where the inode was: for marks that hear only a part of a file system. */
#define FSERR_ALIASES_MAX 3
#define FSERR_DEPTH_MAX 24
#define FSERR_CGROUPS_MAX 12

/* flags of a place */
#define FSERR_PLACE_INODE (1u << 0) /* the probe had an inode; else only task_cgroups is filled */
#define FSERR_PLACE_MORE (1u << 1)  /* the inode had more names in memory than there is room for */

/* alias_flags */
#define FSERR_ALIAS_THERE (1u << 0)
#define FSERR_ALIAS_WHOLE (1u << 1)   /* ancestors[] goes up to the root of the file system */
#define FSERR_ALIAS_DELETED (1u << 2) /* unhashed: the name is not there any more */

struct fserr_ancestor {
	__u64 ino;
	__u32 generation;
	__u32 subvolume; /* btrfs: objectid of the root, low half; 0 elsewhere */
};

struct fserr_place {
	__u32 flags;
	__u32 nlink; /* of the inode */
	__u32 mode;  /* of the inode */
	__u32 alias_flags[FSERR_ALIASES_MAX];
	/* ids of the cgroup and those above it, up to the root; 0 behind the last */
	__u64 task_cgroups[FSERR_CGROUPS_MAX];
	__u64 inode_cgroups[FSERR_CGROUPS_MAX];
	/* per name: the folder that it is in, the folder of that ...; 0 behind the last */
	struct fserr_ancestor ancestors[FSERR_ALIASES_MAX][FSERR_DEPTH_MAX];
};

struct fserr_entry {
	struct fserr_record record;
#ifdef FSERR_DETAIL
	struct fserr_detail detail;
#endif
#ifdef FSERR_PLACES
	struct fserr_place place;
#endif
};

_Static_assert(sizeof(struct fserr_detail) == 616, "fserr_detail: fixed by version 1");
_Static_assert(sizeof(struct fserr_place) == 1368, "fserr_place: fixed by version 1");

#endif
