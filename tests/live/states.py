"""File systems that are broken for real, and how they are: what tests of states share."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fserr_bpf.errors import LabError
from fserr_bpf.model.state import Condition, FilesystemState
from fserr_bpf.state.look import look
from fserr_bpf.state.superblocks import superblock_at
from fserr_bpf_compare.faults.scratch import Scratch, scratch
from tests.live.conftest import skip

COMMAND = str(Path(sys.executable).with_name("fserr-bpf"))
SHUTDOWN_IOCTL = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN and F2FS_IOC_SHUTDOWN are one
NOLOGFLUSH = 2
DEAD = {Condition.SHUTDOWN, Condition.READ_ONLY_AFTER_ERROR}
# seconds that an answer may take on a busy machine, where an emulated one is busier
PATIENCE = 20.0


def state(fs: Scratch) -> FilesystemState:
    (found,) = look([superblock_at(str(fs.mount_point))], PATIENCE)
    assert found.device == fs.device_name
    assert str(fs.mount_point) in found.mount_points
    return found


def write_error(fs: Scratch) -> int:
    """Errno of making a file and keeping it: what a state is about."""
    try:
        descriptor = os.open(fs.mount_point / "new", os.O_WRONLY | os.O_CREAT)
        try:
            os.write(descriptor, b"x")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.errno or -1
    return 0


def shut_down(fs: Scratch) -> None:
    root = os.open(fs.mount_point, os.O_RDONLY)
    try:
        fcntl.ioctl(root, SHUTDOWN_IOCTL, struct.pack("=I", NOLOGFLUSH))
    finally:
        os.close(root)


@contextmanager
def made(fstype: str, *options: str) -> Iterator[Scratch]:
    try:
        with scratch(fstype, mount_options=options) as fs:
            yield fs
    except LabError as error:
        if "modprobe" in str(error):  # not every kernel has each type
            skip(str(error), expected=True)
        raise


def repair(fs: Scratch) -> None:
    done = subprocess.run(["e2fsck", "-fy", fs.device], capture_output=True, check=False)
    assert done.returncode in (0, 1), done


def status(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [COMMAND, "status", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def conditions(output: Path, fs: Scratch) -> list[tuple[str | None, str]]:
    """Before and after of each state of ``fs`` in the complete lines of the output."""
    lines = output.read_text().split("\n")[:-1]
    states = (each for each in map(json.loads, lines) if each["type"] == "state")
    return [(s["before"], s["condition"]) for s in states if s["device"] == fs.device_name]
