/* SPDX-License-Identifier: GPL-2.0 */
#ifndef FSERR_LINUX_PTRACE_H
#define FSERR_LINUX_PTRACE_H

/* x86-64's frame as a kprobe's context shows it; fixed by the kernel's entry code */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx;
	unsigned long si, di, orig_ax, ip, cs, flags, sp, ss;
};

#endif
