"""A client under ``fserr-bpf exec`` as a process: pids, signals, ends, what is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from fserr_bpf_compare.faults.scratch import Scratch, scratch
from tests.exec_clients import COMPILER, Running, compile_c, under_exec
from tests.live.conftest import require_mark, wait_until, write_trigger
from tests.live.exec_scenarios import GROUP, NONBLOCK

pytestmark = [
    pytest.mark.root,
    pytest.mark.usefixtures("file_systems", "scratch_space"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)"),
]

TOKEN = "FSERR_TEST_TOKEN"
BOTH = pytest.mark.parametrize("options", [(), ("--exact",)], ids=["pipe", "exact"])


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client in C."""
    return compile_c(tmp_path_factory.mktemp("reader"), "reader")


@pytest.fixture
def fs(scratch_space: Path) -> Iterator[Scratch]:
    """An ext4 file system that only this test uses."""
    with scratch("ext4") as fs:
        yield fs


class Taken(Running):
    """A client under exec, and the processes that work for it."""

    def __init__(self, directory: Path, *client: str | Path, options: tuple[str, ...] = ()) -> None:
        self.token = str(uuid4())
        super().__init__(
            directory,
            under_exec(*client, options=options),
            environment={**os.environ, TOKEN: self.token},
        )

    def helpers(self) -> set[int]:
        """The processes that were started with it, other than itself."""
        wanted = f"{TOKEN}={self.token}".encode()
        found = set()
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if wanted in environ.read_bytes().split(b"\0"):
                    found.add(int(environ.parts[2]))
            except OSError:  # gone meanwhile
                continue
        return found - {self.pid}

    def supervisor(self) -> int:
        """The helper that is a child of one guardian and has made the other, and workers."""
        parents = {pid: parent_of(pid) for pid in self.helpers()}
        (supervisor,) = {pid for pid in parents.values() if parents.get(pid) in parents}
        return supervisor


def parent_of(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


@contextmanager
def taken(
    directory: Path, *client: str | Path, options: tuple[str, ...] = (), says: str = "ready"
) -> Iterator[Taken]:
    """The client once it ``says`` that it is ready."""
    with Taken(directory, *client, options=options) as running:
        wait_until(lambda: running.says(says), f"the client to say {says!r}")
        yield running


def mark(fs: Scratch) -> str:
    return f"mark:0x101:0x8000:{fs.mount_point}"


def trigger(fs: Scratch, times: int = 1) -> str:
    return f"cause:{times}:/sys/fs/ext4/{fs.device_name}/trigger_fs_error"


def counts(client: Running) -> list[int]:
    """The counts of the errors that it has told."""
    return [int(found) for found in re.findall(r"count=(\d+)", "\n".join(client.lines()))]


def fuse_mounts() -> set[str]:
    """The lines of mountinfo about FUSE, which the exact descriptor is made of."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line for line in lines if " - fuse" in line}


def state_of(pid: int) -> str:
    """The letter of /proc/PID/stat."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# it is the process that was started


def test_process_is_the_one_that_was_started(tmp_path: Path) -> None:
    shell = "echo $$ $PPID; cut -d' ' -f5-8 /proc/$$/stat"
    with Running(tmp_path, ["sh", "-c", shell]) as plain:
        assert plain.end() == 0
        native = plain.lines()
    with Running(tmp_path, under_exec("sh", "-c", shell)) as client:
        assert client.end() == 0
        lines = client.lines()
    assert native[0] == f"{plain.pid} {os.getpid()}"
    assert lines[0] == f"{client.pid} {os.getpid()}"
    assert lines[1] == native[1]


def test_surroundings_are_those_of_the_caller(tmp_path: Path) -> None:
    """Nothing of fserr-bpf is inherited, ignored, blocked, limited or set."""
    fields = "Sig(Blk|Ign|Cgt)|NoNewPrivs|Speculation|Cap|Groups|Uid|Gid"
    shell = (
        f"ls /proc/self/fd; grep -E '^({fields})' /proc/self/status; ulimit -a; env | sort; "
        "umask; pwd; nice; cat /proc/self/oom_score_adj /proc/self/cgroup; cat /proc/$$/comm"
    )
    with Running(tmp_path, ["sh", "-c", shell]) as plain:
        assert plain.end() == 0
        native = plain.lines()
    with Running(tmp_path, under_exec("sh", "-c", shell)) as client:
        assert client.end() == 0
        assert client.lines() == native


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors_stay_closed(
    tmp_path: Path, fs: Scratch, reader: Path, closed: str
) -> None:
    """And what has their numbers instead is not taken for them."""
    words = (GROUP, mark(fs), trigger(fs, 2), "errors:2", "exit:6")
    shell = f'"$@" {closed}'
    with Running(tmp_path, ["sh", "-c", shell, "sh", *under_exec(reader, *words)]) as client:
        assert client.end() == 6
        assert counts(client) == ([] if ">&-" in closed.split() else [2])
        assert client.errors() == ""


def test_exit_status_is_the_clients(tmp_path: Path) -> None:
    for script, status in (("exit 7", 7), ("kill -9 $$", -9), ("kill -TERM $$", -15), ("", 0)):
        with Running(tmp_path, under_exec("sh", "-c", script)) as client:
            assert client.end() == status


@pytest.mark.parametrize("program", ["/nonexistent/program", "/etc/passwd"])
def test_a_program_that_cannot_be_run(tmp_path: Path, program: str) -> None:
    with Running(tmp_path, under_exec(program)) as client:
        assert client.end() not in (0, 1)
        (line,) = client.errors().splitlines()
    assert line.startswith("fserr-bpf: ")
    assert program in line


# signals


@BOTH
def test_stopped_and_continued_in_a_read(
    tmp_path: Path, fs: Scratch, reader: Path, options: tuple[str, ...]
) -> None:
    """By a debugger or job control; its parent sees it stop."""
    words = (GROUP, mark(fs), "say:ready", "errors:2", "exit:5")
    with taken(tmp_path, reader, *words, options=options) as client:
        for _ in range(2):
            wait_until(lambda: client.reads(reader), "the client to read")
            client.process.send_signal(signal.SIGSTOP)
            _, status = os.waitpid(client.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            client.process.send_signal(signal.SIGCONT)
            wait_until(lambda: client.reads(reader), "the client to read again")
        write_trigger(fs.device_name, 1)
        wait_until(lambda: sum(counts(client)) == 1, "the first error")
        client.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: state_of(client.pid) == "T", "the client to stop")
        write_trigger(fs.device_name, 1)
        client.process.send_signal(signal.SIGCONT)
        assert client.end() == 5
        assert sum(counts(client)) == 2


# more than one


def test_two_execs_at_once(tmp_path: Path, fs: Scratch, reader: Path) -> None:
    """Each has its own supervisor, and both get all errors."""
    words = (GROUP, mark(fs), "say:ready", "errors:3")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with (
        taken(tmp_path / "one", reader, *words) as one,
        taken(tmp_path / "two", reader, *words, options=("--exact",)) as two,
    ):
        write_trigger(fs.device_name, 3)
        assert (one.end(), two.end()) == (0, 0)
        assert sum(counts(one)) == sum(counts(two)) == 3


@BOTH
def test_flood_is_neither_lost_nor_doubled(
    tmp_path: Path, fs: Scratch, reader: Path, options: tuple[str, ...]
) -> None:
    """Two processes cause 4000 errors while it reads, then a third one the last."""
    words = (GROUP, mark(fs), "say:ready", "errors:4000", "say:flooded", "errors:1")
    with taken(tmp_path, reader, *words, options=options) as client:
        command = [str(reader), trigger(fs, 2000)]
        with subprocess.Popen(command) as one, subprocess.Popen(command) as two:
            assert (one.wait(), two.wait()) == (0, 0)
        wait_until(lambda: client.says("flooded"), "the flood to be read")
        last = write_trigger(fs.device_name, 1)
        assert client.end() == 0
        lines = client.lines()
    by_pid = {one.pid: 0, two.pid: 0, last: 0}
    for line in lines:
        if found := re.search(r"count=(\d+) pid=(\d+) ", line):
            by_pid[int(found[2])] += int(found[1])
    assert by_pid == {one.pid: 2000, two.pid: 2000, last: 1}


# file systems


@BOTH
def test_unmount_while_marked(
    tmp_path: Path, fs: Scratch, reader: Path, options: tuple[str, ...]
) -> None:
    """It succeeds at once, and the mark is gone with the file system, as natively."""
    require_mark()
    words = (
        *(NONBLOCK, mark(fs), trigger(fs), "await", "wait", trigger(fs, 2), "read:4096"),
        *("read:4096", mark(fs), trigger(fs), "await", "read:4096"),
    )

    def lines_of(client: Running) -> list[str]:
        wait_until(lambda: client.says("waiting"), "the client to wait")
        fs.unmount()
        fs.mount()
        client.go_on()
        assert client.end() == 0
        return [re.sub(r"pid=\d+", "pid=N", line) for line in client.lines()]

    with Running(tmp_path, [str(reader), *words]) as client:
        native = lines_of(client)
        assert counts(client) == [1, 1]
    with Taken(tmp_path, reader, *words, options=options) as client:
        assert lines_of(client) == native


# ends


def test_nothing_is_left_of_a_killed_client(tmp_path: Path, fs: Scratch, reader: Path) -> None:
    mounts = fuse_mounts()
    for options in ((), ("--exact",)):
        words = (GROUP, mark(fs), "say:ready", "errors:1")
        with taken(tmp_path, reader, *words, options=options) as client:
            assert client.helpers()
            client.process.kill()
            client.end()
            wait_until(lambda: not client.helpers(), "its helpers to end")
            assert client.errors() == ""
    assert fuse_mounts() == mounts


def test_helpers_live_as_long_as_a_descendant(tmp_path: Path, fs: Scratch, reader: Path) -> None:
    """The client ends; what it started in the background still gets its error."""
    words = " ".join((GROUP, mark(fs), "say:ready", "errors:1", "say:done"))
    go = tmp_path / "go"
    script = f"{reader} {words} & until [ -e {go} ]; do sleep 0.05; done; exit 3"
    with taken(tmp_path, "sh", "-c", script) as client:
        go.touch()
        assert client.end() == 3
        write_trigger(fs.device_name, 1)
        wait_until(lambda: "done" in client.lines(), "the descendant to get its error")
        wait_until(lambda: not client.helpers(), "its helpers to end")
    assert counts(client) == [1]


# what it says of itself


def test_report_takeover(tmp_path: Path, fs: Scratch, reader: Path) -> None:
    other = f"mark:0x1:0x100:{fs.mount_point}"
    words = (GROUP, other, mark(fs), trigger(fs), "errors:1", "init:0x4", other, "init:0x8200")
    with Taken(tmp_path, reader, *words, options=("--report-takeover",)) as client:
        assert client.end() == 0
        wait_until(lambda: not client.helpers(), "its helpers to end")
        told = client.errors().splitlines()
    assert all(line.startswith("fserr-bpf: ") for line in told)
    calls = [line.split(": ", 2) for line in told if "fanotify_" in line]
    assert {pid for _, pid, _ in calls} == {str(client.pid)}
    assert [re.sub(r"\(.*\)", "", what).split(",")[0] for _, _, what in calls] == [
        "fanotify_mark: let through",
        "fanotify_mark: emulated",
        "fanotify_mark: let through",
        "fanotify_init: emulated",
    ]
    assert all(f"'{fs.mount_point}'" in what for _, _, what in calls[:3])
    assert any("calls: 2 emulated, 2 let through; 2 groups emulated" in line for line in told)
    assert any(
        re.search(r"group 1: 1 errors seen = 1 delivered \+ 0 merged \+ 0 dropped", line)
        for line in told
    )


def test_a_start_that_takes_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What works for the client is stopped before that is ready: the probes are compiled anew."""
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path))
    found: list[int] = []

    def starts() -> bool:
        """The supervisor is there, or who is about to make it."""
        helpers = client.helpers()
        with suppress(OSError):  # one that has ended meanwhile
            found[:] = [p for p in helpers if parent_of(p) in helpers]
        return bool(found)

    with Taken(tmp_path, "true") as client:
        wait_until(starts, "the supervisor")
        os.kill(found[0], signal.SIGSTOP)
        wait_until(lambda: "arming" in (tmp_path / "client.err").read_text(), "the line")
        os.kill(found[0], signal.SIGCONT)
        assert client.end() == 0
    assert (tmp_path / "client.err").read_text() == "fserr-bpf: arming probes\n"


@pytest.mark.threat("exec-in-exec")
def test_exec_within_exec_is_refused(tmp_path: Path) -> None:
    with Running(tmp_path, under_exec(*under_exec("true"))) as client:
        assert client.end() == 4
        (line,) = client.errors().splitlines()
    assert line.startswith("fserr-bpf: ")
    assert "; " in line


def test_without_privilege_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *under_exec("true")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith("fserr-bpf: ")
