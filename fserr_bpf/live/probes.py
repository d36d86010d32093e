"""Which probes there are, how each can be attached, and which stream wants it.

Data only. The loader tries a probe's attachments in order and takes those of the
first kind that the kernel has.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fserr_bpf.model.stream import Stream
from fserr_bpf.uapi.record import Probe


class Kind(StrEnum):
    """How a probe sees its event."""

    KPROBE = "kprobe"
    TRACEPOINT = "raw tracepoint"
    CLASSIC = "tracepoint"  # by the fields that tracefs describes: needs no BTF
    GROUP = "fanotify group"  # the kernel's own FAN_FS_ERROR, with a tracepoint's place


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
    a classic tracepoint will do. ``blind`` is what a user misses where it is not attached.
    """

    probe: Probe
    module: str
    attachments: tuple[Attachment, ...]
    blind: str
    needs: tuple[str, ...] = ()
    every: bool = False


def _kprobe(target: str, function: str) -> Attachment:
    return Attachment(Kind.KPROBE, target, f"kprobe_{function}")


def _tracepoint(target: str, function: str) -> Attachment:
    return Attachment(Kind.TRACEPOINT, target, f"tracepoint_{function}")


DETAIL, PLACES = "detail", "places"  # arguments of the loader: what goes behind each record

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
        Probe.EXT4_ABORT,
        "ext4",
        (_kprobe("__ext4_abort", "ext4_abort"),),
        "ext4 journal aborts",
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
            probes |= XFS_ERRORS | {Probe.WRITEBACK, Probe.BTRFS_ERROR}
    if kernel.kprobes:
        probes.add(Probe.SB_DELETE)
    else:
        if probes & EXT4_EMITTERS:
            probes.add(Probe.EXT4_TRACE)
        if kernel.sick and Probe.XFS_INODE_VERIFIER in probes:
            probes.add(Probe.XFS_INODE_SICK)
    return frozenset(probes)
