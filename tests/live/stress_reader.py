"""A group of ``stress.py``: prints "heard N", the number of errors so far."""

from __future__ import annotations

import os
import struct
import sys

from fserr_bpf.kernel.syscalls import fanotify_init, fanotify_mark


def say(line: str) -> None:
    """In one write: others have the same file for their lines."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def main(mount_point: str) -> None:
    """Until it is killed, or told that events are missing."""
    group = fanotify_init(0x201)
    fanotify_mark(group, 0x101, 0x8000, mount_point)
    heard = 0
    say("heard 0")
    while data := os.read(group, 65536):
        while data:
            (length,) = struct.unpack_from("=I", data)
            (mask,) = struct.unpack_from("=Q", data, 8)
            if mask != 0x8000:
                say("overflow")
                return
            (count,) = struct.unpack_from("=I", data, length - 4)
            heard, data = heard + count, data[length:]
        say(f"heard {heard}")


if __name__ == "__main__":
    main(sys.argv[1])
