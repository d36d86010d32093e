"""What ``fserr-bpf watch-files`` does with hooks: limits, order, rights, ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from fserr_bpf.errors import UsageError
from tests.live.conftest import wait_until
from tests.live.watching_files import (
    COMMAND,
    account,
    breakable,
    failing,
    hooked,
    new_file,
    paths,
    runner_of,
    wait_for_hooks,
    wait_for_paths,
    watching,
    write,
)

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("file_systems")]


def test_hooks_that_fail_and_hang_are_reported(scratch_space: Path) -> None:
    hook = """case "$FSERR_PATH" in
        */fails) exit 3 ;;
        */hangs) echo $$ >> "$HOOKED"; sleep 1000 ;;
        */stubborn) trap '' TERM; echo $$ >> "$HOOKED"; sleep 1000 & wait; sleep 1000 ;;
        */dies) kill -KILL $$ ;;
        */late) trap 'sleep 0.2; echo cleaned >> "$HOOKED"; exit 0' TERM; sleep 1000 & wait ;;
        esac"""
    with breakable() as (fs, folder):
        names = ["fails", "hangs", "stubborn", "dies", "late", "fine"]
        files = [new_file(folder / name) for name in names]
        arguments = ("--glob", f"{folder}/*", "--timeout", "0.5")
        with watching(scratch_space, *arguments, hook=hook) as started:
            with failing(fs, *files):
                for file in files:
                    write(file)
            wait_for_paths(started, 6)

            def ends() -> set[str]:
                return {x for x in started.said() if "hook for" in x}

            wait_until(lambda: len(ends()) == 5, "the ends of all")
            assert started.end() == 0
            said = ends()
            numbers = [int(n) for n in started.hooked() if n.isdigit()]
    assert sorted(said) == [
        f"fserr-bpf: hook for {folder}/dies: killed by SIGKILL",
        f"fserr-bpf: hook for {folder}/fails: exit status 3",
        f"fserr-bpf: hook for {folder}/hangs: ran longer than 0.5 s, ended by SIGTERM",
        f"fserr-bpf: hook for {folder}/late: ran longer than 0.5 s, ended by SIGTERM",
        f"fserr-bpf: hook for {folder}/stubborn: ran longer than 0.5 s, ended by SIGKILL",
    ]
    assert "cleaned" in started.hooked()
    run_, failed, timed_out, joined, dropped = started.hooks()
    assert (run_ + joined + dropped, failed, timed_out) >= (6, 2, 3)
    # the whole process group has gone with it
    assert len(numbers) >= 2
    for number in numbers:
        living = ["pgrep", "-g", str(number), "-r", "D,R,S,T"]
        assert subprocess.run(living, check=False).returncode == 1


def test_a_slow_hook_holds_up_nothing_and_sees_every_error(scratch_space: Path) -> None:
    """A hook that waits for the test: events come meanwhile, and join one later run."""
    gate = scratch_space / "gate"
    os.mkfifo(gate)
    hook = f'cat "{gate}" > "{scratch_space}/begun"; echo "$FSERR_PATH $FSERR_COUNT" >> "$HOOKED"'
    with breakable() as (fs, folder):
        file, others = new_file(folder / "file"), [new_file(folder / f"o{n}") for n in range(6)]
        arguments = ("--glob", f"{folder}/*", "--timeout", "600")
        with watching(scratch_space, *arguments, hook=hook) as started:
            with failing(fs, file, *others):
                write(file)
                wait_until((scratch_space / "begun").exists, "the hook to begin")
                for _ in range(20):
                    before = len(started.events())
                    write(file)  # one by one: nobody waits for the hook
                    wait_until(lambda n=before: len(started.events()) > n, "the event")  # type: ignore[misc]
                for other in others:
                    write(other)
                wait_for_paths(started, 7)
            assert started.hooked() == []

            def all_ended() -> bool:
                with contextlib.suppress(OSError):  # ENXIO: none waits just now
                    os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
                return len(started.hooked()) >= 8

            wait_until(all_ended, "the hooks to end")
            assert started.end() == 0
    assert account(started) == (False, False)
    counts = [line.rsplit(" ", 1) for line in started.hooked()]
    mine = [int(count) for path, count in counts if path == str(file)]
    told = [e["error_count"] for e in started.events() if e["path"] == str(file)]
    assert mine == [told[0], sum(told[1:])]
    assert sorted(path for path, _ in counts) == sorted([str(file)] * 2 + [str(o) for o in others])


def test_a_signal_lets_hooks_that_run_end_and_begins_no_other(scratch_space: Path) -> None:
    gate = scratch_space / "gate"
    os.mkfifo(gate)
    with breakable() as (fs, folder):
        file = new_file(folder / "file")
        hook = f'touch "{scratch_space}/begun"; cat "{gate}"; echo done >> "$HOOKED"'
        with watching(scratch_space, "--glob", f"{folder}/*", hook=hook) as started:
            with failing(fs, file):
                write(file)
                wait_until((scratch_space / "begun").exists, "the hook to begin")
                before = len(started.events())
                write(file)
                wait_until(lambda: len(started.events()) > before, "the event")
            # as a terminal does it, to everybody in the foreground
            os.kill(started.process.pid, signal.SIGINT)
            wait_until(lambda: "waiting for 1 hooks" in str(started.said()), "the word of it")
            assert started.process.poll() is None
            with gate.open("w"):
                pass
            assert started.process.wait(60) == 0
    assert started.hooked() == ["done"]
    assert "fserr-bpf: dropped 1 runs of the hook that were waiting" in started.said()
    run_, failed, timed_out, _, dropped = started.hooks()
    assert (run_, failed, timed_out, dropped) == (1, 0, 0, 1)


def test_a_second_signal_leaves_the_hook_with_its_time_limit(scratch_space: Path) -> None:
    with breakable() as (fs, folder):
        file = new_file(folder / "file")
        hook = 'echo $$ >> "$HOOKED"; exec sleep 1000'
        arguments = ("--glob", f"{folder}/*", "--timeout", "2")
        with watching(scratch_space, *arguments, hook=hook) as started:
            with failing(fs, file):
                write(file)
            wait_for_hooks(started, 1)
            number = int(started.hooked()[0])
            runner = runner_of(started)
            os.kill(started.process.pid, signal.SIGTERM)
            wait_until(lambda: "waiting for 1 hooks" in str(started.said()), "the word of it")
            os.kill(started.process.pid, signal.SIGTERM)
            assert started.process.wait(60) == -signal.SIGTERM
            for pid in (number, runner):
                wait_until(lambda p=pid: not Path(f"/proc/{p}").exists(), "its end")  # type: ignore[misc]


def test_hooks_keep_the_rights_that_the_monitor_gives_up(scratch_space: Path) -> None:
    hook = 'grep -E "Uid|CapEff" /proc/self/status; readlink /proc/$$/fd/0; echo end'
    with breakable() as (fs, folder):
        file = new_file(folder / "file")
        found = []
        for arguments in ((), ("--hook-user", "nobody")):
            with watching(scratch_space, "--glob", f"{folder}/*", *arguments, hook=hook) as started:
                with failing(fs, file):
                    write(file)
                wait_until(lambda s=started: "end" in s.said(), "the hook")  # type: ignore[misc]
                status = Path(f"/proc/{started.process.pid}/status").read_text()
                assert started.end() == 0
            found.append([x for x in started.said() if not x.startswith("fserr-bpf: ")])
            assert "CapEff:\t0000000000000004\n" in status  # CAP_DAC_READ_SEARCH, to follow mounts
    own = re.search(r"CapEff:\t(\w+)", Path("/proc/self/status").read_text())
    assert own is not None
    assert found[0] == ["Uid:\t0\t0\t0\t0", f"CapEff:\t{own[1]}", "/dev/null", "end"]
    nobody = "Uid:\t65534\t65534\t65534\t65534"
    assert found[1] == [nobody, f"CapEff:\t{0:016x}", "/dev/null", "end"]


def test_what_hooks_print_is_not_among_the_events(scratch_space: Path) -> None:
    with breakable() as (fs, folder):
        file = new_file(folder / "file")
        hook = 'echo from the hook; cat >> "$HOOKED"; echo x >> "$HOOKED"'
        with watching(scratch_space, "--glob", f"{folder}/*", hook=hook) as started:
            with failing(fs, file):
                write(file)
            wait_for_hooks(started, 1)
            assert started.end() == 0
    assert "from the hook" in started.said()
    assert paths(started) == [str(file)]
    assert hooked(started) == ["x"]  # standard input is empty


def test_intervals_hold_hooks_back_and_sum_up(scratch_space: Path) -> None:
    """Of six files that fail twice each: one run at once, and one for all others."""
    hook = 'echo "$FSERR_PATH $FSERR_COUNT $FSERR_HELD_COUNT $FSERR_HELD_FILES" >> "$HOOKED"'
    with breakable() as (fs, folder):
        files = [new_file(folder / f"f{n}") for n in range(6)]
        arguments = ("--glob", f"{folder}/*", "--interval", "600", "--interval-all", "3")
        with watching(scratch_space, *arguments, hook=hook) as started:
            with failing(fs, *files):
                for _ in range(2):
                    for file in files:
                        write(file)
            wait_for_paths(started, 6)
            wait_for_hooks(started, 2)
            reported = sum(event["error_count"] for event in started.events())
            assert started.end() == 0
    runs = [line.rsplit(" ", 3) for line in started.hooked()]
    counts = [[int(n) for n in numbers] for _, *numbers in runs]
    assert runs[0][0] == str(files[0])
    assert counts[0][1:] == [0, 0]
    assert sum(count + held for count, held, _ in counts) == reported
    assert all(files_ <= 5 for *_, files_ in counts)
    assert len({path for path, *_ in runs}) == len(runs), "each file once in ten minutes"
    summed = [line for line in started.said() if "which were held back" in line]
    assert len(summed) == len([held for _, held, _ in counts if held]) > 0
    run_, failed, timed_out, joined, dropped = started.hooks()
    assert (run_, failed, timed_out, dropped) == (len(runs), 0, 0, 0)
    assert run_ + joined == len(started.events())


def test_an_interval_without_a_hook_is_refused() -> None:
    done = subprocess.run(
        [*COMMAND, "--glob", "/srv/*", "--interval", "60"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        UsageError.exit_code,
        "fserr-bpf: intervals are for hooks, and there is none; add --on-error CMD\n",
    )
