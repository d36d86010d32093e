"""The independent reader: ``tests/reader.c``, compiled with the system's <linux/fanotify.h>."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from fserr_bpf.model.event import Event, FsErrorEvent, OverflowEvent

COMPILER = shutil.which("cc")
"""None where tests that need it have to be skipped."""


def compile_reader(directory: Path) -> Path:
    """The program, made in ``directory``."""
    program = directory / "reader"
    options = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"]
    source = Path(__file__).with_name("reader.c")
    subprocess.run([str(COMPILER), *options, "-o", str(program), str(source)], check=True)
    return program


def read_in_c(reader: Path, stream: bytes) -> tuple[int, list[str], str]:
    """The status, the lines and standard error of the reader."""
    done = subprocess.run([reader], input=stream, capture_output=True, check=False)
    return done.returncode, done.stdout.decode().splitlines(), done.stderr.decode()


def line_of(event: Event) -> str:
    """``event`` in the words of the reader."""
    words = f"pid={event.pid} fd={event.fd}"
    if isinstance(event, FsErrorEvent):
        handle = f"{event.handle.handle_type}:{event.handle.f_handle.hex()}" if event.handle else ""
        words = (
            f"fs_error fsid={event.fsid} handle={handle or 'none'} error={event.error} "
            f"count={event.error_count} {words}"
        )
    elif isinstance(event, OverflowEvent):
        words = f"overflow {words}"
    else:
        words = f"other mask={event.mask:x} {words}"
    if isinstance(event, FsErrorEvent | OverflowEvent):
        words += f" pidfd={'none' if event.pidfd is None else event.pidfd}"
    extra = (f" extra={r.info_type}:{r.pad}:{r.data.hex()}" for r in event.extra)
    return words + "".join(extra)
