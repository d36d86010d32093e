/* SPDX-License-Identifier: GPL-2.0 */
/* Filling the side record; compiled in by run --detail only. */
#ifndef DETAIL_H
#define DETAIL_H

#ifdef FSERR_DETAIL

/* The first name of the inode and those of its parents. Nothing is locked: a rename may mix. */
static __always_inline void fserr_set_names(struct fserr_side *side, struct inode *inode)
{
	struct dentry *dentry = first_dentry(inode), *parent = NULL, *root = NULL;
	struct super_block *sb = NULL;
	char *name = NULL;

	if (!dentry)
		return;
	if (dentry_is_unhashed(dentry))
		side->name_flags |= FSERR_NAME_DELETED;
	READ(sb, inode->i_sb);
	READ(root, sb->s_root);
#pragma unroll
	for (int i = 0; i < FSERR_NAMES_MAX; i++) {
		READ(parent, dentry->d_parent);
		if (dentry == root || parent == dentry)
			break;
		READ(name, dentry->d_name_name);
		bpf_probe_read_kernel_str(side->names[i], FSERR_NAME_SIZE, name);
		dentry = parent;
	}
	if (dentry == root)
		side->name_flags |= FSERR_NAME_WHOLE;
}

/* The stack begins with the probe's own frames, which user space takes off. */
static __always_inline void fserr_set_side(void *ctx, struct fserr_side *side,
					   struct inode *inode, u32 type)
{
	__builtin_memset(side, 0, sizeof(*side));
	bpf_get_stack(ctx, side->stack, sizeof(side->stack), 0);
	side->task_cgroup = bpf_get_current_cgroup_id();
	side->type = type;
	if (inode) {
		side->inode_cgroup = writeback_cgroup(inode);
		fserr_set_names(side, inode);
	}
}

typedef struct fserr_detailed fserr_entry;

static __always_inline void fserr_fill(void *ctx, fserr_entry *slot, struct fserr_record *record,
				       struct inode *inode, u32 type)
{
	slot->record = *record;
	fserr_set_side(ctx, &slot->side, inode, type);
}

#else

typedef struct fserr_record fserr_entry;

static __always_inline void fserr_fill(void *ctx, fserr_entry *slot, struct fserr_record *record,
				       struct inode *inode, u32 type)
{
	*slot = *record;
}

#endif

#endif
