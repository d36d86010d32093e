"""Where an object of a file system shows in a mount namespace, from the mount table alone."""

from __future__ import annotations

from collections.abc import Iterator

from fserr_bpf.kernel.mounts import Mount, MountTable
from fserr_bpf.uapi.dev import Dev


class Views:
    """The mounts of a table, as a walk along a path meets them.

    Paths are absolute and have no symbolic links. Names are absolute from the root of a
    file system.
    """

    def __init__(self, table: MountTable) -> None:
        ids = {mount.mount_id for mount in table}
        self._root: Mount | None = None
        self._above: dict[int, list[Mount]] = {}
        self._of: dict[Dev, list[Mount]] = {}
        for mount in table:
            if mount.parent_id not in ids or mount.parent_id == mount.mount_id:
                self._root = self._root or mount
            else:
                self._above.setdefault(mount.parent_id, []).append(mount)
            self._of.setdefault(mount.dev, []).append(mount)

    def mount_at(self, path: str) -> Mount | None:
        """The mount that ``path`` leads to, which need not exist.

        As the kernel walks: on each mount the first mount point on the way leads on.
        """
        here = self._root
        while here:
            on_the_way = [
                m for m in self._above.get(here.mount_id, ()) if inside(path, m.mount_point)
            ]
            if not on_the_way:
                return here
            here = min(on_the_way, key=lambda mount: len(mount.mount_point))
        return None

    def mounts_of(self, dev: Dev) -> list[Mount]:
        """The mounts of a file system that something leads to."""
        return [m for m in self._of.get(dev, ()) if self.mount_at(m.mount_point) is m]

    def paths_of(self, name: str, dev: Dev) -> Iterator[tuple[str, Mount]]:
        """Every path of ``name`` and the mount that it goes through, none where it is hidden."""
        for mount in self._of.get(dev, ()):
            if inside(name, mount.root):
                path = _join(mount.mount_point, _below(name, mount.root))
                if self.mount_at(path) is mount:
                    yield path, mount

    def name_at(self, path: str, dev: Dev) -> str:
        """The reverse of ``paths_of()``; "" if ``path`` is not on that file system."""
        mount = self.mount_at(path)
        if mount is None or mount.dev != dev:
            return ""
        return _join(mount.root, _below(path, mount.mount_point))


def inside(path: str, top: str) -> bool:
    """Whether ``path`` is ``top`` or below it, by their names."""
    return path == top or path.startswith(top if top.endswith("/") else f"{top}/")


def _below(path: str, top: str) -> str:
    return path[len(top) :].strip("/")


def _join(top: str, rest: str) -> str:
    return f"{top.rstrip('/')}/{rest}" if rest else top
