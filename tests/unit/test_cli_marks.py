"""Marks and streams as the command line writes them."""

from __future__ import annotations

import pytest

from fserr_bpf.cli import main
from fserr_bpf.errors import UsageError
from fserr_bpf.model.mark import Mark, mark_of


def test_marks_on_the_command_line() -> None:
    assert mark_of("subtree:/a:b") == Mark.subtree("/a:b")
    assert mark_of("filesystem:/") == Mark.filesystem("/")
    assert [Mark.mount("/").whole, Mark.inode("/").whole] == [False, False]
    for text in ("/a", "tree:/a", "inode:", "", ":/a"):
        with pytest.raises(UsageError, match=f"^no mark: {text}; give filesystem|mount|inode"):
            mark_of(text)


def test_a_mark_is_a_value() -> None:
    assert Mark.filesystem("/srv") == Mark.filesystem("/srv") != Mark.filesystem("/")
    assert Mark.inode("/srv") != Mark.subtree("/srv")


@pytest.mark.parametrize("command", ["run", "exec", "top"])
def test_a_wrong_stream_is_told_which_there_are(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--stream", "kernel"])
    assert ended.value.code == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last == (
        f"fserr-bpf {command}: error: argument --stream: "
        "there is no stream 'kernel'; choose from native, fserror, proposed"
    )
