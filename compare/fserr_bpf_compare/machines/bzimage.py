"""Kernels of the user's own: a bzImage, and its modules if it has any."""

from __future__ import annotations

import lzma
import zlib
from pathlib import Path

from fserr_bpf.errors import LabError
from fserr_bpf_compare.machines.packages import Image
from fserr_bpf_compare.machines.tools import output_of

# Offsets in a bzImage: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
_MAGIC = 0x202
_KERNEL_VERSION = 0x20E
_SETUP_SECTS, _PAYLOAD_OFFSET, _PAYLOAD_LENGTH = 0x1F1, 0x248, 0x24C
_SECTOR = 512
_SIZE_APPENDED = 4  # bytes behind the payload: its size, unpacked
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
            raise LabError(
                f"{modules} does not hold the modules of {release}", f"give lib/modules/{release}"
            )
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


def vmlinux_of(vmlinuz: Path) -> bytes:
    """The ELF file inside of a bzImage, see "payload_offset" in the same document.

    Raises `LabError` if it is packed in a way that is not known, OSError if it cannot be read.
    """
    image = vmlinuz.read_bytes()
    # 0 stands for 4 sectors
    protected = ((image[_SETUP_SECTS] or 4) + 1) * _SECTOR
    begin = protected + int.from_bytes(image[_PAYLOAD_OFFSET : _PAYLOAD_OFFSET + 4], "little")
    length = int.from_bytes(image[_PAYLOAD_LENGTH : _PAYLOAD_LENGTH + 4], "little")
    payload = image[begin : begin + length - _SIZE_APPENDED]
    try:
        if payload.startswith(b"\xfd7zXZ"):
            return lzma.LZMADecompressor().decompress(payload)
        if payload.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(wbits=31).decompress(payload)
        if payload.startswith(b"\x28\xb5\x2f\xfd"):
            return output_of("zstd", "-dqc", data=payload)
    except (lzma.LZMAError, zlib.error) as error:
        raise LabError(f"{vmlinuz} cannot be unpacked: {error}") from error
    raise LabError(f"{vmlinuz} is packed in a way that is not known here")
