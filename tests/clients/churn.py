"""A client of ordinary events with pidfds: ``churn.py DIRECTORY TIMES``.

Marks the file system of DIRECTORY for FAN_CREATE, FAN_DELETE and FAN_FS_ERROR, makes and removes a
file TIMES times and reads what comes. Prints "marked", waits for a line on standard input, prints
how many events there were with which pidfd, waits for another line.
"""

import os
import select
import sys
from collections import Counter
from pathlib import Path

from fserr_bpf.codec.fanotify import Decoder
from fserr_bpf.kernel.syscalls import fanotify_init, fanotify_mark
from fserr_bpf.model.event import OtherEvent
from fserr_bpf.uapi.fanotify import (
    FAN_EVENT_INFO_TYPE_PIDFD,
    FAN_FS_ERROR,
    FAN_MARK_ADD,
    FAN_MARK_FILESYSTEM,
    FAN_NONBLOCK,
    FAN_REPORT_DIR_FID,
    FAN_REPORT_FID,
    FAN_REPORT_NAME,
    FAN_REPORT_PIDFD,
)

FLAGS = FAN_NONBLOCK | FAN_REPORT_FID | FAN_REPORT_DIR_FID | FAN_REPORT_NAME | FAN_REPORT_PIDFD
FAN_CREATE, FAN_DELETE = 0x100, 0x200
AT_ONCE = 100

directory, times = Path(sys.argv[1]), int(sys.argv[2])
group = fanotify_init(FLAGS)
readable = select.poll()
readable.register(group, select.POLLIN)
mask = FAN_CREATE | FAN_DELETE | FAN_FS_ERROR
fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, mask, str(directory))
decoder = Decoder()
pidfds = Counter[int]()


def read_until(wanted: int) -> None:
    """Count events by pidfd; a merged one counts as often as it has bits."""
    while pidfds.total() < wanted:
        readable.poll()
        try:
            data = os.read(group, 1 << 16)
        except BlockingIOError:  # an event of a pipe may be away for a moment, to merge
            continue
        for event in decoder.feed(data):
            if isinstance(event, OtherEvent):
                (record,) = (r for r in event.extra if r.info_type == FAN_EVENT_INFO_TYPE_PIDFD)
                number = int.from_bytes(record.data, "little", signed=True)
                pidfds[number] += event.mask.bit_count()


print("marked", flush=True)
sys.stdin.readline()
for done in range(times):
    name = directory / f"new{done}"
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600))
    name.unlink()
    if done % AT_ONCE == AT_ONCE - 1:  # none that waits gets lost
        read_until(2 * (done + 1))
read_until(2 * times)
print(dict(pidfds), flush=True)
sys.stdin.readline()
