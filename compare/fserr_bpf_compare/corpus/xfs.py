"""XFS images that xfs_db damages, each time in the same places with the same xfsprogs.

``blocktrash`` flips bits of one kind of block and leaves the checksum wrong; ``fuzz -d`` changes
one field and makes the checksum right, so that the verifiers look at the field itself.
"""

from __future__ import annotations

import gzip
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fserr_bpf.errors import LabError
from fserr_bpf_compare.machines.tools import output_of

_SIZE = 36 << 20  # bytes: small ones unpack fast, and mkfs.xfs refuses less
_FILES = 90  # in a directory: it has leaves then
# Sectors of 4096 bytes give each header of an allocation group a block of its own.
_MKFS = (
    *("--unsupported", "-q", "-f", "-s", "size=4096", "-l", "size=1368b", "-i", "nrext64=0"),
    *("-m", "uuid=5e44b9f0-0000-4000-8000-66736572722e,rmapbt=0,reflink=1", "-d", "agcount=2"),
)
_SEEDS = range(1, 9)
_TRASHED = (
    *("agf", "agfl", "agi", "sb", "btbno", "btcnt", "btino", "btfino"),
    *("inode", "dir", "log"),
)
_FUZZED = {
    "sb 0": ("magicnum", "blocksize", "icount", "fdblocks", "rootino", "agblocks", "versionnum"),
    "agf 0": ("magicnum", "bnoroot", "cntroot", "bnolevel", "flcount", "freeblks", "longest"),
    "agi 0": ("magicnum", "count", "root", "level", "freecount", "unlinked[3]", "free_root"),
    "agfl 0": ("magicnum", "seqno", "bno[0]"),
    "path /": ("core.magic", "core.mode", "core.format", "core.size", "core.nblocks"),
    "path /big": ("core.nextents", "core.flags", "core.aformat", "core.gen", "core.nlinkv2"),
}
_VERBS = ("zeroes", "ones", "middlebit", "add")


class Damage(NamedTuple):
    """What xfs_db is told: the commands, and how the image is called."""

    name: str
    commands: tuple[str, ...]


def damages() -> Iterator[Damage]:
    """All of them, whether or not they change anything."""
    for kind in _TRASHED:
        for seed in _SEEDS:
            trash = f"blocktrash -s {seed} -n 3 -x 1 -y 64 -t {kind}"
            yield Damage(f"blocktrash-{kind}-{seed:02}", ("blockget", trash))
    for place, fields in _FUZZED.items():
        for field in fields:
            for verb in _VERBS:
                name = re.sub(r"[^a-z0-9.]+", "-", f"fuzz {place} {field} {verb}".lower())
                yield Damage(name, (place, f"fuzz -d {field} {verb}"))


def make(folder: Path) -> int:
    """Put the images into the new ``folder`` as ``DAMAGE.gz``; returns how many.

    A damage that changes nothing gives no image. Raises LabError when a tool fails.
    """
    folder.mkdir(parents=True)
    count = 0
    with tempfile.TemporaryDirectory(prefix="fserr-xfs-") as name:
        work = Path(name)
        whole = _whole(work)
        before = whole.read_bytes()
        for damage in damages():
            image = work / "damaged"
            shutil.copyfile(whole, image)
            _db(image, *damage.commands)
            after = image.read_bytes()
            if after != before:
                packed = gzip.compress(after, compresslevel=1, mtime=0)
                (folder / f"{damage.name}.gz").write_bytes(packed)
                count += 1
    return count


def _whole(work: Path) -> Path:
    """An image with files, links and directories of some forms; nothing is mounted for it."""
    image, small, big = work / "image", work / "small", work / "big"
    small.write_bytes(b"fserr-bpf\n" * 10)
    big.write_bytes(b"fserr-bpf\n" * 30000)
    many = "\n".join(
        f"  file-with-a-rather-long-name-{n} ---644 0 0 {small}" for n in range(_FILES)
    )
    text = f"""x
0 0
d--755 0 0
small ---644 0 0 {small}
big ---644 0 0 {big}
link l--777 0 0 small
dir d--755 0 0
 inner d--755 0 0
  small ---644 0 0 {small}
 $
$
many d--755 0 0
{many}
$
$
"""
    prototype = work / "prototype"
    prototype.write_text(text)
    with image.open("xb") as file:
        file.truncate(_SIZE)
    output_of("mkfs.xfs", *_MKFS, "-p", prototype, image)
    return image


def _db(image: Path, *commands: str) -> str:
    arguments = [word for command in commands for word in ("-c", command)]
    try:
        return output_of("xfs_db", "-x", *arguments, image).decode(errors="replace")
    except LabError as error:
        raise LabError(f"{image.name}: {'; '.join(commands)}: {error.cause}") from error
