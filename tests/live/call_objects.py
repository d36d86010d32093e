"""The objects that ``tests/clients/calls.c`` marks, in file systems that nobody else uses."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fserr_bpf_compare.faults.scratch import run, scratch


@contextmanager
def call_objects(directory: Path) -> Iterator[Path]:
    """A tmpfs on ``directory`` with the others below it: e (ext4), x (xfs), b (btrfs), t (tmpfs),
    r (ramfs), p (devpts), o (overlay over e), and bind mounts. Taken apart at the end.

    What an unprivileged process may do differs among the objects. Raises LabError.
    """
    directory.mkdir()
    with ExitStack() as stack:

        def mount(place: str, *arguments: str) -> None:
            path = directory / place
            if not path.exists():
                path.mkdir()
            run("mount", *arguments, str(path))
            # lazily: a client that hangs must not keep the rest from being taken apart
            stack.callback(run, "umount", "--lazy", str(path))

        mount(".", "-t", "tmpfs", "none")
        directory.chmod(0o755)
        for place, fstype in (("e", "ext4"), ("x", "xfs"), ("b", "btrfs")):
            fs = stack.enter_context(scratch(fstype))
            fs.mount_point.chmod(0o755)
            mount(place, "--bind", str(fs.mount_point))
        for place, fstype in (("t", "tmpfs"), ("r", "ramfs"), ("p", "devpts")):
            mount(place, "-t", fstype, "none")
        run("btrfs", "subvolume", "create", str(directory / "b/sub"))
        for place in ("e", "x", "b", "b/sub", "t", "r"):
            (directory / place / "file").write_bytes(b"data")
        _fill(directory / "e")
        layers = ",".join(f"{layer}dir={directory}/e/{layer}" for layer in ("lower", "upper"))
        mount("o", "-t", "overlay", "-o", f"{layers},workdir={directory}/e/work", "none")
        mount("bind", "--bind", str(directory / "e/dir"))
        (directory / "bindfile").touch()
        mount("bindfile", "--bind", str(directory / "e/file"))
        yield directory


def _fill(ext4: Path) -> None:
    for name in ("dir", "dir/inner", "secret", "lower", "upper", "work"):
        (ext4 / name).mkdir()
    for name in ("secret/file", "private", "lower/file", "upper/upper"):
        (ext4 / name).touch()
    (ext4 / "secret").chmod(0o700)
    (ext4 / "private").chmod(0o600)
    for name, target in (
        ("link", "file"),
        ("dirlink", "dir"),
        ("dangling", "nowhere"),
        ("loop", "loop"),
        ("dir/link", "../file"),
    ):
        (ext4 / name).symlink_to(target)
    os.mkfifo(ext4 / "fifo")
    os.mknod(ext4 / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(ext4 / "socket"))
