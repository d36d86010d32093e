"""``fserr-bpf top`` with real errors: exact counts for scripts, and the view in a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich")

from fserr_bpf_compare.faults.scratch import Scratch, run, scratch
from fserr_bpf_compare.ready import Ready
from tests.live.conftest import ATTACH_SECONDS, BY_NAME, KernelLog, kernel_version, wait_until
from tests.live.top_terminal import COMMAND, Terminal, top_in_terminal

pytestmark = pytest.mark.root

TRIGGER = BY_NAME["ext4_trigger"]
BAD_INODE = BY_NAME["ext4_bad_inode"]
BAD_EXTENT = BY_NAME["ext4_bad_extent"]
DIRBLOCK = BY_NAME["xfs_dirblock"]
ACCOUNT = r"beforefserr-bpf: \d+ errors seen = {} delivered \+ 0 merged \+ .*; 0 missed by probes"


@contextmanager
def top_once(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``top --once`` that is attached and would watch for a day."""
    said = tmp_path / "said"
    with (
        Ready() as ready,
        said.open("w") as stderr,
        subprocess.Popen(
            [COMMAND, "top", "--once", "--interval", "86400", *ready.options, *arguments],
            stdout=subprocess.PIPE,
            stderr=stderr,
            pass_fds=ready.pass_fds,
            text=True,
        ) as process,
    ):
        try:
            assert ready.wait(ATTACH_SECONDS), said.read_text()
            yield process
        finally:
            process.kill()


def report_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The one object that it prints when it is told to stop."""
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.isascii()
    report = json.loads(output)
    assert isinstance(report, dict)
    return report


def place_in(log: KernelLog, fs: Scratch) -> tuple[str, int]:
    """Function and line of the last ext4 error, as the kernel's own message has them."""
    message = rf"EXT4-fs error \(device {fs.device_name}\): (\w+):(\d+):"
    log.wait_for(message)
    function, line = re.findall(message, "\n".join(log.messages()))[-1]
    return function, int(line)


# for scripts


def test_exact_counts_of_real_errors(scratch_space: Path) -> None:
    """The one test of this file for the lab, where attaching is slow."""
    with scratch("ext4") as ext4, scratch("ext4") as quiet, KernelLog() as log:
        BAD_INODE.prepare(ext4)
        paths = [str(fs.mount_point) for fs in (ext4, quiet)]
        with top_once(scratch_space, "--json", *paths) as process:
            triggered = [TRIGGER.cause(ext4) for _ in range(3)]
            trigger = place_in(log, ext4)
            opened = BAD_INODE.cause(ext4)
            inode = place_in(log, ext4)
            report = report_of(process)
        places = {
            fs.device_name: [fs.device_name, list(fs.dev), str(fs.mount_point), "ext4", True]
            for fs in (ext4, quiet)
        }
    assert (report["v"], report["stream"], report["errors"]) == (1, "proposed", 4)
    assert {
        row["device"]: [row[key] for key in ("device", "dev", "mount_point", "fstype", "watched")]
        for row in report["file_systems"]
    } == places
    assert [(row["device"], row["errors"]) for row in report["file_systems"]] == [
        (ext4.device_name, 4),
        (quiet.device_name, 0),
    ]
    sites = Counter({(row["function"], row["line"]): row["errors"] for row in report["sites"]})
    assert sites == Counter([trigger, trigger, trigger, inode])
    assert {row["errno"] for row in report["sites"]} == {"EFSCORRUPTED"}
    assert [event["error_count"] for event in report["events"]] == [1, 1, 1, 1]
    if kernel_version() < (7, 0):
        newest_first = [opened.pid, *(caused.pid for caused in reversed(triggered))]
        assert [event["pid"] for event in report["events"]] == newest_first
    nothing = {"rows": 0, "errors": 0}
    assert report["forgotten"] == {"file_systems": nothing, "sites": nothing, "events": 0}
    assert report["lost"] == {"ring full": 0, "queue full": 0}
    assert report["missed"] == {}


@pytest.mark.usefixtures("fast_attaching")
def test_text_for_people_and_the_end_of_the_interval(scratch_space: Path) -> None:
    with scratch("xfs") as fs:
        done = subprocess.run(
            [COMMAND, "top", "--once", "--interval", "0.2", str(fs.mount_point)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0
        first, *blind, empty, heads, row, between, last = done.stdout.splitlines()
        if blind:  # of one reason, folded
            assert " ".join(blind).startswith("cannot see corruption that XFS finds outside")
        assert [first, empty, heads, row, between, last] == [
            "fserr-bpf top   0 errors on 0 of 1 file systems               proposed, by count",
            "",
            " ERRORS  LAST      DEVICE    STATE           TYPE      MOUNT POINT",
            f"      0  -         {fs.device_name:<8}  ok              xfs       "
            f"{shown(fs.mount_point)}",
            "",
            "no errors yet",
        ]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder whose name tries everything; tests mount on it and unmount."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\x1b[2J\n[red]\xff\\\xe6\x95\xb0"))
    path.mkdir()
    (tmp_path / "link").symlink_to(path)
    return path


@contextmanager
def moved(fs: Scratch, place: Path) -> Iterator[None]:
    """``fs`` mounted at ``place`` only."""
    fs.unmount()
    run("mount", fs.device, os.fspath(place))
    try:
        yield
    finally:
        run("umount", os.fspath(place))


@pytest.mark.usefixtures("fast_attaching")
def test_hostile_names_in_json_and_on_the_screen(
    scratch_space: Path, hostile: Path, tmp_path: Path
) -> None:
    link = str(tmp_path / "link")
    with scratch("ext4") as fs, moved(fs, hostile):
        with top_once(scratch_space, "--json", link) as process:
            TRIGGER.cause(fs)
            (row,) = report_of(process)["file_systems"]
        assert row["mount_point"] == os.fspath(hostile)
        with top_in_terminal(tmp_path, link, columns=250) as terminal:
            TRIGGER.cause(fs)
            lines = terminal.wait_for("1 errors on 1 of 1 file systems")
            assert lines[0].startswith("fserr-bpf top")
            (line,) = (line for line in lines if line.endswith("数"))
            assert line.endswith(r"/\x1b[2J\x0a[red]\xff\x5c数")
            terminal.press("q")
            assert terminal.wait_for_end()[0] == 0


# for people


def shown(path: Path, width: int = 25) -> str:
    """``path`` as the view has it, in so many columns."""
    text = str(path)
    end = (width - 1) // 2
    return text if len(text) <= width else f"{text[: width - 1 - end]}…{text[-end:]}"


def rows(lines: list[str], device: str) -> list[list[str]]:
    """The words of each row that is about ``device``."""
    return [line.split() for line in lines if device in line.split()]


@pytest.mark.usefixtures("fast_attaching")
@pytest.mark.parametrize("key", ["q", "C-c", "C-d"])
def test_view_follows_errors_and_gives_the_terminal_back(key: str, scratch_space: Path) -> None:
    with scratch("ext4") as ext4, scratch("xfs") as xfs, KernelLog() as log:
        DIRBLOCK.prepare(xfs)
        paths = [str(fs.mount_point) for fs in (ext4, xfs)]
        with top_in_terminal(scratch_space, *paths) as terminal:
            assert "no errors yet" in terminal.lines()
            first = TRIGGER.cause(ext4)
            terminal.wait_for("1 errors on 1 of 2 file systems")
            second = TRIGGER.cause(ext4)
            function, line = place_in(log, ext4)
            DIRBLOCK.cause(xfs)
            terminal.wait_for("3 errors on 2 of 2 file systems")
            lines = terminal.wait_for("  errors ")  # the state is asked after the error
            assert lines[-1] == "q quit   c by count   t by time   p pause"
            file_system, site, newest, oldest = rows(lines, ext4.device_name)
            assert (file_system[0], file_system[2:]) == (
                "2",
                [ext4.device_name, "errors", "ext4", shown(ext4.mount_point)],
            )
            place = f"{function}:{line}"
            assert (site[0], site[2:]) == ("2", [ext4.device_name, "EFSCORRUPTED", place])
            for event, caused in ((newest, second), (oldest, first)):
                assert re.fullmatch(r"\d\d:\d\d:\d\d", event[1])
                assert event[2:-1] == [ext4.device_name, "EFSCORRUPTED", "superblock"]
                if kernel_version() < (7, 0):
                    assert event[-1] == f"sh[{caused.pid}]"
            assert [row[4] for row in rows(lines, xfs.device_name)][:1] == ["xfs"]
            assert [row[3] for row in rows(lines, xfs.device_name)][1:] == ["EFSBADCRC"] * 2
            terminal.press("t")
            by_time = terminal.wait_for("proposed, by time")
            assert by_time.index(next(line for line in by_time if xfs.device_name in line)) == (
                by_time.index(next(line for line in by_time if "MOUNT POINT" in line)) + 1
            )
            terminal.press(key)
            status, left, settings = terminal.wait_for_end()
    assert status == 0
    assert re.fullmatch(ACCOUNT.format(3), left.replace("\n", ""))
    assert {"icanon", "echo", "isig"} <= set(settings.split())


@pytest.mark.usefixtures("fast_attaching")
def test_paused_view_stands_still_and_errors_are_counted(scratch_space: Path) -> None:
    with (
        scratch("ext4") as fs,
        top_in_terminal(scratch_space, "--interval", "0.01", str(fs.mount_point)) as terminal,
    ):
        TRIGGER.cause(fs)
        terminal.wait_for("1 errors")
        terminal.press("p")
        terminal.wait_for("PAUSED")
        TRIGGER.cause(fs)
        terminal.press("t")  # draws again, at another size too
        for columns, lines in ((100, 30), (90, 20)):
            terminal.resize(columns, lines, "1 errors on 1 of 1 file systems")
        terminal.press("p")
        assert "by time" in terminal.wait_for("2 errors on 1 of 1 file systems")[0]
        terminal.press("q")
        assert terminal.wait_for_end()[0] == 0


@pytest.mark.usefixtures("fast_attaching")
def test_every_size_is_filled(scratch_space: Path) -> None:
    """Without errors there are no ages, so that nothing but the new size makes it draw."""
    with (
        scratch("ext4") as fs,
        top_in_terminal(scratch_space, str(fs.mount_point)) as terminal,
    ):
        for columns, lines, room in ((120, 40, 65), (60, 15, 25), (40, 10, 21), (80, 24, 25)):
            screen = terminal.resize(columns, lines, "0 errors")
            (row,) = rows(screen, fs.device_name)
            assert row[-1] == shown(fs.mount_point, room)
        terminal.press("q")
        assert terminal.wait_for_end()[0] == 0


@pytest.mark.usefixtures("fast_attaching")
def test_with_detail_the_file_is_named(scratch_space: Path) -> None:
    with scratch("ext4") as fs:
        BAD_EXTENT.prepare(fs)
        path = str(fs.mount_point)
        with top_in_terminal(scratch_space, "--detail", path, columns=120) as terminal:
            BAD_EXTENT.cause(fs)
            lines = terminal.wait_for(" /victim ")
            (event,) = (row for row in rows(lines, fs.device_name) if "/victim" in row)
            assert event[2:5] == [fs.device_name, "EFSCORRUPTED", "/victim"]
            terminal.press("q")
            assert terminal.wait_for_end()[0] == 0


@pytest.mark.usefixtures("fast_attaching")
def test_unmounted_file_system_stays_with_its_errors(scratch_space: Path) -> None:
    with (
        scratch("ext4") as fs,
        top_in_terminal(scratch_space, str(fs.mount_point), columns=160) as terminal,
    ):
        TRIGGER.cause(fs)
        terminal.wait_for("1 errors")
        fs.unmount()
        # the last that is drawn: tmux may show a screen that is half new
        lines = terminal.wait_for(f"no longer watching {fs.mount_point}: unmounted")
        assert any("(unmounted)" in line for line in lines)
        assert rows(lines, fs.device_name)[0][0] == "1"
        terminal.press("q")
        assert terminal.wait_for_end()[0] == 0


@pytest.mark.usefixtures("fast_attaching")
def test_colour_only_where_it_is_wanted(scratch_space: Path) -> None:
    red = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    with scratch("ext4") as fs:
        path = str(fs.mount_point)
        for environment in ({}, {"NO_COLOR": "1"}):
            with top_in_terminal(scratch_space, path, environment=environment) as terminal:
                TRIGGER.cause(fs)
                terminal.wait_for("1 errors")
                assert bool(red.search("\n".join(terminal.lines("-e")))) == (not environment)
                terminal.press("q")
                assert terminal.wait_for_end()[0] == 0


@pytest.mark.usefixtures("fast_attaching")
def test_dumb_terminal_gets_one_drawing_below_the_other(scratch_space: Path) -> None:
    with (
        scratch("ext4") as fs,
        top_in_terminal(
            scratch_space, str(fs.mount_point), lines=40, environment={"TERM": "dumb"}
        ) as terminal,
    ):
        TRIGGER.cause(fs)
        lines = terminal.wait_for("1 errors on 1 of 1 file systems")
        assert lines[0] == "before"
        assert sum("of 1 file systems" in line for line in lines) == 2
        terminal.press("q")
        assert terminal.wait_for_end()[0] == 0


@pytest.mark.usefixtures("fast_attaching")
def test_signals_end_it_cleanly(scratch_space: Path) -> None:
    with scratch("ext4") as fs:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            with top_in_terminal(scratch_space, str(fs.mount_point)) as terminal:
                os.kill(terminal.pid, number)
                status, left, settings = terminal.wait_for_end()
            assert status == 0
            assert re.fullmatch(ACCOUNT.format(0), left.replace("\n", ""))
            assert {"icanon", "echo", "isig"} <= set(settings.split())


@pytest.mark.usefixtures("fast_attaching")
def test_it_does_not_outlive_its_terminal(scratch_space: Path) -> None:
    with (
        scratch("ext4") as fs,
        top_in_terminal(scratch_space, str(fs.mount_point)) as terminal,
    ):
        process = Path(f"/proc/{terminal.pid}")
        terminal.tmux("new-window", "-d", "cat")  # without a window the server would leave
        terminal.tmux("kill-window")
        wait_until(lambda: not process.exists(), "the command to end with its terminal")


@pytest.mark.usefixtures("fast_attaching")
@pytest.mark.parametrize("errors", [0, 1])
def test_wakes_up_for_ages_only(scratch_space: Path, errors: int) -> None:
    """A mount namespace of its own keeps out the mounts of others, which do wake it.

    Errors of others wake it too, so one silent window is enough; a timer would show
    in each.
    """
    prefix = ("unshare", "--mount", "--propagation", "private")

    def switches(terminal: Terminal) -> int:
        status = Path(f"/proc/{terminal.pid}/status").read_text()
        return int(re.findall(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)[0])

    with scratch("ext4") as fs:
        arguments = ("--interval", "0.1", str(fs.mount_point))
        with top_in_terminal(scratch_space, *arguments, prefix=prefix) as terminal:
            for _ in range(errors):
                TRIGGER.cause(fs)
            terminal.wait_for(f"{errors} errors on")
            windows: list[int] = []
            while 0 not in windows and len(windows) < 5:
                before = switches(terminal)
                time.sleep(2)  # the length of the window, not a synchronisation
                windows.append(switches(terminal) - before)
            assert 0 in windows
