"""Compiled programs on disk: which files are refused, and starts with them and without."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fserr_bpf.kernel.bpf import MapDefinition
from fserr_bpf.probes import cache
from fserr_bpf.probes.programs import BadFile, Programs
from fserr_bpf.probes.table import Kernel

pytestmark = pytest.mark.root

COMMAND = str(Path(sys.executable).with_name("fserr-bpf"))
KEY = {"release": "6.12", "detail": "False"}
KERNEL = Kernel(kprobes=True, fserror=False, abort=False, sick=True, gate=True)
PROGRAMS = Programs(
    KEY,
    "bcc 1",
    KERNEL,
    frozenset(),
    {"lost": MapDefinition(2, 4, 8, 32, 1024)},
    {"f": b"12345678"},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With one file in it."""
    folder = tmp_path / "var/cache/fserr-bpf"
    cache.store(folder, PROGRAMS)
    return folder


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_kept_and_loaded(folder: Path) -> None:
    assert cache.load(folder, KEY, "bcc 1") == PROGRAMS
    assert cache.load(folder, KEY, None) == PROGRAMS
    modes = [path.stat().st_mode & 0o7777 for path in (folder, only_file(folder))]
    assert modes == [0o700, 0o600]


def test_nothing_kept_is_no_trouble(folder: Path, tmp_path: Path) -> None:
    assert cache.load(folder, {**KEY, "detail": "True"}, None) is None
    assert cache.load(tmp_path / "none", KEY, None) is None


def swap_for_another_kernels(file: Path) -> None:
    other = replace(PROGRAMS, key={**KEY, "release": "6.1"})
    cache.store(file.parent, other)
    (file.parent / cache.file_name(other.key)).rename(file)


def make_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def make_symlink(file: Path) -> None:
    file.rename(file.parent / "elsewhere")
    file.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda file: os.truncate(file, 100), "damaged"),
        (lambda file: file.write_bytes(file.read_bytes() + b"x"), "damaged"),
        (lambda file: file.write_bytes(b""), "not a file of this version"),
        (swap_for_another_kernels, "made for another kernel or by another version"),
        (lambda file: os.chown(file, 65534, 0), "the file belongs to user 65534, not to root"),
        (lambda file: file.chmod(0o620), "the file has mode 0620: others have rights"),
        (lambda file: file.chmod(0o604), "the file has mode 0604: others have rights"),
        (lambda file: os.chown(file.parent, 65534, 0), "the folder belongs to user 65534, .*"),
        (lambda file: file.parent.chmod(0o750), "the folder has mode 0750: others have rights"),
        (make_fifo, "not a regular file"),
    ],
)
def test_not_loaded(folder: Path, harm: Callable[[Path], object], reason: str) -> None:
    harm(only_file(folder))
    with pytest.raises(BadFile, match=f"^{reason}$"):
        cache.load(folder, KEY, None)


def test_symbolic_link_is_not_followed(folder: Path) -> None:
    make_symlink(only_file(folder))
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        cache.load(folder, KEY, None)


def test_every_flipped_byte_on_disk_is_refused(folder: Path) -> None:
    file = only_file(folder)
    data = file.read_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0x20
        file.write_bytes(changed)
        with pytest.raises(BadFile):
            cache.load(folder, KEY, None)
    file.write_bytes(data)
    assert cache.load(folder, KEY, None) == PROGRAMS


def test_other_compiler_is_not_taken(folder: Path) -> None:
    with pytest.raises(BadFile, match=r"^made by bcc 1, not by bcc 2$"):
        cache.load(folder, KEY, "bcc 2")


def test_nothing_is_written_into_a_folder_of_others(folder: Path) -> None:
    os.chown(folder, 65534, 0)
    with pytest.raises(BadFile):
        cache.store(folder, replace(PROGRAMS, key={**KEY, "detail": "True"}))
    assert len(list(folder.iterdir())) == 1


def test_many_writers_and_a_reader(folder: Path) -> None:
    """A reader finds one whole file or the other."""
    others = [replace(PROGRAMS, types=frozenset({str(number)})) for number in range(4)]

    def write(programs: Programs) -> None:
        for _ in range(50):
            cache.store(folder, programs)

    with ThreadPoolExecutor(len(others)) as pool:
        writers = [pool.submit(write, programs) for programs in others]
        read = {PROGRAMS.types}
        while not all(writer.done() for writer in writers):
            found = cache.load(folder, KEY, None)
            assert found is not None
            read.add(found.types)
    assert all(writer.exception() is None for writer in writers)
    assert len(read) > 1
    assert only_file(folder).name == cache.file_name(KEY)


def test_oldest_files_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "FILES_KEPT", 2)
    os.utime(only_file(folder), (1, 1))
    (folder / ".left-over").touch()
    os.utime(folder / ".left-over", (2, 2))
    new = [{**KEY, "detail": str(number)} for number in range(2)]
    for key in new:
        cache.store(folder, replace(PROGRAMS, key=key))
    assert {path.name for path in folder.iterdir()} == set(map(cache.file_name, new))


# -- the command --------------------------------------------------------------------


def probes(folder: Path, *, bcc: bool = True, before: str = "") -> tuple[str, str]:
    """Standard output and error of ``fserr-bpf probes`` with this cache folder.

    Without ``bcc`` a sitecustomize takes the folders away in which Debian has it. ``before``
    runs in the command's own mount namespace.
    """
    environment = {**os.environ, "CACHE_DIRECTORY": str(folder)}
    if not bcc:
        place = folder.parent / "no-bcc"
        place.mkdir(exist_ok=True)
        (place / "sitecustomize.py").write_text(
            "import sys\nsys.path = [path for path in sys.path if 'dist-packages' not in path]\n"
        )
        environment["PYTHONPATH"] = str(place)
    script = f'{before}exec "$0" probes'
    command = ["unshare", "--mount", "sh", "-c", script, COMMAND]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, env=environment
    )
    assert done.returncode in {0, 11}, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, file_systems: None) -> tuple[Path, str]:
    """A folder that the command has filled, and what it printed then."""
    folder = tmp_path_factory.mktemp("kept") / "fserr-bpf"
    stdout, stderr = probes(folder)
    assert stderr == ""
    return folder, stdout


def test_start_from_the_cache_needs_no_bcc(compiled: tuple[Path, str]) -> None:
    folder, stdout = compiled
    assert probes(folder, bcc=False) == (stdout, "")


@pytest.mark.usefixtures("fast_attaching")
def test_damaged_file_is_compiled_anew_and_told_once(compiled: tuple[Path, str]) -> None:
    folder, stdout = compiled
    os.truncate(only_file(folder), 1000)
    expected = f"fserr-bpf: compiled anew: programs in {folder} are not used (damaged)\n"
    assert probes(folder) == (stdout, expected)
    assert probes(folder, bcc=False) == (stdout, "")


@pytest.mark.usefixtures("fast_attaching")
def test_read_only_system_is_quiet(compiled: tuple[Path, str], tmp_path: Path) -> None:
    """An image whose /var cannot be written to is as it should be."""
    before = f"mount -t tmpfs -o ro none {tmp_path} && "
    assert probes(tmp_path / "fserr-bpf", before=before) == (compiled[1], "")


@pytest.mark.usefixtures("fast_attaching")
def test_full_disk_is_told(compiled: tuple[Path, str], tmp_path: Path) -> None:
    before = (
        f"mount -t tmpfs -o size=4k,mode=700 none {tmp_path} && "
        f"head -c 4096 /dev/zero > {tmp_path}/filled && "
    )
    expected = f"cannot keep compiled programs in {tmp_path}: No space left on device"
    assert probes(tmp_path, before=before) == (compiled[1], f"fserr-bpf: {expected}\n")
