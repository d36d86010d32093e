/* SPDX-License-Identifier: GPL-2.0 */
/* bcc includes this file before everything else. */
#define CONFIG_BPF_SYSCALL 1
#define CONFIG_X86_64 1
#define CONFIG_ARCH_HAS_SYSCALL_WRAPPER 1
#include <linux/types.h>
