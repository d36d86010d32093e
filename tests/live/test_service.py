"""``fserr-bpf run --config``: one error in all outputs, and what goes wrong with them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fserr_bpf.service.sequence import FILE, Sequence
from fserr_bpf_compare.faults.scratch import scratch
from fserr_bpf_compare.ready import Ready
from tests.live.conftest import ATTACH_SECONDS, BY_NAME, wait_until
from tests.live.test_run_cli import COMMAND, require_exact_pid, running
from tests.unit.test_journal import fields

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("fast_attaching")]

TRIGGER = BY_NAME["ext4_trigger"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def errors_in(file: Path) -> int:
    return sum(each.get("error_count", 0) for each in lines_of(file))


@contextmanager
def journal_at(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(path))
        journal.settimeout(60)
        yield journal


def state_of(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    return state


@contextmanager
def attached_top(path: Path) -> Iterator[dict[str, Any]]:
    """``top --attach`` meanwhile; what it has seen is known afterwards."""
    words = ("top", "--attach", str(path), "--once", "--json", "--interval", "600")
    seen: dict[str, Any] = {}
    with (
        Ready() as ready,
        subprocess.Popen(
            [COMMAND, *words, *ready.options], stdout=subprocess.PIPE, pass_fds=ready.pass_fds
        ) as top,
    ):
        try:
            assert ready.wait(ATTACH_SECONDS)
            yield seen
            top.send_signal(signal.SIGTERM)
            seen |= json.loads(top.communicate(timeout=60)[0])
        finally:
            top.kill()


def counted(text: str, name: str) -> dict[str, float]:
    """The values of a metric by its labels."""
    return {
        labels: float(value)
        for labels, value in re.findall(rf"^{name}\{{(.*)\}} (\S+)$", text, re.MULTILINE)
    }


def test_one_error_is_in_every_output(scratch_space: Path) -> None:
    """Journal, both formats of files, hook, textfile, HTTP and the state file; each counted."""
    port, hooked, hook = free_port(), scratch_space / "hooked", scratch_space / "hook"
    hook.write_text(f'#!/bin/sh\necho "$FSERR_CLASS $FSERR_ERRNO $FSERR_COUNT" >> {hooked}\n')
    hook.chmod(0o755)
    folder, textfile = scratch_space / "state", scratch_space / "fserr.prom"
    as_json, as_text = scratch_space / "json", scratch_space / "text"
    config = scratch_space / "config.toml"
    with (
        scratch("ext4") as fs,
        journal_at(scratch_space / "journal") as journal,
    ):
        config.write_text(
            f'paths = ["{fs.mount_point}"]\nstate = "{folder}"\n'
            f'[journal]\nsocket = "{scratch_space}/journal"\n'
            f'[socket]\n[[file]]\npath = "{as_json}"\n'
            f'[[file]]\npath = "{as_text}"\nformat = "text"\n'
            f'[[hook]]\ncommand = "{hook}"\nclasses = ["corruption"]\n'
            f'[prometheus]\ntextfile = "{textfile}"\nlisten = "127.0.0.1:{port}"\n'
        )
        with running(scratch_space, "--config", str(config)) as monitor:
            with attached_top(folder / "events.sock") as top:
                TRIGGER.cause(fs)
                wait_until(lambda: errors_in(as_json) == 1, "the error")
            told = [fields(journal.recv(9999))]
            while told[-1]["FSERR_CLASS"] != b"corruption":  # the state may come first
                told.append(fields(journal.recv(9999)))
            wait_until(lambda: errors_in(as_json) == 1, "the file")
            wait_until(hooked.exists, "the hook")
            wait_until(lambda: state_of(folder)["errors"]["delivered"] == 1, "the state file")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
                scraped = answer.read().decode()
            wait_until(lambda: "fserr_errors_total{" in textfile.read_text(), "the textfile")
            assert monitor.status("CapEff") == "0" * 16
            code, output = monitor.end(signal.SIGTERM)
    assert (code, output) == (0, b"")
    assert [each["errors"] for each in top["file_systems"]] == [1]
    assert top["stream"] == "proposed"
    assert told[0]["FSERR_CLASS"] == b"cleared"
    messages = lines_of(as_json)
    assert [each["id"]["seq"] for each in messages] == list(range(1, len(messages) + 1))
    (event,) = (each for each in messages if each["type"] == "fs_error")
    assert event["errno"] == "EFSCORRUPTED"
    assert int(told[-1]["FSERR_SEQ"]) == event["id"]["seq"] == len(told)
    assert told[-1]["FSERR_BOOT_ID"].decode() == event["id"]["boot_id"]
    assert as_text.read_text().count(" EFSCORRUPTED 117 ") == 1
    assert hooked.read_text() == "corruption EFSCORRUPTED 1\n"
    labels = f'class="corruption",device="{fs.device_name}",fstype="ext4"'
    counts = counted(scraped, "fserr_errors_total")
    assert counts.pop(f'{labels},mountpoint="{fs.mount_point}"') == 1.0
    assert list(counts.values()) == [0.0, 0.0]  # io and ended: so that a first one is an increase
    assert set(counted(scraped, "fserr_output_up").values()) == {1.0}
    assert not (folder / "state.json").exists()
    assert not textfile.exists()
    assert monitor.account()[:2] == [1, 1]


def test_trouble_of_outputs_and_of_the_file(scratch_space: Path) -> None:
    """A full disk, a hook that hangs, a configuration of nonsense; and SIGKILL, and a restart."""
    folder, small = scratch_space / "state", scratch_space / "small"
    good, full = scratch_space / "good", small / "full"
    small.mkdir()
    hook = scratch_space / "hook"
    hook.write_text("#!/bin/sh\nexec sleep 1000\n")
    hook.chmod(0o755)
    config = scratch_space / "config.toml"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=True)
    try:
        ballast = small / "ballast"
        ballast.write_bytes(bytes(61440))
        with scratch("ext4") as fs:
            text = (
                f'paths = ["{fs.mount_point}"]\nstate = "{folder}"\n'
                f'[[file]]\npath = "{good}"\n[[file]]\npath = "{full}"\n'
                f'[[hook]]\ncommand = "{hook}"\n'
            )
            config.write_text(text)
            with running(scratch_space, "--config", str(config)) as monitor:
                assert os.statvfs(small).f_bavail <= 1  # a page: some lines, but not forty
                for _ in range(40):
                    TRIGGER.cause(fs)
                wait_until(lambda: errors_in(good) == 40, "the output that works")
                wait_until(lambda: any("No space" in each for each in monitor.lines()), "trouble")
                config.write_text(text + "[[file]]\npaht = 1\n")
                monitor.process.send_signal(signal.SIGHUP)
                wrong = f"fserr-bpf: {config}:9: file."
                wait_until(lambda: any(wrong in each for each in monitor.lines()), "the refusal")
                ballast.unlink()
                config.write_text(text)
                monitor.process.send_signal(signal.SIGHUP)
                wait_until(lambda: errors_in(full) == 40, "the output that was full")
                wait_until(lambda: state_of(folder)["reload_failures"] == 1, "the count")
                told = monitor.lines()
                monitor.process.kill()
            last = lines_of(good)[-1]["id"]
            assert len([line for line in told if "tried again" in line]) == 1
            assert len([line for line in told if "works again" in line]) == 1
            assert len([line for line in told if wrong in line]) == 1
            seqs = [each["id"]["seq"] for each in lines_of(full)]
            assert seqs == list(range(1, len(seqs) + 1))
            with running(scratch_space, "--config", str(config)) as monitor:
                wait_until(lambda: lines_of(good)[-1]["id"] != last, "the first message")
                monitor.end(signal.SIGTERM)
            after = lines_of(good)[len(seqs)]["id"]
            assert after == last | {"seq": last["seq"] + 1}
    finally:
        subprocess.run(["umount", small], check=True)
    with Sequence(str(folder)) as sequence:
        assert sequence.run == last["run"]
    assert os.path.getsize(folder / FILE) == 56


def accounted(file: Path) -> int:
    """Errors of events, and those that are in losses."""
    return sum(each.get("error_count", each.get("errors", 0)) for each in events_of(file))


def events_of(file: Path) -> list[dict[str, Any]]:
    return [each for each in lines_of(file) if each["type"] in ("fs_error", "lost")]


def test_flood_is_accounted_for_by_each_output_alone(scratch_space: Path) -> None:
    """One has room, one has little, one is full, and the socket's reader reads nothing."""
    require_exact_pid()
    errors, folder = 2000, scratch_space / "state"
    roomy, tight = scratch_space / "roomy", scratch_space / "tight"
    config = scratch_space / "config.toml"
    with (
        scratch("ext4") as fs,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stalled,
    ):
        config.write_text(
            f'paths = ["{fs.mount_point}"]\nstate = "{folder}"\n[socket]\nqueue = 10\n'
            f'[[file]]\npath = "{roomy}"\nqueue = 100000\n[[file]]\npath = "{tight}"\nqueue = 5\n'
            '[[file]]\npath = "/dev/full"\nqueue = 5\n'
        )
        with running(scratch_space, "--config", str(config)) as monitor:
            stalled.connect(str(folder / "events.sock"))
            stalled.sendall(b"json\n")
            assert stalled.recv(1)  # it is served from now on, and reads no more
            # each by a process of its own: they do not merge
            script = f'for i in $(seq {errors}); do (echo x > "$0"); done'
            trigger = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
            subprocess.run(["sh", "-c", script, trigger], check=True)
            wait_until(lambda: accounted(roomy) == errors, "every error")
            wait_until(lambda: accounted(tight) == errors, "every error or its loss")
            wait_until(lambda: state_of(folder)["errors"]["delivered"] > 0, "the state file")
            monitor.end(signal.SIGTERM)
    seqs = [each["id"]["seq"] for each in lines_of(roomy)]
    assert seqs == list(range(1, len(seqs) + 1))
    assert {each["type"] for each in events_of(roomy)} == {"fs_error"}
    assert len(seqs) > errors / 2
    told = monitor.lines()
    assert len([line for line in told if "/dev/full: No space left" in line]) == 1
    seen, delivered, merged, dropped = monitor.account()
    assert (seen, delivered + merged, dropped) == (errors, errors, 0)
