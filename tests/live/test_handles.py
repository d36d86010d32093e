"""fsid, device and file handles, judged by the kernel's own name_to_handle_at."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fserr_bpf.codec.handles import encode_handle
from fserr_bpf.errors import MarkError
from fserr_bpf.kernel import syscalls
from fserr_bpf.kernel.handles import check_markable, identify
from fserr_bpf.uapi.inode import InodeId
from fserr_bpf_compare.faults.scratch import Scratch, scratch
from tests.live.conftest import skip

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]

FS_IOC_GETVERSION = 0x80087601
UUID_TEXT = "11223344-5566-7788-99aa-bbccddeeff00"
BTRFS_TOP = 5


def generation(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        answer = fcntl.ioctl(descriptor, FS_IOC_GETVERSION, bytes(8))
    finally:
        os.close(descriptor)
    (value,) = struct.unpack_from("<I", answer)
    return int(value)


def populate(directory: Path) -> list[Path]:
    """The directory, directories below it and files whose inodes were used before."""
    paths = [directory]
    for index in range(5):
        child = directory / f"dir{index}"
        child.mkdir()
        file = child / "file"
        file.touch()
        file.unlink()
        file.write_bytes(b"data")
        paths += [child, file]
    return paths


def require_btrfs() -> None:
    if shutil.which("mkfs.btrfs") is None:
        skip("btrfs-progs is not installed", expected=False)


@pytest.mark.parametrize(
    ("fstype", "options", "form", "size"),
    [
        ("ext4", None, 0x01, 8),
        ("xfs", None, 0x81, 12),
        ("xfs", ("inode32",), 0x01, 8),
    ],
)
def test_handles_are_the_kernels(
    fstype: str, options: Sequence[str] | None, form: int, size: int
) -> None:
    with scratch(fstype, mount_options=options) as fs:
        identity = identify(str(fs.mount_point))
        assert identity.form == form
        paths = populate(fs.mount_point)
        for path in paths:
            handle = syscalls.name_to_handle_at(str(path))
            assert len(handle.f_handle) == size
            encoded = encode_handle(identity.form, InodeId(path.stat().st_ino, generation(path)))
            assert encoded == (handle.handle_type, handle.f_handle)
    assert len(paths) == 11


def test_btrfs_handles_name_the_subvolume() -> None:
    require_btrfs()
    with scratch("btrfs") as fs:
        subvolume = fs.mount_point / "subvolume"
        subprocess.run(["btrfs", "-q", "subvolume", "create", subvolume], check=True)
        said = subprocess.check_output(["btrfs", "inspect-internal", "rootid", subvolume])
        identity = identify(str(fs.mount_point))
        assert identity.form == 0x4D
        for path, root in (
            *((path, int(said)) for path in populate(subvolume)),
            *((path, BTRFS_TOP) for path in populate(fs.mount_point)),
        ):
            handle = syscalls.name_to_handle_at(str(path))
            assert len(handle.f_handle) == 20
            encoded = encode_handle(
                identity.form, InodeId(path.stat().st_ino, generation(path), root)
            )
            assert encoded == (handle.handle_type, handle.f_handle)


def test_btrfs_subvolume_cannot_be_marked() -> None:
    require_btrfs()
    with scratch("btrfs") as fs:
        subvolume = fs.mount_point / "subvolume"
        subprocess.run(["btrfs", "-q", "subvolume", "create", subvolume], check=True)
        with pytest.raises(MarkError, match="subvolid=5") as refused:
            check_markable(str(subvolume))
        assert isinstance(refused.value.__cause__, OSError)
        assert refused.value.__cause__.errno == errno.EXDEV


def test_btrfs_device_is_the_superblocks() -> None:
    require_btrfs()
    with scratch("btrfs") as fs:
        major, minor = identify(str(fs.mount_point)).dev
        table = Path("/proc/self/mountinfo").read_text().splitlines()
        (line,) = [line for line in table if line.split(" ")[4] == str(fs.mount_point)]
        assert line.split(" ")[2] == f"{major}:{minor}"


def coreutils_fsid(path: Path) -> int:
    return int(subprocess.check_output(["stat", "-f", "-c", "%i", path]), 16)


@pytest.mark.parametrize(("fstype", "magic"), [("ext4", 0xEF53), ("xfs", 0x58465342)])
def test_identity(fstype: str, magic: int) -> None:
    with scratch(fstype) as fs:
        file = fs.mount_point / "file"
        file.touch()
        identity = identify(str(file))
        assert identity.fstype == fstype
        assert identity.magic == magic
        assert identity.dev == fs.dev
        assert identity.path == str(file)
        assert identity.mount.mount_point == str(fs.mount_point)
        # stat(1) prints the two words as one number, the second one first.
        low, high = identity.fsid
        assert coreutils_fsid(fs.mount_point) in (low | high << 32, low << 32 | high)


def test_fsid_of_ext4_is_made_of_its_uuid() -> None:
    with scratch("ext4", uuid=UUID_TEXT) as fs:
        assert identify(str(fs.mount_point)).fsid == (0x88888888, 0x88888888)


def test_fsid_of_xfs_is_its_device() -> None:
    with scratch("xfs") as fs:
        major, minor = fs.dev
        assert identify(str(fs.mount_point)).fsid == (minor & 0xFF | major << 8, 0)


def test_unknown_layout_has_no_form(tmp_path: Path) -> None:
    # tmpfs: type 1 as ext4, but twelve bytes in an order of its own.
    subprocess.run(["mount", "-t", "tmpfs", "fserr-test", tmp_path], check=True)
    try:
        handle = syscalls.name_to_handle_at(str(tmp_path))
        identity = identify(str(tmp_path))
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert (handle.handle_type, len(handle.f_handle)) == (1, 12)
    assert identity.form is None
    assert encode_handle(identity.form, InodeId(1, 2, 3)) is None


@pytest.mark.parametrize("path", ["/nonexistent", "/proc/self"])
def test_what_cannot_be_marked_is_refused(path: str) -> None:
    with pytest.raises(MarkError, match=f"^{path}: .*; "):
        check_markable(path)


def test_nothing_keeps_the_file_system_busy() -> None:
    with scratch("ext4") as fs:
        identity = identify(str(fs.mount_point))
        fs.unmount()
        assert identity.dev == fs.dev


@pytest.mark.skipif(sys.byteorder != "little", reason="the layouts are little endian")
def test_encoder_edges() -> None:
    # ext4 and inode32 handles keep the low half of the number, as the kernel does.
    assert encode_handle(1, InodeId(0x1_0000_0002, 0xFFFFFFFF)) == (
        1,
        bytes.fromhex("02000000ffffffff"),
    )
    assert encode_handle(0x81, InodeId(0x1_0000_0002, 7)) == (
        0x81,
        bytes.fromhex("020000000100000007000000"),
    )
    assert encode_handle(0x4D, InodeId(256, 7, 5)) == (
        0x4D,
        bytes.fromhex("0001000000000000050000000000000007000000"),
    )
    assert encode_handle(0x71, InodeId(1, 2)) is None


def remount(fs: Scratch) -> tuple[int, int]:
    fs.remount_fresh()
    return identify(str(fs.mount_point)).fsid


def test_fsid_of_ext4_outlives_a_remount() -> None:
    with scratch("ext4") as fs:
        assert identify(str(fs.mount_point)).fsid == remount(fs)
