/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What every header below it uses. Each difference between kernels is behind one getter
 * (task.h, vfs.h, and one header per file system). HAVE_struct_member, FSERR_* constants
 * and the structures come from the running kernel's BTF (fserr_bpf/probes/headers.py);
 * nothing asks for a version. Versions stand in comments, one line per way to read:
 *
 *   kernel FIRST..LAST: what is read there (the commit that changed it)
 *
 * without FIRST for kernels older than any that is supported, without LAST where it is
 * still so. tests/unit/test_bpf_kernels.py fails when LAST is over: take that branch away.
 */
#ifndef COMMON_H
#define COMMON_H

#define READ(destination, source) \
	bpf_probe_read_kernel(&(destination), sizeof(destination), &(source))

#define EROFS 30
#define ESHUTDOWN 108
#define EFSCORRUPTED 117
#define EIO 5
#define EFSBADCRC 74

/* Who called the probed function: at its entry the return address is on top of the stack. */
static __always_inline u64 caller_of(struct pt_regs *ctx)
{
	u64 address = 0;

	READ(address, *(u64 *)PT_REGS_SP(ctx));
	return address;
}

#endif
