"""When other mount namespaces are looked at, and what of them counts."""

from __future__ import annotations

import select
import time

import pytest

from fserr_bpf.group.elsewhere import Elsewhere
from fserr_bpf.kernel.mounts import Mount, MountTable

SECOND = 1_000_000_000


def mount(minor: int, point: str) -> Mount:
    return Mount(minor, 0, 8, minor, "/", point, "ext4", f"/dev/sda{minor}", "rw", "rw")


OWN = (mount(1, "/"),)
THEIRS = (mount(1, "/proc/7/root/"), mount(2, "/proc/7/root/data"))


class World:
    """A clock, and what is mounted elsewhere."""

    def __init__(self) -> None:
        self.now = time.monotonic_ns()
        self.table: MountTable = THEIRS
        self.looks = 0

    def read(self) -> MountTable:
        self.looks += 1
        return self.table


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = World()
    monkeypatch.setattr(time, "monotonic_ns", lambda: found.now)
    return found


def test_what_is_mounted_here_too_is_not_elsewhere(world: World) -> None:
    with Elsewhere(world.read) as found:
        assert found.together(OWN, changed=False) == (*OWN, THEIRS[1])
        assert found.together((), changed=False) == THEIRS


def test_a_change_here_has_it_look_a_second_later_and_once(world: World) -> None:
    with Elsewhere(world.read) as found:
        for _ in range(5):
            world.now += SECOND // 10
            found.together(OWN, changed=True)
        assert (world.looks, found.is_due()) == (1, False)
        world.now += SECOND
        world.table = ()
        assert found.is_due()
        assert found.together(OWN, changed=True) == OWN
        assert (world.looks, found.is_due()) == (2, False)


def test_without_a_change_it_looks_once_a_minute_and_earlier_for_who_is_awake(
    world: World,
) -> None:
    with Elsewhere(world.read) as found:
        world.now += 29 * SECOND
        assert not found.is_due()
        world.now += SECOND
        assert found.is_due()
        found.together(OWN, changed=False)
        assert (world.looks, found.is_due()) == (2, False)
        # nobody is woken before the minute is over
        assert not select.select([found], [], [], 0)[0]
