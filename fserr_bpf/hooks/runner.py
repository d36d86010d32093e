"""The process that runs hooks, for ``hooks.hook``.

Run by ``children.spawn`` with the arguments ``COMMAND TIMEOUT USER``, USER being "" or whom a
hook becomes. It is started before the monitor gives up its rights and keeps them, for hooks
only. Each message asks for one run; the answer comes when that has ended. When the other end
is closed it ends what is running, in its time.
"""

from __future__ import annotations

import os
import pwd
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from fserr_bpf.children.channel import Channel, channel_to_parent

GRACE_SECONDS = 2.0
"""From SIGTERM to SIGKILL."""
_LOOK_SECONDS = 0.05


@dataclass
class _Run:
    """A hook that runs, leader of its session and process group. Times are CLOCK_MONOTONIC."""

    number: int
    child: subprocess.Popen[bytes]
    due: float
    pidfd: int = field(init=False)
    terminated: bool = False

    def __post_init__(self) -> None:
        self.pidfd = os.pidfd_open(self.child.pid)

    def has_ended(self) -> bool:
        """Whether the leader is a zombie; it stays one, so that its number is not used again."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PIDFD, self.pidfd, flags) is not None

    def is_alive(self) -> bool:
        """Whether any process of its group is more than a zombie."""
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    # comm, in parentheses, may hold anything; behind it state, ppid, pgrp
                    state, _, group = file.read().rpartition(b")")[2].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(group) == self.child.pid and state not in (b"Z", b"X"):
                return True
        return False

    def reap(self) -> int:
        """Of one that has ended: its exit status, or minus the signal that killed it."""
        os.close(self.pidfd)
        return self.child.wait()

    def kill(self, number: signal.Signals) -> None:
        """To its process group."""
        os.killpg(self.child.pid, number)


class Runner:
    """Runs ``command`` by sh, as ``user`` if that is not "", at most ``timeout`` seconds."""

    def __init__(self, channel: Channel, command: str, timeout: float, user: str) -> None:
        self._channel: Channel | None = channel
        self._command = command
        self._timeout = timeout
        self._user = pwd.getpwnam(user) if user else None
        self._runs: dict[int, _Run] = {}
        self._ending: list[_Run] = []

    def serve(self) -> None:
        """Until the monitor has gone and the last hook has ended."""
        while self._channel or self._runs:
            poll = select.poll()
            if self._channel:
                poll.register(self._channel, select.POLLIN)
            for run in (*self._runs.values(), *self._ending):
                if not run.terminated or run in self._ending:
                    poll.register(run.pidfd, select.POLLIN)
            poll.poll(self._patience())
            for run in [run for run in self._ending if run.has_ended()]:
                self._ending.remove(run)
                run.reap()
            if self._channel:
                self._receive(self._channel)
            for run in list(self._runs.values()):
                self._look(run)

    def _patience(self) -> float | None:
        """Milliseconds until something is due; None is for ever."""
        if not self._runs:
            return None
        left = min(run.due for run in self._runs.values()) - time.monotonic()
        if any(run.terminated for run in self._runs.values()):
            left = min(left, _LOOK_SECONDS)
        return max(left, 0) * 1000

    def _receive(self, channel: Channel) -> None:
        while self._channel:
            try:
                question = channel.receive(wait=False)
            except BlockingIOError:
                return
            except EOFError:
                self._channel = None
            else:
                self._start(question)

    def _start(self, question: dict[str, Any]) -> None:
        number, environment = question["number"], os.environ | question["environment"]
        user = self._user
        if user:
            named = {"USER": user.pw_name, "LOGNAME": user.pw_name, "HOME": user.pw_dir}
            environment |= named
        try:
            child = subprocess.Popen(
                ["/bin/sh", "-c", self._command],
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                user=user.pw_uid if user else None,
                group=user.pw_gid if user else None,
                extra_groups=os.getgrouplist(user.pw_name, user.pw_gid) if user else None,
            )
        except (OSError, subprocess.SubprocessError) as error:
            self._answer(number, f"could not be started ({error})")
            return
        self._runs[number] = _Run(number, child, time.monotonic() + self._timeout)

    def _look(self, run: _Run) -> None:
        ended = run.has_ended()
        if not run.terminated:
            if ended:
                self._end(run, "")
            elif time.monotonic() >= run.due:
                run.kill(signal.SIGTERM)
                run.terminated = True
                run.due = time.monotonic() + GRACE_SECONDS
        elif ended and not run.is_alive():
            self._end(run, "SIGTERM")
        elif time.monotonic() >= run.due:
            run.kill(signal.SIGKILL)
            self._end(run, "SIGKILL")

    def _end(self, run: _Run, killer: str) -> None:
        del self._runs[run.number]
        if killer:
            self._answer(
                run.number, f"ran longer than {self._timeout:g} s, ended by {killer}", late=True
            )
        if not run.has_ended():  # one that the kernel holds ends later
            self._ending.append(run)
            return
        status = run.reap()
        if killer:
            return
        if status < 0:
            self._answer(run.number, f"killed by {signal.Signals(-status).name}")
        else:
            self._answer(run.number, f"exit status {status}" if status else "")

    def _answer(self, number: int, trouble: str, *, late: bool = False) -> None:
        if not self._channel:
            return
        answer = {"number": number, "trouble": trouble, "late": late}
        try:
            self._channel.send(answer)
        except ConnectionError:
            self._channel = None


def main(descriptor: str, command: str, timeout: str, user: str) -> None:
    """Serve the monitor at the other end of ``descriptor``."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # for the monitor; handlers, unlike SIG_IGN, are not inherited by hooks
        signal.signal(number, lambda *_: None)
    Runner(channel_to_parent(descriptor), command, float(timeout), user).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
