"""One image on the running kernel: mounted, read, changed, unmounted, and what both sides read.

Whatever touches its file system runs in a process of its own with a time limit. If that process
cannot be killed, or the kernel says that it has failed itself, this kernel is not to be used
any more: `GuestLostError`.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, NoReturn

from fserr_bpf.errors import FserrError, MarkError
from fserr_bpf.kernel.kallsyms import Kallsyms
from fserr_bpf.model.mark import Mark
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.attached import AttachedProbes
from fserr_bpf_compare.faults.kernellog import KernelLog
from fserr_bpf_compare.faults.scratch import is_mounted
from fserr_bpf_compare.harness.fixture import DeliveryBarrier
from fserr_bpf_compare.harness.heard import Heard
from fserr_bpf_compare.harness.sides import Sides
from fserr_bpf_compare.images.exercise import read_all, write_all
from fserr_bpf_compare.images.files import ImageFile, unpack
from fserr_bpf_compare.images.identity import give_uuid
from fserr_bpf_compare.images.limited import Ended, limited
from fserr_bpf_compare.signals_blocked import signals_blocked
from fserr_bpf_compare.verdict import levels
from fserr_bpf_compare.verdict.cells import Cell, Level
from fserr_bpf_compare.verdict.unheard import errors_of, unheard

# Besides the driver's own defaults: ext4 would obey an image that asks for a panic, and tell of
# its first error only; a thread that initialises inode tables meets errors at some time or other.
_OPTIONS = {"ext4": "errors=continue,noinit_itable", "xfs": "nouuid", "vfat": "errors=continue"}
_UNPACKING = 5  # times as long as another step may take: that depends on the size
_SECTOR = 512  # bytes: the end of an image that is less is no part of a loop device
_SAFE = "nodev,nosuid,noexec"
# What the kernel says when it has failed itself and not the file system.
_KERNEL_FAILED = re.compile(
    r"^(?:BUG: |Oops|kernel BUG at|general protection fault|watchdog: BUG|INFO: task .* blocked)"
)


class GuestLostError(Exception):
    """This kernel cannot play another image; ``cell`` says why."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell.trouble)
        self.cell = cell


class ImageGuest(NamedTuple):
    """What all plays of one guest share.

    ``compared`` are the probes of ``stream``, None where no group of the kernel sends it;
    ``proposed`` those for `Heard`. ``seconds`` is the limit of each step. ``barrier`` is as in
    `Guest`.
    """

    compared: AttachedProbes | None
    proposed: AttachedProbes
    stream: Stream
    promised: Level
    barrier: DeliveryBarrier | None
    names: Kallsyms
    seconds: float


def play(image: ImageFile, guest: ImageGuest, cell: Cell) -> Cell:
    """Play ``image``; returns ``cell`` filled, as far as the play came.

    FserrError and OSError are trouble of the cell; GuestLostError leaves the mount as it is.
    """
    begin = time.monotonic()
    with KernelLog() as log:
        one = _Play(image, guest, log)
        trouble = refused = ""
        try:
            refused = one.run()
        except _HangsError as error:
            trouble = str(error)
        except (FserrError, OSError) as error:
            trouble = " ".join(str(error).split()) or type(error).__name__
        failed = next(filter(_KERNEL_FAILED.search, log.messages()), "")
        found = one.fill(cell)._replace(
            log=tuple(log.messages()), seconds=round(time.monotonic() - begin, 3)
        )
    if failed:
        trouble = f"the kernel failed: {failed}" + (f"; {trouble}" if trouble else "")
    if one.lost or failed:
        raise GuestLostError(found._replace(trouble=trouble, lost=True))
    return found._replace(trouble=trouble, not_run="" if trouble else refused)


class _HangsError(Exception):
    """A process that cannot be killed."""


class _Play:
    """The steps of one image, and what they leave."""

    def __init__(self, image: ImageFile, guest: ImageGuest, log: KernelLog) -> None:
        self.lost = False
        self._image, self._guest, self._log = image, guest, log
        self._sides: Sides | None = None
        self._heard: Heard | None = None
        self._steps: list[str] = []
        self._directory = self._device = ""
        self._marked_at = -1  # where the log was when the marks were made

    def run(self) -> str:
        """All of it; returns why there is nothing to compare, or "". Takes everything down."""
        with ExitStack() as stack:
            directory = Path(tempfile.mkdtemp(prefix="fserr-")).resolve()
            stack.callback(self._unless_lost, lambda: shutil.rmtree(directory))
            self._directory = str(directory)
            copy, point = directory / "image", directory / "mnt"
            point.mkdir()
            self._must("unpack", lambda: _unpack(self._image, copy))
            words = self._must("losetup", "losetup", "--find", "--show", str(copy))
            self._device = words.rpartition(" ")[2]
            stack.callback(self._unless_lost, self._detach)
            options = ",".join(filter(None, ("ro", _SAFE, _OPTIONS.get(self._image.fstype, ""))))
            refused = self._step(
                "mount", "mount", "-t", self._image.fstype, "-o", options, self._device, str(point)
            )
            if refused.status != 0:
                return f"the kernel does not mount it: {self._reason(refused.words)}"
            stack.callback(self._unless_lost, lambda: self._unmount(point))
            try:
                self._watch(stack, str(point))
            except MarkError as error:
                return f"nothing can mark it: {error.cause.replace(f'{point}: ', '')}"
            self._use(point)
        return ""

    def _watch(self, stack: ExitStack, path: str) -> None:
        guest = self._guest
        self._marked_at = len(self._log.leveled())
        # the groups are closed before the file system would be unmounted for them
        self._heard = stack.enter_context(Heard(guest.proposed, path, guest.names))
        if guest.compared:
            marks = [Mark.filesystem(path)]
            sides = Sides(guest.compared, guest.stream, marks, flags=0, max_events=None)
            self._sides = stack.enter_context(sides)

    def _use(self, point: Path) -> None:
        """Read, change, unmount; what a worker may still report is read behind all of it."""
        self._step("read", lambda: read_all(point))
        self._settle()
        if self._sides:
            self._sides.drain()
        if self._step("remount", "mount", "-o", "remount,rw", str(point)).status == 0:
            self._step("write", lambda: write_all(point))
        self._unmount(point)
        self._settle()
        if self._sides:
            self._sides.drain()
            if self._guest.barrier:
                self._sides.drain_until(self._agree, self._guest.seconds)

    def _agree(self) -> bool:
        sides = self._sides
        assert sides is not None
        return levels.reached(sides.real, sides.emulated) <= self._guest.promised

    def _settle(self) -> None:
        if self._guest.barrier:
            self._guest.barrier.wait()
        if self._sides:
            self._sides.pump()
        if self._heard:
            self._heard.pump()

    # -- steps ---------------------------------------------------------------------------

    def _step(self, name: str, work: Callable[[], str] | str, *arguments: str) -> Ended:
        """A step in a process of its own: a function, or a tool with its arguments."""
        seconds = self._guest.seconds * (_UNPACKING if name == "unpack" else 1)
        meanwhile = self._heard.meanwhile() if self._heard else None
        if isinstance(work, str):
            tool = work
            ended = limited(lambda: _exec(tool, *arguments), seconds, meanwhile)
        else:
            ended = limited(work, seconds, meanwhile)
        words = f": {ended.words}" if ended.words else ""
        late = f", killed after {seconds:g} s" if ended.late else ""
        step = f"{name} -> {ended.status}{late}{words}"
        self._steps.append(step.replace(self._directory, ""))  # another one at each play
        if ended.status is None:
            self.lost = True
            raise _HangsError(f"{name} hangs in the kernel and cannot be killed")
        return ended

    def _must(self, name: str, work: Callable[[], str] | str, *arguments: str) -> str:
        ended = self._step(name, work, *arguments)
        if ended.status != 0:
            raise OSError(f"{name} failed: {ended.words}")
        return ended.words

    def _unmount(self, point: Path) -> None:
        if not is_mounted(point):  # a file system that was shut down answers no stat
            return
        if self._step("umount", "umount", str(point)).status != 0:
            self._must("umount --lazy", "umount", "--lazy", str(point))

    def _detach(self) -> None:
        self._must("losetup --detach", "losetup", "--detach", self._device)

    def _unless_lost(self, undo: Callable[[], object]) -> None:
        """What hangs would hang who undoes it, too."""
        if not self.lost:
            with signals_blocked():
                undo()

    def _reason(self, words: str) -> str:
        """The end of mount's message, the same for every device and folder."""
        why = words.partition("dmesg(1)")[0].rpartition(": ")[2].strip(" .")
        return why.replace(self._device, "the device")

    # -- the cell ------------------------------------------------------------------------

    def fill(self, cell: Cell) -> Cell:
        """What the play has left so far."""
        name = os.path.basename(self._device)
        leveled = self._log.leveled()
        marked_at = len(leveled) if self._marked_at < 0 else self._marked_at
        cell = cell._replace(
            trigger=tuple(self._steps),
            mounting=len(list(errors_of(name, leveled[:marked_at]))) if name else 0,
        )
        if self._sides:
            cell = cell._replace(
                real=tuple(self._sides.real),
                emulated=tuple(self._sides.emulated),
                statistics=str(self._sides.monitor.statistics()),
            )
        if not self._heard:
            return cell
        heard, errors = self._heard, errors_of(name, leveled[marked_at:])
        return cell._replace(
            heard=tuple(heard.functions.items()),
            unheard=unheard(errors, name, heard.functions),
        )


def _unpack(image: ImageFile, copy: Path) -> str:
    """The copy to play, whole sectors long."""
    try:
        unpack(image.path, copy)
    except FserrError as error:
        raise OSError(str(error)) from error
    os.truncate(copy, -(-copy.stat().st_size // _SECTOR) * _SECTOR)
    return "given a UUID" if image.fstype == "ext4" and give_uuid(copy) else ""


def _exec(tool: str, *arguments: str) -> NoReturn:
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    os.environ["LC_ALL"] = "C"
    os.execvp(tool, [tool, *arguments])
