"""The kernel's own sample reader, unchanged, prints what this kernel never sends."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from fserr_bpf.errors import LabError
from fserr_bpf.kernel.fanotify import FanotifyGroup
from fserr_bpf.kernel.handles import handle_of
from fserr_bpf_compare.faults.scratch import Scratch, run, scratch
from tests.exec_clients import COMPILER, Running, under_exec
from tests.live.conftest import BY_NAME, emits, require_mark, skip, wait_until
from tests.live.test_faults import ext4_handle
from tests.sample_reader import Report, compile_sample, reports_in

pytestmark = [
    pytest.mark.root,
    pytest.mark.usefixtures("scratch_space", "file_systems"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)"),
]

SUPERBLOCK = "Type 255 (Superblock error)"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program."""
    try:
        return compile_sample(tmp_path_factory.mktemp("sample"))
    except LabError as error:
        skip(str(error), expected=False)


@contextmanager
def watching(command: Sequence[str], program: Path, directory: Path) -> Iterator[Running]:
    """The sample on a terminal, once it waits for events."""
    with Running(directory, command, terminal=True) as client:
        wait_until(lambda: client.reads(program), "the sample to read")
        yield client


def fsid_of(fs: Scratch) -> str:
    """As the sample prints it: of statfs(2), as two numbers without leading zeros."""
    fsid = os.statvfs(fs.mount_point).f_fsid
    return f"{fsid & 0xFFFFFFFF:x}{fsid >> 32:x}"


def ext4_inode(fs: Scratch, name: str) -> str:
    """The handle of an inode as the sample prints it."""
    return "inode={} gen={}".format(*struct.unpack("<II", ext4_handle(fs, name)))


class WritebackErrors:
    """What the kernel's own tracepoint says of failed writeback; needs tracefs."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        run("mount", "-t", "tracefs", "none", str(directory))
        self._tracefs = directory
        self._instance = directory / f"instances/fserr-{os.getpid()}"
        self._instance.mkdir()
        (self._instance / "events/filemap/filemap_set_wb_err/enable").write_text("1")

    def __enter__(self) -> WritebackErrors:
        return self

    def __exit__(self, *exception: object) -> None:
        self._instance.rmdir()
        run("umount", str(self._tracefs))

    def of(self, fs: Scratch, path: str) -> int:
        """How many there have been of the file."""
        ino = os.stat(path).st_ino
        lines = (self._instance / "trace").read_text().splitlines()
        wanted = f"dev={fs.dev[0]}:{fs.dev[1]} ino=0x{ino:x} "
        return sum("filemap_set_wb_err: " in line and wanted in line for line in lines)


def errors_in(client: Running) -> int:
    return sum(report.count for report in reports_in(client.lines()))


Expected = Callable[[Scratch, str, WritebackErrors], list[Report]]


def ext4_trigger(fs: Scratch, path: str, failures: WritebackErrors) -> list[Report]:
    return [Report(56, fsid_of(fs), SUPERBLOCK, errno.EUCLEAN, 1)]


def ext4_bad_inode(fs: Scratch, path: str, failures: WritebackErrors) -> list[Report]:
    return [Report(64, fsid_of(fs), ext4_inode(fs, "victim"), errno.EUCLEAN, 1)]


def xfs_dirblock(fs: Scratch, path: str, failures: WritebackErrors) -> list[Report]:
    return [Report(56, fsid_of(fs), SUPERBLOCK, errno.EBADMSG, 1)]


def ext4_writeback(fs: Scratch, path: str, failures: WritebackErrors) -> list[Report]:
    where = ext4_inode(fs, os.path.relpath(path, fs.mount_point))
    return [Report(64, fsid_of(fs), where, errno.EIO, failures.of(fs, path))]


def xfs_writeback(fs: Scratch, path: str, failures: WritebackErrors) -> list[Report]:
    handle_type, handle = handle_of(path)
    assert (handle_type, len(handle)) == (0x81, 12)
    return [Report(68, fsid_of(fs), "Type 129 (Unknown)", errno.EIO, failures.of(fs, path))]


CASES = (ext4_trigger, ext4_bad_inode, xfs_dirblock, ext4_writeback, xfs_writeback)


@pytest.mark.parametrize("expected", CASES, ids=lambda case: case.__name__)
def test_sample_prints_what_happened(sample: Path, scratch_space: Path, expected: Expected) -> None:
    fault = BY_NAME[expected.__name__]
    with WritebackErrors(scratch_space / "tracefs") as failures, scratch(fault.fstype) as fs:
        fault.prepare(fs)
        command = under_exec(sample, fs.mount_point)
        with watching(command, sample, scratch_space) as client:
            caused = fault.cause(fs)
            wanted = expected(fs, caused.path, failures)
            assert wanted[0].count > 0
            wait_until(lambda: errors_in(client) >= wanted[0].count, "the error")
            assert reports_in(client.lines()) == wanted


@pytest.mark.parametrize("expected", CASES, ids=lambda case: case.__name__)
def test_without_exec_it_prints_what_the_kernel_sends(
    sample: Path, scratch_space: Path, expected: Expected
) -> None:
    """Of ext4's own errors; of the others nothing, if the kernel does not report them itself."""
    require_mark()
    fault = BY_NAME[expected.__name__]
    if fault.fstype != "ext4" and emits(fault):
        skip("this kernel reports it itself", expected=True)
    with (
        WritebackErrors(scratch_space / "tracefs") as failures,
        scratch(fault.fstype) as fs,
        FanotifyGroup() as group,
    ):
        fault.prepare(fs)
        group.mark(str(fs.mount_point))
        with watching([str(sample), str(fs.mount_point)], sample, scratch_space) as client:
            caused = fault.cause(fs)
            if emits(fault):
                wanted = expected(fs, caused.path, failures)
                wait_until(lambda: reports_in(client.lines()) == wanted, "the error")
            else:  # up to 6.19 an event is queued within the call that meets the error
                assert group.read() == b""
                assert client.lines() == []
