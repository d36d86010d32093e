"""The self-test of ``fserr-bpf doctor``: real errors on scratch file systems, and who hears them.

Images are on a tmpfs, in a mount namespace of our own, so that what is mounted goes with the
process, whatever ends it; loop devices are told to go with their mounts. What a killed
self-test has left before that is taken away by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.errors import FserrError, LabError, MarkError
from fserr_bpf.kernel.fanotify import FanotifyGroup
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.monitor import Monitor
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.tasks.namespaces import own_mount_namespace
from fserr_bpf_compare.faults import FAULTS
from fserr_bpf_compare.faults.fault import Fault
from fserr_bpf_compare.faults.kernellog import KernelLog
from fserr_bpf_compare.faults.scratch import Scratch, load_modules, run, scratch
from fserr_bpf_compare.faults.writeback import BTRFS_DEVICE_GONE
from fserr_bpf_compare.signals_blocked import signals_blocked

_PREFIX = "fserr-doctor-"
_NAMES = ("ext4_bad_inode", "xfs_dirblock")
_FAULTS = (*(fault for fault in FAULTS if fault.name in _NAMES), BTRFS_DEVICE_GONE)
_PATIENCE_SECONDS = 10.0


class Tested(NamedTuple):
    """What came of one fault.

    ``logged``: the kernel log has it, ``heard``: which probes have, ``kernel``: whether the
    kernel's own group got an event, None where it refuses the mark. ``problem``: why it could
    not be caused, or "".
    """

    fstype: str
    fault: str
    logged: bool = False
    heard: tuple[str, ...] = ()
    kernel: bool | None = None
    problem: str = ""


def load_all() -> None:
    """Load the modules, before probes are attached; a type that is not there is told later."""
    for fault in _FAULTS:
        with contextlib.suppress(LabError):
            load_modules(fault.fstype)


def self_test(attached: AttachedProbes) -> Iterator[Tested]:
    """Cause each fault. Raises FserrError if there can be no scratch file systems at all."""
    own_mount_namespace()
    run("mount", "--make-rprivate", "/")
    with _alone(), _room() as folder:
        for fault in _FAULTS:
            try:
                yield _test(fault, folder, attached)
            except FserrError as error:
                yield Tested(fault.fstype, fault.name, problem=str(error))


@contextmanager
def _alone() -> Iterator[None]:
    """One self-test at a time on a host: what another is at work on looks like a leftover."""
    descriptor = os.open("/dev/loop-control", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _room() -> Iterator[Path]:
    """A tmpfs for images."""
    _take_away_leftovers()
    with ExitStack() as signals, ExitStack() as teardown:
        with signals_blocked():
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
            teardown.callback(_take_away, folder)
            teardown.callback(lambda: signals.enter_context(signals_blocked()))
        run("mount", "-t", "tmpfs", "-o", "size=1G,mode=0700", "fserr-doctor", str(folder))
        yield folder


def _take_away(folder: Path) -> None:
    with contextlib.suppress(LabError):  # it was not mounted yet
        run("umount", "--lazy", str(folder))
    folder.rmdir()


def _take_away_leftovers() -> None:
    for line in run("losetup", "--noheadings", "--raw", "--output", "NAME,BACK-FILE").splitlines():
        device, _, image = line.partition(" ")
        # the tmpfs of one that runs now is in a namespace of its own: its image is no path here
        if f"/{_PREFIX}" in image and not _is_mounted_anywhere(device):
            with contextlib.suppress(LabError):
                run("losetup", "--detach", device)
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # in use
            folder.rmdir()


def _is_mounted_anywhere(device: str) -> bool:
    """Opened exclusively, as a mount does; such a device refuses."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError:
        return True
    return False


def _test(fault: Fault, folder: Path, attached: AttachedProbes) -> Tested:
    options = () if fault.fstype == "btrfs" else None
    with (
        scratch(fault.fstype, directory=folder, mount_options=options) as fs,
        KernelLog() as log,
    ):
        fault.prepare(fs)
        # from here on it goes with the mount, whatever becomes of us
        run("losetup", "--detach", fs.device)
        return _cause(fault, fs, attached, log)


def _cause(fault: Fault, fs: Scratch, attached: AttachedProbes, log: KernelLog) -> Tested:
    path = str(fs.mount_point)
    pattern = re.compile(fault.log.format(dev=fs.device_name))
    heard: set[str] = set()
    kernel: bool | None = False
    with (
        FanotifyGroup() as group,
        Monitor([Mark.filesystem(path)], Stream.PROPOSED, attached=attached) as monitor,
    ):
        try:
            group.mark(path)
        except MarkError:
            kernel = None
        fault.cause(fs)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        logged = False
        while time.monotonic() < deadline and not (heard and logged):
            monitor.wait(0.1)
            for event in monitor.read_events():
                if isinstance(event, FsErrorEvent) and event.origin:
                    heard.add(event.origin.source)
            logged = any(pattern.search(message) for message in log.messages())
        if kernel is not None:
            kernel = any(True for _ in Decoder().feed(group.read()))
    return Tested(fault.fstype, fault.name, logged, tuple(sorted(heard)), kernel)
