"""The clients of ``tests/clients``: built, and started natively or under ``fserr-bpf exec``."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from fserr_bpf.closing import Closing
from fserr_bpf.exec.fork import ARMING

SOURCES = Path(__file__).with_name("clients")
COMMAND = str(Path(sys.executable).with_name("fserr-bpf"))
COMPILER = shutil.which("cc")
"""None where tests that need it have to be skipped."""
RUST_COMPILER = shutil.which("rustc") or shutil.which("rustc", path=Path.home() / ".cargo/bin")
GO = shutil.which("go")
_C_OPTIONS = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread")


def compile_c(directory: Path, name: str, *, static: bool = False) -> Path:
    """``tests/clients/NAME.c``, made in ``directory``."""
    program = directory / (f"{name}-static" if static else name)
    command = [str(COMPILER), *_C_OPTIONS, *(["-static"] if static else [])]
    subprocess.run([*command, "-o", str(program), str(SOURCES / f"{name}.c")], check=True)
    return program


def compile_rust(directory: Path) -> Path:
    """``tests/clients/reader.rs``; needs RUST_COMPILER."""
    program = directory / "reader-rust"
    options = ("--edition", "2021", "-O", "-D", "warnings")
    source = SOURCES / "reader.rs"
    subprocess.run([str(RUST_COMPILER), *options, "-o", program, source], check=True)
    return program


def compile_go(directory: Path) -> Path:
    """``tests/clients/reader.go``, a static program; needs GO."""
    program = directory / "reader-go"
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOCACHE": str(directory / "go-cache"),
        "GO111MODULE": "off",
    }
    command = [str(GO), "build", "-o", str(program), str(SOURCES / "reader.go")]
    subprocess.run(command, env=environment, check=True)
    return program


def under_exec(*client: str | Path, options: Sequence[str] = ()) -> list[str]:
    """The command line that runs ``client`` under ``fserr-bpf exec``."""
    return [COMMAND, "exec", *options, "--", *map(str, client)]


def told(errors: str) -> str:
    """Lines on standard error without the one that comes where a start takes long."""
    return errors.replace(f"fserr-bpf: {ARMING}\n", "")


class Running(Closing):
    """A client as a process.

    Its standard error goes to a file in ``directory``, its output too, or to a ``terminal`` of
    its own: stdio then writes line by line.
    """

    def __init__(
        self,
        directory: Path,
        command: Sequence[str | Path],
        *,
        terminal: bool = False,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._output = directory / "client.out"
        self._errors = directory / "client.err"
        self._master, self._seen = -1, b""
        with ExitStack() as files:
            if terminal:
                self._master, out = pty.openpty()
                files.callback(os.close, out)
                os.set_blocking(self._master, False)
            else:
                out = files.enter_context(self._output.open("wb")).fileno()
            err = files.enter_context(self._errors.open("wb"))
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=err, env=environment
            )

    def close(self) -> None:
        """Kill it unless it has ended."""
        self.process.kill()
        self.process.communicate()
        if self._master >= 0:
            os.close(self._master)

    @property
    def pid(self) -> int:
        """That of the started command, which is the client's."""
        return self.process.pid

    def lines(self) -> list[str]:
        """Its complete lines on standard output so far."""
        if self._master < 0:
            return self._output.read_text().split("\n")[:-1]
        with suppress(OSError):  # EAGAIN, or EIO when nobody has it open
            while chunk := os.read(self._master, 4096):
                self._seen += chunk
        return self._seen.decode().split("\r\n")[:-1]

    def errors(self) -> str:
        """What is on its standard error so far; that a start takes long does not matter."""
        return told(self._errors.read_text())

    def reads(self, program: Path) -> bool:
        """Whether it has become ``program`` and waits in read(2)."""
        assert self.process.poll() is None, (self.process.returncode, self.errors())
        try:
            running = Path(f"/proc/{self.pid}/exe").readlink()
            call = Path(f"/proc/{self.pid}/syscall").read_text()
        except OSError:  # between two programs
            return False
        return running == program and call.startswith("0 ")

    def says(self, line: str, times: int = 1) -> bool:
        """Whether it has said ``line`` so often.

        Raises AssertionError if it has ended without.
        """
        ended = self.process.poll() is not None
        if self.lines().count(line) >= times:
            return True
        assert not ended, (self.process.returncode, self.lines(), self.errors())
        return False

    def go_on(self) -> None:
        """Answer a client that has said "waiting"."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def end(self, timeout: float = 60.0) -> int:
        """Its exit status, minus the number of a signal."""
        return self.process.wait(timeout)


_PIDS = re.compile(r"(?<=\bpid=)\d+|(?<=^self )\d+ \d+")


def with_names(lines: Sequence[str], names: Mapping[int, str]) -> list[str]:
    """``lines`` with pids replaced by ``names``, or "other": no two runs have them in common."""

    def named(found: re.Match[str]) -> str:
        return " ".join(
            word if word == "0" else names.get(int(word), "other") for word in found[0].split()
        )

    return [_PIDS.sub(named, line) for line in lines]


def numbered(lines: Sequence[str]) -> list[str]:
    """``lines`` with pids replaced by "#0", "#1"... in the order of their appearance."""
    pids = [int(pid) for line in lines for found in _PIDS.findall(line) for pid in found.split()]
    return with_names(lines, {pid: f"#{at}" for at, pid in enumerate(dict.fromkeys(pids))})


def added_up(lines: Sequence[str]) -> list[str]:
    """``lines`` with adjacent events of one process made one, as if merged before a read.

    Whether they are depends on how fast the client reads. "read LENGTH" lines are left out.
    """
    result: list[str] = []
    counts: list[int] = []
    for line in lines:
        if line.startswith("read "):
            continue
        found = re.fullmatch(r"(fs_error fsid=\S+ handle=\S+ error=\d+ count=)(\d+)( pid.*)", line)
        if found is None:
            result.append(line)
            counts.append(0)
            continue
        plain = f"{found[1]}*{found[3]}"
        if result and counts[-1] and _process_of(result[-1]) == _process_of(plain):
            counts[-1] += int(found[2])
        else:
            result.append(plain)
            counts.append(int(found[2]))
    return [
        line.replace("*", str(count)) if count else line
        for line, count in zip(result, counts, strict=True)
    ]


def _process_of(line: str) -> list[str]:
    return re.findall(r"fsid=\S+| pid=\S+", line)
