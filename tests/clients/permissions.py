"""A client that decides about opens, and asks for errors: ``permissions.py DIRECTORY TRIGGER``.

Meant for a mount namespace of its own: it asks about every open and read through that mount of
"/", and answers from the only thread that also makes its marks for errors. Whoever opens a file to
answer such a mark would wait for this thread, which waits for the mark. Prints what it has done.
"""

import ctypes
import errno
import os
import select
import signal
import struct
import sys
from pathlib import Path

from fserr_bpf.kernel.syscalls import fanotify_init, fanotify_mark
from fserr_bpf.uapi.fanotify import (
    FAN_ACCESS_PERM,
    FAN_CLASS_CONTENT,
    FAN_FS_ERROR,
    FAN_MARK_ADD,
    FAN_MARK_FILESYSTEM,
    FAN_MARK_MOUNT,
    FAN_MARK_REMOVE,
    FAN_NONBLOCK,
    FAN_OPEN_EXEC_PERM,
    FAN_OPEN_PERM,
    FAN_REPORT_FID,
)

FAN_ALLOW = 1
PERMISSIONS = FAN_OPEN_PERM | FAN_ACCESS_PERM | FAN_OPEN_EXEC_PERM
WHOLE = FAN_MARK_ADD | FAN_MARK_FILESYSTEM
SECONDS = 20


def answered(permissions: int) -> None:
    """All questions that wait."""
    try:
        data = os.read(permissions, 65536)
    except BlockingIOError:
        return
    while data:
        length, fd = struct.unpack_from("<I12xi", data)
        os.write(permissions, struct.pack("<iI", fd, FAN_ALLOW))
        os.close(fd)
        data = data[length:]


def main() -> None:
    directory, trigger = sys.argv[1:]
    cause = os.open(trigger, os.O_WRONLY)
    ctypes.CDLL(None).alarm(SECONDS)  # ends us, and with us what waits for our answers
    permissions = fanotify_init(FAN_CLASS_CONTENT | FAN_NONBLOCK)
    fanotify_mark(permissions, FAN_MARK_ADD | FAN_MARK_MOUNT, PERMISSIONS, "/")
    asks = os.fork()
    if asks == 0:
        Path("/etc/passwd").read_text()
        os._exit(0)
    poll = select.poll()
    poll.register(permissions, select.POLLIN)
    while os.waitpid(asks, os.WNOHANG) == (0, 0):
        poll.poll(100)
        answered(permissions)
    print("asked")
    errors, epoll = fanotify_init(FAN_REPORT_FID | FAN_NONBLOCK), select.epoll()
    epoll.register(errors, select.EPOLLIN)
    for flags, path in ((WHOLE, "/missing"), (WHOLE, directory), (WHOLE, "/proc"), (WHOLE, "/")):
        try:
            fanotify_mark(errors, flags, FAN_FS_ERROR, path)
            print("marked")
        except OSError as error:
            print(errno.errorcode[error.errno or 0])
    fanotify_mark(errors, FAN_MARK_REMOVE | FAN_MARK_FILESYSTEM, FAN_FS_ERROR, "/")
    os.write(cause, b"x")
    poll.register(errors, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        answered(permissions)
        if errors in ready:
            print(hex(struct.unpack_from("<8xQ", os.read(errors, 4096))[0]))
            return


main()
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)  # Python's own end reads files
