"""Clients that mark, cause and read in pseudo-random order hear the same under ``exec --exact``."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from fserr_bpf_compare.faults.scratch import scratch
from tests.exec_clients import COMPILER, compile_c
from tests.live.exec_place import Place, by_kind, events_in, play, require_exact_kernel
from tests.live.exec_scenarios import Scenario

pytestmark = [
    pytest.mark.root,
    pytest.mark.usefixtures("file_systems"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)"),
]

SEEDS = range(2100, 2160)
WORDS = 40
GROUPS = ("init:0x203", "init:0x303", "init:0xe03")
# ADD and REMOVE of the file system; to be ignored, in both ways; to be ignored after MODIFY too
FLAGS = ("0x101", "0x101", "0x101", "0x102", "0x121", "0x122", "0x161", "0x541", "0x542")
# FS_ERROR, with and without CREATE, ONDIR, MODIFY
MASKS = ("0x8000", "0x8000", "0x8100", "0x100", "0x40008000", "0x8002")
PLACES = ("{mnt}", "{mnt}", "{other}")


def client(seed: int) -> Scenario:
    """A client in the words of tests/clients/reader.c; it reads all that is left at the end."""
    chance = random.Random(seed)

    def mark() -> str:
        return f"mark:{chance.choice(FLAGS)}:{chance.choice(MASKS)}:{chance.choice(PLACES)}"

    def inode_mark() -> str:
        return f"mark:{chance.choice(('0x1', '0x2', '0x21'))}:0x40000100:{{mnt}}"

    def word(number: int) -> str:
        choices = (
            (4, f"use:{chance.randrange(len(GROUPS))}"),
            (4, mark()),
            (1, inode_mark()),
            (1, chance.choice(("mark:0x180:0:{mnt}", "mark:0x80:0:{mnt}"))),
            (3, f"cause:{chance.randrange(1, 4)}:{{trigger}}"),
            (1, f"cause:{chance.randrange(1, 4)}:{{other_trigger}}"),
            (1, "storm:1:{trigger}"),
            (1, f"create:{{mnt}}/new{seed}-{number}"),
            (3, "read:4096"),
            (1, "ready"),
            (1, "read:24"),
        )
        return chance.choices([text for _, text in choices], [often for often, _ in choices])[0]

    starts = [f"{group} mark:0x101:0x8000:{{mnt}}" for group in GROUPS]
    ends = [f"use:{at} read:4096 read:4096" for at in range(len(GROUPS))]
    return Scenario(f"seed{seed}", " ".join((*starts, *map(word, range(WORDS)), *ends)), 0)


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("random")
    with scratch("ext4") as fs, scratch("ext4") as other:
        yield Place(compile_c(directory, "reader"), fs, other, directory)


def test_random_clients_hear_the_same(place: Place) -> None:
    """Except for the order between errors and other events, which come from two places."""
    require_exact_kernel()
    clients = [client(seed) for seed in SEEDS]
    native = play(place, clients, None, by_kind)
    ours = play(place, clients, ("--exact",), by_kind)
    assert sum(len(events_in(lines)) for lines in native.values()) > 4 * len(SEEDS)
    different = [one for one in clients if ours[one.name] != native[one.name]]
    assert not different, "\n".join(
        [f"{len(different)} clients differ", *(shown(one, native, ours) for one in different[:5])]
    )


def shown(one: Scenario, native: dict[str, list[str]], ours: dict[str, list[str]]) -> str:
    """For people."""
    lines = ("kernel:", *native[one.name], "ours:", *ours[one.name])
    return "\n".join((one.words, *lines))
