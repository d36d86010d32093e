/* SPDX-License-Identifier: GPL-2.0 */
/* Filling the place; compiled in for who asks for it only. */
#ifndef FILL_PLACE_H
#define FILL_PLACE_H

#ifdef FSERR_PLACES

/*
 * All ones if the two differ, else 0, without a branch. The loops below go on with NULL,
 * which reads zeros, where others break: the verifier of 5.10 follows every way out
 * of a loop through all that comes behind.
 */
static __always_inline u64 if_differ(u64 one, u64 other)
{
	u64 difference = one ^ other;

	difference |= -difference;
	asm volatile("" : "+r"(difference)); /* else clang makes a branch of it */
	return (s64)difference >> 63;
}

static __always_inline void fserr_set_cgroups(__u64 *ids, struct kernfs_node *node)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i < FSERR_CGROUPS_MAX; i++) {
		READ(ids[i], node->id);
		node = kernfs_parent(node);
	}
}

/* The folders above a name. Nothing is locked: a rename may mix. */
static __always_inline u32 fserr_set_ancestors(struct fserr_ancestor *ancestors,
					       struct dentry *dentry, struct dentry *root,
					       bool btrfs)
{
	struct dentry *parent = NULL;
	struct inode *inode = NULL;
	u64 whole = 0, on;

#pragma clang loop unroll(disable)
	for (int i = 0; i < FSERR_DEPTH_MAX; i++) {
		READ(parent, dentry->d_parent);
		on = if_differ((u64)dentry, (u64)root);
		whole |= ~on;
		on &= if_differ((u64)dentry, (u64)parent);
		dentry = (void *)((u64)parent & on);
		READ(inode, dentry->d_inode);
		ancestors[i].ino = inode_number(inode);
		READ(ancestors[i].generation, inode->i_generation);
		if (btrfs)
			ancestors[i].subvolume = btrfs_subvolume(inode);
	}
	whole |= ~if_differ((u64)dentry, (u64)root);
	whole &= if_differ((u64)root, 0); /* unmounting */
	return whole & FSERR_ALIAS_WHOLE;
}

static __always_inline void fserr_set_place(struct fserr_place *place, struct inode *inode,
					    bool btrfs)
{
	struct super_block *sb = NULL;
	struct dentry *root = NULL, *dentry;
	void *alias = NULL;
	u16 mode = 0;
	u32 flags;

	/* clang joins these into one, and sets more than 1 KiB by a call that BPF lacks */
	__builtin_memset(place, 0, __builtin_offsetof(struct fserr_place, ancestors));
#pragma unroll
	for (int i = 0; i < FSERR_ALIASES_MAX; i++) {
		asm volatile("" ::: "memory");
		__builtin_memset(place->ancestors[i], 0, sizeof(place->ancestors[i]));
	}
	fserr_set_cgroups(place->task_cgroups, task_cgroup_node());
	if (!inode)
		return;
	place->flags = FSERR_PLACE_INODE;
	fserr_set_cgroups(place->inode_cgroups, writeback_cgroup_node(inode));
	READ(place->nlink, inode->i_nlink);
	READ(mode, inode->i_mode);
	place->mode = mode;
	READ(sb, inode->i_sb);
	READ(root, sb->s_root);
	READ(alias, inode->i_dentry_first);
#pragma unroll
	for (int i = 0; i < FSERR_ALIASES_MAX; i++) {
		if (!alias)
			return;
		dentry = dentry_of_alias(alias);
		flags = FSERR_ALIAS_THERE;
		if (dentry_is_unhashed(dentry))
			flags |= FSERR_ALIAS_DELETED;
		flags |= fserr_set_ancestors(place->ancestors[i], dentry, root, btrfs);
		place->alias_flags[i] = flags;
		READ(alias, *(void **)alias); /* hlist_node.next */
	}
	if (alias)
		place->flags |= FSERR_PLACE_MORE;
}

#endif

#endif
