"""Scratch file systems on loop devices, to be broken on purpose.

Whatever happens inside the ``with`` block, nothing stays behind: no mount, no
loop device, no image. The teardown asks the system what there is to undo instead
of remembering what was done, so an interrupt at any point is harmless.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fserr_bpf.errors import LabError
from fserr_bpf.uapi.dev import Dev
from fserr_bpf_compare.signals_blocked import signals_blocked

# mkfs.xfs refuses less than 300 MB, mkfs.nilfs2 less than 134.
_IMAGE_SIZE = {"xfs": 320 << 20, "btrfs": 128 << 20, "nilfs2": 160 << 20, "ocfs2": 256 << 20}
_USUAL_SIZE = 64 << 20
_MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "f2fs": ("mkfs.f2fs", "-q", "-f"),
    "vfat": ("mkfs.vfat", "-F", "16"),
    "exfat": ("mkfs.exfat",),
    "nilfs2": ("mkfs.nilfs2", "-q", "-f"),
    "jfs": ("mkfs.jfs", "-q"),
    "ocfs2": ("mkfs.ocfs2", "-q", "-F", "-x", "-M", "local", "-b", "4096"),
}
_UUID_OPTION = {
    "ext4": ("-U", "{}"),
    "xfs": ("-m", "uuid={}"),
    "btrfs": ("-U", "{}"),
    "f2fs": ("-U", "{}"),
}
# Without errors=continue only the first error of a mount would be reported. The
# thread that initialises inode tables would meet some errors before the test does.
_MOUNT_OPTIONS = {
    "ext4": ("errors=continue", "noinit_itable"),
    "nilfs2": ("nogc",),  # else its mount helper leaves a cleaner behind
}
# sbin is not on every user's PATH; the messages of the tools are read.
_ENVIRONMENT = {
    **os.environ,
    "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
    "LC_ALL": "C",
}


def run(*command: str) -> str:
    """Run a system tool and return its standard output.

    Raises LabError with what it wrote to standard error.
    """
    try:
        # a tool that was started when a signal came would go on behind our back
        with signals_blocked():
            done = subprocess.run(
                command, env=_ENVIRONMENT, capture_output=True, text=True, check=False
            )
    except FileNotFoundError as error:
        raise LabError(f"{command[0]} is not installed", "install its package") from error
    if done.returncode != 0:
        message = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise LabError(f"{' '.join(command)}: {message}")
    return done.stdout


@dataclass
class Scratch:
    """A file system on a loop device, mounted unless `unmount` was called."""

    fstype: str
    directory: Path
    mount_options: tuple[str, ...]
    size: int
    uuid: str | None = None
    device: str = field(default="", init=False)

    @property
    def image(self) -> Path:
        """The loop device's backing file."""
        return self.directory / "image"

    @property
    def mount_point(self) -> Path:
        """Where the file system is mounted."""
        return self.directory / "mnt"

    @property
    def device_name(self) -> str:
        """The device as the kernel's messages and sysfs call it, such as ``loop0``."""
        return os.path.basename(self.device)

    @property
    def dev(self) -> Dev:
        """Device number of the loop device."""
        number = os.stat(self.device).st_rdev
        return Dev(os.major(number), os.minor(number))

    def make(self, *mkfs_options: str) -> None:
        """Write a new, empty file system; it must not be mounted."""
        options = _UUID_OPTION[self.fstype] if self.uuid else ()
        uuid = tuple(part.format(self.uuid) for part in options)
        run(*_MKFS[self.fstype], *uuid, *mkfs_options, self.device)

    def mount(self, *extra_options: str) -> None:
        """Mount it with its usual options and ``extra_options``."""
        options = ",".join((*self.mount_options, *extra_options)) or "defaults"
        run("mount", "-t", self.fstype, "-o", options, self.device, str(self.mount_point))

    def unmount(self) -> None:
        """Unmount it; raises LabError while something uses it."""
        run("umount", str(self.mount_point))

    def remount_fresh(self) -> None:
        """Unmount and mount again, so that nothing of it is cached any more."""
        self.unmount()
        self.mount()

    def overwrite(self, offset: int, data: bytes) -> None:
        """Write ``data`` at byte ``offset`` of the unmounted device."""
        descriptor = os.open(self.device, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, data, offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def shrink_device(self, size: int) -> None:
        """Cut the device to ``size`` bytes under the file system: I/O beyond fails."""
        os.truncate(self.image, size)
        run("losetup", "--set-capacity", self.device)

    def restore_device(self) -> None:
        """Give a cut device its size back; what was beyond the cut reads as zeros."""
        self.shrink_device(self.size)


def load_modules(fstype: str) -> None:
    """Load what a modular kernel needs; where it is built in there is nothing to do."""
    if not os.path.exists("/dev/loop-control"):
        run("modprobe", "loop")
    types = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    if fstype not in types:
        run("modprobe", fstype)


def _loop_devices(image: Path) -> list[str]:
    return run("losetup", "--noheadings", "--output", "NAME", "--associated", str(image)).split()


def is_mounted(directory: Path) -> bool:
    """Whether ``directory``, made by mkdtemp, is a mount point; asks no file system."""
    # The directory comes from mkdtemp: no character of it is escaped in mountinfo.
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split(" ")[4] == str(directory) for line in table)


def _give_back_size(fs: Scratch) -> None:
    # A file system that waits for I/O beyond the cut could not be unmounted.
    if fs.image.exists() and fs.image.stat().st_size != fs.size:
        os.truncate(fs.image, fs.size)
        for device in _loop_devices(fs.image):
            run("losetup", "--set-capacity", device)


def _unmount_all(fs: Scratch) -> None:
    while is_mounted(fs.mount_point):
        try:
            fs.unmount()
        except LabError:
            run("umount", "--lazy", str(fs.mount_point))


def _detach_all(fs: Scratch) -> None:
    for device in _loop_devices(fs.image) if fs.image.exists() else ():
        run("losetup", "--detach", device)


@contextmanager
def scratch(
    fstype: str,
    *,
    uuid: str | None = None,
    mount_options: Sequence[str] | None = None,
    mkfs_options: Sequence[str] = (),
    size: int | None = None,
    directory: Path | None = None,
) -> Iterator[Scratch]:
    """A new file system of one of the types in ``_MKFS``, mounted; removed at the end.

    A ``uuid`` is for those in ``_UUID_OPTION``.
    ``size`` is in bytes, of a sparse image in ``directory``, by default that for temporary files.
    ``mount_options`` replace the default, which for ext4 is errors=continue,noinit_itable. Raises
    LabError when a tool fails.
    """
    load_modules(fstype)
    with ExitStack() as signals, ExitStack() as teardown:
        own = Path(tempfile.mkdtemp(prefix="fserr-", dir=directory))
        fs = Scratch(
            fstype=fstype,
            directory=own.resolve(),
            mount_options=tuple(
                _MOUNT_OPTIONS.get(fstype, ()) if mount_options is None else mount_options
            ),
            size=_IMAGE_SIZE.get(fstype, _USUAL_SIZE) if size is None else size,
            uuid=uuid,
        )
        # The last one runs first, and all run even if one of them fails.
        teardown.callback(shutil.rmtree, own)
        teardown.callback(_detach_all, fs)
        teardown.callback(_unmount_all, fs)
        teardown.callback(_give_back_size, fs)
        teardown.callback(lambda: signals.enter_context(signals_blocked()))
        fs.mount_point.mkdir()
        with fs.image.open("wb") as image:
            image.truncate(fs.size)
        fs.device = run("losetup", "--find", "--show", str(fs.image)).strip()
        fs.make(*mkfs_options)
        fs.mount()
        yield fs
