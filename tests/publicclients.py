"""Public fanotify programs, unmodified: what they say natively and under ``fserr-bpf exec``.

``python -m tests.publicclients`` (``make test-clients``) runs all that are installed, and with
``--ltp DIRECTORY`` the fanotify tests of the Linux Test Project that were built there; it prints a
table, and what differs.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tests.exec_clients import Running, under_exec
from tests.patience import Deadline

Prefix = Callable[[Sequence[str | Path]], list[str]]
"""The command line that runs a client."""
Said = list[str]
"""What a client says that must be the same each time, line by line."""

_SECONDS = 60.0
_LTP_SECONDS = 600.0
_MOST_LINES = 20
_WAITING = ("0 ", "7 ", "270 ", "271 ", "232 ", "281 ")  # read, polls, epolls: x86-64
_SUMMARY = re.compile(r"^(passed|failed|broken|skipped)\s+(\d+)", re.M)


class Client(NamedTuple):
    """``program`` is found in PATH; ``play`` runs it in an empty directory on its own mount."""

    name: str
    program: str
    play: Callable[[Path, Prefix], Said]


class Played(NamedTuple):
    """What was said, and the seconds that it took."""

    said: Said
    seconds: float


def natively(command: Sequence[str | Path]) -> list[str]:
    """As it is."""
    return [str(word) for word in command]


def taken_over(command: Sequence[str | Path]) -> list[str]:
    """Under ``fserr-bpf exec``, as it is by default."""
    return under_exec(*command)


@contextmanager
def empty_mount() -> Iterator[Path]:
    """A directory on a file system that nobody else uses."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        subprocess.run(["mount", "-t", "tmpfs", "none", name], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", "-l", name], check=True)


def played(client: Client, prefix: Prefix) -> Played:
    """One run."""
    with empty_mount() as place:
        begin = time.monotonic()
        return Played(client.play(place, prefix), time.monotonic() - begin)


# watchers: what they have told of some work, in any order and merged in any way


@contextmanager
def watching(command: list[str], place: Path) -> Iterator[Running]:
    """The watcher, once it waits for events."""
    with tempfile.TemporaryDirectory() as name:
        shell = ["sh", "-c", 'cd "$0" && exec "$@"', str(place), *command]
        with Running(Path(name), shell, terminal=True) as client:
            _until(lambda: _waits_in_group(client), f"{command[0]} to wait")
            yield client


def _waits_in_group(client: Running) -> bool:
    """It has marked something and waits."""
    assert client.process.poll() is None, client.errors()
    task = Path(f"/proc/{client.pid}")
    try:
        marked = any(
            info.read_text().count("\nfanotify ") > 1  # flags, and marks
            for info in (task / "fdinfo").iterdir()
        )
        return marked and (task / "syscall").read_text().startswith(_WAITING)
    except OSError:  # a descriptor that is closed meanwhile
        return False


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = Deadline(_SECONDS)
    while not condition():
        if deadline.has_expired():
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.01)


def _make(place: Path) -> list[Path]:
    """Files that are made and written."""
    files = [place / f"file{number}" for number in range(200)]
    for file in files:
        file.write_text("text")
    return files


def fsnotifywait(place: Path, prefix: Prefix) -> Said:
    """Paths with the words for what happened to them."""
    words = ["fsnotifywait", "--fanotify", "-q", "-m", "-r", "--format", "%f %e", str(place)]
    with watching(prefix(words), place) as client:
        for file in _make(place):
            file.rename(moved := file.with_suffix(".moved"))
            moved.unlink()
        (place / "last").write_text("")
        _until(lambda: any(line.startswith("last ") for line in client.lines()), "the last event")
        # it looks the directory up, and may be late for that
        pairs = [line.replace(" (deleted)", "").partition(" ") for line in client.lines()]
    found = {(name, event) for name, _, events in pairs for event in events.split(",")}
    return sorted(f"{name} {event}" for name, event in found if name != "last")


def fatrace(place: Path, prefix: Prefix) -> Said:
    """Paths with the letters for what happened to them."""
    with watching(prefix(["fatrace", "--current-mount"]), place) as client:
        _make(place)
        (place / "last").write_text("")
        _until(lambda: any(f"{place}/last" in line for line in client.lines()), "the last event")
        lines = [re.search(rf": (\S+) +{place}/(file\d+)", line) for line in client.lines()]
    return sorted({f"{line[2]} {letter}" for line in lines if line for letter in line[1]})


# programs that judge themselves


def stress_ng(place: Path, prefix: Prefix) -> Said:
    """Its verdict."""
    words = ["stress-ng", "--fanotify", "1", "--fanotify-ops", "2000", "--temp-path", str(place)]
    done = subprocess.run(
        prefix(words), capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    verdict = re.findall(r"(passed|failed|skipped): (\d+)", done.stdout + done.stderr)
    return [f"status {done.returncode}", *(f"{word} {number}" for word, number in verdict)]


CLIENTS = (
    Client("inotify-tools: fsnotifywait --fanotify", "fsnotifywait", fsnotifywait),
    Client("fatrace", "fatrace", fatrace),
    Client("stress-ng --fanotify", "stress-ng", stress_ng),
)


def ltp_clients(built: Path) -> list[Client]:
    """Each fanotify test of the Linux Test Project that was built below a directory."""
    folder = built / "testcases/kernel/syscalls/fanotify"
    programs = sorted(p for p in folder.glob("fanotify[0-9][0-9]") if os.access(p, os.X_OK))
    return [Client(f"LTP {p.name}", str(p), _ltp_test(p)) for p in programs]


def _ltp_test(program: Path) -> Callable[[Path, Prefix], Said]:
    def play(_place: Path, prefix: Prefix) -> Said:
        # its helper programs are beside it; its file systems are on loop devices
        path = f"{program.parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "LTP_TIMEOUT_MUL": "10"}
        done = subprocess.run(
            prefix([program]),
            capture_output=True,
            text=True,
            timeout=_LTP_SECONDS,
            check=False,
            env=environment,
            cwd=program.parent,
        )
        counts = _SUMMARY.findall(done.stdout + done.stderr)
        verdict = [f"{number} {word}" for word, number in counts if int(number)]
        return [f"status {done.returncode}", *verdict]

    return play


def shown(played: Played) -> str:
    """What was said, for a column: itself if it is short."""
    words = ", ".join(played.said)
    return words if len(words) <= 50 else f"{len(played.said)} lines"


def main() -> int:
    """Run all, print the table; 1 if anything differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ltp", type=Path, metavar="DIRECTORY")
    arguments = parser.parse_args()
    different = 0
    print(f"{'client':40} {'native':50} {'exec':50} seconds")
    for client in (*CLIENTS, *(ltp_clients(arguments.ltp) if arguments.ltp else ())):
        if shutil.which(client.program) is None:
            print(f"{client.name:40} not installed")
            continue
        one, other = played(client, natively), played(client, taken_over)
        columns = f"{client.name:40} {shown(one):50} {shown(other):50}"
        print(f"{columns} {one.seconds:.1f} {other.seconds:.1f}", flush=True)
        if one.said != other.said:
            different += 1
            told = difflib.unified_diff(one.said, other.said, "native", "exec", "", "", 0, "")
            print("\n".join(f"    {line}" for line in islice(told, _MOST_LINES)))
    print(f"{different} clients differ")
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
