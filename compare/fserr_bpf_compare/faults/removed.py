"""A disk that is taken away under a mounted file system (the kernel's scsi_debug)."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fserr_bpf.errors import LabError
from fserr_bpf_compare.faults.scratch import Scratch, run
from fserr_bpf_compare.signals_blocked import signals_blocked

_MODULE = "scsi_debug"
_MEGABYTES = 400
_APPEARS = 10.0  # seconds


def unavailable() -> str:
    """Why no such disk can be made here, "" if it can."""
    for module in ("sd_mod", _MODULE):
        if subprocess.run(["modprobe", "-q", "-n", module], check=False).returncode:
            return f"this kernel has no {module}"
    return ""


class Disk:
    """One disk of scsi_debug: ``device`` is its node, ``name`` that in /sys/block."""

    def __init__(self) -> None:
        run("modprobe", "sd_mod")  # a machine without udev loads nothing by itself
        run("modprobe", _MODULE, f"dev_size_mb={_MEGABYTES}")
        self.name = self._wait()
        self.device = f"/dev/{self.name}"

    def remove(self) -> None:
        """Take it away, as a cable or a controller would."""
        Path(f"/sys/block/{self.name}/device/delete").write_text("1")

    def _wait(self) -> str:
        until = time.monotonic() + _APPEARS
        while time.monotonic() < until:
            for model in Path("/sys/block").glob("sd*/device/model"):
                disk = model.parts[3]
                if _MODULE in model.read_text() and Path(f"/dev/{disk}").exists():
                    return disk
            time.sleep(0.05)
        raise LabError(f"{_MODULE} made no disk", "check the kernel's log")


@contextmanager
def on_disk(fs: Scratch) -> Iterator[Disk]:
    """Move ``fs`` to such a disk, newly made and mounted, until the end of the block.

    Afterwards it is unmounted. Raises LabError when a tool fails.
    """
    loop = fs.device
    fs.unmount()
    disk = Disk()
    try:
        fs.device = disk.device
        fs.make()
        fs.mount()
        try:
            yield disk
        finally:
            with signals_blocked():
                run("umount", "--lazy", str(fs.mount_point))
    finally:
        fs.device = loop
        with signals_blocked():
            run("modprobe", "-r", _MODULE)
