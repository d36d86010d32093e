"""reader.py PATH COUNT STATUS: reads FAN_FS_ERROR of the file system of PATH.

Prints "ready" when it is marked, then the lines of events.h until they stand for COUNT errors;
ends with STATUS. It uses libc alone and knows the layouts by itself.
"""

import ctypes
import os
import struct
import sys

FAN_CLOEXEC, FAN_REPORT_FID = 0x1, 0x200
FAN_MARK_ADD, FAN_MARK_FILESYSTEM = 0x1, 0x100
FAN_FS_ERROR = 0x8000
INFO_FID, INFO_ERROR = 1, 5
AT_FDCWD = -100

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> int:
    """``result`` of a libc function; raises OSError for -1."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def show(event: bytes) -> int:
    """Print one event; returns the errors that it stands for."""
    length, _, _, at, mask, fd, pid = struct.unpack_from("=IBBHQii", event)
    if mask != FAN_FS_ERROR:
        print(f"other mask={mask:x} pid={pid} fd={fd}", flush=True)
        return 0
    where, error, count = "", 0, 0
    while at < length:
        kind, _, size = struct.unpack_from("=BBH", event, at)
        if kind == INFO_FID:
            low, high, handle_bytes, handle_type = struct.unpack_from("=IIIi", event, at + 4)
            handle = event[at + 20 : at + 20 + handle_bytes].hex()
            where = f"fsid={low:08x}:{high:08x} handle="
            where += f"{handle_type}:{handle}" if handle else "none"
        elif kind == INFO_ERROR:
            error, count = struct.unpack_from("=iI", event, at + 4)
        at += size
    print(f"fs_error {where} error={error} count={count} pid={pid} fd={fd} pidfd=none", flush=True)
    return count


def main(path: str, wanted: str, status: str) -> int:
    group = checked(libc.fanotify_init(FAN_CLOEXEC | FAN_REPORT_FID, os.O_RDONLY))
    checked(
        libc.fanotify_mark(
            group,
            FAN_MARK_ADD | FAN_MARK_FILESYSTEM,
            ctypes.c_uint64(FAN_FS_ERROR),
            AT_FDCWD,
            os.fsencode(path),
        )
    )
    print("ready", flush=True)
    errors = 0
    while errors < int(wanted):
        data = os.read(group, 4096)
        while data:
            (length,) = struct.unpack_from("=I", data)
            errors += show(data[:length])
            data = data[length:]
    return int(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
