"""No error of a watched file system is in the kernel's log alone, unless the documents say so.

Whatever can be broken is broken (`faultcases`), one after the other, and the kernel's log is the
witness: each function that it names is one of our events, or its line is in ``UNSEEN``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fserr_bpf.errors import LabError, MarkError
from fserr_bpf.kernel.kallsyms import Kallsyms
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.model.mark import Mark
from fserr_bpf.monitor import Monitor
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf.probes.coverage import UNSEEN
from fserr_bpf.uapi.record import Probe
from fserr_bpf_compare.faults import mapper, removed
from fserr_bpf_compare.faults.fault import EFSBADCRC, EFSCORRUPTED
from fserr_bpf_compare.faults.scratch import Scratch
from fserr_bpf_compare.harness.heard import Heard
from fserr_bpf_compare.verdict.unheard import errors_of, function_of
from tests.live.conftest import DEADLINE_IDLE, KernelLog, kernel_version, skip, wait_until
from tests.live.faultcases import Case, cases
from tests.patience import Deadline

pytestmark = [pytest.mark.root, pytest.mark.kprobes, pytest.mark.usefixtures("scratch_space")]

CASES = tuple(cases())


def is_listed(message: str, fstype: str) -> bool:
    """Whether docs/coverage.md says that there is no event for this line."""
    return any(
        one.fstype in ("", fstype) and one.log and re.search(one.log, message) for one in UNSEEN
    )


class Watched:
    """What is heard of a file system, and what the kernel's log has of it."""

    def __init__(self, stack: ExitStack, fs: Scratch, attached: AttachedProbes) -> None:
        self.fs = fs
        self._log = stack.enter_context(KernelLog())
        names = stack.enter_context(Kallsyms())
        self._heard = stack.enter_context(Heard(attached, str(fs.mount_point), names))

    def expect(self, log: str) -> None:
        """The kernel has logged it: without that nothing is shown."""
        # XFS says some of it without an end of line: the kernel waits for more, or for another
        Path("/dev/kmsg").write_text("fserr-bpf: a test looks at the log\n")
        pattern = log.replace("{dev}", self.fs.device_name)
        if pattern:
            self._log.wait_for(pattern)
        else:
            wait_until(lambda: bool(self._errors()), "an error in the kernel's log")

    def _errors(self) -> list[str]:
        return list(errors_of(self.fs.device_name, self._log.leveled()))

    def missing(self) -> list[str]:
        """Lines that name an error, are not listed, and have no event.

        A line that names no function is met by any event.
        """
        self._heard.pump()
        heard = self._heard.functions
        found = []
        for line in self._errors():
            function = function_of(line, self.fs.device_name)
            known = function in heard if re.fullmatch(r"\w+", function) else bool(heard)
            if not known and not is_listed(line, self.fs.fstype):
                found.append(f"{function}: {line}")
        return found


@contextmanager
def made(case: Case) -> Iterator[None]:
    """Skip what this kernel has not."""
    if case.needs_mapper and (reason := mapper.unavailable()):
        skip(reason, expected=True)
    if case.needs_disk and (reason := removed.unavailable()):
        skip(reason, expected=True)
    if case.name == "f2fs_failing_device" and kernel_version() < (6, 12):
        skip("6.1's f2fs logs nothing when its device fails", expected=True)
    try:
        yield
    except LabError as error:
        if "modprobe" in str(error):
            skip(str(error), expected=True)
        raise
    except MarkError as error:
        if case.fstype == "jfs" and "no fsid" in str(error):
            skip(f"the documents say so: {error}", expected=True)
        raise


@pytest.fixture(autouse=True)
def require_types(attached: AttachedProbes) -> None:
    if Probe.XFS_END in attached.failed:
        skip(f"the table says so: {attached.failed[Probe.XFS_END]}", expected=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_in_the_log_is_an_event_or_listed(case: Case, attached: AttachedProbes) -> None:
    with made(case), ExitStack() as stack:
        found: list[Watched] = []
        case.play(stack, lambda fs: found.append(Watched(stack, fs, attached)))
        (watched,) = found
        watched.expect(case.log)
        deadline = Deadline(DEADLINE_IDLE)
        while watched.missing() and not deadline.has_expired():
            time.sleep(0.05)
        assert watched.missing() == []


def test_a_line_without_an_event_is_found(attached: AttachedProbes) -> None:
    """What is not watched is in the log alone: the test above would fail."""
    (case,) = (case for case in CASES if case.name == "ext4_trigger")
    with ExitStack() as stack:
        found: list[Watched] = []

        def watch(fs: Scratch) -> None:
            found.append(Watched(stack, fs, attached))
            attached.watch(found[0]._heard, ())

        case.play(stack, watch)
        found[0].expect(case.log)
        (line,) = found[0].missing()
    assert line.startswith("trigger_test_error: ")


# what an event says of an error that came without a number

NUMBERS = {
    "btrfs_data_checksum": EFSBADCRC,
    "f2fs_address": EFSCORRUPTED,
    "vfat_chain": EFSCORRUPTED,
    "nilfs2_directory": EFSCORRUPTED,
    "jfs_inode": EFSCORRUPTED,
    "ocfs2_inode": EFSCORRUPTED,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_errors_without_a_number_have_the_usual_one(name: str, attached: AttachedProbes) -> None:
    (case,) = (case for case in CASES if case.name == name)
    events: list[FsErrorEvent] = []
    with made(case), ExitStack() as stack:
        monitors: list[Monitor] = []

        def watch(fs: Scratch) -> None:
            marks = [Mark.filesystem(str(fs.mount_point))]
            monitors.append(stack.enter_context(Monitor(marks, attached=attached)))

        case.play(stack, watch)

        def came() -> bool:
            events.extend(e for e in monitors[0].read_events() if isinstance(e, FsErrorEvent))
            return bool(events)

        wait_until(came, "the error")
    assert {(event.error, event.handle) for event in events} == {(NUMBERS[name], None)}
