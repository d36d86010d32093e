"""Kernels of the user's own: a bzImage, and its modules if it has any."""

from __future__ import annotations

from pathlib import Path

from compare.packages import Image
from fserr_bpf.errors import LabError

# Offsets in a bzImage: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
_MAGIC = 0x202
_KERNEL_VERSION = 0x20E
_HEAD = 0x10400  # bytes, as far as kernel_version may point


def own_image(vmlinuz: Path, modules: Path | None) -> Image:
    """A kernel of the user's own: a bzImage, and its ``lib/modules/RELEASE`` folder if it has one.

    Raises `LabError` unless it is an x86 kernel whose modules these are.
    """
    try:
        release = release_of(vmlinuz)
    except OSError as error:
        raise LabError(f"{vmlinuz}: {error.strerror}", "give a bzImage") from error
    if modules is not None:
        if not (modules / "modules.dep").exists():
            raise LabError(f"{modules} has no modules.dep", "give ROOT/lib/modules/RELEASE")
        if modules.resolve().name != release:
            raise LabError(f"{modules} has not the modules of {release}", "give those")
    return Image(vmlinuz, modules, release)


def release_of(vmlinuz: Path) -> str:
    """The release in the header of a bzImage, see Documentation/arch/x86/boot.rst.

    Raises `LabError` if that is none, OSError if it cannot be read.
    """
    with vmlinuz.open("rb") as file:
        head = file.read(_HEAD)
    if head[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise LabError(f"{vmlinuz} is not an x86 kernel", "give a bzImage")
    start = int.from_bytes(head[_KERNEL_VERSION : _KERNEL_VERSION + 2], "little") + 0x200
    return head[start:].split(maxsplit=1)[0].decode()
