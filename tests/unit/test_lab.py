"""The kernel lab without a machine: packages, cache, arguments, the initial file system."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from fserr_bpf.cli import lab
from fserr_bpf.errors import LabError, UsageError
from fserr_bpf_compare.machines import aptroot, bzimage, initramfs, kernels, packages, vm
from fserr_bpf_compare.machines.aptroot import Package
from fserr_bpf_compare.machines.bootable import bootable
from fserr_bpf_compare.machines.packages import Image
from fserr_bpf_compare.machines.tools import output_of, tool

RELEASE = "6.12.117+deb13-amd64"


def package(name: str, version: str = "1", depends: str = "") -> Package:
    return Package(name, version, depends)


# Names and versions as Debian's archive has them, oldest in the middle on purpose.
ARCHIVE = [
    package("linux-image-6.12-amd64", "6.12.999-1"),
    package("linux-image-6.12.90+deb13-amd64", "6.12.90-2"),
    package("linux-image-6.12.117~rc1+deb13-amd64", "6.12.117~rc1-1"),
    package("linux-image-6.12.9+deb13-amd64", "6.12.9-1"),
    package("linux-image-6.12.117+deb13-amd64", "6.12.117-1", "kmod, linux-base (>= 4.3~)"),
    package("linux-image-6.12.118+deb13-cloud-amd64", "6.12.118-1"),
    package("linux-image-6.12.118+deb13-rt-amd64", "6.12.118-1"),
    package("linux-image-6.12.118+deb13-amd64-unsigned", "6.12.118-1"),
    package("linux-image-6.12.118+deb13-amd64-dbg", "6.12.118-1"),
    package("linux-image-6.12.118+deb13-arm64", "6.12.118-1"),
    package("linux-image-6.1.0-56-amd64", "6.1.192-2"),
    package("linux-base", "4.12"),
    package(
        "linux-image-7.2.13+deb14-amd64",
        "7.2.13-1",
        "dracut | linux-initramfs-tool, linux-base-7.2.13+deb14-amd64 (= 7.2.13-1), "
        "linux-binary-7.2.13+deb14-amd64 (= 7.2.13-1), "
        "linux-modules-7.2.13+deb14-amd64 (= 7.2.13-1)",
    ),
    package("linux-base-7.2.13+deb14-amd64", "7.2.13-1"),
    package("linux-binary-7.2.13+deb14-amd64", "7.2.13-1"),
    package("linux-modules-7.2.13+deb14-amd64", "7.2.13-1"),
    package("linux-modules-7.2.12+deb14-amd64", "7.2.12-1"),
]


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("6.1", ["linux-image-6.1.0-56-amd64"]),
        ("6.12", ["linux-image-6.12.117+deb13-amd64"]),
        (
            "7",
            [
                "linux-image-7.2.13+deb14-amd64",
                "linux-base-7.2.13+deb14-amd64",
                "linux-binary-7.2.13+deb14-amd64",
                "linux-modules-7.2.13+deb14-amd64",
            ],
        ),
    ],
)
def test_newest_generic_image_and_its_parts_are_chosen(name: str, chosen: list[str]) -> None:
    found = packages.choose(kernels.find(name), ARCHIVE)
    assert [part.name for part in found] == chosen


def test_no_matching_package_names_kernel_and_suites() -> None:
    with pytest.raises(LabError, match=r"no package matches kernel 6\.1 in bookworm, bookworm-sec"):
        packages.choose(kernels.find("6.1"), ARCHIVE[:5])


def test_unknown_kernel_names_the_known_ones() -> None:
    with pytest.raises(LabError, match=r"'5\.4'.*6\.1, 6\.12, 6\.18, 7\.2, 7$"):
        kernels.find("5.4")


DEBIAN_DEB822 = """\
Types: deb deb-src
# URIs: http://comment.example/debian
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
THIRD_PARTY_LIST = """\
# deb http://comment.example/debian trixie main
deb [arch=amd64 signed-by=/etc/apt/keyrings/other.asc] https://other.example/linux bookworm main
deb https://vendor.example/apt cloud-sdk-bookworm main
deb-src http://sources.example/debian trixie main
"""
DEBIAN_LIST = """\
deb http://mirror.example/debian trixie main contrib # comment
deb http://mirror.example/debian-security trixie-security main
"""
DISABLED_DEB822 = DEBIAN_DEB822.replace("Components", "Enabled: no\nComponents")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"sources.list.d/debian.sources": DEBIAN_DEB822},
            {"main": "debian", "security": "debian-security"},
        ),
        (
            {"sources.list.d/a.list": THIRD_PARTY_LIST, "sources.list": DEBIAN_LIST},
            {"main": "debian", "security": "debian-security"},
        ),
        ({"sources.list.d/a.list": THIRD_PARTY_LIST}, {}),
        ({"sources.list.d/debian.sources": DISABLED_DEB822}, {}),
        ({"sources.list.d/debian.sources.save": DEBIAN_DEB822}, {}),
    ],
    ids=["deb822", "one-line", "third party only", "disabled", "not read by apt"],
)
def test_mirrors_are_debians_own(
    tmp_path: Path, files: dict[str, str], expected: dict[str, str]
) -> None:
    (tmp_path / "sources.list.d").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = aptroot.debian_mirrors(aptroot.configured_sources(tmp_path))
    assert found == {kind: f"http://mirror.example/{folder}" for kind, folder in expected.items()}


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    """A cache entry with everything that the check looks at."""
    modules = tmp_path / "lib/modules" / RELEASE
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text("kernel/fs/9p/9p.ko:\n")
    (tmp_path / "vmlinuz").write_bytes(bytes(range(256)) * 4096)
    digest = subprocess.run(
        ["sha256sum", tmp_path / "vmlinuz"], check=True, capture_output=True, text=True
    ).stdout.split()[0]
    (tmp_path / "image.json").write_text(json.dumps({"release": RELEASE, "vmlinuz": digest}))
    return tmp_path


def test_entry_that_was_built_has_no_modules(entry: Path) -> None:
    record = json.loads((entry / "image.json").read_text()) | {"key": "of its parts"}
    (entry / "image.json").write_text(json.dumps(record))
    shutil.rmtree(entry / "lib")
    assert packages.check(entry) == (Image(entry / "vmlinuz", None, RELEASE), "")


def test_patched_kernel_that_was_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(LabError, match="the patched kernel was not built; run make kernel"):
        bootable("patched")


def test_modules_are_for_a_bzimage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--modules is for a bzImage"):
        bootable("6.12", tmp_path)


def test_entry_that_is_not_there_is_not_damaged(tmp_path: Path) -> None:
    assert packages.check(tmp_path / "6.12") == (None, packages.ABSENT)


def test_good_cache_entry_is_used(entry: Path) -> None:
    image, why = packages.check(entry)
    assert image == packages.Image(entry / "vmlinuz", entry / "lib/modules" / RELEASE, RELEASE)
    assert why == ""


def test_one_flipped_bit_in_vmlinuz_is_found(entry: Path) -> None:
    damaged = bytearray((entry / "vmlinuz").read_bytes())
    damaged[-1] ^= 1
    (entry / "vmlinuz").write_bytes(damaged)
    assert packages.check(entry) == (None, "checksum of vmlinuz")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("vmlinuz", None, "no vmlinuz"),
        ("image.json", None, "no image.json"),
        ("image.json", "{", "unreadable image.json"),
        ("image.json", "{}", "unreadable image.json"),
        (f"lib/modules/{RELEASE}/modules.dep", None, "no modules.dep"),
        (f"lib/modules/{RELEASE}/modules.dep", "", "empty modules.dep"),
    ],
)
def test_damaged_cache_entry_is_found(
    entry: Path, name: str, content: str | None, why: str
) -> None:
    (entry / name).unlink()
    if content is not None:
        (entry / name).write_text(content)
    assert packages.check(entry) == (None, why)


def test_missing_tool_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    with pytest.raises(LabError, match=r"qemu-system-x86_64 is missing; run apt-get install qemu"):
        tool("qemu-system-x86_64")


def test_failing_tool_is_one_line() -> None:
    with pytest.raises(
        LabError, match=r"^dpkg-deb failed with exit status \d+: .*no-such-file"
    ) as e:
        output_of("dpkg-deb", "-x", "/no-such-file", "/nowhere")
    assert "\n" not in str(e.value)


def test_command_reaches_the_program_byte_for_byte(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s a "$HOME" `folder`'
    folder.mkdir()
    every_byte = bytes(range(1, 256)).decode("utf-8", "surrogateescape")
    words = ["", " ", "a b", "*", "$HOME", "'", "\\", "\n", "--", "-n", "a=b", every_byte]
    command = ["sh", "-c", 'pwd; printf "%s\\0" "$FSERR_LAB" "$@"', "sh", *words]
    (tmp_path / "command").write_bytes(vm.script("6.12", command, folder))
    seen = subprocess.run(
        ["env", "-i", "/bin/sh", tmp_path / "command"], check=True, capture_output=True
    ).stdout
    expected = [b"6.12", *(word.encode("utf-8", "surrogateescape") for word in words)]
    assert seen == bytes(folder) + b"\n" + b"".join(word + b"\0" for word in expected)


def test_arguments_after_the_dashes_are_the_commands_own() -> None:
    parser = argparse.ArgumentParser()
    lab.add_parser(parser.add_subparsers())
    line = ["lab", "run", "--kernel", "6.12", "--", "prog", "--kernel", "x", "--", "-v"]
    arguments = parser.parse_args(line)
    assert arguments.function is lab.run_command
    assert arguments.kernel == "6.12"
    assert arguments.argv == ["prog", "--kernel", "x", "--", "-v"]


def bz_image(release: str, start: int) -> bytes:
    """The fields of the boot protocol that tell the release, laid out by hand."""
    image = bytearray(0x12000)
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = start.to_bytes(2, "little")
    text = f"{release} (user@host) #1 SMP".encode() + b"\0"
    image[0x200 + start : 0x200 + start + len(text)] = text
    return bytes(image)


@pytest.mark.parametrize("start", [0x100, 0xFFFF])
def test_release_of_an_own_kernel_is_in_its_header(tmp_path: Path, start: int) -> None:
    (tmp_path / "bzImage").write_bytes(bz_image("6.14.0-mine", start))
    image = bzimage.own_image(tmp_path / "bzImage", None)
    assert image == packages.Image(tmp_path / "bzImage", None, "6.14.0-mine")


def test_own_kernel_has_its_own_modules(tmp_path: Path, modules: Path) -> None:
    (tmp_path / "bzImage").write_bytes(bz_image(RELEASE, 0x100))
    assert bzimage.own_image(tmp_path / "bzImage", modules).modules == modules
    with pytest.raises(LabError, match=r"has no modules\.dep; give ROOT/lib/modules/RELEASE"):
        bzimage.own_image(tmp_path / "bzImage", tmp_path)
    (tmp_path / "bzImage").write_bytes(bz_image("6.14.0", 0x100))
    with pytest.raises(LabError, match=r"does not hold the modules of 6\.14\.0"):
        bzimage.own_image(tmp_path / "bzImage", modules)


def test_what_is_no_kernel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(b"\x7fELF" + bytes(4096))
    with pytest.raises(LabError, match="vmlinux is not an x86 kernel; give a bzImage"):
        bzimage.own_image(tmp_path / "vmlinux", None)
    with pytest.raises(LabError, match="bzImage: No such file or directory"):
        bzimage.own_image(tmp_path / "bzImage", None)


def test_left_overs_of_dead_owners_are_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    for owner in (dead.pid, os.getpid()):
        (tmp_path / f"fserr-lab-{owner}-x/share").mkdir(parents=True)
    (tmp_path / "fserr-lab-other").mkdir()
    vm.sweep()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted([f"fserr-lab-{os.getpid()}-x", "fserr-lab-other"])


def test_list_is_aligned_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "fserr-bpf/kernels/6.1").mkdir(parents=True)
    assert lab.list_kernels(argparse.Namespace()) == 0
    lines = capsys.readouterr().out.splitlines()
    patched = lines.pop()
    assert len(lines) == len(kernels.KERNELS)
    columns = {
        line.index(kernel.reason) for line, kernel in zip(lines, kernels.KERNELS, strict=True)
    }
    assert len(columns) == 1
    states = {line.split()[0]: line[10 : columns.copy().pop()].strip() for line in lines}
    assert states["6.1"] == "damaged: no image.json"
    assert states["6.12"] == "not fetched"
    assert re.fullmatch(r"patched +not built +\S.*", patched)
    assert len(patched.partition("the series")[0]) == columns.pop()


MODULES_DEP = """\
kernel/fs/netfs/netfs.ko.xz:
kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz
kernel/net/9p/9pnet.ko.xz: kernel/fs/netfs/netfs.ko.xz
kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz
"""


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    folder = tmp_path / RELEASE
    folder.mkdir()
    (folder / "modules.dep").write_text(MODULES_DEP)
    (folder / "modules.builtin").write_text("kernel/drivers/virtio/virtio-pci.ko\n")
    return folder


def test_modules_load_after_those_they_need_and_once(modules: Path) -> None:
    order = initramfs.load_order(modules, ("virtio_pci", "9p", "9pnet_virtio"))
    assert [path.name for path in order] == [
        "netfs.ko.xz",
        "9pnet.ko.xz",
        "9p.ko.xz",
        "9pnet_virtio.ko.xz",
    ]


def test_module_that_the_kernel_lacks_is_named(modules: Path) -> None:
    with pytest.raises(
        LabError, match=rf"kernel {RELEASE.replace('+', '.')} has no module overlay"
    ):
        initramfs.load_order(modules, ("9p", "overlay"))


def test_archive_is_what_cpio_unpacks(tmp_path: Path) -> None:
    members = {"folder": None, "folder/odd": b"\0\xff" * 5, "empty": b"", "f": b"1234"}
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs busybox's cpio")
    subprocess.run([busybox, "cpio", "-i"], input=initramfs.cpio(members), cwd=tmp_path, check=True)
    found = {
        str(path.relative_to(tmp_path)): None if path.is_dir() else path.read_bytes()
        for path in tmp_path.rglob("*")
    }
    assert found == members
    assert all(path.stat().st_mode & 0o777 == 0o755 for path in tmp_path.rglob("*"))


def test_source_packages_come_from_the_machines_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what apt is told; that it checks signatures is apt's own."""
    mirror = aptroot.Source("http://mirror/debian", "bookworm", ("main",), "")
    monkeypatch.setattr(aptroot, "configured_sources", lambda: [mirror])
    monkeypatch.setattr(aptroot, "KEYRINGS", (tmp_path,))
    commands = []

    def output_of(*command: str, folder: Path | None = None, **_environment: str) -> bytes:
        commands.append(command)
        if folder:
            (folder / "e2fsprogs_1.47.0.orig.tar.gz").touch()
        return b""

    monkeypatch.setattr(aptroot, "output_of", output_of)
    apt = aptroot.AptRoot(tmp_path / "apt", ("bookworm", "bookworm-security"), sources=True)
    assert apt.upstream("e2fsprogs", tmp_path) == tmp_path / "e2fsprogs_1.47.0.orig.tar.gz"
    assert (tmp_path / "apt/sources.list").read_text() == (
        f"deb-src [arch=amd64 signed-by={tmp_path}] http://mirror/debian bookworm main\n"
    )
    configuration = (tmp_path / "apt/apt.conf").read_text()
    assert 'Acquire::AllowInsecureRepositories "false"' in configuration
    assert [command[0] for command in commands] == ["apt-config", "apt-get", "apt-get"]
    assert commands[-1][-2:] == ("--tar-only", "e2fsprogs")
    with pytest.raises(LabError, match="the source package other has 0 upstream tarballs"):
        apt.upstream("other", tmp_path)
