"""The numbers of messages: a real file, and a process that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fserr_bpf.errors import UsageError
from fserr_bpf.service.sequence import BOOT_ID, FILE, Sequence

KILLED = """
import os, signal, sys
from fserr_bpf.service.sequence import Sequence
sequence = Sequence(sys.argv[1])
for _ in range(1000):
    print(*sequence.next(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_without_a_folder_each_run_is_its_own() -> None:
    with Sequence(None) as one, Sequence(None) as other:
        ids = [one.next(), one.next(), other.next()]
    assert [number.seq for number in ids] == [1, 2, 1]
    assert {number.boot_id for number in ids} == {Path(BOOT_ID).read_text().strip()}
    assert ids[0].run == ids[1].run < ids[2].run


def test_goes_on_after_the_process_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    boot_id, run, seq = done.stdout.splitlines()[-1].split()
    assert seq == "1000"
    with Sequence(str(tmp_path)) as sequence:
        assert sequence.next() == (boot_id, int(run), 1001)


def test_another_boot_begins_anew(tmp_path: Path) -> None:
    with Sequence(str(tmp_path)) as before:
        first = before.next()
    file = tmp_path / FILE
    file.write_bytes(b"x" * 36 + file.read_bytes()[36:])
    with Sequence(str(tmp_path)) as sequence:
        again = sequence.next()
    assert (again.boot_id, again.seq) == (first.boot_id, 1)
    assert again.run > first.run


def test_a_folder_is_for_one_process(tmp_path: Path) -> None:
    with Sequence(str(tmp_path)), pytest.raises(UsageError, match=r"^another fserr-bpf keeps its"):
        Sequence(str(tmp_path))
    with Sequence(str(tmp_path)) as later:
        assert later.next().seq == 1


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """The folder may be another user's."""
    os.symlink("/etc/hostname", tmp_path / FILE)
    with pytest.raises(UsageError, match=r"sequence: Too many levels of symbolic links; name "):
        Sequence(str(tmp_path))
