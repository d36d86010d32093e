"""The main job: real errors on scratch file systems, our stream beside the kernel's own.

Two ``fserr-bpf run`` watch: the stream ``native`` of the ext4, raw, is compared byte for
byte with a real fanotify group; the stream ``proposed`` of ext4 and XFS is printed as it
arrives. A host without kprobes boots a stock kernel that has them: there our ext4 events
come from the kernel's own group, and the kernel would be compared with itself.

Exit status: 0 if the bytes are identical and every error that was caused was seen, 1 if
not, 130 after Ctrl-C or SIGTERM, else that of the FserrError. Nothing is left behind.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import textwrap
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NoReturn

from fserr_bpf.errors import FserrError, KernelError, OutputError
from fserr_bpf.kernel.bpf import KPROBE_PMU
from fserr_bpf.kernel.fanotify import FanotifyGroup, kernel_accepts_fs_error
from fserr_bpf.model.event import Event, FsErrorEvent
from fserr_bpf.model.stream import Stream
from fserr_bpf.outputs import text
from fserr_bpf.outputs.errno import errno_name
from fserr_bpf_compare.demo.watchers import Streams, watching
from fserr_bpf_compare.faults import FAULTS
from fserr_bpf_compare.faults.fault import Expected, Fault
from fserr_bpf_compare.faults.scratch import Scratch, scratch
from fserr_bpf_compare.machines import kernels, packages, vm
from fserr_bpf_compare.report import decoded
from fserr_bpf_compare.report.sidebyside import side_by_side

_LAB_KERNEL = "6.12"
_LAB_TIMEOUT = 400.0  # seconds, with the boot; a busy machine without KVM is slow
_FAULT_TIMEOUT = 30.0  # seconds; under emulation the first XFS event takes five
_COLUMNS = 100

# In this order: what lies behind a cut device is lost, so writeback comes last. The
# damage is done backwards: XFS with a broken AGF allocates nothing any more.
_CHOSEN = (
    "ext4_trigger",
    "ext4_bad_inode",
    "ext4_htree_checksum",
    "ext4_writeback",
    "xfs_agf",
    "xfs_inode",
    "xfs_dirblock",
    "xfs_writeback",
)


@dataclass(frozen=True)
class _Outcome:
    """What became of one fault.

    ``missing`` are the errors that our stream ``proposed`` should have had.
    ``kernels`` counts the errors in the kernel's own group, ``wanted`` those that it
    and our stream ``native`` should have had; ``late`` says that one of them did not.
    """

    fault: Fault
    missing: frozenset[Expected]
    kernels: int
    wanted: int
    late: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration, in the lab where this kernel cannot; returns the exit status."""
    parser = argparse.ArgumentParser(prog="fserr_bpf_compare.demo", description=__doc__)
    parser.add_argument("--here", action="store_true", help="on this kernel, or not at all")
    parser.add_argument("--colour", action="store_true", help="even if this is no terminal")
    arguments = parser.parse_args(argv)
    colour = arguments.colour or sys.stdout.isatty()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return _here(colour) if arguments.here else _where_possible(colour)
    except FserrError as error:
        _say(str(error))
        return error.exit_code
    except BrokenPipeError:  # "| head" has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OutputError.exit_code
    except (KeyboardInterrupt, SystemExit):  # vm.run() makes the latter of SIGTERM
        _say("interrupted; nothing is left behind")
        return 130


def _interrupt(*_: object) -> NoReturn:
    # once: the second one must not interrupt the cleaning up
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _where_possible(colour: bool) -> int:
    if not KPROBE_PMU.exists():
        lacks = "kprobes"
    elif not kernel_accepts_fs_error():
        lacks = "FAN_FS_ERROR"
    else:
        return _here(colour)
    kernel = kernels.find(_LAB_KERNEL)
    cached, _ = packages.check(packages.cache_folder() / "kernels" / kernel.name)
    _say(f"no {lacks} in Linux {os.uname().release}: the demonstration runs on Debian's kernel")
    if cached is None:
        _say(f"fetching kernel {kernel.name}, this once")
    _say("booting it in QEMU, about 10 s without KVM")
    command = [sys.executable, "-m", "fserr_bpf_compare.demo", "--here", *(["--colour"] * colour)]
    return vm.run(kernel, command, timeout=_LAB_TIMEOUT)


def _here(colour: bool) -> int:
    if not KPROBE_PMU.exists():
        raise KernelError(
            "this kernel has no kprobes: it would be compared with itself",
            "leave out --here, to boot a kernel that has them",
        )
    by_name = {fault.name: fault for fault in FAULTS}
    faults = [by_name[name] for name in _CHOSEN]
    with ExitStack() as stack:
        _say("making and damaging an ext4 and an XFS")
        places = {fstype: _make(stack, fstype, faults) for fstype in ("ext4", "xfs")}
        for fault in reversed(faults):
            fault.damage(places[fault.fstype])
        _print(f"fserr-bpf on Linux {os.uname().release}")
        streams = _watch(stack, str(places["ext4"].mount_point), str(places["xfs"].mount_point))
        outcomes = [
            _cause(f"{number} of {len(faults)}", fault, places[fault.fstype], streams)
            for number, fault in enumerate(faults, start=1)
        ]
        events, accounts = streams.finish()
        for event in events:
            _print_event(event)
        _compare(streams, colour)
        good = _summarize(outcomes, streams, accounts, colour)
        _say("cleaning up")
    return 0 if good else 1


def _make(stack: ExitStack, fstype: str, faults: Sequence[Fault]) -> Scratch:
    options = [o for fault in faults if fault.fstype == fstype for o in fault.mkfs_options]
    return stack.enter_context(scratch(fstype, mkfs_options=options))


def _watch(stack: ExitStack, ext4: str, xfs: str) -> Streams:
    # one after the other: together they are no faster and nothing could be said between
    slow = ", about 20 s under emulation" if "FSERR_LAB" in os.environ else ""
    _say(f"attaching the probes of the stream native{slow}")
    native = stack.enter_context(watching(Stream.NATIVE, "raw", ext4))
    _print(f"$ {native.words}")
    _say(f"attaching the probes of the stream proposed{slow}")
    proposed = stack.enter_context(watching(Stream.PROPOSED, "msgpack", ext4, xfs))
    _print(f"$ {proposed.words}")
    group = stack.enter_context(FanotifyGroup())
    group.mark(ext4)
    _print(f"and a group of the kernel's own, fanotify_mark(FAN_FS_ERROR), on {ext4}")
    return Streams(native, proposed, group)


def _cause(number: str, fault: Fault, fs: Scratch, streams: Streams) -> _Outcome:
    """Cause one fault and wait until all three streams have delivered it.

    Reports merge while they wait for a reader, so where one event ends depends on when
    each side is read. With one fault at a time nothing is left to chance: the next one
    finds both queues empty.
    """
    _print(f"\n{number}  {fault.name}: {fault.summary}")
    # of what happens to ext4, its five error functions report since 5.16 and no other
    wanted = len(fault.expected) if fault.fstype == "ext4" and fault.native_since else 0
    ours, kernels_ = streams.counts()
    missing = set(fault.expected_of_proposed())
    fault.cause(fs)
    deadline = time.monotonic() + _FAULT_TIMEOUT
    late = wanted > 0
    while (missing or late) and (left := deadline - time.monotonic()) > 0:
        for event in streams.read(left):
            _print_event(event)
            missing -= _errors_of(event, fault.fstype)
        ours_now, kernels_now = streams.counts()
        late = ours_now < ours + wanted or kernels_now < kernels_ + wanted
    return _Outcome(fault, frozenset(missing), streams.counts()[1] - kernels_, wanted, late)


def _errors_of(event: Event, fstype: str) -> set[Expected]:
    if isinstance(event, FsErrorEvent) and event.origin and event.origin.fstype == fstype:
        return {Expected(event.error, "inode" if event.handle else "sb")}
    return set()


def _compare(streams: Streams, colour: bool) -> None:
    _print("\nthe ext4 stream, byte for byte")
    headings = ("fserr-bpf --stream native", "the kernel's group")
    sides = decoded.events(streams.ours), decoded.events(streams.kernels)
    for line in side_by_side(*sides, headings, colour=colour):
        _print(line)


def _summarize(
    outcomes: Sequence[_Outcome], streams: Streams, accounts: dict[str, str], colour: bool
) -> bool:
    """Print what became of every fault and of the bytes; returns whether all is well."""
    _print(f"\n{'fault':<21}{'error':<27}{'fserr-bpf':<12}the kernel's group (ext4)")
    for outcome in outcomes:
        errors = outcome.fault.expected_of_proposed()
        words = ", ".join(f"{errno_name(e.error)} {_FORMS[e.form]}" for e in errors)
        seen = _painted(f"{'MISSING' if outcome.missing else 'seen':<12}", colour)
        _print(f"{outcome.fault.name:<21}{words:<27}{seen}{_of_kernel(outcome, colour)}")
    _print()
    for words, account in accounts.items():
        _print(f"{' '.join(words.split()[:4])}: {account}")
    caught = sum(not outcome.missing for outcome in outcomes)
    same = streams.ours == streams.kernels
    verdict = _painted("identical" if same else "DIFFERENT", colour)
    _print(f"{caught} of {len(outcomes)} faults seen")
    _print(f"{len(streams.ours)} bytes of ours, {len(streams.kernels)} of the kernel's: {verdict}")
    return same and not any(outcome.missing or outcome.late for outcome in outcomes)


_FORMS = {"inode": "inode", "sb": "superblock"}


def _of_kernel(outcome: _Outcome, colour: bool) -> str:
    if outcome.fault.fstype != "ext4":
        return "-"
    if outcome.late:
        return _painted("MISSING", colour)
    return "reported" if outcome.kernels else "silent"


def _painted(word: str, colour: bool) -> str:
    if not colour:
        return word
    return f"\x1b[{31 if word.isupper() else 32}m{word}\x1b[0m"


def _print_event(event: Event) -> None:
    """The line that ``--format text`` would print, folded."""
    _print(
        *textwrap.wrap(
            text.line(event),
            _COLUMNS,
            initial_indent="  ",
            subsequent_indent="      ",
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        ),
        sep="\n",
    )


def _print(*lines: str, sep: str = "") -> None:
    print(*lines, sep=sep, flush=True)


def _say(line: str) -> None:
    print(f"demo: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
