"""The real command, ``fserr-bpf run``, as a process: outputs, ends, privileges, refusals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import msgpack
import pytest

from fserr_bpf.errors import BccError, MarkError, OutputError, PrivilegeError, UsageError
from fserr_bpf_compare.faults.scratch import run, scratch
from fserr_bpf_compare.ready import Ready
from tests.live.conftest import (
    ATTACH_SECONDS,
    BY_NAME,
    kernel_version,
    skip,
    wait_until,
    without_states,
)
from tests.live.test_faults import UUID_TEXT, event_bytes, ext4_fsid, ext4_handle

pytestmark = pytest.mark.root

COMMAND = str(Path(sys.executable).with_name("fserr-bpf"))
TRIGGER = BY_NAME["ext4_trigger"]
BAD_INODE = BY_NAME["ext4_bad_inode"]
ARITHMETIC = (
    r"fserr-bpf: (\d+) errors seen = (\d+) delivered \+ (\d+) merged \+ (\d+) dropped"
    r"( \(.*\))?; 0 missed by probes"
)


class Run:
    """``fserr-bpf run`` that is attached; what it says on standard error is in a file."""

    def __init__(self, process: subprocess.Popen[bytes], stderr: Path) -> None:
        self.process = process
        self._stderr = stderr

    def lines(self) -> list[str]:
        """What it has said so far, by complete lines."""
        return self._stderr.read_text().split("\n")[:-1]

    def status(self, key: str) -> str:
        """A field of /proc/PID/status."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{key}:[ \t]*(.*?)[ \t]*$", text, re.MULTILINE)
        assert found is not None
        return found[1]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Stopped, so that what happens meanwhile is found all at once."""
        self.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: self.status("State").startswith("T"), "the process to stop")
        yield
        self.process.send_signal(signal.SIGCONT)

    def end(self, number: signal.Signals) -> tuple[int, bytes]:
        """Exit code and the rest of standard output after a signal."""
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=60)
        return self.process.returncode, output

    def account(self) -> list[int]:
        """Seen, delivered, merged and dropped, of the last line, which has to add up."""
        found = re.fullmatch(ARITHMETIC, self.arithmetic())
        assert found is not None, self.lines()
        seen, *parts = map(int, found.groups()[:4])
        assert seen == sum(parts)
        return [seen, *parts]

    def arithmetic(self) -> str:
        """The one line that accounts for every error."""
        (line,) = (line for line in self.lines() if " errors seen = " in line)
        return line


@contextmanager
def running(
    tmp_path: Path,
    *arguments: str,
    prefix: Sequence[str] = (),
    stdout: int | IO[bytes] = subprocess.PIPE,
) -> Iterator[Run]:
    stderr = tmp_path / "stderr"
    with (
        Ready() as ready,
        stderr.open("wb") as file,
        subprocess.Popen(
            [*prefix, COMMAND, "run", *ready.options, *arguments],
            stdout=stdout,
            stderr=file,
            pass_fds=ready.pass_fds,
        ) as p,
    ):
        started = Run(p, stderr)
        try:
            assert ready.wait(ATTACH_SECONDS), started.lines()
            yield started
        finally:
            p.kill()


def refused(*command: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code and the one line of a command that cannot start."""
    done = subprocess.run(
        [*command],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("fserr-bpf: ")
    assert "; " in line  # a remedy
    return done.returncode, line


def require_exact_pid() -> None:
    if kernel_version() >= (7, 0):
        skip("a kernel worker reports the errors", expected=True)


# what comes out


def test_unprivileged_raw_stream_can_be_decoded_live(
    scratch_space: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    """The one test of this file that the lab runs too: attaching is slow there.

    What the start costs is recorded for the table of `make test-vm`.
    """
    with scratch("ext4") as fs:
        BAD_INODE.prepare(fs)
        path = str(fs.mount_point)
        begin = time.monotonic()
        with (
            running(scratch_space, "--user", "nobody", "--format", "raw", path) as monitor,
            subprocess.Popen(
                [COMMAND, "decode", "--format", "json"],
                stdin=monitor.process.stdout,
                stdout=subprocess.PIPE,
            ) as decoder,
            ExitStack() as cleanup,
        ):
            cleanup.callback(decoder.kill)
            record_testsuite_property("attach_seconds", round(time.monotonic() - begin, 1))
            record_testsuite_property("rss_kib", monitor.status("VmRSS").removesuffix(" kB"))
            assert monitor.process.stdout is not None
            assert decoder.stdout is not None
            monitor.process.stdout.close()  # the decoder has it
            wait_until(lambda: monitor.status("Uid").split() == ["65534"] * 4, "the change of user")
            wait_until(lambda: monitor.status("NoNewPrivs") == "1", "no new privileges")
            for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(monitor.status(key), 16) == 0
            assert monitor.status("Groups") == ""
            caused = BAD_INODE.cause(fs)
            event = json.loads(decoder.stdout.readline())  # live: nobody has stopped yet
            monitor.process.send_signal(signal.SIGTERM)
            assert monitor.process.wait(60) == 0
            assert decoder.stdout.read() == b""
            assert decoder.wait(60) == 0
        assert monitor.account()[1:3] == [1, 0]
        inode = ext4_handle(fs, "victim")
    assert (event["type"], event["error"], event["error_count"]) == ("fs_error", 117, 1)
    assert event["handle"] == {"handle_type": 1, "f_handle": inode.hex()}
    if kernel_version() < (7, 0):
        assert event["pid"] == caused.pid


@pytest.mark.usefixtures("fast_attaching")
@pytest.mark.parametrize(
    ("form", "number"),
    [
        ("text", signal.SIGTERM),
        ("json", signal.SIGINT),
        ("msgpack", signal.SIGHUP),
        ("raw", signal.SIGTERM),
    ],
)
def test_every_format_until_a_signal(
    form: str, number: signal.Signals, scratch_space: Path
) -> None:
    require_exact_pid()
    with scratch("ext4", uuid=UUID_TEXT) as fs:
        BAD_INODE.prepare(fs)
        ino, generation = ext4_handle(fs, "victim")[:4], ext4_handle(fs, "victim")[4:]
        with running(scratch_space, "--format", form, str(fs.mount_point)) as monitor:
            pid = BAD_INODE.cause(fs).pid
            status, output = monitor.end(number)  # what has happened before still comes out
        assert status == 0
        assert monitor.account()[1:3] == [1, 0]
        place = str(fs.mount_point)
        device = fs.device_name
    if form == "raw":
        assert output == event_bytes(ext4_fsid(UUID_TEXT), ino + generation, 117, pid)
        return
    number_of, generation_of = (int.from_bytes(field, "little") for field in (ino, generation))
    if form == "text":
        assert re.fullmatch(
            rf"\d\d:\d\d:\d\d\.\d{{6}} {device} +{place} +EFSCORRUPTED 117 +x1 +"
            rf"ino {number_of} gen {generation_of} +cat\[{pid}\] +\w+:\d+ \S+\n",
            output.decode(),
        )
        return
    if form == "json":
        (event,) = without_states(output)
    else:
        unpacker = msgpack.Unpacker()
        unpacker.feed(output)
        (event,) = (each for each in unpacker if each["type"] != "state")
    handle = ino + generation
    assert event["handle"]["f_handle"] == (handle.hex() if form == "json" else handle)
    assert (event["errno"], event["error_count"], event["pid"]) == ("EFSCORRUPTED", 1, pid)
    assert (event["origin"]["mount_point"], event["origin"]["device"]) == (place, device)
    assert event["origin"]["comm"] == "cat"


# how it ends


@pytest.mark.usefixtures("fast_attaching")
def test_reader_that_leaves_ends_it_with_what_it_missed(scratch_space: Path) -> None:
    with (
        scratch("ext4") as fs,
        running(scratch_space, "--format", "json", str(fs.mount_point)) as monitor,
    ):
        assert monitor.process.stdout is not None
        monitor.process.stdout.readline()  # its state
        with monitor.held():
            for _ in range(2):
                TRIGGER.cause(fs)
            monitor.process.stdout.close()
        assert monitor.process.wait(60) == OutputError.exit_code
        told = (line for line in monitor.lines() if "state of " not in line)
        *_, first, second, account, last = told
    assert all("EFSCORRUPTED 117" in line for line in (first, second))
    assert account == monitor.arithmetic()
    assert "2 output failed" in account
    assert monitor.account()[1:3] == [0, 0]
    assert last.startswith("fserr-bpf: the reader of standard output has gone; ")


@pytest.mark.usefixtures("fast_attaching")
def test_reader_that_leaves_is_noticed_without_an_error(scratch_space: Path) -> None:
    with scratch("ext4") as fs, running(scratch_space, str(fs.mount_point)) as monitor:
        assert monitor.process.stdout is not None
        monitor.process.stdout.close()
        assert monitor.process.wait(60) == OutputError.exit_code
        assert monitor.lines()[-1].startswith("fserr-bpf: the reader of standard output has gone")
        assert monitor.account()[1:3] == [0, 0]


@pytest.fixture
def small_disk(scratch_space: Path) -> Iterator[Path]:
    """A tmpfs with one page of room."""
    disk = scratch_space / "small"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=4096", "tmpfs", str(disk))
    yield disk
    run("umount", str(disk))


@pytest.mark.usefixtures("fast_attaching")
def test_full_disk_holds_whole_records_and_the_rest_is_said(
    scratch_space: Path, small_disk: Path
) -> None:
    require_exact_pid()
    file = small_disk / "events"
    arguments = ("--format", "json", "--output", str(file))
    with (
        scratch("ext4") as fs,
        running(scratch_space, *arguments, str(fs.mount_point)) as monitor,
    ):
        with monitor.held():
            pids = [TRIGGER.cause(fs).pid for _ in range(20)]
        assert monitor.process.wait(60) == OutputError.exit_code
        *_, last = monitor.lines()
    assert last.startswith(f"fserr-bpf: {file}: No space left on device; ")
    assert file.read_bytes().endswith(b"\n")
    written = [event["pid"] for event in without_states(file.read_bytes())]
    said = [int(found[1]) for line in monitor.lines() if (found := re.search(r"sh\[(\d+)\]", line))]
    assert written
    assert said
    assert written + said == pids
    assert monitor.account()[1:3] == [len(written), 0]
    assert f"{len(said)} output failed" in monitor.arithmetic()


# what it costs and what it may do


@pytest.mark.usefixtures("fast_attaching")
def test_with_paths_no_capability_is_kept(scratch_space: Path) -> None:
    with scratch("ext4") as fs, running(scratch_space, str(fs.mount_point)) as monitor:
        wait_until(lambda: monitor.status("NoNewPrivs") == "1", "no new privileges")
        for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(monitor.status(key), 16) == 0
        TRIGGER.cause(fs)
        assert monitor.process.stdout is not None
        assert b"EFSCORRUPTED 117" in monitor.process.stdout.readline()


@pytest.mark.usefixtures("fast_attaching")
def test_idle_means_no_wake_up(scratch_space: Path) -> None:
    """A mount namespace of its own keeps out the mounts of others, which do wake it.

    Errors of others wake it too, so one silent window is enough; a timer would show
    in each.
    """
    prefix = ("unshare", "--mount", "--propagation", "private")

    def switches(monitor: Run) -> int:
        return int(monitor.status("voluntary_ctxt_switches"))

    with (
        scratch("ext4") as fs,
        running(scratch_space, str(fs.mount_point), prefix=prefix) as monitor,
    ):
        wait_until(lambda: monitor.status("State").startswith("S"), "it to sleep")
        windows: list[int] = []
        while 0 not in windows and len(windows) < 5:
            before = switches(monitor)
            time.sleep(2)  # the length of the window, not a synchronisation
            windows.append(switches(monitor) - before)
        assert 0 in windows


# how it refuses


@pytest.mark.parametrize(
    ("arguments", "code", "cause"),
    [
        (["/nonexistent"], MarkError, "/nonexistent: no such file or directory"),
        (["/proc"], MarkError, "/proc: the file system "),
        (["--user", "no-such-user", "/"], UsageError, "no such user: no-such-user"),
        (["--output", "/nonexistent/file", "/"], OutputError, "/nonexistent/file: No such file"),
    ],
    ids=["no-path", "unmarkable", "no-user", "no-output"],
)
def test_refusal_is_one_line(
    arguments: list[str],
    code: type[MarkError | UsageError | OutputError],
    cause: str,
) -> None:
    status, line = refused(COMMAND, "run", *arguments)
    assert line.startswith(f"fserr-bpf: {cause}")
    assert status == code.exit_code


@pytest.mark.parametrize("paths", [["/"], []], ids=["path", "follow"])
def test_without_root_it_says_so(paths: list[str]) -> None:
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    status, line = refused(*nobody, COMMAND, "run", *paths)
    assert re.search("CAP_SYS_ADMIN", line)
    assert status == PrivilegeError.exit_code


@pytest.mark.usefixtures("fast_attaching")
def test_wrong_bcc_is_recognised(tmp_path: Path) -> None:
    """PyPI has an unrelated package of that name."""
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc/__init__.py").touch()
    environment = {"PYTHONPATH": str(tmp_path), "CACHE_DIRECTORY": str(tmp_path / "cache")}
    status, line = refused(COMMAND, "run", "/", environment=environment)
    assert f"{tmp_path}/bcc/__init__.py is not the BPF Compiler Collection" in line
    assert "python3-bpfcc" in line
    assert status == BccError.exit_code


@pytest.mark.usefixtures("fast_attaching")
def test_missing_bcc_is_reported(tmp_path: Path) -> None:
    """A sitecustomize hides it; other modules may be Debian's too."""
    (tmp_path / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "found = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *rest: None if name == 'bcc' else found(name, *rest)\n"
    )
    environment = {"PYTHONPATH": str(tmp_path), "CACHE_DIRECTORY": str(tmp_path / "cache")}
    status, line = refused(COMMAND, "run", "/", environment=environment)
    assert "No module named 'bcc'" in line
    assert "python3-bpfcc" in line
    assert status == BccError.exit_code
