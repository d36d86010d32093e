"""The images that e2fsprogs tests its e2fsck with, out of Debian's source package."""

from __future__ import annotations

import re
import tarfile
import tempfile
from pathlib import Path

from fserr_bpf.errors import LabError
from fserr_bpf_compare.machines.aptroot import AptRoot
from fserr_bpf_compare.machines.packages import cache_folder

SUITE = "bookworm"  # one for all machines: the same images everywhere
_IMAGE = re.compile(r"[^/]+/tests/(?P<test>[^/]+)/image\.gz")


def make(folder: Path) -> int:
    """Put them into the new ``folder`` as ``TEST.gz``; returns how many.

    Raises LabError without network, mirror or valid signature.
    """
    folder.mkdir(parents=True)
    apt = AptRoot(cache_folder() / "apt-source", (SUITE,), sources=True)
    with tempfile.TemporaryDirectory(prefix="fserr-source-") as work:
        tarball = apt.upstream("e2fsprogs", Path(work))
        with tarfile.open(tarball) as archive:
            for member in archive:
                test = _IMAGE.fullmatch(member.name)
                source = archive.extractfile(member) if test and member.isfile() else None
                if test and source:
                    (folder / f"{test['test']}.gz").write_bytes(source.read())
    count = len(list(folder.iterdir()))
    if not count:
        raise LabError(f"{tarball.name} holds no images in tests/")
    return count
