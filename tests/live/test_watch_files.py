"""``fserr-bpf watch-files`` on real writeback errors: which files, and what hooks do."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fserr_bpf.errors import FserrError, OutputError, UsageError
from fserr_bpf_compare.faults.scratch import run, scratch
from tests.live.conftest import child_running, kernel_version, wait_until
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
NOTE = 'echo "$FSERR_PATH" >> "$HOOKED"'


# what a line and a hook are told


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
def test_a_failed_write_is_written_and_hooked_once(fstype: str, scratch_space: Path) -> None:
    with breakable(fstype) as (fs, folder):
        file = folder / "victim"
        before = time.time_ns()
        hook = 'env -0 >> "$HOOKED.env"; echo x >> "$HOOKED"'
        with watching(scratch_space, "--glob", f"{fs.mount_point}/**", hook=hook) as started:
            with failing(fs, file):
                pid = write(file)
            wait_for_hooks(started, 1)
            assert started.end() == 0
            (event, *others) = started.events()
            assert account(started) == (False, False)
        after = time.time_ns()
        ino = file.stat().st_ino
    assert {e["path"] for e in others} <= {str(file)}
    assert before < event["time_ns"] < after
    expected = {
        "v": 1,
        "type": "file_error",
        "path": str(file),
        "deleted": False,
        "glob": f"{fs.mount_point}/**",
        "kind": "WRITEBACK",
        "error": 5,
        "errno": "EIO",
        "ino": ino,
        "fstype": fstype,
        "mount_point": str(fs.mount_point),
    }
    assert expected.items() <= event.items()
    told = kernel_version() >= (7, 0) and fstype == "xfs"  # by itself, from a worker
    assert (event["pos"], event["length"]) == ((0, 4096) if told else (None, None))
    if fstype != "btrfs":  # its own threads write
        assert event["device"] == fs.device_name
        assert told or (event["pid"], event["comm"]) == (pid, "dd")
    found = os.fsdecode((scratch_space / "hooked.env").read_bytes()).split("\0")
    environment = dict(part.split("=", 1) for part in found if part.startswith("FSERR_"))
    assert environment["FSERR_PATH"] == event["path"]
    assert environment["FSERR_ERROR"] == "5"
    assert environment["FSERR_DEV"] == "{}:{}".format(*event["dev"])
    seconds, nanoseconds = environment["FSERR_TIME"].split(".")
    assert int(seconds) * 10**9 + int(nanoseconds) == event["time_ns"]


# which files


def test_only_matching_files_of_several_globs(scratch_space: Path) -> None:
    with breakable() as (fs, folder):
        (folder / "deep/er").mkdir(parents=True)
        names = ["a.db", "b.db", "c.txt", "deep/d.db", "deep/er/e.db", ".hidden.db", "o[d]d"]
        files = [new_file(folder / name) for name in names]
        globs = [f"{folder}/*.db", f"{folder}/deep/**/e.*", f"{folder}/o\\[d]d"]
        arguments = [word for glob in globs for word in ("--glob", glob)]
        with watching(scratch_space, *arguments, hook=NOTE) as started:
            with failing(fs, *files):
                for file in files:
                    write(file)
            wait_for_paths(started, 5)
            wait_for_hooks(started, 5)
            assert started.end() == 0
    expected = ["a.db", "b.db", "deep/er/e.db", ".hidden.db", "o[d]d"]
    assert paths(started) == [f"{folder}/{name}" for name in expected]
    assert sorted(hooked(started)) == sorted(paths(started))
    told = {event["path"]: globs.index(event["glob"]) for event in started.events()}
    assert list(told.values()) == [0, 0, 1, 0, 2]
    assert account(started) == (True, False)


def test_the_path_is_that_of_the_moment_of_the_error(scratch_space: Path) -> None:
    with breakable() as (fs, folder):
        early = new_file(folder / "early.db")
        with watching(scratch_space, "--glob", f"{fs.mount_point}/**/*.db", hook=NOTE) as started:
            made = new_file(folder / "made.db")
            hidden = early.rename(folder / "early.tmp")
            moved = made.rename(folder.with_name("group0") / "moved.db")
            run("sync", "--file-system", str(folder))
            with failing(fs, hidden, moved):
                write(hidden)  # has no longer a name that matches
                write(moved)
                wait_for_paths(started, 1)
                again = hidden.rename(folder / "again.db")
                write(again)
                wait_for_paths(started, 2)
                above = folder.rename(folder.with_name("renamed"))
                write(above / "again.db")
                wait_for_paths(started, 3)
            wait_for_hooks(started, 3)
            assert started.end() == 0
            fs.restore_device()
    expected = [str(moved), str(again), str(above / "again.db")]
    assert paths(started) == expected
    assert sorted(hooked(started)) == sorted(expected)  # hooks run side by side
    assert account(started) == (True, False)


def test_a_deleted_file_has_its_last_path(scratch_space: Path) -> None:
    with breakable() as (fs, folder):
        file = new_file(folder / "gone.db")
        hook = 'echo "$FSERR_PATH $FSERR_DELETED" >> "$HOOKED"'
        with watching(scratch_space, "--glob", f"{folder}/*.db", hook=hook) as started:
            descriptor = os.open(file, os.O_WRONLY)
            with failing(fs, file):
                file.unlink()
                os.pwrite(descriptor, b"x" * 4096, 0)
                with pytest.raises(OSError, match="Input/output error"):
                    os.fsync(descriptor)
            os.close(descriptor)
            wait_for_hooks(started, 1)
            assert started.end() == 0
    assert hooked(started) == [f"{file} 1"]
    assert {(e["path"], e["deleted"]) for e in started.events()} == {(str(file), True)}
    assert account(started) == (False, False)


def test_of_a_deleted_file_half_a_path_is_none(scratch_space: Path) -> None:
    with breakable() as (fs, folder):
        (folder / ("x" * 200)).mkdir()
        file = new_file(folder / ("x" * 200) / "gone")
        with watching(scratch_space, "--glob", f"{fs.mount_point}/**", hook=NOTE) as started:
            descriptor = os.open(file, os.O_WRONLY)
            with failing(fs, file):
                file.unlink()
                os.pwrite(descriptor, b"x" * 4096, 0)
                with pytest.raises(OSError, match="Input/output error"):
                    os.fsync(descriptor)
            note = f"on {fs.device_name}: path unknown (stale); hook not run"
            wait_until(lambda: note in started.said()[-1], "the message")
            os.close(descriptor)
            assert started.end() == 0
    assert (started.events(), started.hooked()) == ([], [])
    assert account(started) == (False, True)


def test_a_bind_mount_counts_as_the_glob_names_it(scratch_space: Path) -> None:
    bind = scratch_space / "bind"
    bind.mkdir()
    with breakable() as (fs, folder):
        inside, outside = new_file(folder / "inside"), new_file(folder.parent / "group0/outside")
        run("mount", "--bind", str(folder), str(bind))
        try:
            with watching(scratch_space, "--glob", f"{bind}/**") as started:
                with failing(fs, inside, outside):
                    write(outside)
                    write(inside)
                wait_for_paths(started, 1)
                assert started.end() == 0
        finally:
            run("umount", str(bind))
    found = {(event["path"], event["mount_point"]) for event in started.events()}
    assert found == {(f"{bind}/inside", str(bind))}
    assert started.account()[1:] == (True, False)


def test_what_is_mounted_later_below_a_glob_counts(scratch_space: Path) -> None:
    with breakable() as (fs, folder):
        file = new_file(folder / "file")
        fs.unmount()
        with watching(scratch_space, "--glob", f"{scratch_space}/*/mnt/**", hook=NOTE) as started:
            fs.mount()
            news = f"fserr-bpf: now watching {fs.mount_point} (ext4)"
            wait_until(lambda: news in started.said(), "the new mount")
            with failing(fs, file):
                write(file)
            wait_for_hooks(started, 1)
            fs.unmount()
            wait_until(lambda: "no longer watching" in started.said()[-1], "the end of the mount")
            fs.mount()
            wait_until(lambda: started.said().count(news) == 2, "the mount again")
            before = len(started.hooked())
            with failing(fs, file):
                write(file)
            wait_until(lambda: len(started.hooked()) > before, "the hook")
            assert started.end() == 0
    assert set(started.hooked()) == {str(file)}


def test_files_elsewhere_on_the_machine_are_not_watched(scratch_space: Path) -> None:
    with breakable() as (fs, folder), scratch("ext4") as other:
        file = new_file(folder / "file")
        with watching(scratch_space, "--glob", f"{other.mount_point}/**") as started:
            with failing(fs, file):
                write(file)
            assert started.end() == 0
    assert started.account() == (0, False, False)


@pytest.mark.parametrize("hide", ["deep", "long", "forgotten"])
def test_what_the_probe_cannot_name_is_looked_up(hide: str, scratch_space: Path) -> None:
    """Too deep, too long, or no name is in memory when the kernel writes."""
    with breakable() as (fs, folder):
        inner = {"deep": "/".join("123456789"), "long": "x" * 200, "forgotten": "inner"}[hide]
        (folder / inner).mkdir(parents=True)
        file = new_file(folder / inner / "file")
        other = new_file(folder / inner / "other")
        with watching(scratch_space, "--glob", f"{folder}/**/file", hook=NOTE) as started:
            with failing(fs, file, other):
                if hide == "forgotten":
                    for each in (file, other):
                        with each.open("r+b", buffering=0) as opened:
                            opened.write(b"x" * 4096)
                    # takes names and clean inodes, leaves dirty pages
                    Path("/proc/sys/vm/drop_caches").write_text("2")
                    subprocess.run(["sync"], check=False)
                else:
                    write(other)
                    write(file)
                wait_for_paths(started, 1)
            wait_for_hooks(started, 1)
            assert started.end() == 0
    assert set(paths(started)) == {str(file)}
    assert set(started.hooked()) == {str(file)}
    assert account(started) == (True, False)


def test_an_unknown_path_is_reported_and_counted(scratch_space: Path) -> None:
    with breakable() as (fs, folder):
        (folder / ("x" * 200)).mkdir()
        file = new_file(folder / ("x" * 200) / "file")
        with watching(scratch_space, "--glob", f"{folder}/**", hook=NOTE) as started:
            helper = child_running(started.process.pid, "fserr_bpf.helper.worker")
            os.kill(helper, signal.SIGSTOP)
            with failing(fs, file):
                write(file)
            ino = file.stat().st_ino
            what = f"fserr-bpf: EIO of ino {ino} on {fs.device_name}"
            note = f"{what}: path unknown (lookup timed out); hook not run"
            wait_until(lambda: started.said()[-1] == note, "the deadline")
            assert started.end() == 0
    assert started.account() == (0, False, True)
    assert started.hooks() == [0, 0, 0, 0, 0]


# trouble


def test_without_its_runner_it_ends_with_a_word(scratch_space: Path) -> None:
    with (
        scratch("ext4") as fs,
        watching(scratch_space, "--glob", f"{fs.mount_point}/**", hook="true") as started,
    ):
        os.kill(runner_of(started), signal.SIGKILL)
        assert started.process.wait(60) == FserrError.exit_code
        assert (
            "the process that runs the hooks has ended; start fserr-bpf again" in started.said()[-1]
        )


def test_hooks_run_though_nobody_reads_the_events(scratch_space: Path) -> None:
    """A full pipe holds up lines only; they go elsewhere when its reader leaves."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = 0
    try:
        while True:
            filled += os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    with breakable() as (fs, folder), os.fdopen(writer, "wb") as pipe:
        file = new_file(folder / "file")
        with watching(scratch_space, "--glob", f"{folder}/*", hook=NOTE, stdout=pipe) as started:
            with failing(fs, file):
                write(file)
            wait_for_hooks(started, 1)
            os.close(reader)
            pipe.close()
            assert started.process.wait(60) == OutputError.exit_code
    unread, *_ = (line for line in started.said() if line.startswith('{"v":1,"type":"file_error"'))
    assert f'"path":"{file}"' in unread
    assert started.said()[-1].endswith("; start the reader again, then fserr-bpf")


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("--glob", "/tmp"), UsageError.exit_code, "is a directory"),
        (("--glob", "/x/*/../y"), UsageError.exit_code, "behind a wildcard"),
        (("--glob", "/x/**", "--hook-user", "nobody-at-all"), UsageError.exit_code, "no such user"),
        (("--glob", "/x/**", "--timeout", "0"), 2, "not above 0"),
        ((), 2, "--glob"),
    ],
)
def test_refusals(arguments: tuple[str, ...], code: int, word: str) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert word in done.stderr.splitlines()[-1]


def test_a_glob_on_a_file_system_that_is_not_seen_is_reported(scratch_space: Path) -> None:
    with watching(scratch_space, "--glob", "/proc/**") as started:
        assert "fserr-bpf: /proc/**: /proc is on proc, whose errors are not seen" in started.said()
        assert started.end() == 0
    assert started.account() == (0, False, False)
