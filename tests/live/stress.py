"""A long run of hostile clients against one ``fserr-bpf exec``, with kills of every process.

    python -m tests.live.stress SECONDS SEED

Starts exec again and again; under each there are a reader that counts the errors of a file system
and attempts of ``hostile.py``. Meanwhile workers and guardians are killed, and at the end of each
round the supervisor or all clients. Prints what was done; ends with 1 at the first thing that is
not as it should be: a group that is to live and does not get an error, a process, descriptor
or mount that is left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from fserr_bpf.exec.workers import NAME
from fserr_bpf_compare.faults.scratch import Scratch, scratch
from tests.live.attacker import FITHAW

TOKEN = "FSERR_TEST_TOKEN"
COMMAND = str(Path(sys.executable).with_name("fserr-bpf"))
HERE = Path(__file__).parent
ATTEMPTS = (
    *("own_proc:root", "own_proc:nobody", "own_proc:user", "own_proc:mount", "own_proc:pid"),
    *("over_proc:root", "withheld_memory:root", "withheld_memory:nobody", "withheld_memory:user"),
    *("silent_server:root", "silent_server:nobody", "silent_server:user", "silent_server:pid"),
    *("many_blocked:nobody", "flush_without_right:nobody", "killed_calls:root"),
    *("killed_calls:nobody", "threads_in_calls:root", "stopped_caller:nobody", "frozen:root"),
)
PATIENCE = 40.0


class Wrong(Exception):
    """What is not as it should be."""


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Raises Wrong after a while."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise Wrong(f"waited in vain for {what}")
        time.sleep(0.01)


def with_token(token: str) -> dict[int, str]:
    """The processes of a round, each with its name."""
    wanted = f"{TOKEN}={token}".encode()
    found = {}
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in environ.read_bytes().split(b"\0"):
                found[int(environ.parts[2])] = (environ.parent / "comm").read_text().strip()
    return found


def parent_of(pid: int) -> int:
    """0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def helpers(token: str) -> tuple[int, set[int], set[int]]:
    """Supervisor, guardians, workers."""
    found = {p for p, n in with_token(token).items() if n in {"fserr-bpf", NAME}}
    names = with_token(token)
    workers = {p for p in found if names.get(p) == NAME}
    others = found - workers
    (supervisor,) = {parent_of(p) for p in workers} & others or {0}
    return supervisor, others - {supervisor}, workers


class Round:
    """One exec: a shell with a reader and an attacker."""

    def __init__(
        self, fs: Scratch, directory: Path, dice: random.Random, options: Sequence[str]
    ) -> None:
        self.token, self.dice, self.fs = str(uuid4()), dice, fs
        self.out = directory / f"out-{self.token}"
        trigger = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
        place = directory / f"place-{self.token}"
        place.mkdir(mode=0o755)
        words = dice.sample(ATTEMPTS, 4)
        script = (
            f"{sys.executable} {HERE}/stress_reader.py {fs.mount_point} & "
            f"{sys.executable} {HERE}/hostile.py {fs.mount_point} {trigger} {place} "
            f"{' '.join(words)} & wait"
        )
        environment = {**os.environ, TOKEN: self.token, "PYTHONPATH": str(HERE.parents[1])}
        command = ["unshare", "--mount", COMMAND, "exec", *options, "--", "sh", "-c", script]
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)

    def said(self) -> str:
        """All that was printed."""
        return self.out.read_text(errors="replace")

    def heard(self) -> int:
        """How many errors the reader has counted; a line may not be whole yet."""
        numbers = re.findall(r"^heard (\d+)\n", self.said(), re.MULTILINE)
        return int(numbers[-1]) if numbers else -1

    def begins(self) -> None:
        """Wait until the reader's group is marked."""
        wait_until(lambda: self.heard() >= 0, f"the reader: {self.said()}")

    def lives(self) -> None:
        """The reader's group gets an error."""
        before = self.heard()
        Path(f"/sys/fs/ext4/{self.fs.device_name}/trigger_fs_error").write_text("x")
        wait_until(
            lambda: self.heard() > before,
            f"an error for the reader: {self.said()[-600:]}",
        )

    def kill_somebody(self, kills: Counter[str]) -> None:
        """Somebody whose end others must survive."""
        try:
            supervisor, guardians, workers = helpers(self.token)
        except ValueError:
            return
        victims = {"guardian": guardians, "worker": workers}
        kind = self.dice.choice(sorted(victims))
        if victims[kind] and supervisor:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.dice.choice(sorted(victims[kind])), signal.SIGKILL)
                kills[kind] += 1

    def end(self, kills: Counter[str]) -> None:
        """Kill the supervisor or all clients; nothing may be left."""
        with contextlib.suppress(ValueError):
            supervisor, _, _ = helpers(self.token)
            if supervisor and self.dice.random() < 0.5:
                os.kill(supervisor, signal.SIGKILL)
                kills["supervisor"] += 1
                wait_until(lambda: "died" in self.said(), "word of the end")
                wait_until(
                    lambda: NAME not in with_token(self.token).values(), "the workers to end"
                )
        self.process.kill()
        kills["clients"] += 1
        self.process.wait()
        wait_until(self.gone, "all to end")

    def gone(self) -> bool:
        """Kill what the shell has started; whether nothing is left."""
        left = with_token(self.token)
        for pid, name in left.items():
            if name not in {"fserr-bpf", NAME}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return not left


def left() -> tuple[int, int]:
    """Mounts of this namespace, and our own descriptors."""
    return len(Path("/proc/self/mountinfo").read_text().splitlines()), len(
        os.listdir("/proc/self/fd")
    )


def thaw(place: Path) -> None:
    """A client that was killed while it had the file system frozen leaves it so."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, FITHAW, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:  # which says that it is not frozen
            raise
    finally:
        os.close(descriptor)


def main(seconds: float, seed: int) -> None:
    """Rounds until the time is over."""
    dice, kills, rounds = random.Random(seed), Counter[str](), 0
    with TemporaryDirectory() as name, scratch("ext4") as fs:
        directory = Path(name)
        for path in (directory, fs.mount_point, fs.mount_point.parent):
            path.chmod(0o755)
        before, end = left(), time.monotonic() + seconds
        while time.monotonic() < end or not rounds:
            options = ["--exact"] if dice.random() < 0.3 else []
            one = Round(fs, directory, dice, options)
            one.begins()
            for _ in range(6):
                one.kill_somebody(kills)
                one.lives()
            one.end(kills)
            thaw(fs.mount_point)
            rounds += 1
            if "failed: no event" in one.said():
                raise Wrong(one.said())
        wait_until(lambda: left() == before, f"mounts and descriptors: {before}, {left()}")
    print(f"{rounds} rounds; killed: {dict(kills)}")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
