"""Layouts and numbers of seccomp's user notification (``include/uapi/linux/seccomp.h``).

As far as they are used; layouts and ioctl numbers are those of little endian 64-bit
kernels. A test compares every offset and number with the C header.
"""

from __future__ import annotations

from struct import Struct

# seccomp(2): operations
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_NOTIF_SIZES = 3

# SECCOMP_SET_MODE_FILTER: flags
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1 << 2
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5  # since 5.19

# what a filter returns
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_ALLOW = 0x7FFF0000

# struct seccomp_notif_sizes: seccomp_notif, seccomp_notif_resp, seccomp_data
NOTIF_SIZES = Struct("<HHH")

# what a filter sees, struct seccomp_data: nr, arch, instruction_pointer, args[6]
SECCOMP_DATA = Struct("<iIQ6Q")

# struct seccomp_notif: id, pid, flags; a struct seccomp_data follows
NOTIF = Struct("<QII" + SECCOMP_DATA.format.removeprefix("<"))

# struct seccomp_notif_resp: id, val, error, flags
NOTIF_RESP = Struct("<QqiI")
SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1 << 0  # since 5.5

# struct seccomp_notif_addfd: id, flags, srcfd, newfd, newfd_flags
NOTIF_ADDFD = Struct("<QIIII")
SECCOMP_ADDFD_FLAG_SETFD = 1 << 0
SECCOMP_ADDFD_FLAG_SEND = 1 << 1  # since 5.14

# the listener's ioctls
SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100
SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101
SECCOMP_IOCTL_NOTIF_ID_VALID = 0x40082102
SECCOMP_IOCTL_NOTIF_ADDFD = 0x40182103  # since 5.9
SECCOMP_IOCTL_NOTIF_SET_FLAGS = 0x40082104  # since 6.6
SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP = 1 << 0

# include/uapi/linux/filter.h, struct sock_filter: code, jt, jf, k
SOCK_FILTER = Struct("<HBBI")
# include/uapi/linux/bpf_common.h: the instructions that a filter is made of
BPF_LD_W_ABS = 0x20
BPF_JMP_JEQ_K = 0x15
BPF_JMP_JSET_K = 0x45
BPF_RET_K = 0x06

# include/uapi/linux/audit.h; x32 has the same one, and bit 30 in its numbers
AUDIT_ARCH_X86_64 = 0xC000003E

# arch/x86/entry/syscalls/syscall_64.tbl
NR_FANOTIFY_INIT = 300
NR_FANOTIFY_MARK = 301
NR_SECCOMP = 317
