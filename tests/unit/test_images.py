"""Images: found in folders, recognised by their content, unpacked from whatever they are packed."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fserr_bpf.errors import LabError, UsageError
from fserr_bpf_compare.corpus import xfs
from fserr_bpf_compare.images import exercise, files, identity
from fserr_bpf_compare.images.limited import limited

# the workers of pytest have threads, the guest that forks has none
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

MKFS = {
    "ext2": ("mkfs.ext2", "-q", "-F"),
    "ext3": ("mkfs.ext3", "-q", "-F"),
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "f2fs": ("mkfs.f2fs", "-q", "-f"),
    "vfat": ("mkfs.vfat",),
}
SIZE = {"xfs": 320 << 20, "btrfs": 128 << 20, "f2fs": 64 << 20}
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def make(fstype: str, path: Path, *options: str) -> Path:
    """An empty file system in the sparse file ``path``; without its tools the test is skipped."""
    tool = shutil.which(MKFS[fstype][0], path=PATH)
    if tool is None:
        pytest.skip(f"{MKFS[fstype][0]} is not installed")
    with path.open("xb") as file:
        file.truncate(SIZE.get(fstype, 8 << 20))
    subprocess.run([tool, *MKFS[fstype][1:], *options, str(path)], check=True, capture_output=True)
    return path


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, check=True, capture_output=True).stdout


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "gz": lambda data: gzip.compress(data, 1),
    "bz2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "zst": zstd,
}


@pytest.mark.parametrize("fstype", MKFS)
def test_file_system_is_recognised_by_its_driver(fstype: str, tmp_path: Path) -> None:
    image = make(fstype, tmp_path / "no name says it")
    assert files.recognise(image) == {"ext2": "ext4", "ext3": "ext4"}.get(fstype, fstype)


@pytest.mark.parametrize("packing", PACKED)
def test_packed_image_is_recognised_and_unpacked_byte_for_byte(
    packing: str, tmp_path: Path
) -> None:
    image = make("ext4", tmp_path / "image")
    with image.open("r+b") as file:  # something behind the last hole, and no whole chunk
        file.seek(0, os.SEEK_END)
        file.write(b"end")
    packed = tmp_path / "packed"
    packed.write_bytes(PACKED[packing](image.read_bytes()))
    assert files.recognise(packed) == "ext4"
    files.unpack(packed, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == image.read_bytes()
    # the zeros are holes again
    assert (tmp_path / "copy").stat().st_blocks * 512 < image.stat().st_size // 2


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz", "zst"])
def test_truncated_archive_says_so(packing: str, tmp_path: Path) -> None:
    image = make("ext4", tmp_path / "image")
    packed = tmp_path / "packed"
    packed.write_bytes(PACKED[packing](image.read_bytes() + os.urandom(1 << 20))[:-5000])
    with pytest.raises(LabError, match=r"packed cannot be unpacked: \S"):
        files.unpack(packed, tmp_path / "copy")


@pytest.mark.parametrize(
    ("options", "given"),
    [
        (("-U", "clear", "-O", "none"), True),
        (("-U", "clear", "-O", "^metadata_csum,uninit_bg"), False),
        (("-U", "clear", "-O", "metadata_csum"), False),
        (("-U", "random", "-O", "none"), False),
    ],
)
def test_uuid_is_given_where_there_is_none_and_no_checksum(
    options: tuple[str, ...], given: bool, tmp_path: Path
) -> None:
    image = make("ext4", tmp_path / "image", *options)
    before = image.read_bytes()
    assert identity.give_uuid(image) is given
    assert (image.read_bytes() != before) is given
    if given:
        command = ("blkid", "-p", "-s", "UUID", "-o", "value", str(image))
        uuid = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert uuid.strip().replace("-", "") == identity.OURS.hex()


def test_what_is_no_ext_gets_no_uuid(tmp_path: Path) -> None:
    for size in (0, 2048):
        (tmp_path / "file").write_bytes(bytes(size))
        assert not identity.give_uuid(tmp_path / "file")
        assert not any((tmp_path / "file").read_bytes())


def test_folder_gives_images_by_name_and_the_rest_apart(tmp_path: Path) -> None:
    image = make("ext4", tmp_path / "image")
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/b.gz").write_bytes(gzip.compress(image.read_bytes(), 1))
    shutil.copy(image, folder / "a\x1b")
    (folder / "expect").write_text("text")
    (folder / "empty").touch()
    (folder / "broken.gz").write_bytes(b"\x1f\x8b\x08\x00")
    found = files.find([folder, image])
    assert [(i.name, i.fstype, i.path) for i in found.images] == [
        ("a\\x1b", "ext4", folder / "a\x1b"),
        ("deep/b.gz", "ext4", folder / "deep/b.gz"),
        ("image", "ext4", image),
    ]
    assert {path.name for path in found.others} == {"expect", "empty", "broken.gz"}


def test_two_of_one_name_have_their_paths(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make("ext4", tmp_path / name / "image")
    found = files.find([tmp_path / "one", tmp_path / "two", tmp_path / "one/image"])
    assert [i.name for i in found.images] == [
        str(tmp_path / "one/image"),
        str(tmp_path / "two/image"),
    ]


def test_path_that_is_not_there() -> None:
    with pytest.raises(UsageError, match=r"^/nowhere is not there; give images"):
        files.find([Path("/nowhere")])


def test_work_ends_with_what_it_returned_or_with_its_error() -> None:
    done = limited(lambda: "two\nlines", 10)
    assert (done.status, done.words, done.late) == (0, "two lines", False)

    def fail() -> str:
        raise OSError(5, "Input/output error")

    failed = limited(fail, 10)
    assert (failed.status, failed.words) == (1, "[Errno 5] Input/output error")

    def die() -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return "never"

    killed = limited(die, 10)
    assert killed.status == -signal.SIGTERM


def test_work_that_takes_too_long_is_killed() -> None:
    def sleep() -> str:
        time.sleep(60)
        return "never"

    begin = time.monotonic()
    done = limited(sleep, 0.2)
    assert (done.status, done.late) == (-signal.SIGKILL, True)
    assert time.monotonic() - begin < 30


def test_meanwhile_is_called_while_the_work_runs() -> None:
    (reading, writing), go = os.pipe(), os.pipe()
    seen = []

    def take() -> None:
        seen.append(os.read(reading, 1))
        os.write(go[1], b"x")

    def work() -> str:
        os.write(writing, b"x")
        os.read(go[0], 1)
        return "done"

    assert limited(work, 30, {reading: take}).words == "done"
    assert seen == [b"x"]
    for descriptor in (reading, writing, *go):
        os.close(descriptor)


def test_everything_is_read_and_changed_in_order(tmp_path: Path) -> None:
    """On a healthy folder each thing is done, and said as often as it was."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").write_bytes(b"x" * 100000)
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")  # opening it would wait for ever
    said = exercise.read_all(tmp_path)
    assert said == "2 directories, 4 entries, 4 attribute lists, 1 links, 1 files"
    said = exercise.write_all(tmp_path)
    assert "2 directories made, 24 files made, 3 files written" in said
    assert "2 renamed, 2 files removed, 2 modes changed, 1 files cut, 1 syncs" in said
    assert "failed" not in said or "failed: EOPNOTSUPP x2" in said
    assert (tmp_path / "dir/fserr-bpf/hard link").stat().st_nlink == 2
    assert not (tmp_path / "fserr-bpf/file 3").exists()


def test_what_fails_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    tally = exercise.Tally()
    for step in (tmp_path.mkdir, (tmp_path / "none").rmdir, tmp_path.rmdir, tmp_path.rmdir):
        with tally.count("done"):
            step()
    assert str(tally) == "1 done; failed: EEXIST x1, ENOENT x2"


def test_corpus_has_enough_damages_each_with_its_name() -> None:
    damages = list(xfs.damages())
    assert len({damage.name for damage in damages}) == len(damages)
    assert len({damage.commands for damage in damages}) == len(damages)
    assert len(damages) >= 200
    assert all("random" not in command for damage in damages for command in damage.commands)
    assert all("-s " in d.commands[1] for d in damages if d.name.startswith("blocktrash"))
