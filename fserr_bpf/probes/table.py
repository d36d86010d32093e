"""Which probes there are, how each can be attached, and which stream wants it.

The loader tries a probe's attachments in order and takes those of the first kind that the
kernel has.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from enum import StrEnum

from fserr_bpf.model.stream import Stream
from fserr_bpf.uapi.record import Probe


class Kind(StrEnum):
    """How a probe is attached."""

    KPROBE = "kprobe"
    TRACEPOINT = "raw tracepoint"
    CLASSIC = "tracepoint"  # by the fields that tracefs describes: needs no BTF
    GROUP = "fanotify group"  # the kernel's own FAN_FS_ERROR; a tracepoint adds function and line


@dataclass(frozen=True)
class Attachment:
    """One way to attach: the kernel's symbol or tracepoint, and our function in ``bpf/``."""

    kind: Kind
    target: str
    function: str


@dataclass(frozen=True)
class ProbeSpec:
    """A probe: its number, the module that holds its symbols ("" for vmlinux).

    ``attachments`` of one kind are alternatives (a symbol that was renamed), or
    siblings when ``every`` is set. ``needs`` are ``HAVE_`` names without which only
    a classic tracepoint will do. ``sees`` is what a user misses where it is not attached.
    """

    probe: Probe
    module: str
    attachments: tuple[Attachment, ...]
    sees: str
    needs: tuple[str, ...] = ()
    every: bool = False

    @property
    def fstypes(self) -> tuple[str, ...]:
        """The file systems of the module, as /proc/filesystems names them; () for vmlinux."""
        if self.module == "fat":
            return ("vfat", "msdos")
        return (self.module,) if self.module else ()


def _kprobe(target: str, function: str) -> Attachment:
    return Attachment(Kind.KPROBE, target, f"kprobe_{function}")


def _tracepoint(target: str, function: str) -> Attachment:
    return Attachment(Kind.TRACEPOINT, target, f"tracepoint_{function}")


_XFS = ("xfs_mount_m_super",)

PROBES: tuple[ProbeSpec, ...] = (
    ProbeSpec(
        Probe.EXT4_ERROR,
        "ext4",
        (_kprobe("__ext4_error", "ext4_error"),),
        "ext4 errors of the superblock",
    ),
    ProbeSpec(
        Probe.EXT4_ERROR_INODE,
        "ext4",
        (_kprobe("__ext4_error_inode", "ext4_error_inode"),),
        "ext4 errors of an inode",
    ),
    ProbeSpec(
        Probe.EXT4_ERROR_FILE,
        "ext4",
        (_kprobe("__ext4_error_file", "ext4_error_file"),),
        "ext4 errors of an open file",
    ),
    ProbeSpec(
        Probe.EXT4_STD_ERROR,
        "ext4",
        (_kprobe("__ext4_std_error", "ext4_std_error"),),
        "ext4 errors of the journal",
    ),
    ProbeSpec(
        Probe.EXT4_TRACE,
        "ext4",
        (_tracepoint("ext4_error", "ext4_error"),),
        "function and line of ext4 errors",
    ),
    ProbeSpec(
        Probe.EXT4_SHUTDOWN,
        "ext4",
        (_tracepoint("ext4_shutdown", "ext4_shutdown"),),
        "forced shutdown of ext4",
    ),
    ProbeSpec(
        Probe.XFS_BUF_VERIFIER,
        "xfs",
        (_kprobe("xfs_buf_verifier_error", "xfs_buf_verifier_error"),),
        "whether an XFS buffer failed its verifier",
        _XFS,
    ),
    ProbeSpec(
        Probe.XFS_BUF_IOERROR,
        "xfs",
        (_kprobe("__xfs_buf_ioerror", "xfs_buf_ioerror"),),
        "XFS buffer errors that are set from outside of xfs_buf.c",
        _XFS,
    ),
    ProbeSpec(
        Probe.XFS_BUF_TRACE,
        "xfs",
        (
            _tracepoint("xfs_buf_ioerror", "xfs_buf_ioerror"),
            Attachment(Kind.CLASSIC, "xfs:xfs_buf_ioerror", "classic_xfs_buf_ioerror"),
        ),
        "XFS metadata I/O errors and corrupt buffers",
        _XFS,
    ),
    ProbeSpec(
        Probe.XFS_INODE_VERIFIER,
        "xfs",
        (_kprobe("xfs_inode_verifier_error", "xfs_inode_verifier_error"),),
        "corrupt XFS inodes",
        _XFS,
    ),
    ProbeSpec(
        Probe.XFS_INODE_SICK,
        "xfs",
        (
            _kprobe("xfs_inode_mark_sick", "xfs_inode_sick"),
            _kprobe("xfs_inode_mark_corrupt", "xfs_inode_sick"),
            _tracepoint("xfs_inode_mark_sick", "xfs_inode_sick"),
            _tracepoint("xfs_inode_mark_corrupt", "xfs_inode_sick"),
        ),
        "XFS inodes found sick",
        _XFS,
        every=True,
    ),
    ProbeSpec(
        Probe.XFS_GROUP_SICK,
        "xfs",
        (
            _kprobe("xfs_group_mark_sick", "xfs_group_sick"),
            _kprobe("xfs_ag_mark_sick", "xfs_group_sick"),
            _tracepoint("xfs_group_mark_sick", "xfs_group_sick"),
            _tracepoint("xfs_ag_mark_sick", "xfs_ag_sick"),
        ),
        "XFS allocation groups found sick",
        _XFS,
    ),
    ProbeSpec(
        Probe.XFS_FS_SICK,
        "xfs",
        (
            _kprobe("xfs_fs_mark_sick", "xfs_fs_sick"),
            _kprobe("xfs_rt_mark_sick", "xfs_fs_sick"),
            _tracepoint("xfs_fs_mark_sick", "xfs_fs_sick"),
            _tracepoint("xfs_rt_mark_sick", "xfs_fs_sick"),
        ),
        "XFS metadata found sick",
        _XFS,
        every=True,
    ),
    ProbeSpec(
        Probe.XFS_SHUTDOWN,
        "xfs",
        (_tracepoint("xfs_force_shutdown", "xfs_shutdown"),),
        "forced shutdown of XFS",
        _XFS,
    ),
    ProbeSpec(
        Probe.WRITEBACK,
        "",
        (
            _kprobe("__filemap_set_wb_err", "filemap_set_wb_err"),
            _tracepoint("filemap_set_wb_err", "filemap_set_wb_err"),
        ),
        "writeback errors",
    ),
    ProbeSpec(
        Probe.BTRFS_ERROR,
        "btrfs",
        (_kprobe("__btrfs_handle_fs_error", "btrfs_handle_fs_error"),),
        "fatal btrfs errors",
        ("btrfs_fs_info_sb",),
    ),
    ProbeSpec(
        Probe.FSERROR,
        "",
        (_kprobe("fserror_worker", "fserror_worker"),),
        "everything that this kernel reports by itself",
        ("fserror_event_work",),
    ),
    ProbeSpec(
        Probe.SB_DELETE,
        "",
        (_kprobe("fsnotify_sb_delete", "fsnotify_sb_delete"),),
        "the exact moment at which an unmount ends a mark",
    ),
    ProbeSpec(
        Probe.CANARY,
        "",
        (_kprobe("__x64_sys_ioprio_get", "canary"),),
        "whether the probes are switched off",
    ),
    ProbeSpec(
        Probe.EXT4_ABORT,
        "ext4",
        (_kprobe("__ext4_abort", "ext4_abort"),),
        "ext4 journal aborts",
    ),
    ProbeSpec(
        Probe.EXT4_GROUP_LOCKED,
        "ext4",
        (_kprobe("__ext4_grp_locked_error", "ext4_group_locked"),),
        "ext4 errors of block groups",
    ),
    ProbeSpec(
        Probe.EXT4_END,
        "ext4",
        (
            _kprobe("ext4_handle_error", "ext4_handle_error"),
            _kprobe("jbd2_journal_abort", "ext4_journal_abort"),
            _kprobe("ext4_force_shutdown", "ext4_force_shutdown"),
            _kprobe("ext4_shutdown", "ext4_device_removed"),
        ),
        "that an ext4 has become read-only or was shut down",
        ("ext4_sb_info_s_journal", "journal_s_j_flags"),
        every=True,
    ),
    ProbeSpec(
        Probe.XFS_CORRUPTION,
        "xfs",
        (
            _kprobe("xfs_corruption_error", "xfs_corruption_error"),
            _kprobe("xfs_error_report", "xfs_error_report"),
        ),
        "corruption that XFS finds outside of its verifiers",
        _XFS,
        every=True,
    ),
    ProbeSpec(
        Probe.XFS_BUF_CORRUPT,
        "xfs",
        (_kprobe("xfs_buf_corruption_error", "xfs_buf_corruption_error"),),
        "XFS buffers that are found corrupt after they were read",
        _XFS,
    ),
    ProbeSpec(
        Probe.XFS_END,
        "xfs",
        (
            _kprobe("xfs_do_force_shutdown", "xfs_force_shutdown"),
            _kprobe("xlog_force_shutdown", "xfs_log_shutdown"),
            _tracepoint("xfs_force_shutdown", "xfs_end"),
        ),
        "that an XFS has shut itself down",
        _XFS,
        every=True,
    ),
    ProbeSpec(
        Probe.BTRFS_DEVICE,
        "btrfs",
        (_kprobe("btrfs_dev_stat_inc_and_print", "btrfs_device"),),
        "btrfs errors that are counted per device",
        ("btrfs_device_fs_info",),
    ),
    ProbeSpec(
        Probe.BTRFS_END,
        "btrfs",
        (
            _kprobe("__btrfs_handle_fs_error", "btrfs_end"),
            _kprobe("btrfs_shutdown", "btrfs_removed"),
            _kprobe("fserror_report", "btrfs_shutdown"),
        ),
        "that a btrfs was forced to be read-only or was shut down",
        ("btrfs_fs_info_sb",),
        every=True,
    ),
    ProbeSpec(
        Probe.F2FS_ERROR,
        "f2fs",
        (_kprobe("f2fs_handle_error", "f2fs_error"),),
        "corrupt f2fs metadata",
        ("f2fs_sb_info_sb",),
    ),
    ProbeSpec(
        Probe.F2FS_END,
        "f2fs",
        (_kprobe("f2fs_stop_checkpoint", "f2fs_end"),),
        "that an f2fs has stopped its checkpoints",
        ("f2fs_sb_info_sb",),
    ),
    ProbeSpec(
        Probe.FAT_ERROR,
        "fat",
        (_kprobe("__fat_fs_error", "fat_error"),),
        "errors of FAT metadata",
    ),
    ProbeSpec(
        Probe.OCFS2_ERROR,
        "ocfs2",
        (_kprobe("__ocfs2_error", "ocfs2_error"),),
        "errors of ocfs2 metadata",
    ),
    ProbeSpec(
        Probe.NILFS2_ERROR,
        "nilfs2",
        (_kprobe("__nilfs_error", "nilfs2_error"),),
        "errors of nilfs2 metadata",
    ),
    ProbeSpec(
        Probe.JFS_ERROR,
        "jfs",
        (_kprobe("jfs_error", "jfs_error"),),
        "errors of jfs metadata",
    ),
)

EXT4_EMITTERS = frozenset(
    {Probe.EXT4_ERROR, Probe.EXT4_ERROR_INODE, Probe.EXT4_ERROR_FILE, Probe.EXT4_STD_ERROR}
)
XFS_HEALTH = frozenset({Probe.XFS_INODE_SICK, Probe.XFS_GROUP_SICK, Probe.XFS_FS_SICK})
XFS_ERRORS = frozenset(
    {
        Probe.XFS_BUF_VERIFIER,
        Probe.XFS_BUF_IOERROR,
        Probe.XFS_BUF_TRACE,
        Probe.XFS_INODE_VERIFIER,
    }
)
# what no kernel sends: corruption beside the verifiers, other file systems, every end
UNSENT = frozenset(
    {
        *(Probe.EXT4_GROUP_LOCKED, Probe.XFS_CORRUPTION, Probe.XFS_BUF_CORRUPT),
        *(Probe.BTRFS_ERROR, Probe.BTRFS_DEVICE, Probe.F2FS_ERROR, Probe.FAT_ERROR),
        *(Probe.OCFS2_ERROR, Probe.NILFS2_ERROR, Probe.JFS_ERROR),
    }
)
ENDS = frozenset({Probe.EXT4_END, Probe.XFS_END, Probe.BTRFS_END, Probe.F2FS_END})


@dataclass(frozen=True)
class Kernel:
    """What decides which probes a stream wants.

    ``kprobes``: the kernel has them. ``fserror``: it reports through fs/fserror.c
    (7.0 and later). ``abort``: ext4 still has __ext4_abort() (5.10). ``sick``: XFS
    calls mark_sick where it finds corruption (6.9 and later), not in scrub only.
    ``gate``: the flag by which ext4 falls silent can be read.
    """

    kprobes: bool
    fserror: bool
    abort: bool
    sick: bool
    gate: bool


def wanted(stream: Stream, kernel: Kernel) -> frozenset[Probe]:
    """The probes that ``stream`` is made of on ``kernel``."""
    if kernel.fserror and stream is not Stream.PROPOSED:
        probes = {Probe.FSERROR}
    else:
        probes = set(EXT4_EMITTERS)
        if kernel.abort:
            probes.add(Probe.EXT4_ABORT)
        if stream is Stream.FSERROR:
            probes |= {Probe.EXT4_SHUTDOWN, Probe.XFS_SHUTDOWN, Probe.WRITEBACK}
            probes |= XFS_HEALTH if kernel.sick else XFS_ERRORS
        elif stream is Stream.PROPOSED:
            probes |= XFS_ERRORS | UNSENT | ENDS | {Probe.WRITEBACK}
    if kernel.kprobes:
        probes |= {Probe.SB_DELETE, Probe.CANARY}
    else:
        if probes & EXT4_EMITTERS:
            probes.add(Probe.EXT4_TRACE)
        if kernel.sick and Probe.XFS_INODE_VERIFIER in probes:
            probes.add(Probe.XFS_INODE_SICK)
    return frozenset(probes)


def missing_types(spec: ProbeSpec, types: Container[str]) -> bool:
    """Whether the kernel's type information lacks what the probe reads."""
    return any(need not in types for need in spec.needs)


def candidates(spec: ProbeSpec, types: Container[str], *, kprobes: bool) -> list[Attachment]:
    """The attachments of the best kind that a kernel with these ``types`` can have."""
    kinds = [Kind.CLASSIC]
    if not missing_types(spec, types):
        kinds = [Kind.KPROBE] if kprobes else []
        kinds.append(Kind.TRACEPOINT)
    for kind in kinds:
        if found := [a for a in spec.attachments if a.kind is kind]:
            return found
    return []
