/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The record that every probe pushes through the ring: the ABI between bpf/ and
 * fserr_bpf/uapi/record.py, which mirrors it field by field.
 *
 * One shape for all probes, fixed width, naturally aligned, no holes, zeroed
 * before it is filled. Raise FSERR_VERSION whenever a byte changes its meaning.
 */
#ifndef FSERR_H
#define FSERR_H

#define FSERR_VERSION 1

/* Who saw it. Indexes the loss counters too, so a number is never used again. */
#define FSERR_PROBE_EXT4_ERROR 1
#define FSERR_PROBE_EXT4_ERROR_INODE 2
#define FSERR_PROBE_EXT4_ERROR_FILE 3
#define FSERR_PROBE_EXT4_STD_ERROR 4
#define FSERR_PROBE_EXT4_ABORT 5
#define FSERR_PROBE_EXT4_TRACE 6
#define FSERR_PROBE_EXT4_SHUTDOWN 7
#define FSERR_PROBE_XFS_BUF_IOERROR 8
#define FSERR_PROBE_XFS_BUF_VERIFIER 9
#define FSERR_PROBE_XFS_INODE_VERIFIER 10
#define FSERR_PROBE_XFS_INODE_SICK 11
#define FSERR_PROBE_XFS_GROUP_SICK 12
#define FSERR_PROBE_XFS_FS_SICK 13
#define FSERR_PROBE_XFS_SHUTDOWN 14
#define FSERR_PROBE_WRITEBACK 15
#define FSERR_PROBE_BTRFS_ERROR 16
#define FSERR_PROBE_FSERROR 17
#define FSERR_PROBE_SB_DELETE 18
#define FSERR_PROBE_XFS_BUF_TRACE 19
#define FSERR_PROBE_XFS_CORRUPTION 20
#define FSERR_PROBE_XFS_BUF_CORRUPT 21
#define FSERR_PROBE_XFS_END 22
#define FSERR_PROBE_EXT4_GROUP_LOCKED 23
#define FSERR_PROBE_EXT4_END 24
#define FSERR_PROBE_BTRFS_DEVICE 25
#define FSERR_PROBE_BTRFS_END 26
#define FSERR_PROBE_F2FS_ERROR 27
#define FSERR_PROBE_F2FS_END 28
#define FSERR_PROBE_FAT_ERROR 29
#define FSERR_PROBE_NILFS2_ERROR 31
#define FSERR_PROBE_JFS_ERROR 32
#define FSERR_PROBE_CANARY 33 /* no error: its counter counts its runs */
#define FSERR_PROBE_OCFS2_ERROR 34
#define FSERR_PROBE_MAX 64

/* flags */
#define FSERR_HAS_INODE (1u << 0)    /* ino and generation mean something */
#define FSERR_IN_INTERRUPT (1u << 1) /* hard or soft: the task has nothing to do with it */
#define FSERR_BLOCK_DEVICE (1u << 2) /* a block device's own pages; dev is that device */
#define FSERR_IGET (1u << 3)         /* the inode was still being read in */
#define FSERR_SICK_CORE (1u << 4)    /* XFS: the inode record itself is bad */
/* why a file system has ended: none of them if the kernel does not say */
#define FSERR_REQUESTED (1u << 5)      /* somebody asked for it */
#define FSERR_METADATA_IO (1u << 6)    /* metadata could not be read or written */
#define FSERR_LOG_IO (1u << 7)         /* nor the journal or log */
#define FSERR_CORRUPTION (1u << 8)     /* corrupt metadata, in memory or on the disk */
#define FSERR_DEVICE_REMOVED (1u << 9)

/* which of its attachments, where a probe has several that differ */
#define FSERR_ATTACHMENT(number) ((__u32)(number) << 12)

struct fserr_record {
	__u8 version;    /* FSERR_VERSION */
	__u8 probe;      /* FSERR_PROBE_* */
	__u16 size;      /* of this record, in bytes */
	__u32 flags;     /* FSERR_HAS_INODE ... */
	__u64 time_ns;   /* CLOCK_MONOTONIC */
	__u32 dev;       /* super_block.s_dev: major << 20 | minor */
	__u32 magic;     /* super_block.s_magic */
	__u32 sb_flags;  /* super_block.s_flags, low 32 bits */
	__s32 error;     /* with the sign that the probed function got */
	__u64 ino;
	__u32 generation;
	__u32 line;      /* of the file system's source, 0 if the probe does not get it */
	__u64 subvolume; /* btrfs: objectid of the inode's root */
	__u64 block;     /* as the file system passes it: ext4 block, XFS daddr */
	__u64 length;    /* bytes concerned, of an XFS buffer; 0 if the probe does not get it */
	__u64 failaddr;  /* kernel address of the failed check or of the caller, 0 if unknown */
	__u32 tgid;      /* in the monitor's pid namespace, 0 if it is not visible there */
	__u32 tid;       /* the thread, likewise */
	__u64 task_start; /* of the thread group leader, ns since boot */
	__u32 own_tgid;  /* in the task's own pid namespace, the innermost that sees it */
	__u32 own_tid;
	__u32 pid_namespace; /* inode number of that namespace */
	__u32 pid_level; /* 0: it is the initial one, and the three fields above are 0 too */
	char comm[16];
	char function[48]; /* of the file system's source, or the verifier's name */
};

/*
 * What the monitor tells the probes: the devices of the marked file systems, as
 * super_block.s_dev. Reports of others never enter the ring.
 */
#define FSERR_MARKS_MAX 255
#define FSERR_MARKS_ALL 0xffffffffu /* as count: more than fit, report everything */

struct fserr_marks {
	__u32 count;
	__u32 dev[FSERR_MARKS_MAX];
};

_Static_assert(sizeof(struct fserr_record) == 176, "fserr_record: fixed by version 1");

#endif
