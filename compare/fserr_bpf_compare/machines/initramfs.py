"""The initial file system of a lab machine: busybox, a few modules, and the first process."""

from __future__ import annotations

import lzma
import shlex
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from fserr_bpf.errors import LabError
from fserr_bpf_compare.machines.packages import Image
from fserr_bpf_compare.machines.tools import output_of, tool

# What it takes to see the host's root; everything else comes from there by modprobe.
MODULES = ("virtio_pci", "9p", "9pnet_virtio", "overlay")

# Mount point of the shared folder inside the machine.
SHARE = "/run/fserr-lab"

_INIT = r"""#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
fail() {
    echo "fserr-lab: $*"
    poweroff -f
}
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in $(ls /modules); do
    insmod /modules/$module || fail "module ${module#*-} does not load"
done
plan9="trans=virtio,version=9p2000.L,msize=512000"
for type in 9p overlay; do
    grep -qw $type /proc/filesystems || fail "no $type in the kernel: it needs --modules"
done
mount -t 9p -o "ro,$plan9,cache=loose" root /lower || fail "no root file system over 9p"
mount -t tmpfs tmpfs /upper && mkdir /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work root /root ||
    fail "no overlay over the root file system"
cd /root
mkdir -p dev
if [ -n @MODULES@ ]; then
    mkdir -p lib/modules/@RELEASE@
    mount --bind /lower@MODULES@ lib/modules/@RELEASE@ || fail "no modules of @RELEASE@"
fi
for folder in dev proc sys; do
    mount --bind /$folder $folder
done
mkdir dev/pts dev/shm
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mknod dev/loop-control c 10 237 # opening it loads the module
mount -t devpts devpts dev/pts
mount -t tmpfs tmpfs dev/shm
mount -t debugfs debugfs sys/kernel/debug
mount -t tracefs tracefs sys/kernel/tracing
mount -t bpf bpf sys/fs/bpf
for folder in @FRESH@; do
    mount -t tmpfs -o mode=1777 tmpfs .$folder
done
programs=var/cache/fserr-bpf
mkdir -p $programs
mount -t 9p -o "$plan9" programs $programs || fail "no compiled programs over 9p"
# those of another user are refused, with a message
[ "$(stat -c %u $programs)" = 0 ] || umount $programs
share=/root@SHARE@
mkdir -p $share
mount -t 9p -o "$plan9" share $share && mount -t 9p -o "$plan9" output $share/output ||
    fail "no shared folder over 9p"
ip link set lo up
hostname fserr-lab
# Pipes, not the files themselves: a command may reopen /dev/stderr, which truncates a file.
mkfifo /stdout /stderr
for stream in stdout stderr; do
    { cat /$stream > $share/$stream; : > /$stream.ended; } &
done
: > $share/started
chroot . /usr/bin/env -i /bin/sh @SHARE@/command < /dev/null > /stdout 2> /stderr
status=$?
# A process left behind may hold the pipes open: it gets two seconds.
for try in $(seq 40); do
    [ -e /stdout.ended ] && [ -e /stderr.ended ] && break
    sleep 0.05
done
echo $status > $share/status.new
sync
mv $share/status.new $share/status
poweroff -f
"""

# The kernel loads modules by itself through this path, seen from the first process.
_MODPROBE = b"""#!/bin/sh
exec /bin/chroot /root /sbin/modprobe "$@"
"""


def build(image: Image, fresh: Iterable[str]) -> bytes:
    """A cpio archive that boots ``image``; ``fresh`` folders get an empty tmpfs.

    Raises `LabError` if the kernel lacks a module or busybox is missing.
    """
    places = {
        "RELEASE": image.release,
        "MODULES": str(image.modules.resolve()) if image.modules else "",
        "FRESH": " ".join(fresh),
        "SHARE": SHARE,
    }
    init = _INIT
    for name, value in places.items():
        init = init.replace(f"@{name}@", value if name == "FRESH" else shlex.quote(value))
    members: dict[str, bytes | None] = dict.fromkeys(
        ("bin", "dev", "lower", "modules", "proc", "root", "sbin", "sys", "upper")
    )
    members["init"] = init.encode()
    members["sbin/modprobe"] = _MODPROBE
    members["bin/busybox"] = Path(tool("busybox")).read_bytes()
    order = load_order(image.modules, MODULES) if image.modules else []
    for number, path in enumerate(order):
        members[f"modules/{number:02}-{_module_name(path.name)}"] = unpacked(path)
    return cpio(members)


def load_order(modules: Path, wanted: Iterable[str]) -> list[Path]:
    """Files of the ``wanted`` modules, each after those it needs; built-in ones have none.

    ``modules.dep`` lists the needs of a module in reverse order of loading, see
    modules.dep(5).  Raises `LabError` naming a module that the kernel has not got.
    """
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[_module_name(path)] = [*reversed(rest.split()), path]
    built_in = {_module_name(line) for line in (modules / "modules.builtin").read_text().split()}
    ordered: dict[str, None] = {}
    for name in wanted:
        if name not in needs and name not in built_in:
            raise LabError(f"kernel {modules.name} has no module {name}", "use a generic flavour")
        ordered.update(dict.fromkeys(needs.get(name, ())))
    return [modules / path for path in ordered]


def _module_name(path: str) -> str:
    return PurePosixPath(path).name.partition(".ko")[0].replace("-", "_")


def unpacked(path: Path) -> bytes:
    """The bytes of a module, which a distribution may have compressed."""
    try:
        if path.suffix == ".xz":
            return lzma.decompress(path.read_bytes())
        if path.suffix == ".zst":
            return output_of("zstd", "-dqc", path)
        return path.read_bytes()
    except (OSError, lzma.LZMAError) as error:
        raise LabError(f"cannot read module {path.name}: {error}") from error


def cpio(members: Mapping[str, bytes | None]) -> bytes:
    """A "newc" archive of executable files and, where the value is None, folders.

    Source: Documentation/driver-api/early-userspace/buffer-format.rst.
    """
    archive = bytearray()
    for inode, (name, data) in enumerate([*members.items(), ("TRAILER!!!", b"")], start=1):
        mode = stat.S_IFDIR | 0o755 if data is None else stat.S_IFREG | 0o755
        content = data or b""
        path = name.encode() + b"\0"
        # ino, mode, uid, gid, nlink, mtime, size, 4 device numbers, name size, checksum
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        archive += b"070701" + b"".join(b"%08x" % field for field in fields)
        archive += path
        archive += bytes(-len(archive) % 4)
        archive += content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)
