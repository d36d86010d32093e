"""Stock kernels from Debian packages, unpacked once into a checked cache.

``kernels/NAME/`` in the cache holds ``vmlinuz``, ``lib/modules/RELEASE/`` and
``image.json``, and appears by one rename, so that an entry is whole or absent.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fserr_bpf.errors import LabError
from fserr_bpf_compare.machines.aptroot import AptRoot, Package
from fserr_bpf_compare.machines.kernels import Kernel
from fserr_bpf_compare.machines.tools import output_of, tool

ABSENT = "not there"


@dataclass(frozen=True)
class Image:
    """A kernel that can be booted.

    ``modules`` is its ``lib/modules/RELEASE`` folder, None if everything is built in.
    """

    vmlinuz: Path
    modules: Path | None
    release: str


def cache_folder() -> Path:
    """Where the lab keeps kernels and package lists, by the XDG base directory rules."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "fserr-bpf"


def ensure(kernel: Kernel, *, refresh: bool = False) -> Image:
    """The unpacked ``kernel``, fetched only if the cache has no good copy of it.

    ``refresh`` fetches what the archive has now in any case.  Raises `LabError` if it
    cannot be fetched or unpacked.
    """
    kernels = cache_folder() / "kernels"
    image, _ = check(kernels / kernel.name)
    if image is not None and not refresh:
        return image
    try:
        with _locked(cache_folder()):
            image, _ = check(kernels / kernel.name)  # another process may have been faster
            if image is None or refresh:
                _fetch(kernel, kernels)
                image, why = check(kernels / kernel.name)
                if image is None:
                    raise LabError(f"kernel {kernel.name} is damaged after fetching: {why}")
    except OSError as error:
        raise LabError(f"cannot fill the cache {cache_folder()}: {error}") from error
    return image


def check(entry: Path) -> tuple[Image | None, str]:
    """The image in the cache folder ``entry``, or None and what is wrong with it.

    One that ``make kernel`` built (``key`` in its record) has no modules.
    """
    if not entry.exists():
        return None, ABSENT
    try:
        record = json.loads((entry / "image.json").read_text())
        modules = None if "key" in record else entry / "lib/modules" / record["release"]
        image = Image(entry / "vmlinuz", modules, record["release"])
        if sha256(image.vmlinuz) != record["vmlinuz"]:
            return None, "checksum of vmlinuz"
        if modules and (modules / "modules.dep").stat().st_size == 0:
            return None, "empty modules.dep"
    except FileNotFoundError as error:
        return None, f"no {Path(error.filename).name}"
    except (ValueError, KeyError):
        return None, "unreadable image.json"
    return image, ""


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def choose(kernel: Kernel, packages: Iterable[Package]) -> list[Package]:
    """The newest image package of ``kernel`` and the packages that hold its files.

    Since 7.x the image package is empty and depends on ``linux-base-*`` (lists),
    ``linux-binary-*`` (vmlinuz) and ``linux-modules-*``.  Raises `LabError` if nothing matches.
    """
    known = {package.name: package for package in packages}
    matching = [package for name, package in known.items() if re.fullmatch(kernel.package, name)]
    if not matching:
        raise LabError(
            f"no package matches kernel {kernel.name} in {', '.join(kernel.suites)}",
            "check its pattern in compare/fserr_bpf_compare/machines/kernels.py",
        )
    image = max(matching, key=functools.cmp_to_key(_by_version))
    parts = re.findall(r"\blinux-(?:base|binary|modules)-[^\s,|]+", image.depends)
    return [image, *(known[name] for name in parts if name in known)]


def _by_version(one: Package, other: Package) -> int:
    newer = [tool("dpkg"), "--compare-versions", one.version, "gt", other.version]
    return 1 if subprocess.run(newer, check=False).returncode == 0 else -1


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(kernel: Kernel, kernels: Path) -> None:
    kernels.mkdir(exist_ok=True)
    for left_over in kernels.glob(".new-*"):  # of a fetch that was killed: we hold the lock
        shutil.rmtree(left_over)
    apt = AptRoot(cache_folder() / "apt", kernel.suites)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=kernels) as name:
        work = Path(name)
        debs = apt.download(choose(kernel, apt.packages()), work)
        for deb in debs:
            output_of("dpkg-deb", "-x", deb, work / "root")
        entry = _arrange(work / "root", work / "entry")
        record = {
            "release": entry.release,
            "vmlinuz": sha256(entry.vmlinuz),
            "packages": {deb.name: sha256(deb) for deb in debs},
        }
        (work / "entry/image.json").write_text(json.dumps(record, indent=1) + "\n")
        if (kernels / kernel.name).exists():
            (kernels / kernel.name).rename(work / "damaged")
        (work / "entry").rename(kernels / kernel.name)


def _arrange(root: Path, entry: Path) -> Image:
    """Move vmlinuz and modules, whose places differ by release, out of an unpacked root."""
    releases = [*root.glob("lib/modules/*"), *root.glob("usr/lib/modules/*")]
    if len(releases) != 1:
        raise LabError(f"the packages hold the modules of {len(releases)} kernels, not of one")
    release = releases[0].name
    modules = entry / "lib/modules" / release
    kernels = [*root.glob("boot/vmlinuz-*"), *releases[0].glob("vmlinuz")]
    if not kernels:
        raise LabError(f"the packages of kernel {release} hold no vmlinuz")
    modules.parent.mkdir(parents=True)
    kernels[0].rename(entry / "vmlinuz")
    releases[0].rename(modules)
    output_of("depmod", "-b", entry, release)
    return Image(entry / "vmlinuz", modules, release)
