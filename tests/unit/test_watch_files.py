"""``watch-files`` without a kernel: globs beside bash, mount tables, when hooks may run."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fserr_bpf.errors import UsageError
from fserr_bpf.hooks.hook import AT_ONCE, FILES_KEPT, Backlog, Begun, Held, Intervals
from fserr_bpf.kernel.mounts import MountTable, parse_mountinfo
from fserr_bpf.uapi.dev import Dev
from fserr_bpf.watchfiles.fileerror import FileError, json_line, line
from fserr_bpf.watchfiles.globs import Glob
from fserr_bpf.watchfiles.views import Views

# globs

FILES = (
    *("a", "b", "ab", "abc", ".hidden", "x-y", "x]y", "[", "a[b", "back\\slash", "sp ace", "ü"),
    *("new\nline", "d/a", "d/.b", "d/e/a", "d/e/f/a", ".d/a", "d-/c", "0", "7", "A", "z!", "^"),
)
GLOBS = (
    *("*", "?", "a*", "*b", "a*c", "**", "**/a", "d/**", "d/**/a", "**/e/**", "d/*", "d/*/a"),
    *("[ab]", "[!a]", "[^a]", "[a-c]*", "[]x]*", "x[]]y", "x[-]y", "[", "a[b", "a[[]b", "[z-a]"),
    *(
        "[[:digit:]]",
        "[![:digit:]]b",
        "[[:upper:]0]",
        "*\\\\*",
        "\\a",
        "a\\*",
        "?\\[b",
        "**a",
        "a**",
    ),
    *(
        "**/**",
        "**/**/a",
        ".*",
        ".*/a",
        "*/.b",
        "sp\\ ace",
        "new?line",
        "[a",
        "[!]a]",
        "[a\\]b]",
        "^",
    ),
    *("d/e/f/a", "nothing*", "[^]", "[!", "d*/**", "**/[a-b]", "*/*/*", "???", "[.]*", "[a-]"),
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("tree").resolve()
    for name in FILES:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    return top


def by_bash(top: Path, glob: str) -> set[str]:
    """The regular files that bash itself finds below ``top``; it repeats a double slash."""
    script = (
        'shopt -s globstar dotglob nullglob; eval "found=($0)"; for file in "${found[@]}"; do'
        ' [ -f "$file" ] && printf "%s\\0" "$file"; done; true'
    )
    done = subprocess.run(
        ["bash", "-c", script, f"{top}/{glob}"],
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    return {os.path.normpath(name) for name in os.fsdecode(done.stdout).split("\0") if name}


def files_of(top: Path, pattern: str) -> set[str]:
    glob = Glob(f"{top}/{pattern}")
    return {path for name in FILES if glob.matches(path := f"{top}/{name}")}


def test_globs_mean_what_bash_means(tree: Path) -> None:
    found = [by_bash(tree, glob) for glob in GLOBS]
    assert [files_of(tree, glob) for glob in GLOBS] == found
    assert sum(map(bool, found)) > 40  # the test tests something
    assert max(map(len, found)) == len(FILES)


PIECES = st.sampled_from(
    ["*", "**", "?", "[a-d]", "[!a]", "a", "b", "d", "e", "/", "/", "x", "\\a"]
)


@given(st.lists(PIECES, min_size=1, max_size=7).map("".join))
def test_random_globs_mean_what_bash_means(tree: Path, pattern: str) -> None:
    pattern = pattern.strip("/")
    if not pattern or (tree / pattern.replace("\\", "")).is_dir():
        return
    assert files_of(tree, pattern) == by_bash(tree, pattern)


def test_links_in_front_of_the_wildcards_are_resolved(tree: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tree / "d")
    glob = Glob(f"{link}/**")
    assert glob.prefix == f"{tree}/d"
    assert glob.matches(f"{tree}/d/e/a")
    assert not glob.matches(f"{link}/e/a")
    file = tmp_path / "file"
    file.symlink_to(tree / "d/a")
    assert Glob(str(file)).matches(f"{tree}/d/a")


def test_a_relative_glob_begins_here(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tree / "d" / "odd[a]*"
    odd.mkdir()
    monkeypatch.chdir(odd)
    glob = Glob("x*")
    assert glob.prefix == str(odd)
    assert glob.matches(f"{odd}/xy")
    assert not glob.matches(f"{tree}/d/odda/xy")
    odd.rmdir()


def test_what_does_not_exist_yet_may_be_meant() -> None:
    glob = Glob("/not/yet/**/*.db")
    assert glob.prefix == "/not/yet"
    assert glob.matches("/not/yet/a.db")
    assert glob.matches("/not/yet/a/b/c.db")
    assert not glob.matches("/not/yeta.db")


@pytest.mark.parametrize("text", ["", "/tmp", "/tmp/", "/", "/a*/", "/a*/../b", "a\0b"])
def test_globs_that_mean_no_file_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        Glob(text)
    assert refused.value.remedy


# where a name shows

TABLE = b"""\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 8:2 / /srv rw - ext4 /dev/sdb rw
22 21 8:3 / /srv/a/b rw - xfs /dev/sdc rw
23 20 8:2 /a /bind rw - ext4 /dev/sdb rw
24 20 8:4 / /hidden/deep rw - ext4 /dev/sdd rw
25 20 8:5 / /hidden rw - tmpfs none rw
26 20 8:6 / /twice rw - ext4 /dev/sde rw
27 26 8:7 / /twice rw - ext4 /dev/sdf rw
28 20 8:8 /sub\\040volume /btrfs rw - btrfs /dev/sdg rw
"""


def table(text: bytes = TABLE) -> MountTable:
    return parse_mountinfo(text)


def paths(name: str, minor: int) -> list[str]:
    return [path for path, _ in Views(table()).paths_of(name, Dev(8, minor))]


def test_a_name_shows_through_every_mount() -> None:
    assert paths("/a/f", 2) == ["/srv/a/f", "/bind/f"]
    assert paths("/f", 2) == ["/srv/f"]
    assert paths("/srv/f", 1) == []  # another mount is there
    assert paths("/srvx/f", 1) == ["/srvx/f"]
    assert paths("/sub volume/f", 8) == ["/btrfs/f"]
    assert paths("/sub volumes/f", 8) == []


def test_a_name_below_another_mount_is_not_seen() -> None:
    assert paths("/a/b/f", 2) == ["/bind/b/f"]
    assert paths("/f", 3) == ["/srv/a/b/f"]


def test_hidden_mounts_show_nothing() -> None:
    assert paths("/f", 4) == []
    assert paths("/f", 6) == []
    assert paths("/f", 7) == ["/twice/f"]
    views = Views(table())
    assert [
        m.mount_id for dev in (Dev(8, 4), Dev(8, 6), Dev(8, 7)) for m in views.mounts_of(dev)
    ] == [27]


def test_paths_and_names_are_each_others_reverse() -> None:
    views = Views(table())
    for name, minor in (("/a/f", 2), ("/f", 3), ("/sub volume/f", 8), ("/x", 1)):
        for path, mount in views.paths_of(name, Dev(8, minor)):
            assert views.mount_at(path) is mount
            assert views.name_at(path, Dev(8, minor)) == name
    assert views.name_at("/srv/f", Dev(8, 1)) == ""


def test_this_machines_own_table(tmp_path: Path) -> None:
    text = Path("/proc/self/mountinfo").read_bytes()
    views = Views(table(text))
    for path in (tmp_path, Path("/proc/self"), Path("/sys/kernel"), Path("/")):
        found = views.mount_at(os.path.realpath(path))
        assert found is not None
        by_findmnt = subprocess.run(
            ["findmnt", "--noheadings", "--output", "TARGET", "--target", path],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        assert found.mount_point == by_findmnt


# forms

ERROR = FileError(
    path="/srv/evil\n\x1b\udcff",
    deleted=False,
    glob="/srv/**",
    kind="WRITEBACK",
    error=5,
    error_count=3,
    pos=None,
    length=None,
    ino=12,
    generation=7,
    dev=Dev(8, 1),
    device="sda1",
    fstype="ext4",
    mount_point="/srv",
    pid=99,
    comm="dd",
    time_ns=1_700_000_000_000_000_001,
)


def test_a_line_is_one_line() -> None:
    text = line(ERROR).decode()
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert "/srv/evil\\x0a\\x1b\\xff: EIO 5 x3 WRITEBACK ino 12 on sda1, dd[99]" in text
    more = line(ERROR._replace(deleted=True, pos=0, length=4096, pid=0, comm="")).decode()
    assert "\\xff (deleted): EIO 5 x3 WRITEBACK pos 0 length 4096 ino 12 on sda1, no task" in more


def test_json_has_every_field_and_the_bytes_of_the_path() -> None:
    value = json.loads(json_line(ERROR))
    assert (value.pop("v"), value.pop("type"), value.pop("errno")) == (1, "file_error", "EIO")
    assert value == ERROR._asdict() | {"dev": [8, 1]}
    assert os.fsencode(value["path"]) == b"/srv/evil\n\x1b\xff"


def test_the_environment_reaches_a_shell_as_it_is() -> None:
    whole = ERROR.environment(Held())
    done = subprocess.run(["env", "-0"], env=whole, capture_output=True, check=True)
    assert b"FSERR_PATH=/srv/evil\n\x1b\xff\0" in done.stdout
    assert whole["FSERR_TIME"] == "1700000000.000000001"
    assert (whole["FSERR_HELD_COUNT"], whole["FSERR_HELD_FILES"]) == ("0", "0")
    assert (whole["FSERR_POS"], whole["FSERR_LENGTH"], whole["FSERR_DELETED"]) == ("", "", "")
    assert ERROR._replace(pos=0, length=1).environment(Held())["FSERR_POS"] == "0"
    document = (Path(__file__).parents[2] / "docs/watch-files.md").read_text()
    assert {key for key in whole if f"| `{key}` |" in document} == whole.keys()


# when hooks run


def error(path: str, count: int = 1, number: int = 5) -> FileError:
    return ERROR._replace(path=path, error_count=count, error=number)


def take(backlog: Backlog, now: float = 0.0) -> Begun | None:
    return backlog.take(now)


def ran(number: int, error: FileError, held: Held = Held()) -> Begun:  # noqa: B008 - immutable
    return Begun(number, error, held)


def test_a_burst_becomes_one_later_run_with_the_sum() -> None:
    backlog = Backlog()
    assert backlog.add(error("a", 2))
    assert take(backlog) == ran(1, error("a", 2))
    for count in (1, 10, 100):
        assert backlog.add(error("a", count))
    assert take(backlog) is None  # never two at a time for one file
    assert backlog.done(1) == error("a", 2)
    assert take(backlog) == ran(2, error("a", 111))
    assert backlog.joined == 2
    assert len(backlog) == 0


def test_other_files_and_other_errors_do_not_join() -> None:
    backlog = Backlog()
    for each in (error("a"), error("b"), error("a", number=28)):
        assert backlog.add(each)
    begun = [take(backlog) for _ in range(4)]
    assert begun == [ran(1, error("a")), ran(2, error("b")), ran(3, error("a", number=28)), None]


def test_no_more_than_a_few_run_and_a_bounded_number_waits() -> None:
    backlog = Backlog(limit=10)
    for index in range(AT_ONCE):
        assert backlog.add(error(f"running{index}"))
        assert take(backlog)
    accepted = [backlog.add(error(f"waiting{index}")) for index in range(12)]
    assert accepted == [True] * 10 + [False] * 2
    assert backlog.add(error("waiting3", 5))  # joins: no room needed
    assert take(backlog) is None
    backlog.done(2)
    assert take(backlog) == ran(AT_ONCE + 1, error("waiting0"))
    assert backlog.drop_all() == 9
    assert (backlog.joined, backlog.dropped) == (1, 2 + 9)


def of(ino: int, count: int = 1, number: int = 5) -> FileError:
    return error(f"/srv/{ino}", count, number)._replace(ino=ino)


def test_a_file_has_one_run_in_its_interval() -> None:
    """From beginning to beginning; others do not wait for it, whatever its path and error."""
    backlog = Backlog(intervals=Intervals(file=60))
    assert backlog.due() is None
    for each in (of(1), of(1, 10), of(1, 100, number=28), of(2)):
        assert backlog.add(each)
    assert take(backlog, 100.0) == ran(1, of(1, 11))
    assert take(backlog, 100.0) == ran(2, of(2))
    backlog.done(1)
    backlog.done(2)
    assert backlog.add(of(1, 7))
    assert (take(backlog, 159.9), backlog.due()) == (None, 160.0)
    assert take(backlog, 160.0) == ran(3, of(1, 100, number=28))
    assert (take(backlog, 200.0), backlog.due()) == (None, 220.0)
    assert take(backlog, 220.0) == ran(4, of(1, 7))
    assert (backlog.joined, backlog.dropped, len(backlog)) == (1, 0, 0)


def test_a_run_that_lasts_longer_than_the_interval_is_still_the_only_one_of_its_kind() -> None:
    backlog = Backlog(intervals=Intervals(file=1))
    backlog.add(of(1))
    assert take(backlog, 0.0)
    backlog.add(of(1))
    assert (take(backlog, 5.0), backlog.due()) == (None, None)
    backlog.done(1)
    assert backlog.due() == 1.0
    assert take(backlog, 5.0) == ran(2, of(1))


def test_all_files_share_the_run_after_the_interval() -> None:
    """300 files that fail three times each made 894 runs."""
    backlog = Backlog(intervals=Intervals(all=10))
    begun = []
    for second in range(3):
        for ino in range(300):
            assert backlog.add(of(ino))
            begun.append(take(backlog, float(second)))
    assert [each for each in begun if each] == [ran(1, of(0))]
    assert backlog.due() == 10.0
    backlog.done(1)
    # of the first file two more, of the others three each; the oldest of these has the run
    assert take(backlog, 10.0) == ran(2, of(1, 3), Held(298 * 3 + 2, 299))
    assert (take(backlog, 30.0), backlog.due(), len(backlog)) == (None, None, 0)
    assert backlog.joined == 900 - 2
    backlog.add(of(5))
    assert (take(backlog, 19.0), backlog.due()) == (None, 20.0)
    assert take(backlog, 20.0) == ran(3, of(5))


def test_other_errors_of_the_same_file_are_no_other_file() -> None:
    backlog = Backlog(intervals=Intervals(all=10))
    for each in (of(1), of(1, 2, number=28), of(2, 4)):
        backlog.add(each)
    assert take(backlog) == ran(1, of(1), Held(6, 1))


def test_both_intervals() -> None:
    """What a file's interval still holds back is summed up by the next run of any."""
    backlog = Backlog(intervals=Intervals(file=60, all=10))
    backlog.add(of(1))
    assert take(backlog, 0.0) == ran(1, of(1))
    backlog.done(1)
    backlog.add(of(1, 5))
    assert (take(backlog, 10.0), backlog.due()) == (None, 60.0)
    backlog.add(of(2))
    assert take(backlog, 10.0) == ran(2, of(2), Held(5, 1))
    assert backlog.due() is None


def test_a_bounded_number_of_files_is_remembered() -> None:
    backlog = Backlog(at_once=FILES_KEPT + 2, limit=FILES_KEPT + 2, intervals=Intervals(file=60))
    for ino in range(FILES_KEPT + 1):
        backlog.add(of(ino))
        begun = take(backlog)
        assert begun is not None
        backlog.done(begun.number)
    for ino in (1, 0):
        backlog.add(of(ino))
    begun = take(backlog)
    assert begun is not None
    assert begun.error == of(0)  # the oldest, forgotten; 1 is not


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abcdef"), st.integers(1, 9)),
        st.integers(0, AT_ONCE - 1),
    ),
    max_size=60,
)


@given(EVENTS)
def test_every_error_is_in_exactly_one_run_or_dropped(events: list[tuple[str, int] | int]) -> None:
    backlog = Backlog(at_once=3, limit=3)
    given_ = begun = lost = 0
    for event in [*events, *([0] * 100)]:
        if isinstance(event, int):
            if event < len(backlog.running):
                backlog.done(list(backlog.running)[event])
        else:
            given_ += event[1]
            lost += 0 if backlog.add(error(*event)) else event[1]
        while started := take(backlog):
            begun += started.error.error_count
            running = [each.name for each in backlog.running.values()]
            assert len(running) == len(set(running)) <= 3
    assert (len(backlog), len(backlog.running)) == (0, 0)
    assert begun + lost == given_
