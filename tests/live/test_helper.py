"""The helper process: its rights, its answers, and that one that hangs holds up no other kind."""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fserr_bpf.children.spawn import PATIENCE_SECONDS
from fserr_bpf.helper.client import Answer, Helper
from fserr_bpf.helper.questions import Kind, about
from fserr_bpf.kernel import syscalls
from fserr_bpf.kernel.fuse import open_fuse
from fserr_bpf.model.event import FileHandle
from fserr_bpf_compare.faults.scratch import Scratch, scratch
from tests.live.conftest import wait_until

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]
_MNT_DETACH = 2
NAMELESS: dict[str, Any] = {"ino": 0, "name": "", "below": []}


@pytest.fixture
def helper() -> Iterator[Helper]:
    with Helper() as helper:
        helper.wait_until_ready()
        yield helper


@pytest.fixture
def fs() -> Iterator[Scratch]:
    with scratch("ext4") as fs:
        (fs.mount_point / "folder").mkdir()
        (fs.mount_point / "folder/file").touch()
        yield fs


@pytest.fixture
def silent_mount(tmp_path: Path) -> Iterator[str]:
    """A file system whose server never answers."""
    place = tmp_path / "silent"
    place.mkdir()
    device, libc = open_fuse(), ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    assert libc.mount(b"silent", bytes(place), b"fuse", 0, options.encode()) == 0
    yield str(place)
    os.close(device)  # what waits fails
    assert libc.umount2(bytes(place), _MNT_DETACH) == 0


def question(fs: Scratch, name: str = "folder/file") -> dict[str, Any]:
    found = syscalls.name_to_handle_at(str(fs.mount_point / name))
    return about(str(fs.mount_point), fs.dev, FileHandle(found.handle_type, found.f_handle))


def answers(helper: Helper, kind: Kind) -> list[Answer]:
    """The next ones of this kind."""
    found: list[Answer] = []

    def some() -> bool:
        helper.receive()
        found.extend(helper.answers(kind))
        return bool(found)

    wait_until(some, f"the answer, or: {helper.ended}")
    return found


def only_child() -> int:
    (child,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return int(child)


def test_each_kind_has_its_answers(helper: Helper, fs: Scratch) -> None:
    file, folder = fs.mount_point / "folder/file", fs.mount_point / "folder"
    path = helper.ask(Kind.PATH, question(fs) | NAMELESS)
    place = helper.ask(Kind.PLACE, question(fs))
    (found,) = answers(helper, Kind.PLACE)
    assert found.number == place
    (((ancestors, whole),), complete) = found.found
    assert [ino for ino, _, _ in ancestors] == [folder.stat().st_ino, fs.mount_point.stat().st_ino]
    assert (whole, complete, found.reason) == (True, True, "")
    assert answers(helper, Kind.PATH) == [Answer(path or 0, [str(file), "exact"], "")]
    nobody = helper.ask(Kind.CGROUP, {"id": 1 << 40})
    assert answers(helper, Kind.CGROUP) == [Answer(nobody or 0, "", "")]


def test_what_the_kernel_refuses_has_a_reason(helper: Helper, fs: Scratch) -> None:
    asked = question(fs) | {"mount_point": f"{fs.mount_point}/none"}
    for kind in (Kind.PATH, Kind.PLACE):
        number = helper.ask(kind, asked | NAMELESS)
        reason = f"[Errno 2] No such file or directory: '{fs.mount_point}/none'"
        assert answers(helper, kind) == [Answer(number or 0, None, reason)]


def test_a_path_that_hangs_holds_up_paths_only(
    helper: Helper, fs: Scratch, silent_mount: str
) -> None:
    asked = question(fs)
    hanging = asked | {"mount_point": silent_mount} | NAMELESS
    numbers = [helper.ask(Kind.PATH, hanging)]
    while numbers[-1] is not None:  # until there is no room for one more
        numbers.append(helper.ask(Kind.PATH, asked | NAMELESS))
    assert len(numbers) > 100
    for _ in range(3):
        place = helper.ask(Kind.PLACE, asked)
        assert [answer.number for answer in answers(helper, Kind.PLACE)] == [place]
    helper.ask(Kind.CGROUP, {"id": 1})
    assert [answer.reason for answer in answers(helper, Kind.CGROUP)] == [""]
    assert helper.answers(Kind.PATH) == []
    assert not helper.ended


@pytest.mark.parametrize("user", [None, "nobody"])
def test_every_thread_has_dropped_its_rights(user: str | None, helper: Helper, fs: Scratch) -> None:
    helper.drop_rights(user)
    helper.drop_rights(None)  # once is for all
    helper.ask(Kind.PLACE, question(fs))
    (found,) = answers(helper, Kind.PLACE)
    threads = [task.read_text() for task in Path(f"/proc/{only_child()}/task").glob("*/status")]
    assert len(threads) == 1 + len(Kind)
    held = 0 if user else 1 << 2  # CAP_DAC_READ_SEARCH
    for status in threads:
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        assert [int(fields[f"Cap{which}"], 16) for which in ("Eff", "Prm", "Bnd")] == [held] * 3
        assert fields["NoNewPrivs"] == "1"
        assert fields["Uid"].split() == ["65534" if user else "0"] * 4
    assert (found.found is None) == (user is not None)


def test_one_that_has_ended_says_so(helper: Helper, fs: Scratch) -> None:
    helper.ask(Kind.PLACE, question(fs))
    (found,) = answers(helper, Kind.PLACE)
    assert found.found is not None
    os.kill(only_child(), signal.SIGKILL)

    def has_ended() -> bool:
        helper.receive()
        return bool(helper.ended)

    wait_until(has_ended, "its end")
    assert helper.ended == "the process has ended"
    assert helper.ask(Kind.PLACE, question(fs)) is None
    helper.drop_rights(None)
    helper.receive()
    with select.epoll() as poll:
        poll.register(helper, select.EPOLLIN)
        assert poll.poll(0) == [], "nobody is woken for it any more"
    assert helper.answers(Kind.PLACE) == []


def test_without_descriptors_nobody_is_asked(helper: Helper, fs: Scratch) -> None:
    asked = question(fs)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        assert helper.ask(Kind.PLACE, asked) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert helper.ended == "[Errno 24] Too many open files"


def test_one_that_hangs_ends_with_the_monitor(fs: Scratch, silent_mount: str) -> None:
    with Helper() as helper:
        helper.ask(Kind.PATH, question(fs) | {"mount_point": silent_mount} | NAMELESS)
        pid = only_child()
        wait_until(lambda: _waits_for_fuse(pid), "the thread to hang")
    assert not Path(f"/proc/{pid}").exists(), f"it is left after {PATIENCE_SECONDS} s"


def _waits_for_fuse(pid: int) -> bool:
    channels = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/wchan")]
    return any("fuse" in channel or channel == "request_wait_answer" for channel in channels)
