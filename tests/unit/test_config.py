"""The configuration of a run: what it means, and each mistake with its line and key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fserr_bpf import cli
from fserr_bpf.cli.run import _description
from fserr_bpf.errors import UsageError
from fserr_bpf.model.mark import Mark, SuperblockErrors
from fserr_bpf.model.stream import Stream
from fserr_bpf.outputs.classes import MessageClass
from fserr_bpf.service import config
from fserr_bpf.service.description import (
    Description,
    EventSocket,
    File,
    Full,
    Hook,
    Journal,
    Prometheus,
    Queueing,
    Service,
)

COMMAND = str(Path(sys.executable).with_name("fserr-bpf"))
WATCHED = """
paths = ["/srv"]
mark = ["subtree:/var/lib"]
ignore = ["inode:/var/lib/x"]
superblock-errors = "all"
all-namespaces = true
container = "db"
stream = "native"
detail = true
user = "nobody"
"""
OPTIONS = (
    *("--mark", "subtree:/var/lib", "--ignore", "inode:/var/lib/x", "--superblock-errors", "all"),
    "--all-namespaces",
    *("--container", "db", "--stream", "native", "--detail", "--user", "nobody", "/srv"),
)


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return str(file)


def described(*words: str) -> Description:
    return _description(cli.parser(["run"]).parse_args(["run", *words]))


def test_options_and_file_lead_to_the_same(tmp_path: Path) -> None:
    path = written(tmp_path, WATCHED)
    read = described("--config", path)
    assert read.service == Service("/run/fserr-bpf")
    assert read.marks == (Mark.filesystem("/srv"), Mark.subtree("/var/lib"))
    assert (read.superblock, read.stream) == (SuperblockErrors.ALL, Stream.NATIVE)
    options = described(*OPTIONS)
    assert options.differs(read) == ["service", "file"]
    nothing = described("--config", written(tmp_path, ""))
    assert described().differs(nothing) == ["service", "file"]


def test_outputs(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.touch(0o755)
    text = f"""
state = "/tmp/state"
[journal]
classes = ["io", "ended"]
queue = 7
drop = "oldest"
[[file]]
path = "/a"
[[file]]
path = "/b"
format = "text"
[[hook]]
command = "{hook}"
timeout = 5
interval = 1.5
[prometheus]
textfile = "/c"
listen = "[::1]:9876"
"""
    limited = Queueing(frozenset({MessageClass.IO, MessageClass.ENDED}), 7, Full.OLDEST)
    assert config.read(written(tmp_path, text)).service == Service(
        "/tmp/state",
        (Journal(limited), File("/a"), File("/b", "text"), Hook(str(hook), 5.0, 1.5)),
        Prometheus("/c", ("::1", 9876)),
    )


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a = = b", 1, "Invalid value; repair the TOML"),
        ("x = 1", 1, "x is no key; use one of paths, mark, "),
        (
            "\n[journal]\nque = 3",
            3,
            "journal.que is no key; use one of socket, classes",
        ),
        ("[jurnal]\nqueue = 3", 1, "jurnal is no key; "),
        ("# detail = 1\n\ndetail = 3", 3, "detail is 3, not true or false; "),
        ("user = true", 1, "user is true, not a string; "),
        ("paths = []", 1, "paths is empty; leave it out for all file systems"),
        ('paths = ["/", 1]', 1, "paths has an element that is no string; quote it"),
        ('mark = ["tree:/"]', 1, "mark is wrong: no mark: tree:/; give filesystem|"),
        ('cgroup = "a"\ncontainer = "b"', 2, "container and cgroup exclude each other; "),
        ('stream = "none"', 1, 'stream is "none"; use native, fserror, proposed'),
        ('state = "run"', 1, 'state is "run", no absolute path; '),
        ("[journal]\nqueue = 0", 2, "journal.queue is 0; use 1 to 1048576 messages"),
        ('[journal]\ndrop = "all"', 2, 'journal.drop is "all"; use newest, oldest'),
        ('[journal]\nclasses = ["eio"]', 2, 'journal.classes has "eio"; use corruption, io, '),
        ("[file]", 1, "file is a table, not a list; "),
        ("[[file]]", 1, "file.path is None, which it must have; "),
        ('[[file]]\npath = "/a"\n[[file]]\npath = "b"', 4, 'file.path is "b", no absolute'),
        ('[[file]]\npath = "/a"\n[[file]]\npath = "/a"', 1, "file names file /a twice; "),
        ('[[file]]\npath = "/a"\nformat = "raw"', 3, 'file.format is "raw"; use json or text'),
        ('[[hook]]\ncommand = "/nonexistent/x"', 2, "hook.command is wrong: /nonexistent/x: No "),
        ('[[hook]]\ncommand = "/etc/passwd"', 2, "hook.command is wrong: /etc/passwd cannot "),
        ('[[hook]]\ncommand = "/bin/true"\ntimeout = 0', 3, "hook.timeout is 0; use above 0 "),
        ('[prometheus]\nlisten = "9876"', 2, 'prometheus.listen is "9876", not HOST:PORT; '),
        ('[prometheus]\nlisten = "a:b"', 2, 'prometheus.listen is "a:b", not HOST:PORT; '),
        ("detail.x = 1", 1, "detail is a table, not true or false; "),
    ],
)
def test_mistake_has_its_line_and_key(text: str, line: int, what: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        config.read(path)
    assert str(caught.value).startswith(f"{path}:{line}: {what}")


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^/nonexistent: No such file or directory; name a "):
        config.read("/nonexistent")
    (tmp_path / "config.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"config.toml: not UTF-8; "):
        config.read(str(tmp_path / "config.toml"))


@pytest.mark.parametrize("loose", ["hook", "folder", "config.toml"])
def test_hook_that_others_can_change_is_refused(loose: str, tmp_path: Path) -> None:
    """The program, the folders above it, and the file that names it."""
    folder = tmp_path / "folder"
    folder.mkdir(0o755)
    hook = folder / "hook"
    hook.touch(0o755)
    path = written(tmp_path, f'[[hook]]\ncommand = "{hook}"')
    assert config.read(path).service is not None
    changed = {"hook": hook, "folder": folder, "config.toml": Path(path)}[loose]
    os.chmod(changed, 0o777)
    with pytest.raises(UsageError) as caught:
        config.read(path)
    assert f"{changed} can be changed by others than root; give it to root, with" in str(
        caught.value
    )


def test_other_options_beside_it_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    with pytest.raises(UsageError, match=r"^options beside --config would say the same twice; "):
        described("--config", path, "--detail")


def test_example_is_right_and_has_every_key(tmp_path: Path) -> None:
    text = config.example()
    assert config.read(written(tmp_path, text)).service == Service("/run/fserr-bpf", (Journal(),))
    lines = [line.removeprefix("#") for line in text.splitlines()]
    whole = [line for line in lines if line[:1] != " " and "container" not in line]
    whole = [line.replace("/usr/local/sbin/on-file-system-error", "/bin/true") for line in whole]
    read = config.read(written(tmp_path, "\n".join(whole)))
    assert read.service is not None
    assert [type(each) for each in read.service.outputs] == [Journal, File, EventSocket, Hook]
    assert read.service.prometheus == Prometheus(
        "/var/lib/prometheus/node-exporter/fserr-bpf.prom", ("127.0.0.1", 9876)
    )


def test_the_command_checks_and_shows(tmp_path: Path) -> None:
    shown = subprocess.run([COMMAND, "config", "example"], capture_output=True, check=True)
    file = tmp_path / "config.toml"
    file.write_bytes(shown.stdout)
    good = subprocess.run([COMMAND, "config", "check", file], capture_output=True, check=True)
    assert good.stdout.decode() == f"{file} is right; outputs: journal\n"
    file.write_text("x = 1")
    bad = subprocess.run([COMMAND, "config", "check", file], capture_output=True, check=False)
    assert (bad.returncode, bad.stdout) == (UsageError.exit_code, b"")
    assert bad.stderr.startswith(f"fserr-bpf: {file}:1: x is no key; ".encode())


def test_what_cannot_change_while_it_runs() -> None:
    one = Description(service=Service("/s", (Journal(), Hook("/h"))))
    other = Description(service=Service("/s", (File("/f"), Hook("/h")), Prometheus("/p")))
    assert one.differs(other) == []
    assert one.differs(Description(stream=Stream.NATIVE, service=Service("/s"))) == [
        "stream",
        "hook",
    ]
    assert one.differs(Description(service=Service("/t", (Hook("/h"),)))) == ["service"]
