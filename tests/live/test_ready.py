"""When the ready signal comes: errors are seen from then on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from fserr_bpf.errors import MarkError
from fserr_bpf_compare.faults.scratch import scratch
from fserr_bpf_compare.ready import Ready
from tests.live.conftest import ATTACH_SECONDS, wait_until, without_states, write_trigger
from tests.live.test_run_cli import COMMAND
from tests.live.watching_files import failing, new_file, write

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space", "fast_attaching")]


def started(words: Sequence[str], ready: Ready, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [COMMAND, *words, *ready.options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=ready.pass_fds,
        env={**os.environ, **environment},
    )


def holds(pid: int, pipe: str) -> bool:
    """Whether a process or one of its children has a descriptor of ``pipe``."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    folders = [Path(f"/proc/{number}/fd") for number in (str(pid), *children)]
    try:
        return any(os.readlink(fd) == pipe for folder in folders for fd in folder.iterdir())
    except FileNotFoundError:  # closed while we looked
        return True


def test_an_error_at_the_signal_is_seen(scratch_space: Path) -> None:
    """By descriptor and by socket; nobody has the descriptor any more then."""
    with (
        scratch("ext4") as fs,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        Ready() as ready,
    ):
        path = scratch_space / "notify"
        manager.bind(str(path))
        manager.settimeout(ATTACH_SECONDS)
        pipe = os.readlink(f"/proc/self/fd/{ready.pass_fds[0]}")
        words = ("run", "--format", "json", str(fs.mount_point))
        with started(words, ready, NOTIFY_SOCKET=str(path)) as monitor:
            try:
                assert ready.wait(ATTACH_SECONDS)
                write_trigger(fs.device_name, 1)
                assert manager.recv(100) == b"READY=1"
                wait_until(lambda: not holds(monitor.pid, pipe), "its end of the pipe")
                monitor.send_signal(signal.SIGTERM)
                assert manager.recv(100) == b"STOPPING=1"
                output, _ = monitor.communicate(timeout=ATTACH_SECONDS)
            finally:
                monitor.kill()
    (event,) = without_states(output)
    assert event["error"] == 117
    assert monitor.returncode == 0


def test_no_signal_without_a_mark() -> None:
    with Ready() as ready, started(("run", "/nonexistent"), ready) as monitor:
        assert not ready.wait(ATTACH_SECONDS)
        monitor.communicate()
    assert monitor.returncode == MarkError.exit_code


def test_watch_files_and_its_hooks(scratch_space: Path) -> None:
    """The runner of hooks is started before: it has neither pipe nor socket."""
    with scratch("ext4") as fs, Ready() as ready:
        pipe = os.readlink(f"/proc/self/fd/{ready.pass_fds[0]}")
        file = new_file(fs.mount_point / "file")
        hooked = scratch_space / "hooked"
        hook = f'echo "$NOTIFY_SOCKET:$FSERR_PATH" >> {hooked}'
        words = ("watch-files", "--glob", str(file), "--on-error", hook)
        with started(words, ready, NOTIFY_SOCKET="@nobody-listens") as watching:
            try:
                assert ready.wait(ATTACH_SECONDS)
                wait_until(lambda: not holds(watching.pid, pipe), "its end of the pipe")
                with failing(fs, file):
                    write(file)
                watching.send_signal(signal.SIGTERM)
                output, _ = watching.communicate(timeout=ATTACH_SECONDS)
            finally:
                watching.kill()
    assert str(file).encode() in output
    assert set(hooked.read_text().splitlines()) == {f":{file}"}
    assert watching.returncode == 0
