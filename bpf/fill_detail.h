/* SPDX-License-Identifier: GPL-2.0 */
/* Filling the detail record; compiled in for who asks for it only. */
#ifndef FILL_DETAIL_H
#define FILL_DETAIL_H

#ifdef FSERR_DETAIL

/* The first name of the inode and those of its parents. Nothing is locked: a rename may mix. */
static __always_inline void fserr_set_names(struct fserr_detail *detail, struct inode *inode)
{
	struct dentry *dentry = first_dentry(inode), *parent = NULL, *root = NULL;
	struct super_block *sb = NULL;
	char *name = NULL;

	if (!dentry)
		return;
	if (dentry_is_unhashed(dentry))
		detail->name_flags |= FSERR_NAME_DELETED;
	READ(sb, inode->i_sb);
	READ(root, sb->s_root);
#pragma unroll
	for (int i = 0; i < FSERR_NAMES_MAX; i++) {
		READ(parent, dentry->d_parent);
		if (dentry == root || parent == dentry)
			break;
		READ(name, dentry->d_name_name);
		bpf_probe_read_kernel_str(detail->names[i], FSERR_NAME_SIZE, name);
		dentry = parent;
	}
	if (dentry == root)
		detail->name_flags |= FSERR_NAME_WHOLE;
}

/* The stack begins with the probe's own frames, which user space takes off. */
static __always_inline void fserr_set_detail(void *ctx, struct fserr_detail *detail,
					   struct inode *inode, u32 type)
{
	__builtin_memset(detail, 0, sizeof(*detail));
	bpf_get_stack(ctx, detail->stack, sizeof(detail->stack), 0);
	detail->task_cgroup = bpf_get_current_cgroup_id();
	detail->type = type;
	if (inode) {
		detail->inode_cgroup = writeback_cgroup(inode);
		fserr_set_names(detail, inode);
	}
}

#endif

#endif
