"""Which image is blamed for the end of a guest, and who plays the rest.

What a guest prints is given here; guests themselves are played by tests/live/test_images.py.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fserr_bpf_compare.harness import imagecells, start
from fserr_bpf_compare.harness.start import Ending, Target
from fserr_bpf_compare.images.files import ImageFile
from fserr_bpf_compare.verdict.cells import Cell

IMAGES = tuple(ImageFile(name, "xfs", Path(f"/images/{name}")) for name in "abcd")
KERNEL = Target("6.12", None)

Take = Callable[[bytes], None]
# What a guest does with its images: it prints, and ends.
Script = Callable[[Sequence[str], Take, threading.Event], Ending]


def cell(name: str, **fields: object) -> bytes:
    blank = Cell("6.12", "6.12.1", name, "native", image=f"/images/{name}", fstype="xfs")
    return json.dumps({**blank.to_json(), **fields}).encode()


def plays_all(names: Sequence[str], take: Take, _cancel: threading.Event) -> Ending:
    for name in names:
        take(json.dumps(name).encode())
        take(cell(name))
    return Ending("")


def ends_at(victim: str, trouble: str) -> Script:
    def script(names: Sequence[str], take: Take, cancel: threading.Event) -> Ending:
        plays_all(names[: names.index(victim)], take, cancel)
        take(json.dumps(victim).encode())
        return Ending(trouble)

    return script


class Guests:
    """Stands for `start.run`: one script for each guest, the last one for all further ones."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.played: list[list[str]] = []

    def run(
        self,
        _kernel: Target,
        arguments: Sequence[str],
        timeout: float,
        take: Take,
        cancel: threading.Event,
    ) -> Ending:
        words = arguments[arguments.index("--kernel") + 2 :]
        assert list(words[1::3]) == ["xfs"] * len(words[::3])
        assert list(words[2::3]) == [f"/images/{name}" for name in words[::3]]
        assert timeout > 0
        self.played.append(list(words[::3]))
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        return script(words[::3], take, cancel)


def play(
    monkeypatch: pytest.MonkeyPatch, *scripts: Script, timeout: float = 100, silence: float = 0.2
) -> tuple[Guests, dict[str, Cell]]:
    guests = Guests(*scripts)
    monkeypatch.setattr(start, "run", guests.run)
    seen: list[Cell] = []
    order = imagecells.ImageOrder(IMAGES, None, timeout, silence)
    cells = imagecells.cells([KERNEL], order, 1, seen.append)
    assert [found.scenario for found in cells] == list("abcd")
    assert sorted(seen) == sorted(cells)  # each is told once
    return guests, {found.scenario: found for found in cells}


def test_one_guest_plays_all(monkeypatch: pytest.MonkeyPatch) -> None:
    guests, cells = play(monkeypatch, plays_all)
    assert guests.played == [list("abcd")]
    assert not any(found.trouble or found.not_run for found in cells.values())


def test_panic_is_the_cell_of_its_image(monkeypatch: pytest.MonkeyPatch) -> None:
    panic = "6.12.1: kernel panic: xfs"
    guests, cells = play(monkeypatch, ends_at("b", panic), plays_all)
    assert guests.played == [list("abcd"), list("cd")]
    assert {name: found.trouble for name, found in cells.items()} == {
        **dict.fromkeys("acd", ""), "b": panic
    }  # fmt: skip
    assert (cells["b"].release, cells["b"].image) == ("6.12.1", "/images/b")


def test_every_image_may_end_its_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(names: Sequence[str], take: Take, _cancel: threading.Event) -> Ending:
        take(json.dumps(names[0]).encode())
        return Ending("panic")

    guests, cells = play(monkeypatch, ends)
    assert guests.played == [list("abcd"), list("bcd"), list("cd"), list("d")]
    assert {found.trouble for found in cells.values()} == {"panic"}


def test_kernel_that_is_lost_is_given_up_after_its_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(names: Sequence[str], take: Take, cancel: threading.Event) -> Ending:
        take(json.dumps(names[0]).encode())
        take(cell(names[0], trouble="read hangs", lost=True))
        assert cancel.is_set()
        return Ending("the run was cancelled")

    guests, cells = play(monkeypatch, lost, plays_all)
    assert guests.played == [list("abcd"), list("bcd")]
    assert [found.trouble for found in cells.values()] == ["read hangs", "", "", ""]


def test_silence_ends_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(names: Sequence[str], take: Take, cancel: threading.Event) -> Ending:
        ends_at("c", "")(names, take, cancel)
        assert cancel.wait(30)
        return Ending("the run was cancelled")

    guests, cells = play(monkeypatch, silent, plays_all)
    assert guests.played == [list("abcd"), list("d")]
    assert cells["c"].trouble == "the kernel hangs: no answer in 0.2 s"
    assert not cells["d"].trouble


def test_guest_that_does_not_start_is_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    guests, cells = play(monkeypatch, lambda _names, _take, _cancel: Ending("no probes"))
    assert guests.played == [list("abcd")]
    assert {found.trouble for found in cells.values()} == {"no probes"}


def test_kernel_that_cannot_be_fetched_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    script = lambda _names, _take, _cancel: Ending("no network", machine=True)  # noqa: E731
    guests, cells = play(monkeypatch, script)
    assert guests.played == [list("abcd")]
    assert {(found.not_run, found.machine) for found in cells.values()} == {("no network", True)}


def test_what_is_left_when_the_time_is_up_was_not_played(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(names: Sequence[str], take: Take, _cancel: threading.Event) -> Ending:
        ends_at("b", "")(names, take, _cancel)
        time.sleep(0.3)  # the rest of its time
        return Ending("6.12.1: it did not end within 0.2 s")

    guests, cells = play(monkeypatch, slow, timeout=0.2, silence=100)
    assert guests.played == [list("abcd")]
    assert [found.trouble for found in cells.values()] == [
        *("", "6.12.1: it did not end within 0.2 s"),
        *2 * ["not played within 0.2 s"],
    ]


def test_a_guest_gets_so_many_images_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagecells, "_MOST", 3)
    guests, _ = play(monkeypatch, plays_all)
    assert guests.played == [list("abc"), list("d")]
