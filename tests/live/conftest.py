"""What the tests on a running kernel share."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import pytest

DEADLINE_SECONDS = 10.0


def skip(reason: str, *, expected: bool) -> NoReturn:
    """Skip the test; with FSERR_STRICT=1 an unexpected skip is a failure.

    ``expected`` says that this kernel or machine cannot do better by design.
    """
    if os.environ.get("FSERR_STRICT") == "1" and not expected:
        pytest.fail(f"skipped under FSERR_STRICT: {reason}")
    pytest.skip(reason)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll ``condition`` with growing steps; the test fails after the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    step = 0.001
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {DEADLINE_SECONDS:.0f} s in vain for {what}")
        time.sleep(step)
        step = min(step * 2, 0.1)


def kernel_version() -> tuple[int, int]:
    """Version of the running kernel as (major, minor)."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    assert found is not None
    return int(found[1]), int(found[2])


class KernelLog:
    """The kernel's messages from now on, from ``/dev/kmsg``."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._fd, 0, os.SEEK_END)
        self._messages: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def messages(self) -> list[str]:
        """All messages so far; a line break inside one stays ``\\x0a`` as in kmsg."""
        try:
            while True:
                record = os.read(self._fd, 8192).decode(errors="replace")
                self._messages.append(record.partition(";")[2].partition("\n")[0])
        except BlockingIOError:
            return self._messages

    def wait_for(self, pattern: str) -> None:
        """Wait for a message that matches the regular expression."""
        wait_until(
            lambda: any(re.search(pattern, message) for message in self.messages()),
            f"the kernel message {pattern!r}",
        )


def loop_devices_below(directory: Path) -> list[str]:
    """Names of the loop devices whose backing file is, or was, in ``directory``."""
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = file.read_text()
        except OSError:  # detached by someone else between the listing and the read
            continue
        if backing.startswith(f"{directory}/"):
            found.append(file.parts[3])
    return found


def mount_points_below(directory: Path) -> list[str]:
    """Mount points in ``directory``, as mountinfo spells them."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        points = [line.split(" ")[4] for line in table]
    return [point for point in points if point.startswith(f"{directory}/")]


@pytest.fixture(autouse=True)
def require_root(request: pytest.FixtureRequest) -> None:
    """Tests marked ``root`` are skipped for everybody else."""
    if request.node.get_closest_marker("root") is not None and os.geteuid() != 0:
        skip("needs root", expected=False)


@pytest.fixture
def scratch_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory for scratch file systems; nothing may be left of them at the end."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert mount_points_below(tmp_path) == []
    assert loop_devices_below(tmp_path) == []
    assert list(tmp_path.glob("fserr-*")) == []
