"""The kernel lab boots real kernels: what comes back, and what is said when it does not."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fserr_bpf.errors import LabError
from fserr_bpf_compare.machines import vm
from fserr_bpf_compare.machines.bzimage import own_image
from fserr_bpf_compare.machines.kernels import Kernel, find
from fserr_bpf_compare.machines.packages import Image, cache_folder
from tests.live.conftest import loop_devices_below, wait_until
from tests.live.machine import require_machine

EVERY_BYTE = bytes(range(256))
GUEST = """
import os, pathlib, subprocess, sys
assert sys.argv[1:] == ["a b", "", "$HOME"], sys.argv
sys.stdout.buffer.write(os.uname().release.encode() + b"\\n" + bytes(range(256)))
sys.stdout.flush()
pathlib.Path("/dev/stderr").write_bytes(bytes(range(255, -1, -1)))  # reopened: nothing is lost
sys.stderr.buffer.write(b"end")
output = pathlib.Path(os.environ["FSERR_LAB_OUTPUT"])
(output / "folder").mkdir()
(output / "folder/data").write_bytes(bytes(range(256)))
(output / "cwd").write_text(os.getcwd())
(output / "lab").write_text(os.environ["FSERR_LAB"])
(output / "mounts").write_text(pathlib.Path("/proc/mounts").read_text())
(output / "btf").write_text(str(os.path.getsize("/sys/kernel/btf/vmlinux")))
# only a reboot undoes it, so it is done here, where one comes anyway
os.system("mkdir /run/s && mount -t securityfs none /run/s"
          " && echo confidentiality > /run/s/lockdown && umount /run/s")
assert not os.path.exists("/sys/kernel/security/lockdown")
entry = "from fserr_bpf.cli import entry; entry()"
done = subprocess.run([sys.executable, "-c", entry, "run", "/"], capture_output=True, text=True)
(output / "locked").write_text(f"{done.returncode} {done.stderr}")
sys.exit(7)
"""


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return find("6.12")


@pytest.fixture(scope="module", autouse=True)
def image(kernel: Kernel) -> Image:
    """The unpacked kernel; without it, or without the tools, there is nothing to test."""
    return require_machine(kernel.name)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary files go where the test can see that none is left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_command_runs_and_everything_comes_back(
    kernel: Kernel, image: Image, tmp_path: Path, temporary: Path
) -> None:
    stdout, stderr = io.BytesIO(), io.BytesIO()
    output = tmp_path / "out, put"
    command = [sys.executable, "-c", GUEST, "a b", "", "$HOME"]
    status = vm.run(kernel, command, timeout=120, output=output, stdout=stdout, stderr=stderr)
    assert stderr.getvalue() == EVERY_BYTE[::-1] + b"end"
    assert stdout.getvalue() == image.release.encode() + b"\n" + EVERY_BYTE
    assert status == 7
    assert (output / "folder/data").read_bytes() == EVERY_BYTE
    assert (output / "cwd").read_text() == str(Path.cwd())
    assert (output / "lab").read_text() == "6.12"
    assert int((output / "btf").read_text()) > 1_000_000
    points = {line.split()[1] for line in (output / "mounts").read_text().splitlines()}
    assert points >= {"/proc", "/sys", "/dev", "/dev/pts", "/run"}
    # what the command needs from the host's /tmp, a checkout there for example, must show
    needed = (str(Path.cwd()), sys.executable)
    assert ("/tmp" in points) == (not any(path.startswith("/tmp/") for path in needed))
    assert points >= {"/sys/kernel/tracing", "/sys/kernel/debug", "/sys/fs/bpf"}
    assert (output / "locked").read_text() == (
        "3 fserr-bpf: the kernel is locked down (confidentiality): BPF may not read kernel memory; "
        "boot with lockdown=integrity or without lockdown\n"
    )
    assert list(temporary.iterdir()) == []


def test_panic_is_reported_with_the_console(kernel: Kernel, image: Image, temporary: Path) -> None:
    with pytest.raises(LabError) as raised:
        vm.run(kernel, ["sh", "-c", "echo c > /proc/sysrq-trigger"], timeout=120)
    cause, _, console = raised.value.cause.partition("; console: ")
    assert cause == f"{image.release}: kernel panic: sysrq triggered crash"
    first, *others = console.split(" | ")
    assert re.fullmatch(r"\[.*\] Kernel panic - not syncing: sysrq triggered crash", first)
    assert any("Call Trace" in line for line in others)
    assert "\n" not in str(raised.value)
    assert list(temporary.iterdir()) == []


def test_command_that_does_not_end_is_ended(
    kernel: Kernel, image: Image, tmp_path: Path, temporary: Path
) -> None:
    """It writes an odd line to the console first, which the message must show."""
    script = "echo before; echo on the console > /dev/ttyS0; exec sleep 1000"
    stdout = io.BytesIO()
    with pytest.raises(LabError, match=r"did not end within 25 s; console: .*on the console"):
        vm.run(kernel, ["sh", "-c", script], timeout=25, stdout=stdout)
    assert stdout.getvalue() == b"before\n"
    assert list(temporary.iterdir()) == []


def test_boot_that_does_not_end_is_not_blamed_on_the_command(
    kernel: Kernel, image: Image, temporary: Path
) -> None:
    with pytest.raises(LabError) as raised:
        vm.run(kernel, ["true"], timeout=0.5)
    words = f"{image.release}: the boot did not end within 0.5 s; console: empty"
    assert raised.value.cause == words
    assert list(temporary.iterdir()) == []


def test_missing_module_is_named(
    kernel: Kernel, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = cache_folder() / "kernels/6.12"
    copy = tmp_path / "fserr-bpf/kernels/6.12"
    assert image.modules is not None
    modules = copy / "lib/modules" / image.release
    modules.mkdir(parents=True)
    for name in ("vmlinuz", "image.json"):
        shutil.copy(cached / name, copy)
    shutil.copy(image.modules / "modules.builtin", modules)
    lines = (image.modules / "modules.dep").read_text().splitlines()
    left = [line for line in lines if not re.match(r"\S*/9pnet_virtio\.ko", line)]
    assert len(left) == len(lines) - 1
    (modules / "modules.dep").write_text("\n".join(left))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(LabError, match="has no module 9pnet_virtio"):
        vm.run(kernel, ["true"], timeout=60)


def test_qemus_own_complaint_is_reported(kernel: Kernel, image: Image) -> None:
    with pytest.raises(LabError, match=r"QEMU ended: .*Parameter 'size' expects"):
        vm.run(kernel, ["true"], timeout=60, memory="nonsense")


RUNNER = """
import sys
from fserr_bpf_compare.machines import kernels, vm
vm.run(kernels.find("6.12"), ["sleep", "1000"], timeout=300)
"""


def machines_of(runner: int) -> list[int]:
    """Its children that are QEMU; another compiles ahead."""
    found = []
    for child in Path(f"/proc/{runner}/task/{runner}/children").read_text().split():
        with contextlib.suppress(OSError):  # it has ended
            if b"qemu" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_machine_dies_with_its_parent(number: signal.Signals, temporary: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER], env=environment, stderr=subprocess.DEVNULL
    ) as runner:
        try:
            wait_until(lambda: bool(machines_of(runner.pid)), "QEMU")
            (machine,) = machines_of(runner.pid)
        except BaseException:
            runner.kill()
            raise
        runner.send_signal(number)
    wait_until(lambda: not Path(f"/proc/{machine}").exists(), "QEMU's end")
    if number is signal.SIGKILL:
        (left,) = temporary.iterdir()
        assert left.name.startswith(f"fserr-lab-{runner.pid}-")
        vm.sweep()  # what the next machine begins with
    assert list(temporary.iterdir()) == []


BOOTS = 4  # two at a time, and two that follow


def test_boots_side_by_side_leave_nothing(kernel: Kernel, image: Image, temporary: Path) -> None:
    def boot(number: int) -> tuple[int, bytes]:
        stdout, stderr = io.BytesIO(), io.BytesIO()
        script = f"echo machine {number}; exit {number}"
        status = vm.run(kernel, ["sh", "-c", script], timeout=120, stdout=stdout, stderr=stderr)
        assert stderr.getvalue() == b""
        return status, stdout.getvalue()

    def ours() -> tuple[list[str], set[str]]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        return os.listdir("/proc/self/fd"), set(children.split())

    before = ours()
    with ThreadPoolExecutor(2) as pool:
        seen = list(pool.map(boot, range(BOOTS)))
    assert seen == [(number, b"machine %d\n" % number) for number in range(BOOTS)]
    assert ours() == before
    assert list(temporary.iterdir()) == []
    assert os.fsencode(temporary) not in Path("/proc/self/mountinfo").read_bytes()
    assert loop_devices_below(temporary) == []
    assert processes_naming(temporary) == []


def processes_naming(folder: Path) -> list[str]:
    """Command lines of the processes on this machine that name ``folder``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in line:
                found.append(line)
    return found


def test_cancelled_machine_ends(kernel: Kernel, image: Image, temporary: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(LabError, match="cancelled"):
        vm.run(kernel, ["sleep", "1000"], timeout=60, cancel=cancel)
    assert list(temporary.iterdir()) == []


def test_own_kernel_runs_with_its_modules(image: Image) -> None:
    command = [str(Path(sys.executable).with_name("fserr-bpf")), "lab", "run"]
    done = subprocess.run(
        [*command, "--kernel", image.vmlinuz, "--modules", str(image.modules), "--", "uname", "-r"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.returncode) == (f"{image.release}\n", 0), done.stderr


def test_own_kernel_without_modules_says_what_it_lacks(image: Image) -> None:
    with pytest.raises(LabError, match="boot failed: no 9p in the kernel: it needs --modules"):
        vm.run(own_image(image.vmlinuz, None), ["true"], timeout=120)


def test_warm_cache_needs_no_network(kernel: Kernel, image: Image) -> None:
    listing = "from fserr_bpf_compare.machines import kernels, packages; "
    listing += "print(packages.ensure(kernels.find('6.12')))"
    seen = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", listing],
        check=True,
        capture_output=True,
        text=True,
    )
    assert image.release in seen.stdout


def test_without_network_and_cache_the_message_says_so(tmp_path: Path) -> None:
    command = "import sys; from fserr_bpf_compare.machines.kernels import find\n"
    command += "from fserr_bpf_compare.machines import packages\n"
    command += "try: packages.ensure(find('6.12'))\nexcept Exception as e: print(repr(str(e)))"
    seen = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", command],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert re.search(r"apt-get failed .*; check the network and the mirror", seen.stdout)
    assert "\\n" not in seen.stdout
    assert not list((tmp_path / "fserr-bpf/kernels").iterdir())


def test_image_record_names_package_and_checksums(kernel: Kernel, image: Image) -> None:
    record = json.loads((image.vmlinuz.parent / "image.json").read_text())
    assert record["release"] == image.release
    assert [name.partition("_")[0] for name in record["packages"]] == [
        f"linux-image-{image.release}"
    ]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in record["packages"].values())
