"""Compiled programs for the kernels of the lab, made here: an emulated machine takes long.

A machine has the folder with them as its ``/var/cache/fserr-bpf``, so what one machine compiles
the next one finds, too. Run with the paths of a bzImage and its modules, this compiles ahead
what is likely to be asked for: a machine boots meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from fserr_bpf.children.spawn import command_of
from fserr_bpf.errors import FserrError, LabError
from fserr_bpf.probes import cache
from fserr_bpf.probes.compiler import compile_programs, installed_compiler
from fserr_bpf.probes.programs import BadFile
from fserr_bpf.probes.target import MODULES, Target
from fserr_bpf_compare.machines.bzimage import own_image, vmlinux_of
from fserr_bpf_compare.machines.initramfs import load_order, unpacked
from fserr_bpf_compare.machines.packages import Image, cache_folder, sha256

# modules that are loaded together, with what follows each record: (detail, places)
_LOADED = (MODULES, ("ext4", "xfs", "btrfs"), ("ext4", "xfs"), ("ext4",))
_FOLLOWS = ((False, False), (True, False), (False, True), (True, True))


def folder() -> Path:
    """What the machines share, made if it is not there. Only root's is of use in them."""
    shared = cache_folder() / "programs"
    shared.mkdir(mode=0o700, parents=True, exist_ok=True)
    return shared


def command(image: Image) -> list[str]:
    """The process that compiles ahead for ``image``; it may be killed at any time."""
    paths = [str(image.vmlinuz), *([str(image.modules)] if image.modules else [])]
    return command_of("fserr_bpf_compare.machines.programs", *paths)


def targets(image: Image, btf: Path) -> Iterator[Target]:
    """What to compile, the likeliest first; ``btf`` as `type_information` makes it."""
    known = frozenset(MODULES if image.modules is None else _modules(image.modules))
    choices = [known] if image.modules is None else [known.intersection(m) for m in _LOADED]
    for loaded in dict.fromkeys(choices):
        for detail, places in _FOLLOWS:
            yield Target(
                btf=btf,
                release=image.release,
                machine="x86_64",
                loaded=loaded,
                kprobes=True,
                detail=detail,
                places=places,
            )


def type_information(image: Image) -> Path | None:
    """A folder with the BTF of ``image``, as ``/sys/kernel/btf`` has it in the machine.

    None for a kernel whose modules have none: its programs depend on what only the machine
    knows. Raises LabError and OSError.
    """
    btf = cache_folder() / "btf" / sha256(image.vmlinuz)
    btf.mkdir(parents=True, exist_ok=True)
    if not _extracted(btf / "vmlinux", lambda: vmlinux_of(image.vmlinuz)):
        return None
    for name, file in _modules(image.modules).items() if image.modules else ():
        if file and not _extracted(btf / name, partial(unpacked, file)):
            return None
    return btf


def _modules(folder: Path) -> dict[str, Path | None]:
    """Those of `MODULES` that the kernel has, each with its file; None if it is built in."""
    found: dict[str, Path | None] = {}
    for name in MODULES:
        with contextlib.suppress(LabError):  # not every kernel has each
            order = load_order(folder, [name])
            found[name] = order[-1] if order else None
    return found


def _extracted(path: Path, elf: Callable[[], bytes]) -> bool:
    """Whether ``path`` has a file's BTF, now if not before; False where the file has none."""
    if not path.exists():
        data = section(elf(), ".BTF")
        if not data:
            return False
        new = path.with_suffix(".new")
        new.write_bytes(data)
        new.rename(path)
    return True


def section(elf: bytes, name: str) -> bytes:
    """The bytes of a section of a 64-bit little-endian ELF file, b"" if it has none.

    Offsets in Elf64_Ehdr and Elf64_Shdr: elf(5).
    """
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<HHH", elf, 58)
    headers = [
        struct.unpack_from("<II16xQQ", elf, table + size * number) for number in range(count)
    ]
    start = headers[names][2]
    for name_at, _, offset, length in headers:
        if elf.startswith(name.encode() + b"\0", start + name_at):
            return elf[offset : offset + length]
    return b""


def compile_ahead(image: Image) -> None:
    """Compile what the folder lacks for ``image``. Raises FserrError subclasses and OSError."""
    compiler = installed_compiler()
    # without bcc no machine can compile either, and of others than root none takes programs
    if compiler is None or os.geteuid() != 0:
        return
    with (folder().parent / "programs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two at once would do the same work
        btf = type_information(image)
        for target in targets(image, btf) if btf else ():
            with contextlib.suppress(BadFile):
                if cache.load(folder(), target.key(), compiler):
                    continue
            cache.store(folder(), compile_programs(target))


def main() -> int:
    """The paths are arguments. Exit status 1, with one line, if it fails."""
    paths = [Path(argument) for argument in sys.argv[1:]]
    try:
        compile_ahead(own_image(paths[0], paths[1] if len(paths) > 1 else None))
    except (FserrError, BadFile, OSError) as error:
        print(f"lab: programs are not compiled ahead: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # bcc's exit handlers take their time
