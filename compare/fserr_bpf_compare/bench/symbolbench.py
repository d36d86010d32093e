"""How fast places are found in Debian's debug files, and those files.

``python -m fserr_bpf_compare.bench.symbolbench`` prints the numbers of one kernel as JSON.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from fserr_bpf.errors import FserrError, LabError
from fserr_bpf.symbolize import PortableAddress, Symbolizer
from fserr_bpf.symbolize.elf import DebugFile
from fserr_bpf_compare.machines import kernels
from fserr_bpf_compare.machines.aptroot import AptRoot
from fserr_bpf_compare.machines.kernels import Kernel
from fserr_bpf_compare.machines.packages import cache_folder, check, ensure
from fserr_bpf_compare.machines.tools import tool

MODULES = ("xfs", "")
"""What is measured; "" is vmlinux."""

FIRST_TARGET = 3.0  # seconds
LATER_TARGET = 0.001  # seconds
MEMORY_TARGET = 300e6  # bytes, of the worker
_KERNEL = "6.12"
_ADDRESSES = 200
_TEXT = 0x80000  # bytes at the start of .text, which both have
_WANTED = ("*/boot/vmlinux-*", "*/kernel/fs/xfs/xfs.ko", "*/kernel/fs/ext4/ext4.ko")


@dataclass(frozen=True)
class Outcome:
    """Seconds and bytes.

    ``first`` is the answer to the first question of all: without an index, with the start
    of the worker. ``new`` is the median of addresses in units that are not in the index,
    ``later`` of those that are, asked of another worker; ``slowest`` the slowest of these.
    """

    first: float
    new: float
    later: float
    slowest: float
    memory: int


def debug_cached(kernel: Kernel) -> bool:
    """Whether `debug_tree` has nothing to fetch."""
    image, _ = check(cache_folder() / "kernels" / kernel.name)
    return image is not None and (cache_folder() / "debug" / image.release).exists()


def debug_tree(kernel: Kernel) -> Path:
    """A folder like /usr/lib/debug with vmlinux, XFS and ext4 of ``kernel``, fetched once.

    Raises LabError without network, or if the archive has moved on to another release.
    """
    release = ensure(kernel).release
    tree = cache_folder() / "debug" / release
    if tree.exists():
        return tree
    apt = AptRoot(cache_folder() / "apt", kernel.suites)
    name = f"linux-image-{release}-dbg"
    found = [package for package in apt.packages() if package.name == name]
    if not found:
        raise LabError(
            f"no package is called {name}",
            f"run fserr-bpf lab fetch --kernel {kernel.name} --refresh",
        )
    tree.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=tree.parent) as folder:
        (deb,) = apt.download(found, Path(folder))
        unpack = [tool("tar"), "-x", "-C", folder, "--wildcards", *_WANTED]
        with subprocess.Popen(
            [tool("dpkg-deb"), "--fsys-tarfile", deb], stdout=subprocess.PIPE
        ) as packed:
            ended = subprocess.run(unpack, stdin=packed.stdout, check=False)
        if packed.returncode or ended.returncode:
            raise LabError(f"{deb.name} could not be unpacked")
        (Path(folder) / "usr/lib/debug").rename(tree)
    return tree


def debug_file(tree: Path, module: str) -> Path:
    """The file of ``module`` in what `debug_tree` gave."""
    (path,) = tree.rglob(f"{module}.ko") if module else tree.glob("boot/vmlinux-*")
    return path


def measure(kernel: Kernel, module: str) -> Outcome:
    """In a process of its own, so that the memory is that of one worker."""
    command = [
        sys.executable,
        "-m",
        "fserr_bpf_compare.bench.symbolbench",
        str(debug_tree(kernel)),
        module,
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise LabError(f"measurement of places: ended with status {done.returncode}")
    return Outcome(**json.loads(done.stdout))


def _measure(tree: Path, module: str) -> Outcome:
    build_id = _build_id(debug_file(tree, module))
    chosen = random.Random(6).sample(range(_TEXT), _ADDRESSES)
    addresses = [PortableAddress(build_id, module, ".text", offset) for offset in chosen]
    with tempfile.TemporaryDirectory() as cache:
        with Symbolizer([tree], cache) as symbolizer:
            first, *new = [_seconds(symbolizer, address) for address in addresses]
        with Symbolizer([tree], cache) as symbolizer:
            _, *again = [_seconds(symbolizer, address) for address in addresses]
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    middle = statistics.median
    return Outcome(first, middle(new), middle(again), max(again), memory)


def _seconds(symbolizer: Symbolizer, address: PortableAddress) -> float:
    begin = time.perf_counter()
    if symbolizer.place(address) is None:
        raise LabError(f"{address} has no place: {symbolizer.reason(address)}")
    return time.perf_counter() - begin


def _build_id(path: Path) -> str:
    with tempfile.TemporaryDirectory() as scratch, DebugFile(path, Path(scratch)) as file:
        return file.build_id()


def main(arguments: list[str]) -> int:
    """``TREE MODULE``, or nothing for all modules of one kernel."""
    try:
        if arguments:
            print(json.dumps(asdict(_measure(Path(arguments[0]), arguments[1]))))
        else:
            kernel = kernels.find(_KERNEL)
            found = {module or "vmlinux": asdict(measure(kernel, module)) for module in MODULES}
            print(json.dumps(found, indent=1))
    except FserrError as error:
        print(f"symbolbench: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
