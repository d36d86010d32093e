"""The program that runs scenarios on the running kernel: a line of JSON per cell.

The host starts it as a process of its own, here or in a machine of the lab; standard
output has the cells and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import FrameType
from typing import NoReturn

from fserr_bpf.children.spawn import command_of
from fserr_bpf.errors import (
    AttachError,
    BccError,
    FserrError,
    KernelError,
    LabError,
    PrivilegeError,
)
from fserr_bpf.kernel.fanotify import kernel_accepts_fs_error
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf_compare.faults.reporter import Pipes, Reporter
from fserr_bpf_compare.harness import needs
from fserr_bpf_compare.harness.cell import run
from fserr_bpf_compare.harness.fixture import DeliveryBarrier, Guest
from fserr_bpf_compare.scenarios import SCENARIOS
from fserr_bpf_compare.scenarios.scenario import Scenario
from fserr_bpf_compare.verdict import profiles
from fserr_bpf_compare.verdict.cells import Cell

# For late events: an idle host delivers within milliseconds, an emulated machine may not.
_TIMEOUT = 20.0 if "FSERR_LAB" in os.environ else 5.0
_UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
_MODULES = ("ext4", "xfs", "btrfs")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the cells; the exit status says only whether it came to its end."""
    parser = argparse.ArgumentParser(prog="fserr_bpf_compare.harness.guest", description=__doc__)
    parser.add_argument("--kernel", required=True, help="the name to give the cells")
    parser.add_argument("--stream", type=Stream, help="default: what this kernel sends")
    parser.add_argument(
        "--outside",
        nargs=2,
        type=int,
        metavar="FD",
        help="this is a pid namespace of its own; the descriptors lead to a process outside",
    )
    parser.add_argument("names", nargs="+", metavar="SCENARIO")
    arguments = parser.parse_args(argv)
    unwind_on_sigterm()
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    chosen = [by_name[name] for name in arguments.names]
    fds = arguments.outside
    outside = Pipes(fds[0], fds[1], "outside: sh") if fds else None
    for cell in cells(arguments.kernel, arguments.stream, chosen, outside):
        print(json.dumps(cell.to_json()), flush=True)
    return 0


def unwind_on_sigterm() -> None:
    """Take everything down before ending."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # the second one must not interrupt the cleaning up
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)


def cells(
    kernel: str, stream: Stream | None, chosen: Sequence[Scenario], outside: Pipes | None
) -> Iterator[Cell]:
    """Run what can be run; a cell for each of ``chosen``, in order.

    With ``outside``, which leads to a process outside of it, this is a pid namespace.
    """
    release = os.uname().release
    version = profiles.version_of(release)
    patched = needs.is_patched()
    blank = Cell(kernel, release, scenario="", stream=str(stream or ""), patched=patched)

    def none(reason: str, *, machine: bool) -> Iterator[Cell]:
        return (blank._replace(scenario=s.name, not_run=reason, machine=machine) for s in chosen)

    try:
        if not kernel_accepts_fs_error():
            yield from none("this kernel has no FAN_FS_ERROR: it refuses the mark", machine=False)
            return
        profile = profiles.profile(version, stream, patched=patched)
        blank = blank._replace(stream=str(profile.stream))
        if profile.level is None:
            yield from none(profile.reason, machine=False)
            return
        with ExitStack() as stack:
            load_file_systems()
            attached = stack.enter_context(AttachedProbes([profile.stream]))
            barrier = DeliveryBarrier(stack) if profile.deferred else None
            guest = Guest(
                attached=attached,
                stream=profile.stream,
                sent=profiles.sent(version, patched=patched),
                version=version,
                promised=profile.level,
                barrier=barrier,
                timeout=_TIMEOUT,
                outside=outside,
            )
            for scenario in chosen:
                yield _cell(scenario, guest, blank._replace(scenario=scenario.name))
    except (PrivilegeError, KernelError, BccError, AttachError) as error:
        yield from none(str(error), machine=True)


def _cell(scenario: Scenario, guest: Guest, cell: Cell) -> Cell:
    if missing := needs.lack(scenario, guest.attached):
        return cell._replace(not_run=missing.reason, machine=missing.machine)
    if scenario.namespace and guest.outside is None:
        try:
            return _in_namespace(cell)
        except FserrError as error:
            return cell._replace(trouble=str(error))
    return run(scenario, guest, cell)


def _in_namespace(cell: Cell) -> Cell:
    """The cell as another guest gives it that is alone in a pid namespace.

    With probes of its own: they translate pids for the namespace in which they were attached.
    """
    words = ["--kernel", cell.kernel, "--stream", cell.stream, cell.scenario]
    with Reporter() as outside:
        fds = outside.fds()
        done = subprocess.run(
            [
                *_UNSHARE,
                *command_of("fserr_bpf_compare.harness.guest", "--outside", *map(str, fds)),
                *words,
            ],
            stdout=subprocess.PIPE,
            pass_fds=fds,
            check=False,
        )
    try:
        return Cell.from_json(json.loads(done.stdout))
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(
            f"the guest in a pid namespace ended with status {done.returncode} and gave no cell"
        ) from error


def load_file_systems() -> None:
    """Those with probes: modular kernels can only be probed for what is loaded."""
    with open("/proc/filesystems") as file:
        known = file.read().split()
    for fstype in _MODULES:
        if fstype not in known:  # a kernel without it says so when it is needed
            subprocess.run(["modprobe", "--quiet", fstype], check=False)


if __name__ == "__main__":
    sys.exit(main())
