"""The kernel types that bcc compiles against, made from a kernel's BTF.

No kernel headers: real ones do not contain XFS's structures, a dumped vmlinux.h
is laid out wrongly by bcc's clang on 7.x without a word. So only the members that
the probes read are declared, each at the offset that BTF gives.
"""

from __future__ import annotations

import re
from pathlib import Path

from fserr_bpf.probes.btf import Btf

_POINTER = "void *{}"
_U32, _S32, _LONG = "u32 {}", "s32 {}", "unsigned long {}"

# struct -> member -> C declaration; the module whose BTF knows the struct, "" for vmlinux
WANTED: dict[str, tuple[str, dict[str, str]]] = {
    "super_block": (
        "",
        {
            "s_dev": _U32,
            "s_magic": _LONG,
            "s_flags": _LONG,
            "s_fs_info": _POINTER,
            "s_root": _POINTER,
        },
    ),
    "inode": (
        "",
        {
            "i_sb": "struct super_block *{}",
            "i_ino": _LONG,
            "i_generation": _U32,
            "i_rdev": _U32,
            "i_sb_list.next": _POINTER,
            "i_dentry.first": _POINTER,
            "i_wb": _POINTER,
            "i_nlink": _U32,
            "i_mode": "u16 {}",
        },
    ),
    "dentry": (
        "",
        {
            "d_parent": _POINTER,
            "d_inode": _POINTER,
            "d_name.name": _POINTER,
            "d_hash.pprev": _POINTER,
            "d_u.d_alias": _POINTER,
            "d_alias": _POINTER,
        },
    ),
    "bdi_writeback": ("", {"memcg_css": _POINTER}),
    "cgroup_subsys_state": ("", {"cgroup": _POINTER}),
    "cgroup": ("", {"kn": _POINTER}),
    "kernfs_node": ("", {"id": "u64 {}", "parent": _POINTER, "__parent": _POINTER}),
    "css_set": ("", {"dfl_cgrp": _POINTER}),
    "address_space": ("", {"host": "struct inode *{}", "wb_err": _U32}),
    "file": ("", {"f_inode": "struct inode *{}"}),
    "task_struct": (
        "",
        {
            "group_leader": "struct task_struct *{}",
            "start_boottime": "u64 {}",
            "stack": _LONG,
            "flags": _U32,
            "softirq_disable_cnt": _U32,  # PREEMPT_RT only
            "journal_info": _POINTER,
            "thread_pid": "struct pid *{}",
            "cgroups": _POINTER,
        },
    ),
    "pid": ("", {"level": _U32, "numbers": "struct {{ u64 word[2]; }} {}"}),
    "upid": ("", {"nr": _S32, "ns": "struct pid_namespace *{}"}),
    "pid_namespace": ("", {"ns.inum": _U32}),
    "fserror_event": (
        "",
        {
            "work": _LONG,
            "sb": "struct super_block *{}",
            "inode": "struct inode *{}",
            "pos": "u64 {}",
            "len": "u64 {}",
            "type": _U32,
            "error": _S32,
        },
    ),
    "ext4_sb_info": (
        "ext4",
        {"s_ext4_flags": _LONG, "s_mount_opt": _U32, "s_journal": "struct journal_s *{}"},
    ),
    "journal_s": ("ext4", {"j_flags": _LONG, "j_private": "struct super_block *{}"}),
    "xfs_mount": ("xfs", {"m_super": "struct super_block *{}", "m_opstate": _LONG}),
    "xlog": ("xfs", {"l_mp": "struct xfs_mount *{}"}),
    "xfs_buf": (
        "xfs",
        {
            "b_mount": "struct xfs_mount *{}",
            "b_flags": _U32,
            "b_ops": "struct xfs_buf_ops *{}",
            "b_maps": "struct xfs_buf_map *{}",
            "b_length": _U32,
        },
    ),
    "xfs_buf_map": ("xfs", {"bm_bn": "u64 {}"}),
    "xfs_buf_ops": ("xfs", {"name": "char *{}"}),
    "xfs_inode": ("xfs", {"i_mount": "struct xfs_mount *{}", "i_vnode": _LONG, "i_ino": "u64 {}"}),
    "xfs_perag": ("xfs", {"pag_mount": "struct xfs_mount *{}"}),
    "xfs_group": ("xfs", {"xg_mount": "struct xfs_mount *{}"}),
    "btrfs_fs_info": (
        "btrfs",
        {"sb": "struct super_block *{}", "fs_error": _S32, "fs_state": _LONG},
    ),
    "btrfs_device": ("btrfs", {"fs_info": "struct btrfs_fs_info *{}"}),
    "btrfs_root": ("btrfs", {"root_key": "u64 {}"}),
    "btrfs_inode": ("btrfs", {"root": "struct btrfs_root *{}", "vfs_inode": _LONG}),
    "f2fs_sb_info": (
        "f2fs",
        {"sb": "struct super_block *{}", "ckpt": "struct f2fs_checkpoint *{}"},
    ),
    "f2fs_checkpoint": ("f2fs", {"ckpt_flags": _U32}),
}

# tracepoint -> field -> C declaration, for modules without BTF
TRACEPOINTS: dict[str, dict[str, str]] = {
    "xfs/xfs_buf_ioerror": {
        "dev": _U32,
        "bno": "u64 {}",
        "buffer_length": "u64 {}",
        "flags": _U32,
        "error": _S32,
        "caller_ip": "u64 {}",
    },
}
TRACEFS = Path("/sys/kernel/tracing/events")


def _padded(name: str, offsets: dict[str, int | None], members: dict[str, str]) -> list[str]:
    """C lines that declare ``struct name`` with its members at the given offsets."""
    lines, views = [f"struct {name};"], []
    for member, offset in offsets.items():
        if offset is None:
            continue
        field = member.replace(".", "_")
        padding = f"char pad_{field}[{offset}]; " if offset else ""
        declaration = members[member].format(field)
        views.append(f"\tstruct {{ {padding}{declaration}; }} __attribute__((packed));")
        lines.append(f"#define HAVE_{name}_{field} 1")
        lines.append(f"#define FSERR_OFFSET_{name}_{field} {offset}")
    if views:
        lines += [f"struct {name} {{ union {{", *views, "}; };"]
    return lines


def _trace_offsets(event: str, members: dict[str, str]) -> dict[str, int | None]:
    """Offsets of a tracepoint's fields, by its ``format`` file in tracefs."""
    try:
        text = (TRACEFS / event / "format").read_text()
    except OSError:
        return dict.fromkeys(members)
    found = re.findall(r"field:.*?\b(\w+)(?:\[.*?\])?;\s*offset:(\d+);", text)
    known = {name: int(offset) for name, offset in found}
    return {member: known.get(member) for member in members}


def kernel_types(btf: dict[str, Btf], *, abort: bool, trace_fields: bool) -> str:
    """C declarations for the probes; ``btf`` maps a module name ("" is vmlinux).

    A dotted member is one inside another and becomes ``outer_inner`` in C. A member
    that this kernel lacks is left out; the probes ask for ``HAVE_struct_member``.
    ``FSERR_OFFSET_struct_member`` is for container_of. ``abort``: ext4 has
    __ext4_abort(), so __ext4_error() has no force_ro yet. ``trace_fields``: the fields of the
    running kernel's tracepoints too.
    """
    lines = [f"struct {struct};" for struct in WANTED]
    for struct, (module, members) in WANTED.items():
        known = btf.get(module)
        lines += _padded(
            struct, {m: known.offset(struct, m) if known else None for m in members}, members
        )
    for event, members in TRACEPOINTS.items():
        name = f"trace_{event.split('/')[1]}"
        offsets = _trace_offsets(event, members) if trace_fields else dict.fromkeys(members)
        lines += _padded(name, offsets, members)
    vmlinux = btf[""]
    # THREAD_SIZE is a macro; union thread_union is the one type that has it
    lines.append(f"#define FSERR_THREAD_SIZE {vmlinux.size('thread_union') or 16384}UL")
    ext4 = btf.get("ext4")
    if ext4 and ext4.parameters("ext4_force_shutdown") is not None:
        lines.append("#define FSERR_EXT4_FORCE_SHUTDOWN 1")
    if not abort:
        lines.append("#define FSERR_EXT4_FORCE_RO 1")
    return "\n".join(lines) + "\n"


def trace_formats() -> bytes:
    """What the running kernel says about the fields of the tracepoints."""
    found = [TRACEFS / event / "format" for event in TRACEPOINTS]
    return b"".join(path.read_bytes() for path in found if path.exists())


def version_code(release: str) -> int:
    """``LINUX_VERSION_CODE`` of a release such as "6.12.117+deb13-amd64", for bcc's helpers."""
    numbers = [int(number) for number in re.findall(r"\d+", release)[:3]]
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    return (major << 16) + (minor << 8) + min(255, patch)
