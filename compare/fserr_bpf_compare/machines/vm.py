"""Run one command in a QEMU machine that boots a stock kernel on this machine's files.

The guest sees the host's root read-only under a throw-away overlay.  A shared folder
carries the command in, and standard output, standard error and the exit status out.
"""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import BinaryIO, NoReturn

from fserr_bpf.errors import LabError
from fserr_bpf_compare.machines import initramfs, programs
from fserr_bpf_compare.machines.kernels import Kernel
from fserr_bpf_compare.machines.packages import Image, ensure
from fserr_bpf_compare.machines.tools import tool
from fserr_bpf_compare.signals_blocked import signals_blocked

_POLL = 0.03  # seconds
_CONSOLE_LINES = 8
_PREFIX = "fserr-lab-"  # of temporary folders, before the pid of their owner
_PANIC = "Kernel panic - not syncing: "
_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_libc = ctypes.CDLL(None)


def run(
    kernel: Kernel | Image,
    command: Sequence[str],
    *,
    timeout: float,
    memory: str = "2G",
    cancel: threading.Event | None = None,
    output: Path | None = None,
    stdout: BinaryIO | None = None,
    stderr: BinaryIO | None = None,
) -> int:
    """Run ``command`` under ``kernel`` and return its exit status, 128 + N for signal N.

    ``command`` is executed as it is, without a shell, as root, in the current folder,
    with a small fixed environment: ``FSERR_LAB`` is the kernel's name, of an `Image` its
    release, and ``FSERR_LAB_OUTPUT`` a folder whose files end up in ``output``.
    ``timeout``, in seconds, includes the boot; ``memory`` is QEMU's ``-m``.  The streams
    default to this process's own and are written to while the command runs.  Another
    thread can set ``cancel``.

    Raises `LabError` if the kernel cannot be had or booted, panics, the time is up or
    the run is cancelled.  The machine and its temporary files never outlive the call;
    those of a process that was killed go with the next call.
    """
    image = kernel if isinstance(kernel, Image) else ensure(kernel)
    name = kernel.release if isinstance(kernel, Image) else kernel.name
    sweep()
    deadline = time.monotonic() + timeout
    with ExitStack() as cleanup:
        cleanup.enter_context(_terminated_as_exception())
        temporary = tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-")
        folder = Path(cleanup.enter_context(temporary))
        share = folder / "share"
        (share / "output").mkdir(parents=True)
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
        initrd = initramfs.build(image, _fresh_folders(command, Path.cwd()))
        (folder / "initrd").write_bytes(initrd)
        (share / "command").write_bytes(script(name, command, Path.cwd()))
        streams = []
        for stream, target in (("stdout", stdout), ("stderr", stderr)):
            (share / stream).touch()
            source = cleanup.enter_context((share / stream).open("rb"))
            streams.append((source, getattr(sys, stream).buffer if target is None else target))
        print(f"lab: {image.release}, {accelerator()[1]}", file=sys.stderr, flush=True)
        cleanup.enter_context(_child(programs.command(image), None))
        qemu = cleanup.enter_context(_machine(image, folder, memory, output or share / "output"))
        while qemu.poll() is None and not (share / "status").exists():
            _forward(streams)
            if cancel is not None and cancel.is_set():
                raise LabError(f"{image.release}: the run was cancelled")
            if time.monotonic() > deadline:
                started = (share / "started").exists()
                what = f"{shlex.join(command)} did not end" if started else "the boot did not end"
                raise _failure(image, f"{what} within {timeout:g} s", folder)
            time.sleep(_POLL)
        _forward(streams)
        if not (share / "status").exists():
            raise _failure(image, _why_it_ended(folder), folder)
        return int((share / "status").read_text())


def script(name: str, command: Sequence[str], folder: Path) -> bytes:
    """A shell script that becomes ``command``, every byte of every argument kept."""
    environment = {
        "FSERR_LAB": name,
        "FSERR_LAB_OUTPUT": f"{initramfs.SHARE}/output",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": _PATH,
    }
    exports = " ".join(f"{key}={shlex.quote(value)}" for key, value in environment.items())
    words = " ".join(shlex.quote(word) for word in command)
    change_folder = f"cd {shlex.quote(str(folder))} || exit"
    return os.fsencode(f"export {exports}\n{change_folder}\nexec {words}\n")


def accelerator() -> tuple[list[str], str]:
    """QEMU's options for the processor, and their description for people.

    Some sandboxes show a /dev/kvm without virtualization behind it, which cannot run
    a kernel: the processor flag decides as well.  With several threads TCG breaks
    code patching in guests, seen as int3 Oopses; without five-level page tables it
    boots about a second faster.
    """
    flags = Path("/proc/cpuinfo").read_text()
    if os.access("/dev/kvm", os.R_OK | os.W_OK) and re.search(r"\b(vmx|svm)\b", flags):
        return ["-accel", "kvm", "-cpu", "host"], "KVM"
    return ["-accel", "tcg,thread=single", "-cpu", "max,la57=off"], "TCG (no usable /dev/kvm: slow)"


def sweep() -> None:
    """Remove what machines left behind whose owner was killed; the kernel ended them."""
    for left_over in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = re.match(rf"{_PREFIX}(\d+)-", left_over.name)
        if owner and not Path(f"/proc/{owner[1]}").exists():
            # another machine may be faster, and another user's is not ours to remove
            shutil.rmtree(left_over, ignore_errors=True)


def _fresh_folders(command: Sequence[str], folder: Path) -> list[str]:
    """Of /run and /tmp those that the command does not need from the host."""
    used = [str(folder), *command]
    return [
        top
        for top in ("/run", "/tmp")
        if not any(f"{path}/".startswith(f"{top}/") for path in used)
    ]


@contextmanager
def _machine(
    image: Image, folder: Path, memory: str, output: Path
) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [
        tool("qemu-system-x86_64"),
        *("-machine", "q35", "-smp", "2", "-m", memory),
        *accelerator()[0],
        *("-nodefaults", "-no-reboot", "-display", "none"),
        *("-serial", f"file:{_escaped(folder / 'console')}"),
        *("-kernel", str(image.vmlinuz), "-initrd", str(folder / "initrd")),
        # at the same addresses each time, what is emulated needs not be translated again
        *("-append", "console=ttyS0 quiet panic=-1 mitigations=off norandmaps"),
    ]
    shares = (
        ("root", Path("/"), ",readonly=on"),
        ("share", folder / "share", ""),
        ("output", output.resolve(), ""),
        ("programs", programs.folder(), ""),
    )
    for tag, path, option in shares:
        export = f"local,id={tag},path={_escaped(path)},security_model=none,multidevs=remap{option}"
        arguments += ["-fsdev", export, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    with (folder / "qemu").open("wb") as messages, _child(arguments, messages) as qemu:
        yield qemu


@contextmanager
def _child(arguments: list[str], messages: BinaryIO | None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block, or with us; ``messages`` is its output, or our errors."""
    parent = os.getpid()

    def die_with_parent() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)

    child = None
    try:
        with signals_blocked():
            child = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=messages or subprocess.DEVNULL,
                stderr=messages,
                start_new_session=True,  # Ctrl-C is for us to handle
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )
        yield child
    finally:
        if child is not None:
            child.kill()
            child.wait()


def _escaped(path: Path) -> str:
    """As a value in QEMU's comma-separated options."""
    return str(path).replace(",", ",,")


@contextmanager
def _terminated_as_exception() -> Iterator[None]:
    """SIGTERM unwinds the stack, as SIGINT does; only the main thread may ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _forward(streams: Sequence[tuple[BinaryIO, BinaryIO]]) -> None:
    for source, target in streams:
        if data := source.read():
            target.write(data)
            target.flush()


def _why_it_ended(folder: Path) -> str:
    for line in _read_lines(folder / "console"):
        if match := re.search(rf"{_PANIC}(.*)", line):
            return f"kernel panic: {match[1]}"
        if match := re.search(r"fserr-lab: (.*)", line):
            return f"the boot failed: {match[1]}"
    for line in _read_lines(folder / "qemu"):
        if match := re.match(r"qemu-system-x86_64: (?!warning)(.*)", line):
            return f"QEMU ended: {match[1]}"
    return "the machine shut down before the command ended"


def _failure(image: Image, cause: str, folder: Path) -> LabError:
    """``cause`` with the end of the console, or what follows a panic: registers end it."""
    console = _read_lines(folder / "console")
    end = next((number for number, line in enumerate(console) if _PANIC in line), len(console))
    tail = " | ".join(console[: end + _CONSOLE_LINES][-_CONSOLE_LINES:])
    return LabError(f"{image.release}: {cause}; console: {tail or 'empty'}")


def _read_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    lines = path.read_text(errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]
