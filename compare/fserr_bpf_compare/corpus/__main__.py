"""Makes the corpus in a folder, unless it is there: ``python -m fserr_bpf_compare.corpus DIR``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from fserr_bpf.errors import FserrError
from fserr_bpf_compare.corpus import ext, xfs

_PARTS = {"e2fsprogs": ext.make, "xfs": xfs.make}


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0, or 2 if a part could not be made."""
    parser = argparse.ArgumentParser(prog="fserr_bpf_compare.corpus", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder: Path = parser.parse_args(argv).folder
    try:
        for name, make in _PARTS.items():
            if (folder / name).exists():
                continue
            partial = folder / f".{name}.{os.getpid()}"
            try:
                count = make(partial)
                partial.rename(folder / name)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            print(f"corpus: {count} images in {folder / name}", flush=True)
    except (FserrError, OSError) as error:
        print(f"corpus: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
