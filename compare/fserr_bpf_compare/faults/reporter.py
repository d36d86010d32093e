"""Processes that cause an ext4 error on request, and go on running."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from fserr_bpf.closing import Closing
from fserr_bpf.errors import LabError
from fserr_bpf_compare.faults.fault import TriggerProcess
from fserr_bpf_compare.faults.scratch import Scratch

_LOOP = 'while read -r path; do echo x > "$path"; echo "$?"; done'


class Pipes(Closing):
    """Both ends of the conversation with a reporter: it is sent paths and answers statuses."""

    def __init__(self, requests: int, answers: int, words: str, pid: int = 0) -> None:
        self._requests = os.fdopen(requests, "w", encoding="utf-8")
        self._answers = os.fdopen(answers, encoding="utf-8")
        self._words = words
        self.pid = pid

    def fds(self) -> tuple[int, int]:
        """The descriptors, for a process that inherits them."""
        return self._requests.fileno(), self._answers.fileno()

    def trigger(self, fs: Scratch, times: int = 1) -> TriggerProcess:
        """Cause ``times`` errors of the superblock, one after the other.

        ``pid`` of the result is 0 if this process cannot know it. Raises LabError if
        the reporter is gone.
        """
        path = f"/sys/fs/ext4/{fs.device_name}/trigger_fs_error"
        status = 0
        for _ in range(times):
            try:
                print(path, file=self._requests, flush=True)
                status = int(self._answers.readline())
            except (OSError, ValueError) as error:
                raise LabError(f"{self._words} has ended and causes no more errors") from error
        command = (self._words, f"{times} x", path)
        return TriggerProcess(self.pid, "sh", command, status, "", str(fs.mount_point))

    def close(self) -> None:
        """End the conversation, and with it the reporter."""
        self._requests.close()
        self._answers.close()


class Reporter(Pipes):
    """A shell; ``prefix`` is the command that runs it, such as ``unshare``.

    ``pid`` is that of the shell as this process sees it, only without a ``prefix``.
    """

    def __init__(self, *prefix: str) -> None:
        command: Sequence[str] = (*prefix, "sh", "-c", _LOOP)
        requests, answers = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        self._shell = subprocess.Popen(command, stdin=requests[0], stdout=answers[1])
        os.close(requests[0])
        os.close(answers[1])
        words = " ".join((*prefix, "sh"))
        super().__init__(requests[1], answers[0], words, 0 if prefix else self._shell.pid)

    def close(self) -> None:
        """End the shell and wait until it is gone."""
        super().close()
        self._shell.wait()
