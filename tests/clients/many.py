"""A client of many groups: ``many.py DIRECTORY TRIGGER GROUPS``.

Marks the file system of DIRECTORY in each for FAN_FS_ERROR, causes one error by a write to TRIGGER,
and polls all groups without a read, until half a second after all are readable. Prints how many
were in the end, and how often one that was readable was not.
"""

import os
import select
import sys
import time
from pathlib import Path

from fserr_bpf.kernel.syscalls import fanotify_init, fanotify_mark
from fserr_bpf.uapi.fanotify import (
    FAN_FS_ERROR,
    FAN_MARK_ADD,
    FAN_MARK_FILESYSTEM,
    FAN_NONBLOCK,
    FAN_REPORT_FID,
)

MOST_SECONDS, AFTER_SECONDS = 20, 0.5

directory, trigger, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
poll = select.poll()
for _ in range(count):
    group = fanotify_init(FAN_NONBLOCK | FAN_REPORT_FID)
    fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_FS_ERROR, directory)
    poll.register(group, select.POLLIN)
trigger.write_text("x")
readable = set[int]()
lost = 0
end = time.monotonic() + MOST_SECONDS
while time.monotonic() < end:
    now = {group for group, _ in poll.poll(0)}
    lost += len(readable - now)
    if len(now) == count > len(readable):
        end = time.monotonic() + AFTER_SECONDS
    readable = now
print(f"readable {len(readable)}, lost {lost}")
os._exit(0)
