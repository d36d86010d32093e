"""Marks as the command line writes them."""

from __future__ import annotations

import pytest

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
