"""Whose cgroup an error is of, by the ids that the probe took; finding a cgroup's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from fserr_bpf.errors import UsageError
from fserr_bpf.kernel import cgroups
from fserr_bpf.kernel.mounts import Mount
from fserr_bpf.marks.cgroups import CgroupFilter, find_cgroup, find_container
from fserr_bpf.marks.rules import Answer
from fserr_bpf.uapi.entry import PlaceRecord
from fserr_bpf.uapi.record import Flag, Probe, Record
from tests.ring_values import place, record

YES, NO, UNKNOWN = Answer.YES, Answer.NO, Answer.UNKNOWN
ROOT, ABOVE, OTHER = 1, 1 << 40, 1 << 41  # numbers that no file of a test has


def cgroup(folder: Path, controllers: str = "cpuset cpu io memory pids") -> Path:
    """A folder that looks like a cgroup."""
    folder.mkdir(parents=True)
    (folder / "cgroup.controllers").write_text(f"{controllers}\n")
    (folder / "cgroup.procs").touch()
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return cgroup(tmp_path / "mine")


WRITEBACK, SOFT = record(Probe.WRITEBACK), record(Probe.WRITEBACK, flags=Flag.IN_INTERRUPT)
WORKER = record(Probe.FSERROR)


@pytest.mark.parametrize(
    ("seen", "task", "inode", "answer"),
    [
        # the owner of the inode's pages counts, whoever writes them back
        (WRITEBACK, (OTHER, ROOT), ("mine", ABOVE, ROOT), YES),
        (WRITEBACK, (OTHER, ROOT), (OTHER, "mine", ROOT), YES),
        (WRITEBACK, ("mine", ROOT), (OTHER, ROOT), NO),
        (WRITEBACK, ("mine", ROOT), (ROOT,), NO),
        (SOFT, (), ("mine", ROOT), YES),
        (WORKER, (), (OTHER, ROOT), NO),
        # else the task that met the error, if one did
        (WRITEBACK, ("mine", ROOT), (), YES),
        (WRITEBACK, (OTHER, "mine", ROOT), (), YES),
        (WRITEBACK, (OTHER, ROOT), (), NO),
        (SOFT, ("mine", ROOT), (), UNKNOWN),
        (WORKER, ("mine", ROOT), (), UNKNOWN),
        # too deep for the probe to have seen the root
        (WRITEBACK, (OTHER, ABOVE), (), UNKNOWN),
        (WRITEBACK, (), (OTHER, ABOVE), UNKNOWN),
        (WRITEBACK, (), (), UNKNOWN),
    ],
)
def test_whose_error_it_is(
    folder: Path,
    seen: Record,
    task: tuple[int | str, ...],
    inode: tuple[int | str, ...],
    answer: Answer,
) -> None:
    wanted = CgroupFilter(str(folder), owners=True)
    assert (wanted.path, wanted.number) == (str(folder), folder.stat().st_ino)
    assert wanted.owns(seen, _ids(folder, task, inode), "ext4") is answer


def _ids(folder: Path, task: tuple[int | str, ...], inode: tuple[int | str, ...]) -> PlaceRecord:
    """A place with these cgroups, ``folder``'s own number for "mine"."""
    mine = folder.stat().st_ino
    return place(
        task_cgroups=tuple(mine if name == "mine" else int(name) for name in task),
        inode_cgroups=tuple(mine if name == "mine" else int(name) for name in inode),
    )


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs", "f2fs"])
def test_file_systems_that_charge_the_owner(folder: Path, fstype: str) -> None:
    ids = _ids(folder, (OTHER, ROOT), ("mine", ROOT))
    assert CgroupFilter(str(folder), owners=True).owns(WRITEBACK, ids, fstype) is YES
    assert CgroupFilter(str(folder), owners=False).owns(WRITEBACK, ids, fstype) is NO
    assert CgroupFilter(str(folder), owners=True).owns(WRITEBACK, ids, "vfat") is NO


@pytest.mark.parametrize(
    ("controllers", "answer"),
    [("io memory", YES), ("cpu io memory pids", YES), ("io cpu", NO), ("memory", NO), ("", NO)],
)
def test_a_cgroup_without_the_controllers_owns_no_pages(
    tmp_path: Path, controllers: str, answer: Answer
) -> None:
    folder = cgroup(tmp_path / "mine", controllers)
    ids = _ids(folder, (OTHER, ROOT), ("mine", ROOT))
    assert CgroupFilter(str(folder), owners=True).owns(WRITEBACK, ids, "ext4") is answer


def test_without_a_place_nobody_knows(folder: Path) -> None:
    assert CgroupFilter(str(folder), owners=True).owns(WRITEBACK, None, "ext4") is UNKNOWN


# folders


@pytest.fixture
def tops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Where cgroup2 is mounted, to be changed by the test."""
    mounted: list[Path] = []

    def read_mounts() -> tuple[Mount, ...]:
        rest = ("cgroup2", "cgroup2", "rw", "rw")
        proc = Mount(1, 0, 0, 5, "/", str(tmp_path), "proc", "proc", "rw", "rw")
        return (proc, *(Mount(2, 1, 0, 6, "/", str(top), *rest) for top in mounted))

    monkeypatch.setattr(cgroups, "read_mounts", read_mounts)
    return mounted


def test_a_cgroup_by_its_path(tops: list[Path], tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"^no cgroup2 hierarchy is mounted; mount -t cgroup2 none DIRECTORY$"
    ):
        find_cgroup("/a")
    first, second = tmp_path / "one", tmp_path / "two"
    tops += [first, second]
    wanted = str(cgroup(first / "a" / "b"))
    other = str(cgroup(second / "only"))
    assert [find_cgroup(path) for path in ("/a/b", "a/b/", wanted, f"{wanted}/")] == [wanted] * 4
    assert find_cgroup("/only") == other
    cgroup(second / "X")
    assert find_cgroup("/X/") == str(second / "X")
    cgroup(second / "a" / "b")
    assert find_cgroup("/a/b") == wanted
    (first / "a" / "plain").mkdir()
    for path in ("/a/plain", "/none", f"{first}/none"):
        with pytest.raises(UsageError) as caught:
            find_cgroup(path)
        assert str(caught.value) == (
            f"{path}: no such cgroup; give a path as /proc/PID/cgroup has it behind 0::"
        )


ID = "0123456789ab" + "c" * 52


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("system.slice/docker-web.scope", "web"),
        (f"docker/{ID}", ID[:12]),
        (f"docker/{ID}", ID[:40]),
        (f"docker/{ID}", ID),
        (f"system.slice/docker-{ID}.scope", ID[:12]),
        (f"machine.slice/libpod-{ID}.scope", ID[:12]),
        (f"kubepods.slice/cri-containerd-{ID}.scope", ID[:12]),
        (f"kubepods.slice/crio-{ID}.scope", ID),
        ("machine.slice/machine-web.scope", "web"),
        (r"machine.slice/machine-my\x2dweb.scope", "my-web"),
        (r"machine.slice/machine-a_b:c.d\x40e.scope", "a_b:c.d@e"),
        ("lxc.payload.web", "web"),
        ("lxc.payload-web", "web"),
        ("machine.slice/web", "web"),
    ],
)
def test_a_container_by_name_or_id(
    tops: list[Path], tmp_path: Path, folder: str, name: str
) -> None:
    tops += [tmp_path / "one", tmp_path / "two"]
    wanted = cgroup(tmp_path / "one" / folder)
    cgroup(wanted / f"docker-{ID}.scope")  # its inside is part of it
    cgroup(tmp_path / "two" / folder)  # the same hierarchy, mounted once more
    assert find_container(name) == str(wanted)


@pytest.mark.parametrize("name", ["we", "web2", ID[:11], ID[:12].upper(), ID + "0", ""])
def test_no_such_container(tops: list[Path], tmp_path: Path, name: str) -> None:
    tops.append(tmp_path)
    for folder in ("docker-web.scope", f"docker-{ID}.scope", f"pod{ID}"):
        cgroup(tmp_path / folder)
    with pytest.raises(UsageError, match=f"^no cgroup of a container {name}; give its id, or"):
        find_container(name)


def test_several_containers_are_named(tops: list[Path], tmp_path: Path) -> None:
    tops.append(tmp_path)
    two = [str(cgroup(tmp_path / name / "docker-web.scope")) for name in ("b", "a")]
    with pytest.raises(UsageError) as caught:
        find_container("web")
    assert str(caught.value) == (
        f"several cgroups for a container web: {two[1]}, {two[0]}; give one of them with --cgroup"
    )
