"""The program that plays images on the running kernel: a line of JSON per image.

Started as `fserr_bpf_compare.harness.guest` is, and like it. Before each image it prints a line
with its name alone: if nothing follows, that image has ended the kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from fserr_bpf.errors import AttachError, BccError, KernelError, LabError, PrivilegeError
from fserr_bpf.kernel.fanotify import kernel_accepts_fs_error
from fserr_bpf.kernel.kallsyms import Kallsyms
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf_compare.faults.scratch import load_modules
from fserr_bpf_compare.harness import needs
from fserr_bpf_compare.harness.fixture import DeliveryBarrier
from fserr_bpf_compare.harness.guest import load_file_systems, unwind_on_sigterm
from fserr_bpf_compare.harness.imageplay import GuestLostError, ImageGuest, play
from fserr_bpf_compare.images.files import ImageFile
from fserr_bpf_compare.verdict import profiles
from fserr_bpf_compare.verdict.cells import Cell, Level, Witness

LOST = 9
"""Exit status of a guest whose kernel cannot play any more; the last cell says why."""
# A step of an image on an idle host takes milliseconds; an emulated machine is slow.
_SECONDS = 60.0 if "FSERR_LAB" in os.environ else 20.0


def main(argv: Sequence[str] | None = None) -> int:
    """Print the cells; the exit status says only whether it came to its end."""
    parser = argparse.ArgumentParser(
        prog="fserr_bpf_compare.harness.imageguest", description=__doc__
    )
    parser.add_argument("--kernel", required=True, help="the name to give the cells")
    parser.add_argument("--stream", type=Stream, help="default: what this kernel sends")
    parser.add_argument("words", nargs="+", help="name, driver and file of each image")
    arguments = parser.parse_args(argv)
    unwind_on_sigterm()
    words = arguments.words
    chosen = [
        ImageFile(name, fstype, Path(path))
        for name, fstype, path in zip(words[::3], words[1::3], words[2::3], strict=True)
    ]
    try:
        for cell in cells(arguments.kernel, arguments.stream, chosen):
            print(json.dumps(cell.to_json()), flush=True)
    except GuestLostError as error:
        print(json.dumps(error.cell.to_json()), flush=True)
        return LOST
    return 0


def cells(kernel: str, stream: Stream | None, chosen: Sequence[ImageFile]) -> Iterator[Cell]:
    """Play what can be played; a cell for each of ``chosen``, in order. Raises GuestLostError."""
    release = os.uname().release
    version = profiles.version_of(release)
    patched = needs.is_patched()
    blank = Cell(kernel, release, scenario="", stream=str(stream or ""), patched=patched)

    def cell_of(image: ImageFile) -> Cell:
        return blank._replace(scenario=image.name, image=str(image.path), fstype=image.fstype)

    profile = profiles.profile(version, stream, patched=patched)
    compared = profile.level is not None and kernel_accepts_fs_error()
    if not compared:
        if stream not in (None, Stream.PROPOSED):
            reason = profile.reason or "this kernel has no FAN_FS_ERROR: it refuses the mark"
            yield from (cell_of(image)._replace(not_run=reason) for image in chosen)
            return
        profile = profile._replace(stream=Stream.PROPOSED, deferred=False)
    blank = blank._replace(
        stream=str(profile.stream), witness=Witness.GROUP if compared else Witness.LOG
    )
    load_file_systems()
    known = {fstype: _is_known(fstype) for fstype in {image.fstype for image in chosen}}
    try:
        with ExitStack() as stack:
            proposed = stack.enter_context(AttachedProbes([Stream.PROPOSED]))
            probes = AttachedProbes([profile.stream]) if compared else None
            guest = ImageGuest(
                compared=stack.enter_context(probes) if probes else None,
                proposed=proposed,
                stream=profile.stream,
                promised=profile.level or Level.L0,
                barrier=DeliveryBarrier(stack) if profile.deferred else None,
                names=stack.enter_context(Kallsyms()),
                seconds=_SECONDS,
            )
            blank = blank._replace(basis="probes" if proposed.kernel.kprobes else "kernel group")
            for image in chosen:
                if not known[image.fstype]:
                    reason = f"this kernel has no {image.fstype}"
                    yield cell_of(image)._replace(not_run=reason)
                    continue
                print(json.dumps(image.name), flush=True)
                yield play(image, guest, cell_of(image))
    except (PrivilegeError, KernelError, BccError, AttachError) as error:
        reason = str(error)
        yield from (cell_of(i)._replace(not_run=reason, machine=True) for i in chosen)


def _is_known(fstype: str) -> bool:
    """Whether this kernel mounts it; modular ones can only be probed for what is loaded."""
    try:
        load_modules(fstype)
    except LabError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
