"""A kernel from its parts: the pinned source, the series of patches, the configuration."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fserr_bpf.errors import LabError
from fserr_bpf_compare.machines.aptroot import AptRoot, Package
from fserr_bpf_compare.machines.packages import cache_folder, sha256

HERE = Path(__file__).parent
_BASE = HERE / "BASE"
_SERIES = HERE / "series"
_CONFIG = HERE / "config"
_CONFIG_DEBUG = HERE / "config-debug"
# No clock, user or host in what the kernel says of itself.
_FIXED = {
    "KBUILD_BUILD_TIMESTAMP": "@1700000000",
    "KBUILD_BUILD_USER": "fserr",
    "KBUILD_BUILD_HOST": "fserr",
}
# Lines that make prints for a whole build of these configurations, to tell how far it is.
_STEPS = 2035
_REPORT_EVERY = 20.0  # seconds
# Folders of the source that no patch touches; they are most of it.
_UNTOUCHED = ("arch", "drivers", "net", "sound")


@dataclass(frozen=True)
class Base:
    """The source package that the series is made for; ``sha256`` is that of its file."""

    package: str
    version: str
    suite: str
    sha256: str


def base() -> Base:
    """What stands in ``BASE``."""
    lines = re.findall(r"^(\w+): (\S+)$", _BASE.read_text(), re.M)
    return Base(**dict(lines))


def patches() -> list[Path]:
    """The patches in the order of ``series``."""
    return [HERE / line for line in _SERIES.read_text().split()]


def fragments(*, debug: bool) -> list[Path]:
    """The parts of the configuration, on top of tinyconfig."""
    return [_CONFIG, _CONFIG_DEBUG] if debug else [_CONFIG]


def key(parts: Iterable[Path]) -> str:
    """Hexadecimal hash of all that goes into a kernel whose configuration is ``parts``."""
    whole = hashlib.sha256()
    for path in [_BASE, *patches(), *parts]:
        whole.update(path.read_bytes())
    for tool in ("gcc", "pahole"):
        whole.update(run([tool, "--version"]).encode())
    return whole.hexdigest()


def run(
    command: Sequence[str | Path], folder: Path | None = None, *, stdin: Path | None = None
) -> str:
    """Run a program in ``folder`` and return its output.

    Raises `LabError` with the first line of its complaint.
    """
    try:
        with (stdin or Path(os.devnull)).open("rb") as source:
            ended = subprocess.run(
                [os.fspath(word) for word in command],
                check=False,
                cwd=folder,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env={**os.environ, "LC_ALL": "C"},
            )
    except FileNotFoundError as error:
        raise LabError(
            f"{command[0]} is missing", "scripts/apt-install $(cat kernel-patch/packages)"
        ) from error
    if ended.returncode != 0:
        said = next((line for line in ended.stdout.splitlines() if line.strip()), "no message")
        raise LabError(f"{command[0]} failed with exit status {ended.returncode}: {said}")
    return ended.stdout


def fetch(wanted: Base) -> Path:
    """The source package, from the cache or from Debian's archive, its checksum verified.

    Raises `LabError` if the archive has it no more.
    """
    folder = cache_folder() / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{wanted.package}_{wanted.version}_all.deb"
    if not file.exists():
        say(f"fetching {file.name}")
        apt = AptRoot(cache_folder() / "apt-source", (wanted.suite,))
        apt.packages()
        try:
            apt.download([Package(wanted.package, wanted.version, "")], folder)
        except LabError as error:
            raise LabError(
                f"the archive has no {wanted.package} {wanted.version} any more: {error.cause}",
                f"put the package into {folder}, or move kernel-patch/BASE and the series on",
            ) from error
    if (found := sha256(file)) != wanted.sha256:
        raise LabError(
            f"{file} has the SHA-256 {found}, not that of kernel-patch/BASE", "remove it"
        )
    return file


def unpack(deb: Path, folder: Path, *, whole: bool = True) -> Path:
    """The source tree out of a source package, below ``folder``.

    Without ``whole`` the insides of the folders that no patch touches are left out: enough to
    apply patches and to check their style, in half the time.
    """
    say("unpacking")
    run(["dpkg-deb", "-x", deb, folder / "deb"])
    archives = list((folder / "deb/usr/src").glob("linux-source-*.tar.xz"))
    if len(archives) != 1:
        raise LabError(f"{deb.name} has {len(archives)} archives, not one")
    left_out = [] if whole else [f"--exclude=*/{name}/*/*" for name in _UNTOUCHED]
    run(["tar", "-I", "xz -T0", *left_out, "-xf", archives[0], "-C", folder])
    shutil.rmtree(folder / "deb")
    return folder / archives[0].name.removesuffix(".tar.xz")


def apply(patch: Path, tree: Path) -> None:
    """Apply one patch; it has to fit exactly."""
    try:
        run(["patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch"], tree, stdin=patch)
    except LabError as error:
        raise LabError(f"{patch.name} does not apply: {error.cause}") from error


def configure(tree: Path, out: Path, parts: Sequence[Path]) -> None:
    """Write ``out/.config``.

    Raises `LabError` if the kernel does not do what the parts ask for.
    """
    out.mkdir(exist_ok=True)
    make = ["make", "-s", f"O={out}"]
    run([*make, "tinyconfig"], tree)
    merge = tree / "scripts/kconfig/merge_config.sh"
    run([merge, "-O", out, "-m", out / ".config", *parts], tree)
    run([*make, "olddefconfig"], tree)
    have = set((out / ".config").read_text().splitlines())
    wanted: dict[str, str] = {}
    for part in parts:
        for line in part.read_text().splitlines():
            if match := re.match(r"(?:# )?(CONFIG_\w+)(?:=| is not set)", line):
                wanted[match[1]] = line
    missing = [
        line
        for name, line in wanted.items()
        if line not in have and not (line.endswith("not set") and not _mentions(have, name))
    ]
    if missing:
        raise LabError(f"the configuration lacks {', '.join(missing)}", "add what these depend on")


def _mentions(lines: set[str], name: str) -> bool:
    return any(line.startswith(f"{name}=") for line in lines)


def build(tree: Path, out: Path, log: Path) -> Path:
    """The bzImage of a configured tree; tells its progress. ``log`` gets what make prints.

    Raises `LabError` with the compiler's first complaint.
    """
    started = told = time.monotonic()
    command = ["make", f"O={out}", f"-j{os.cpu_count() or 1}", "bzImage"]
    with (
        log.open("w") as copy,
        subprocess.Popen(
            command,
            cwd=tree,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **_FIXED, "LC_ALL": "C"},
        ) as make,
    ):
        assert make.stdout is not None
        complaint, done = "", 0
        for line in make.stdout:
            copy.write(line)
            done += line.startswith("  ")
            if not complaint and re.search(r"\berror:|\*\*\*", line):
                complaint = line.strip()
            if time.monotonic() - told > _REPORT_EVERY:
                told = time.monotonic()
                say(
                    f"{_minutes(told - started)}, {min(99, done * 100 // _STEPS)} %: {line.strip()}"
                )
    if make.returncode != 0:
        raise LabError(f"make failed: {complaint}", f"all of it is in {log}")
    say(f"built in {_minutes(time.monotonic() - started)}")
    return out / "arch/x86/boot/bzImage"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def say(what: str) -> None:
    """Tell people how far it is."""
    print(f"kernel: {what}", file=sys.stderr, flush=True)
