"""Where the debug file of a module or of vmlinux may be, and which one really is it."""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path

from elftools.common.exceptions import ELFError

from fserr_bpf.symbolize.elf import BadDebugFile, DebugFile
from fserr_bpf.symbolize.place import NoSymbol

SYSTEM_ROOTS = (Path("/usr/lib/debug"), Path("/"))
"""Debian's debug packages; the modules themselves, with ``.debug`` folders beside them."""

_MODULE_FOLDERS = ("lib/modules", "usr/lib/modules")
_TIMEOUT = 30.0  # seconds that a server may be silent
_MAX_DOWNLOAD = 2 << 30  # bytes
_PIECE = 1 << 20


def open_debug_file(
    build_id: str, module: str, roots: Sequence[Path], urls: Sequence[str], downloads: Path
) -> DebugFile:
    """The first file with this build-id that has debug information.

    ``roots`` are searched before `SYSTEM_ROOTS`, then the debuginfod servers ``urls``
    are asked; what they send is kept in ``downloads``. Raises NoSymbol if there is none.
    """
    why = f"no debug file of {module or 'vmlinux'} with build-id {build_id}"
    for path in _candidates(build_id, module, [*roots, *SYSTEM_ROOTS]):
        file, problem = _try(path, build_id, downloads)
        if file is not None:
            return file
        why = problem or why
    kept = downloads / f"{build_id}.debug"
    for url in urls:
        if not kept.exists():
            why = _download(f"{url.rstrip('/')}/buildid/{build_id}/debuginfo", kept) or why
        if kept.exists():
            file, problem = _try(kept, build_id, downloads)
            if file is not None:
                return file
            why = problem or why
            kept.unlink(missing_ok=True)
    raise NoSymbol(why)


def _candidates(build_id: str, module: str, roots: Sequence[Path]) -> Iterator[Path]:
    for root in roots:
        link = root / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"
        if link.is_file():
            yield link
        yield from filter(Path.is_file, _below(root, module))


def _below(root: Path, module: str) -> Iterator[Path]:
    """Files with the right name: in a tree of packages, or in any tree that is not "/"."""
    folders = [folder for name in _MODULE_FOLDERS for folder in (root / name).glob("*")]
    if module:
        # a module is called dm_mod, its file dm-mod.ko, by either rule
        name = module.replace("_", "[-_]")
        if not folders and root not in SYSTEM_ROOTS:  # a build tree
            folders = [root]
        for folder in folders:
            yield from sorted(folder.rglob(f"{name}.ko"))
            yield from sorted(folder.rglob(f"{name}.ko.debug"))
        return
    for folder in folders:
        yield from (folder / "vmlinux", folder / "build/vmlinux", folder / "vmlinux.debug")
    yield root / "vmlinux"
    yield from sorted([*root.glob("vmlinux-*"), *(root / "boot").glob("vmlinux-*")])


def _try(path: Path, build_id: str, scratch: Path) -> tuple[DebugFile | None, str]:
    """The open file if it is the right one, else why not; "" if it is of another build."""
    try:
        file = DebugFile(path, scratch)
    except (OSError, ValueError, ELFError, BadDebugFile) as error:
        return None, f"{path}: {error}"
    if file.build_id() == build_id:
        if file.has_debug_information():
            return file, ""
        file.close()
        return None, f"{path} has no debug information"
    file.close()
    return None, ""


def _download(url: str, target: Path) -> str:
    """Fetch ``url`` to ``target`` as a whole; returns why that did not work, or ""."""
    if not re.match("https?://", url):
        return f"{url}: only http and https servers are asked"
    new = target.with_name(f".new-{os.getpid()}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer, new.open("wb") as file:
            while piece := answer.read(_PIECE):
                file.write(piece)
                if file.tell() > _MAX_DOWNLOAD:
                    return f"{url}: more than {_MAX_DOWNLOAD} bytes"
        new.rename(target)
    except (OSError, HTTPException, ValueError) as error:
        return f"{url}: {error}"
    finally:
        new.unlink(missing_ok=True)
    return ""
