"""Where ``fserr-bpf run`` writes to: packets, a FIFO, a file that is rotated, a stalled reader."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fserr_bpf.codec.fanotify import decode
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf_compare.faults.scratch import scratch
from tests.live.conftest import BY_NAME, child_running, wait_until
from tests.live.test_run_cli import COMMAND, require_exact_pid, running

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("fast_attaching")]

TRIGGER = BY_NAME["ext4_trigger"]


def whole_events(data: bytes) -> list[FsErrorEvent]:
    """The events that it is made of; DecodeError if it is not."""
    at = 0
    events = []
    while at < len(data):
        event, at = decode(data, at)
        assert isinstance(event, FsErrorEvent)
        events.append(event)
    return events


def pids_in(text: str) -> list[int]:
    """Who caused the events of lines for people."""
    return [int(pid) for pid in re.findall(r" EFSCORRUPTED 117 .* sh\[(\d+)\]", text)]


def ignores_hangup(pid: int) -> bool:
    """Whether the process has got so far; SIGHUP is the lowest bit."""
    found = re.search(r"^SigIgn:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) & 1)


def test_a_late_reader_of_the_raw_pipe_gets_whole_events(scratch_space: Path) -> None:
    """As of a group, whatever waits: more here than a pipe has room for."""
    errors = 60
    with (
        scratch("ext4") as fs,
        running(scratch_space, "--stream", "native", "--format", "raw", str(fs.mount_point)) as m,
    ):
        for _ in range(errors):
            TRIGGER.cause(fs)
        assert m.process.stdout is not None
        pipe = m.process.stdout.fileno()
        events: list[FsErrorEvent] = []
        while sum(event.error_count for event in events) < errors:
            data = os.read(pipe, 8192)
            assert data
            events += whole_events(data)
        status, rest = m.end(signal.SIGTERM)
    assert (status, rest) == (0, b"")
    # an event may stand for several errors, also where it was the kernel's group that merged
    assert m.account()[1:3] == [len(events), errors - len(events)]


def test_what_waits_at_the_end_is_written_on_standard_error(scratch_space: Path) -> None:
    """Its reader is there and reads nothing; merges count as such in what was delivered only."""
    require_exact_pid()
    errors = 40
    with (
        scratch("ext4") as fs,
        running(scratch_space, "--format", "raw", str(fs.mount_point)) as monitor,
    ):
        pids = [TRIGGER.cause(fs).pid for _ in range(errors)]
        assert monitor.process.stdout is not None
        monitor.process.send_signal(signal.SIGTERM)
        assert monitor.process.wait(60) == 0
        delivered = [event.pid for event in whole_events(monitor.process.stdout.read())]
    assert len(delivered) < errors
    said = pids_in("\n".join(monitor.lines()))
    assert delivered + said == pids
    assert monitor.account()[1:3] == [len(delivered), 0]
    assert f"{len(said)} output failed" in monitor.arithmetic()


def test_fifo_without_a_reader_is_waited_for(scratch_space: Path) -> None:
    fifo = scratch_space / "events"
    os.mkfifo(fifo)
    command = [COMMAND, "run", "--output", str(fifo), "/"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        assert waiting.stderr.readline() == f"fserr-bpf: waiting for a reader of {fifo}\n"
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(60) == 0
        assert waiting.stderr.read() == ""
    seen: list[bytes] = []
    reader = threading.Thread(target=lambda: seen.append(fifo.read_bytes()))
    with scratch("ext4") as fs:
        reader.start()
        with running(scratch_space, "--output", str(fifo), str(fs.mount_point)) as monitor:
            TRIGGER.cause(fs)
            monitor.end(signal.SIGTERM)
            reader.join()
    (line,) = seen[0].decode().splitlines()
    assert " EFSCORRUPTED 117 " in line


def test_hangup_has_a_renamed_file_followed(scratch_space: Path) -> None:
    require_exact_pid()
    log, old = scratch_space / "log", scratch_space / "log.1"
    with (
        scratch("ext4") as fs,
        running(scratch_space, "--detail", "--output", str(log), str(fs.mount_point)) as monitor,
    ):
        helper = child_running(monitor.process.pid, "fserr_bpf.helper.worker")
        wait_until(lambda: ignores_hangup(helper), "the helper to begin")
        first = TRIGGER.cause(fs).pid
        wait_until(lambda: log.stat().st_size > 0, "the first event")
        log.rename(old)
        for _ in range(2):  # as often as it is rotated: a second signal kills nothing
            os.kill(helper, signal.SIGHUP)  # a service manager may send it to all
            monitor.process.send_signal(signal.SIGHUP)
            wait_until(log.exists, "the file to be there again")
        second = TRIGGER.cause(fs).pid
        wait_until(lambda: log.stat().st_size > 0, "the second event")
        log.rename(scratch_space / "log.2")
        log.mkdir()
        monitor.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "cannot be opened again" in str(monitor.lines()), "the message")
        assert child_running(monitor.process.pid, "fserr_bpf.helper.worker") == helper
        assert monitor.end(signal.SIGTERM)[0] == 0
    assert monitor.account()[1:3] == [2, 0]
    assert [pids_in((scratch_space / name).read_text()) for name in ("log.1", "log.2")] == [
        [first],
        [second],
    ]


_WITH_TERMINAL = """
import os, pty, sys
pid, terminal = pty.fork()
if not pid:
    os.execv(sys.argv[1], sys.argv[1:])
text = b""
while b"watching" not in text:
    text += os.read(terminal, 1000)
os.close(terminal)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_hangup_of_the_terminal_ends_it(scratch_space: Path) -> None:
    """Nobody would be left to stop it."""
    log = scratch_space / "log"
    done = subprocess.run(
        [sys.executable, "-c", _WITH_TERMINAL, COMMAND, "run", "--output", str(log), "/"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "0\n")
