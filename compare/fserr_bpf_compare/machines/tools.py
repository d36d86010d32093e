"""External programs of the lab: run them, or say which package brings them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from fserr_bpf.errors import LabError

_PACKAGES = {
    "apt-cache": "apt",
    "apt-config": "apt",
    "apt-get": "apt",
    "blkid": "util-linux",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "dpkg": "dpkg",
    "dpkg-deb": "dpkg",
    "mkfs.xfs": "xfsprogs",
    "qemu-system-x86_64": "qemu-system-x86",
    "xfs_db": "xfsprogs",
    "zstd": "zstd",
}


def tool(name: str) -> str:
    """Path of the program ``name``; `LabError` names its apt package if it is missing."""
    # sbin is not on every user's PATH.
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise LabError(f"{name} is missing", f"run apt-get install {_PACKAGES[name]}")
    return path


def output_of(
    name: str,
    *arguments: str | Path,
    folder: Path | None = None,
    data: bytes | None = None,
    **environment: str,
) -> bytes:
    """Standard output of a program, run in ``folder`` with ``data`` to read and variables added.

    Raises `LabError` with the first line of its complaint if it fails.
    """
    ended = subprocess.run(
        [tool(name), *arguments],
        check=False,
        capture_output=True,
        input=data,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C", **environment},
    )
    if ended.returncode != 0:
        complaint = ended.stderr.decode(errors="replace").strip().splitlines()
        why = next((line for line in complaint if line.startswith("E: ")), "".join(complaint[:1]))
        raise LabError(f"{name} failed with exit status {ended.returncode}: {why}")
    return ended.stdout
