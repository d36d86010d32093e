/* SPDX-License-Identifier: GPL-2.0 */
/* Superblocks, inodes, dentries, and the cgroups that pages are charged to. */
#ifndef VFS_H
#define VFS_H

/* s_flags, all versions (include/linux/fs.h) */
#define SB_RDONLY 1u
#define SB_BORN (1u << 29)
#define BDEVFS_MAGIC 0x62646576u

static __always_inline u32 sb_flags(struct super_block *sb)
{
	unsigned long flags = 0;

	READ(flags, sb->s_flags);
	return flags;
}

static __always_inline bool sb_is_read_only(struct super_block *sb)
{
	return sb_flags(sb) & SB_RDONLY;
}

/* unsigned long up to 7.1, u64 since 7.2: the same eight bytes on 64 bit. */
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

/*
 * kernel ..7.1: d_alias shares memory with others in d_u (in 7.0; 7.1 was not looked at)
 * kernel 7.2..: d_alias has a place of its own
 */
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

/*
 * kernel ..6.14: parent
 * kernel 6.15..: __parent (633488947ef6, "kernfs: Use RCU to access kernfs_node::parent.")
 */
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

#endif
