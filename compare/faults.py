"""The faults that make file systems report real errors, as one table.

Use: ``with scratch(fault.fstype) as fs: fault.prepare(fs)``, open the groups, then
``fault.cause(fs)``. Preparing corrupts the unmounted file system and leaves it
freshly mounted; causing runs the operation that trips over the corruption, in a
process of its own, so that every fault has its own pid.

Several faults can share a file system that was made with the ``mkfs_options`` of
all: ``damage`` it for each instead of preparing it. Damage that stops allocation
(xfs_agf) has to come last, and the cause that cuts the device (writeback) too.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from compare.extents import first_physical
from compare.scratch import Scratch, run
from fserr_bpf.errors import LabError

Form = Literal["inode", "sb"]

EFSCORRUPTED = errno.EUCLEAN
EFSBADCRC = errno.EBADMSG

_PAYLOAD = 64 << 10


@dataclass(frozen=True)
class Expected:
    """One error that has to be reported, in the 7.0 kernel's positive numbers."""

    error: int
    form: Form


@dataclass(frozen=True)
class Caused:
    """The process that met the error; ``path`` is the object of an inode error."""

    pid: int
    comm: str
    command: tuple[str, ...]
    returncode: int
    stderr: str
    path: str


@dataclass(frozen=True)
class Fault:
    """A way to break a file system.

    ``expected`` holds each distinct error once; the kernel may report it several
    times. ``proposed`` is the same for the stream of that name, None where it does not
    differ. ``native_since`` is the first kernel that reports it through fanotify
    itself (stable kernels may have it backported), None if no kernel does.
    ``handle_reachable`` says that the failing inode can still be opened by name,
    so that name_to_handle_at(2) can judge the handle. ``damage`` needs a file system
    made with ``mkfs_options``.
    """

    name: str
    fstype: str
    summary: str
    expected: tuple[Expected, ...]
    native_since: tuple[int, int] | None
    damage: Callable[[Scratch], None]
    cause: Callable[[Scratch], Caused]
    mkfs_options: tuple[str, ...] = ()
    proposed: tuple[Expected, ...] | None = None
    handle_reachable: bool = False

    def prepare(self, fs: Scratch) -> None:
        """Make ``fs``, which is mounted and will be again, as this fault needs it."""
        if self.mkfs_options:
            fs.unmount()
            fs.make(*self.mkfs_options)
            fs.mount()
        self.damage(fs)

    def expected_of_proposed(self) -> tuple[Expected, ...]:
        """Each distinct error in the stream ``proposed``."""
        return self.expected if self.proposed is None else self.proposed


def run_child(*command: str, path: str) -> Caused:
    """Run ``command`` to its end; ``path`` is what its errors are about."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    _, stderr = child.communicate()
    comm = os.path.basename(command[0])[:15]
    return Caused(child.pid, comm, command, child.returncode, stderr, path)


def _in_mount(name: str, *command: str) -> Callable[[Scratch], Caused]:
    """A cause: ``command`` with the path of ``name`` as its last argument."""

    def cause(fs: Scratch) -> Caused:
        path = str(fs.mount_point / name)
        return run_child(*command, path, path=path)

    return cause


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise LabError(f"unexpected output of a debugging tool: {text.strip()!r}")
    return int(found[1])


def _debugfs(fs: Scratch, request: str, *options: str) -> str:
    return run("debugfs", *options, "-R", request, fs.device)


def _ext4_block_size(fs: Scratch) -> int:
    return _number(r"Block size:\s+(\d+)", run("dumpe2fs", "-h", fs.device))


def _xfs_db(fs: Scratch, *requests: str, write: bool = False) -> str:
    arguments = [part for request in requests for part in ("-c", request)]
    return run("xfs_db", "-x" if write else "-r", *arguments, fs.device)


def _write_file(fs: Scratch, name: str) -> int:
    """Create a file with data on the disk and return its inode number."""
    path = fs.mount_point / name
    path.write_bytes(b"fserr-bpf scratch data\n" * 8)
    return path.stat().st_ino


def fill_directory(fs: Scratch, files: int) -> int:
    """Create ``dir`` with so many files in it and return its inode number."""
    directory = fs.mount_point / "dir"
    directory.mkdir()
    for index in range(files):
        (directory / f"a file with a rather long name {index}").touch()
    return directory.stat().st_ino


# ext4


def _nothing(fs: Scratch) -> None:
    """The healthy file system will do."""


def _ext4_trigger(fs: Scratch) -> Caused:
    path = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
    return run_child("sh", "-c", 'echo x > "$0"', path, path=str(fs.mount_point))


def _damage_ext4_bad_inode(fs: Scratch) -> None:
    _write_file(fs, "victim")
    fs.unmount()
    # The magic of the extent header; debugfs writes a matching inode checksum.
    _debugfs(fs, "set_inode_field victim block[0] 0", "-w")
    fs.mount()


def _damage_ext4_bad_extent(fs: Scratch) -> None:
    # More holes than the inode has room for extents: the tree gets a leaf block.
    with open(fs.mount_point / "victim", "wb") as file:
        for index in range(16):
            os.pwrite(file.fileno(), b"x" * 4096, index * 16384)
    fs.unmount()
    leaf = _number(r"\(ETB0\):(\d+)", _debugfs(fs, "stat victim"))
    fs.overwrite(leaf * _ext4_block_size(fs), bytes(2))  # eh_magic
    fs.mount()


def _damage_ext4_htree_checksum(fs: Scratch) -> None:
    fill_directory(fs, 400)
    fs.unmount()
    leaf = _number(r"(\d+)", _debugfs(fs, "bmap dir 1"))
    block_size = _ext4_block_size(fs)
    # Any change will do: nothing of the block is looked at before its checksum.
    fs.overwrite(leaf * block_size + block_size // 2, b"\xff" * 4)
    fs.mount()


def _damage_ext4_grp_locked(fs: Scratch) -> None:
    _write_file(fs, "victim")
    fs.unmount()
    block = _number(r"(\d+)", _debugfs(fs, "bmap victim 0"))
    _debugfs(fs, f"freeb {block}", "-w")
    fs.mount()


def _ext4_abort(fs: Scratch) -> Caused:
    path = str(fs.mount_point)
    return run_child("mount", "-o", "remount,abort", path, path=path)


# XFS


def _damage_xfs_agf(fs: Scratch) -> None:
    _write_file(fs, "file")
    fs.unmount()
    _xfs_db(fs, "agf 0", "write -d length 1", write=True)
    fs.mount()


def _damage_xfs_inode(fs: Scratch) -> None:
    ino = _write_file(fs, "victim")
    fs.unmount()
    _xfs_db(fs, f"inode {ino}", "write -d core.format 9", write=True)
    fs.mount()


def _damage_xfs_dirblock(fs: Scratch) -> None:
    ino = fill_directory(fs, 40)
    fs.unmount()
    sector = _number(r"daddr is (\d+)", _xfs_db(fs, f"inode {ino}", "dblock 0", "daddr"))
    fs.overwrite(sector * 512 + 100, b"\xff" * 4)
    fs.mount()


# both: data that cannot be written back


def _highest_file(fs: Scratch) -> str:
    """The victim: of several files the one whose data comes last on the device."""
    return max(
        (str(path) for path in fs.mount_point.glob("group*/victim")),
        key=lambda path: first_physical(Path(path)),
    )


def _damage_writeback(fs: Scratch) -> None:
    # Each file system spreads directories over its allocation groups. The last
    # group's metadata and the log lie in front of the last group's data.
    for index in range(8):
        directory = fs.mount_point / f"group{index}"
        directory.mkdir()
        (directory / "victim").write_bytes(b"x" * _PAYLOAD)
    fs.remount_fresh()


def _cut_and_write(fs: Scratch) -> Caused:
    path = _highest_file(fs)
    fs.shrink_device(first_physical(Path(path)))
    try:
        return run_child(
            *("dd", "if=/dev/zero", f"bs={_PAYLOAD}", "count=1", "conv=notrunc,fsync"),
            f"of={path}",
            path=path,
        )
    finally:
        fs.restore_device()


FAULTS = (
    Fault(
        name="ext4_trigger",
        fstype="ext4",
        summary="writes to trigger_fs_error in sysfs",
        expected=(Expected(EFSCORRUPTED, "sb"),),
        native_since=(5, 16),
        damage=_nothing,
        cause=_ext4_trigger,
    ),
    Fault(
        name="ext4_bad_inode",
        fstype="ext4",
        summary="opens a file whose inode has no valid extent header",
        expected=(Expected(EFSCORRUPTED, "inode"),),
        native_since=(5, 16),
        damage=_damage_ext4_bad_inode,
        cause=_in_mount("victim", "cat"),
    ),
    Fault(
        name="ext4_bad_extent",
        fstype="ext4",
        summary="looks for data in a file with a good inode and a broken extent tree",
        expected=(Expected(EFSCORRUPTED, "inode"),),
        native_since=(5, 16),
        damage=_damage_ext4_bad_extent,
        # A read would meet the error once per block of the readahead.
        cause=_in_mount("victim", "xfs_io", "-r", "-c", "seek -d 0"),
        handle_reachable=True,
    ),
    Fault(
        name="ext4_htree_checksum",
        fstype="ext4",
        summary="lists an indexed directory with a wrong checksum in a leaf block",
        expected=(Expected(EFSBADCRC, "inode"),),
        native_since=(5, 16),
        damage=_damage_ext4_htree_checksum,
        cause=_in_mount("dir", "ls"),
        handle_reachable=True,
    ),
    Fault(
        name="ext4_grp_locked",
        fstype="ext4",
        summary="frees a block in a group with a wrong bitmap: logged, never reported",
        expected=(),
        native_since=None,
        damage=_damage_ext4_grp_locked,
        cause=_in_mount("victim", "rm"),
    ),
    Fault(
        name="ext4_abort",
        fstype="ext4",
        summary="remounts with -o abort",
        expected=(Expected(errno.ESHUTDOWN, "sb"),),
        native_since=(5, 16),
        damage=_nothing,
        cause=_ext4_abort,
    ),
    Fault(
        name="ext4_writeback",
        fstype="ext4",
        summary="writes back data behind the end of a shrunken device",
        expected=(Expected(errno.EIO, "inode"),),
        native_since=None,
        damage=_damage_writeback,
        cause=_cut_and_write,
        # Keeps the journal in front of the data, out of reach of the cut.
        mkfs_options=("-E", "packed_meta_blocks=1"),
        handle_reachable=True,
    ),
    Fault(
        name="xfs_agf",
        fstype="xfs",
        summary="allocates from an allocation group with a broken AGF",
        expected=(Expected(EFSCORRUPTED, "sb"),),
        native_since=(7, 0),
        damage=_damage_xfs_agf,
        cause=_in_mount("file", "fallocate", "-l", "1M"),
        # With these features mounting already reads every AGF, to reserve space.
        mkfs_options=("-m", "reflink=0,finobt=0,rmapbt=0"),
    ),
    Fault(
        name="xfs_inode",
        fstype="xfs",
        summary="opens a file whose inode has an impossible format",
        # The inode is still being read in, so it has no handle yet.
        expected=(Expected(EFSCORRUPTED, "sb"),),
        native_since=(7, 0),
        damage=_damage_xfs_inode,
        cause=_in_mount("victim", "cat"),
        # The verifier knows its number already.
        proposed=(Expected(EFSCORRUPTED, "inode"),),
    ),
    Fault(
        name="xfs_dirblock",
        fstype="xfs",
        summary="lists a directory whose block has a wrong checksum",
        # XFS logs EFSBADCRC and reports EFSCORRUPTED, see xfs_inode_mark_sick().
        expected=(Expected(EFSCORRUPTED, "inode"),),
        native_since=(7, 0),
        damage=_damage_xfs_dirblock,
        cause=_in_mount("dir", "ls"),
        # A buffer does not know whose it is; its verifier's own error.
        proposed=(Expected(EFSBADCRC, "sb"),),
        handle_reachable=True,
    ),
    Fault(
        name="xfs_shutdown",
        fstype="xfs",
        summary="shuts the file system down by ioctl",
        expected=(Expected(errno.ESHUTDOWN, "sb"),),
        native_since=(7, 0),
        damage=_nothing,
        cause=_in_mount("", "xfs_io", "-x", "-c", "shutdown"),
        proposed=(),
    ),
    Fault(
        name="xfs_writeback",
        fstype="xfs",
        summary="writes back data behind the end of a shrunken device",
        expected=(Expected(errno.EIO, "inode"),),
        native_since=(7, 0),
        damage=_damage_writeback,
        cause=_cut_and_write,
        handle_reachable=True,
    ),
)
