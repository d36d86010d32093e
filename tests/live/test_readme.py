"""The monitors of the documents, typed in as they stand, on a scratch file system."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from fserr_bpf_compare.faults.scratch import Scratch, scratch
from tests.live.conftest import BY_NAME

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scratch_space")]
ROOT = Path(__file__).parents[2]
TRIGGER = BY_NAME["ext4_trigger"]


def example(document: str) -> str:
    found = re.search(
        r"```python\n(from fserr_bpf import .*?)```", (ROOT / document).read_text(), re.DOTALL
    )
    assert found is not None
    return found[1]


@contextmanager
def typed_in(code: str) -> Iterator[IO[str]]:
    """What ``code`` prints, while it runs."""
    command = [sys.executable, "-u", "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield child.stdout
        finally:
            child.kill()


@pytest.fixture
def ext4() -> Iterator[Scratch]:
    with scratch("ext4") as fs:
        yield fs


def test_monitor_of_the_readme(ext4: Scratch) -> None:
    code = example("README.md")
    assert len(code.splitlines()) <= 10
    with typed_in(code.replace("/srv", str(ext4.mount_point))) as output:
        assert output.readline() == f"watching {ext4.mount_point}\n"
        caused = TRIGGER.cause(ext4)
        line = output.readline()
    assert line.startswith("FsErrorEvent(fsid=Fsid(")
    assert f"handle=None, error=117, error_count=1, pid={caused.pid}, " in line


def test_monitor_with_marks_on_parts(ext4: Scratch) -> None:
    """The errors of the superblock are for all marks there."""
    top = ext4.mount_point
    code = example("docs/python.md")
    places = {"/srv/tmp": "tmp", "/srv": "", "/var/lib/postgresql": "db", "/etc/fstab": "fstab"}
    for name in filter(None, places.values()):
        (top / name).mkdir()
    for path, name in places.items():
        code = code.replace(f'"{path}"', f'"{top / name}"')
    code = code.replace("    for event in", '    print("ready")\n    for event in')
    with typed_in(code) as output:
        assert output.readline() == "ready\n"
        TRIGGER.cause(ext4)
        assert output.readline() == f"117 1 {top} METADATA\n"
