/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Every difference between kernels, each behind one getter.
 *
 * HAVE_struct_member, FSERR_* constants and the structures come from the running
 * kernel's BTF (fserr_bpf/live/headers.py); nothing here asks for a version.
 */
#ifndef COMPAT_H
#define COMPAT_H

#define READ(destination, source) \
	bpf_probe_read_kernel(&(destination), sizeof(destination), &(source))

#define EROFS 30
#define ESHUTDOWN 108
#define EFSCORRUPTED 117
#define EIO 5

#define SB_RDONLY 1u
#define BDEVFS_MAGIC 0x62646576u
#define BTRFS_SUPER_MAGIC 0x9123683eu

/*
 * All ones if the two differ, else 0, without a branch. With FSERR_PLACES loops go on with
 * NULL, which reads zeros, where others break: the verifier of 5.10 follows every way out
 * of a loop through all that comes behind.
 */
static __always_inline u64 if_differ(u64 one, u64 other)
{
	u64 difference = one ^ other;

	difference |= -difference;
	asm volatile("" : "+r"(difference)); /* else clang makes a branch of it */
	return (s64)difference >> 63;
}

/*
 * Soft interrupts run on a stack of their own on x86-64, and a probe's context
 * lies on the stack that runs; ksoftirqd is the exception. Asking preempt_count
 * would need the address of a per-CPU variable, which has moved twice since 6.1.
 */
static __always_inline bool in_soft_interrupt(void *ctx, struct task_struct *task, char *comm)
{
	unsigned long here = 0, stack = 0;

	if (__builtin_memcmp(comm, "ksoftirq", 8) == 0)
		return true;
	/* read back through memory: the verifier allows no arithmetic on ctx */
	bpf_probe_read_kernel(&here, sizeof(here), &ctx);
	READ(stack, task->stack);
	return here - stack >= FSERR_THREAD_SIZE;
}

/*
 * The number of a task in the monitor's pid namespace, 0 where it has none, as
 * pid_vnr() gives it to the reader of a fanotify group. FSERR_PID_NAMESPACE is set
 * when that is not the initial namespace. numbers[] goes from the initial one down.
 */
#define FSERR_PID_LEVELS 32 /* MAX_PID_NS_LEVEL, include/linux/pid_namespace.h */

static __always_inline u32 visible_pid(struct task_struct *task, u32 initial)
{
#ifdef FSERR_PID_NAMESPACE
	struct pid *pid = NULL;
	struct upid upid = {};
	u32 level = 0, inum = 0;

	READ(pid, task->thread_pid);
	READ(level, pid->level);
	for (u32 i = 1; i < FSERR_PID_LEVELS; i++) {
		if (i > level)
			break;
		READ(upid, ((struct upid *)&pid->numbers)[i]);
		READ(inum, upid.ns->ns_inum);
		if (inum == FSERR_PID_NAMESPACE)
			return upid.nr;
	}
	return 0;
#else
	return initial;
#endif
}

/* The innermost number of a task below the initial namespace; 0 and nothing set if there is none. */
static __always_inline u32 own_pid(struct task_struct *task, u32 *inum, u32 *level)
{
	struct pid *pid = NULL;
	struct upid upid = {};

	READ(pid, task->thread_pid);
	READ(*level, pid->level);
	if (!*level)
		return 0;
	READ(upid, ((struct upid *)&pid->numbers)[*level]);
	READ(*inum, upid.ns->ns_inum);
	return upid.nr;
}

/* Who called the probed function: at its entry the return address is on top of the stack. */
static __always_inline u64 caller_of(struct pt_regs *ctx)
{
	u64 address = 0;

	READ(address, *(u64 *)PT_REGS_SP(ctx));
	return address;
}

/* unsigned long up to 7.1; u64 since 7.2. The same eight bytes on 64 bit. */
static __always_inline u64 inode_number(struct inode *inode)
{
	u64 ino = 0;

	READ(ino, inode->i_ino);
	return ino;
}

/*
 * An inode that is not yet on its superblock's list is still being read in. The hash
 * would not tell: XFS inodes are hashed for show, and stay so when their memory is
 * used again (hlist_add_fake(), remove_inode_hash()). XFS marks I_NEW late.
 */
static __always_inline bool inode_is_new(struct inode *inode)
{
	void *next = NULL;

	READ(next, inode->i_sb_list_next);
	return next == (void *)inode + FSERR_OFFSET_inode_i_sb_list_next;
}

/* d_alias was in d_u up to 7.0 */
static __always_inline struct dentry *dentry_of_alias(void *node)
{
#ifdef HAVE_dentry_d_u_d_alias
	return node - FSERR_OFFSET_dentry_d_u_d_alias;
#else
	return node - FSERR_OFFSET_dentry_d_alias;
#endif
}

/* The list goes through all names of the inode, one of them first. */
static __always_inline struct dentry *first_dentry(struct inode *inode)
{
	void *node = NULL;

	READ(node, inode->i_dentry_first);
	return node ? dentry_of_alias(node) : NULL;
}

/* d_unhashed(), include/linux/dcache.h, all versions */
static __always_inline bool dentry_is_unhashed(struct dentry *dentry)
{
	void *pprev = NULL;

	READ(pprev, dentry->d_hash_pprev);
	return !pprev;
}

/* inode_to_wb(): whose pages these are; NULL before the first write and without CGROUP_WRITEBACK */
static __always_inline struct kernfs_node *writeback_cgroup_node(struct inode *inode)
{
	struct kernfs_node *node = NULL;
#ifdef HAVE_inode_i_wb
	struct bdi_writeback *wb = NULL;
	struct cgroup_subsys_state *css = NULL;
	struct cgroup *cgroup = NULL;

	READ(wb, inode->i_wb);
	READ(css, wb->memcg_css);
	READ(cgroup, css->cgroup);
	READ(node, cgroup->kn);
#endif
	return node;
}

static __always_inline u64 writeback_cgroup(struct inode *inode)
{
	u64 id = 0;

	READ(id, writeback_cgroup_node(inode)->id);
	return id;
}

/* task_dfl_cgroup() of the current task; NULL without CONFIG_CGROUPS */
static __always_inline struct kernfs_node *task_cgroup_node(void)
{
	struct kernfs_node *node = NULL;
#ifdef HAVE_task_struct_cgroups
	struct task_struct *task = (void *)bpf_get_current_task();
	struct css_set *set = NULL;
	struct cgroup *cgroup = NULL;

	READ(set, task->cgroups);
	READ(cgroup, set->dfl_cgrp);
	READ(node, cgroup->kn);
#endif
	return node;
}

/* __parent since 6.15 */
static __always_inline struct kernfs_node *kernfs_parent(struct kernfs_node *node)
{
	struct kernfs_node *parent = NULL;
#ifdef HAVE_kernfs_node___parent
	READ(parent, node->__parent);
#else
	READ(parent, node->parent);
#endif
	return parent;
}

static __always_inline bool sb_is_read_only(struct super_block *sb)
{
	unsigned long flags = 0;

	READ(flags, sb->s_flags);
	return flags & SB_RDONLY;
}

/* btrfs_inode.root: all versions; absent from BTF while the module is not loaded. */
static __always_inline u64 btrfs_subvolume(struct inode *inode)
{
	u64 objectid = 0;
#if defined(HAVE_btrfs_inode_vfs_inode) && defined(HAVE_btrfs_root_root_key)
	struct btrfs_inode *binode = (void *)inode - FSERR_OFFSET_btrfs_inode_vfs_inode;
	struct btrfs_root *root = NULL;

	READ(root, binode->root);
	READ(objectid, root->root_key);
#endif
	return objectid;
}

/*
 * __ext4_error() gained "bool force_ro" before the error in 5.11 (014c9caa29d3,
 * "ext4: make ext4_abort() use __ext4_error()"); __ext4_abort() went away with it.
 */
#ifdef FSERR_EXT4_FORCE_RO
#define EXT4_ERROR_ARGUMENT PT_REGS_PARM5
#define EXT4_BLOCK_ARGUMENT PT_REGS_PARM6
#else
#define EXT4_ERROR_ARGUMENT PT_REGS_PARM4
#define EXT4_BLOCK_ARGUMENT PT_REGS_PARM5
#endif

/*
 * ext4 says nothing once the file system is shut down (bit 1 of s_ext4_flags, all
 * versions) or in emergency read-only state (bit 3, in 6.18 and later; unused in
 * 6.12 and before). 6.12 sets bit 1 in ext4_handle_error() as well.
 */
#define EXT4_SILENT ((1UL << 1) | (1UL << 3))

static __always_inline bool ext4_is_silent(struct super_block *sb)
{
	unsigned long flags = 0;
#ifdef HAVE_ext4_sb_info_s_ext4_flags
	struct ext4_sb_info *sbi = NULL;

	READ(sbi, sb->s_fs_info);
	READ(flags, sbi->s_ext4_flags);
#endif
	return flags & EXT4_SILENT;
}

/* of b_length and daddr (BBSIZE in fs/xfs/libxfs/xfs_fs.h), whatever the device has */
#define XFS_SECTOR_SIZE 512
/* bit 2 of b_flags, 5.10 to 7.3 (fs/xfs/xfs_buf.h) */
#define XBF_READ_AHEAD (1u << 2)
/* bit 2 of m_opstate since 5.15 (fs/xfs/xfs_mount.h); 5.10 kept it in m_flags */
#define XFS_OPSTATE_SHUTDOWN (1UL << 2)
/* XFS_SICK_INO_CORE, 5.10 to 7.3 (fs/xfs/libxfs/xfs_health.h) */
#define XFS_SICK_INO_CORE (1u << 0)

#ifdef HAVE_xfs_mount_m_super
static __always_inline struct super_block *xfs_superblock(struct xfs_mount *mp)
{
	struct super_block *sb = NULL;

	READ(sb, mp->m_super);
	return sb;
}

static __always_inline bool xfs_is_shut_down(struct xfs_mount *mp)
{
	unsigned long state = 0;
#ifdef HAVE_xfs_mount_m_opstate
	READ(state, mp->m_opstate);
#endif
	return state & XFS_OPSTATE_SHUTDOWN;
}

/* xfs_buf_daddr(): the first piece of the buffer, all versions */
static __always_inline u64 xfs_buffer_block(struct xfs_buf *bp)
{
	u64 block = 0;
#if defined(HAVE_xfs_buf_b_maps) && defined(HAVE_xfs_buf_map_bm_bn)
	struct xfs_buf_map *maps = NULL;

	READ(maps, bp->b_maps);
	READ(block, maps->bm_bn);
#endif
	return block;
}

/* b_length is in sectors, all versions */
static __always_inline u64 xfs_buffer_length(struct xfs_buf *bp)
{
	u32 sectors = 0;
#if defined(HAVE_xfs_buf_b_length)
	READ(sectors, bp->b_length);
#endif
	return (u64)sectors * XFS_SECTOR_SIZE;
}

/* "xfs_agf", "xfs_dir3_data" ...: the name in the kernel's own message, all versions */
static __always_inline void xfs_set_buffer_type(struct fserr_record *record, struct xfs_buf *bp)
{
#if defined(HAVE_xfs_buf_b_ops) && defined(HAVE_xfs_buf_ops_name)
	struct xfs_buf_ops *ops = NULL;
	char *name = NULL;

	READ(ops, bp->b_ops);
	READ(name, ops->name);
	bpf_probe_read_kernel_str(record->function, sizeof(record->function), name);
#endif
}

/* xfs_group since 6.13 (e9c4d8bfb26c, "xfs: factor out a generic xfs_group structure") */
static __always_inline struct xfs_mount *xfs_group_mount(void *group)
{
	struct xfs_mount *mp = NULL;
#if defined(HAVE_xfs_group_xg_mount)
	READ(mp, ((struct xfs_group *)group)->xg_mount);
#elif defined(HAVE_xfs_perag_pag_mount)
	READ(mp, ((struct xfs_perag *)group)->pag_mount);
#endif
	return mp;
}
#endif

/* fs_error: in 6.12, not yet in 6.1; before it, bit 0 of fs_state (BTRFS_FS_STATE_ERROR) */
#ifdef HAVE_btrfs_fs_info_sb
static __always_inline bool btrfs_has_failed(struct btrfs_fs_info *fs_info)
{
	unsigned long state = 0;
#if defined(HAVE_btrfs_fs_info_fs_error)
	int error = 0;

	READ(error, fs_info->fs_error);
	return error != 0;
#elif defined(HAVE_btrfs_fs_info_fs_state)
	READ(state, fs_info->fs_state);
#endif
	return state & 1;
}
#endif

#endif
