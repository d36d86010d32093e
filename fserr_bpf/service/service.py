"""All outputs of a run that has more than one stream, and what others can read of it.

Made while the rights of the start are there, started once they are given up. Nothing here waits
or raises but where it says so.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import time
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from typing import Any

from fserr_bpf.closing import Closing
from fserr_bpf.errors import UsageError
from fserr_bpf.model.event import FsErrorEvent
from fserr_bpf.outputs.classes import class_of
from fserr_bpf.outputs.journal import JournalSocket
from fserr_bpf.outputs.schema import Message
from fserr_bpf.service import report as reports
from fserr_bpf.service.description import EventSocket, File, Hook, Journal, Prometheus, Service
from fserr_bpf.service.eventsocket import SocketOutput
from fserr_bpf.service.filetarget import FileTarget
from fserr_bpf.service.hookoutput import HookOutput
from fserr_bpf.service.output import Output, OutputState
from fserr_bpf.service.publish import GAP_SECONDS, Published
from fserr_bpf.service.report import Counted, Report
from fserr_bpf.service.statefile import FILE

COUNTED_MOST = 1024
"""Sets of labels; the errors of further file systems are counted as those of "other"."""
_REFRESH_SECONDS = 55.0  # of the state file while nothing happens


class Running(Closing):
    """The outputs of ``service``. Raises UsageError for what cannot be had."""

    def __init__(self, service: Service, user: str | None) -> None:
        self._service = service
        with contextlib.ExitStack() as stack:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            stack.callback(os.close, self._wake)
            self._hooks = [
                stack.enter_context(contextlib.closing(HookOutput(each)))
                for each in service.outputs
                if isinstance(each, Hook)
            ]
            self._outputs = {
                each: self._output(each) for each in service.outputs if not isinstance(each, Hook)
            }
            self._state = Published(os.path.join(service.folder, FILE))
            self._prometheus = _Prometheus(service.prometheus, self.newest)
            self._closing = stack.pop_all()
        self._leaving: list[Output | SocketOutput] = []
        self._news: list[str] = []
        self._errors = Counter[Counted]()
        self._report: Report | None = None
        self._shown_at = -GAP_SECONDS
        self._changed = True
        self._closed = False
        self._folders: set[str] | None = None
        if user is not None:
            _give_to(service.folder, user)

    def _output(self, spec: Journal | File | EventSocket) -> Output | SocketOutput:
        def notify() -> None:
            os.eventfd_write(self._wake, 1)

        if isinstance(spec, EventSocket):
            return SocketOutput(spec, notify)
        target = (
            FileTarget(spec.path, spec.format)
            if isinstance(spec, File)
            else JournalSocket(spec.socket)
        )
        return Output(spec.name, target, spec.queueing, notify)

    def lock(self, lock: Callable[[set[str]], bool]) -> bool:
        """Have ``lock`` forbid writing but in the folders of now; returns what it does."""
        folders = set(filter(os.path.exists, _folders(self._service)))
        if not lock(folders):
            return False
        self._folders = folders
        return True

    def start(self) -> None:
        """Begin to deliver."""
        for output in self._outputs.values():
            output.start()
        self._state.start()
        self._prometheus.start()

    # -- messages --------------------------------------------------------------------------

    def give(self, message: Message) -> None:
        """To every output that wants it."""
        self._changed = True
        if isinstance(message, FsErrorEvent):
            self._errors[self._counted(message)] += message.error_count
        for output in self._outputs.values():
            output.give(message)
        for hook in self._hooks:
            hook.give(message)

    def _counted(self, event: FsErrorEvent) -> Counted:
        origin = event.origin
        kind = str(class_of(event))
        counted = Counted(None, "", "", "", kind)
        if origin:
            names = (origin.device, origin.fstype, origin.mount_point)
            counted = Counted(origin.dev, *names, kind)
        if counted not in self._errors and len(self._errors) >= COUNTED_MOST:
            return Counted(None, "other", "", "", kind)
        return counted

    # -- waiting ---------------------------------------------------------------------------

    def masks(self) -> dict[int, int]:
        """Descriptors that say when there is something to do, with what to poll them for."""
        hooks = [hook.fileno() for hook in self._hooks if hook.fileno() >= 0]
        return dict.fromkeys((self._wake, *hooks), select.POLLIN)

    @property
    def due(self) -> float:
        """When there is something to do, CLOCK_MONOTONIC in seconds."""
        times = [hook.due for hook in self._hooks if hook.due is not None]
        gap = GAP_SECONDS if self._changed else _REFRESH_SECONDS
        return min([*times, self._shown_at + gap])

    def step(self, ready: frozenset[int]) -> None:
        """Do what ``ready`` descriptors and the time ask for."""
        if self._wake in ready:
            os.eventfd_read(self._wake)
            self._changed = True
        for hook in self._hooks:
            hook.step()

    def reopen(self) -> None:
        """Files that were renamed are followed by new ones."""
        for output in self._outputs.values():
            output.reopen()

    def news(self) -> list[str]:
        """Messages since the last call."""
        news, self._news = self._news, []
        outputs = (*self._outputs.values(), *self._hooks, *self._leaving)
        for each in (*outputs, self._state, *self._prometheus.published):
            news += each.news()
        self._changed |= bool(news)
        return news

    # -- what others can read ----------------------------------------------------------------

    def newest(self) -> Report | None:
        """The last that was shown; for other threads too."""
        return self._report

    def is_due(self) -> bool:
        """Whether a report is to be shown."""
        gap = GAP_SECONDS if self._changed else _REFRESH_SECONDS
        return time.monotonic() >= self._shown_at + gap

    def show(self, make: Callable[[Counter[Counted], list[OutputState]], Report]) -> None:
        """Show the report that ``make`` makes of the counted errors and the outputs' states."""
        states = [output.state() for output in self._outputs.values()]
        states += [hook.state() for hook in self._hooks]
        report = self._report = make(Counter(self._errors), states)
        self._shown_at, self._changed = time.monotonic(), False
        self._state.show(lambda: reports.to_json(report))
        self._prometheus.show()

    # -- another configuration -----------------------------------------------------------------

    def change(self, service: Service) -> None:
        """Go on with the outputs of ``service``, whose folder and hooks are the same.

        Raises UsageError with everything as it was.
        """
        if self._folders is not None and (missing := _folders(service) - self._folders):
            raise UsageError(
                f"{missing.pop()} is a new folder, and the right to write there is given up",
                "start fserr-bpf again",
            )
        prometheus = self._prometheus
        if service.prometheus != self._service.prometheus:
            prometheus = _Prometheus(service.prometheus, self.newest, prometheus)
        specs = [each for each in service.outputs if not isinstance(each, Hook)]
        new = {spec: self._output(spec) for spec in specs if spec not in self._outputs}
        gone = [output for spec, output in self._outputs.items() if spec not in specs]
        self._outputs = {spec: self._outputs.get(spec) or new[spec] for spec in specs}
        for output in new.values():
            output.start()
        for output in gone:
            output.close(0.0)
        if prometheus is not self._prometheus:
            prometheus.start()
        self._leaving, self._prometheus = [*gone], prometheus
        self._service, self._changed = service, True

    def close(self) -> None:
        """Deliver what waits, in a limited time; what was not is in the news. Once is enough."""
        if self._closed:
            return
        self._closed = True
        for output in self._outputs.values():
            output.close()
        for hook in self._hooks:
            hook.close()
        self._prometheus.close()
        self._state.close()
        self._closing.close()


class _Prometheus(Closing):
    """Both ways to Prometheus, and neither where there is no ``spec``.

    ``before`` has what goes on from another configuration, once this one is started.
    """

    def __init__(
        self,
        spec: Prometheus | None,
        newest: Callable[[], Report | None],
        before: _Prometheus | None = None,
    ) -> None:
        self._spec = spec or Prometheus()
        self._before = before
        self.published: list[Published] = []
        self._endpoint: Any = None
        if spec is None:
            return
        try:  # the extra is for who wants it
            self._text = import_module("fserr_bpf.service.metrics").Metrics(newest)
            endpoint = import_module("fserr_bpf.service.scrape").Endpoint
        except ImportError as error:
            if error.name and error.name.startswith("fserr_bpf"):
                raise
            raise UsageError(
                "metrics need prometheus-client", "install python3-prometheus-client"
            ) from error
        if spec.textfile:
            self.published = [Published(spec.textfile)]
        if spec.listen and not (before and before.listens(spec.listen)):
            self._endpoint = endpoint(spec.listen, self._text.registry)

    def listens(self, address: tuple[str, int]) -> bool:
        """Whether it does so there already."""
        return self._spec.listen == address

    def start(self) -> None:
        """Begin, in place of what was before."""
        for each in self.published:
            each.start()
        if self._before:
            if self._endpoint is None and self._spec.listen:
                self._endpoint, self._before._endpoint = self._before._endpoint, None
            elif self._endpoint:
                self._endpoint.start()
            self._before.close()
            self._before = None
        elif self._endpoint:
            self._endpoint.start()

    def show(self) -> None:
        """There is a new report."""
        for each in self.published:
            each.show(self._text.text)

    def close(self) -> None:
        """Be silent."""
        for each in self.published:
            each.close()
        if self._endpoint:
            self._endpoint.close()
            self._endpoint = None


def _folders(service: Service) -> set[str]:
    """Where files are written; of devices they are themselves, not their folder."""
    paths = [each.path for each in service.outputs if isinstance(each, File | EventSocket)]
    if service.prometheus and service.prometheus.textfile:
        paths.append(service.prometheus.textfile)
    places = {path if path.startswith("/dev/") else os.path.dirname(path) for path in paths}
    return places | {service.folder}


def make_folder(folder: str) -> None:
    """The state folder, readable for all. Raises UsageError."""
    try:
        os.makedirs(folder, 0o755, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}", "name another state folder") from error


def _give_to(folder: str, user: str) -> None:
    entry = pwd.getpwnam(user)
    os.chown(folder, entry.pw_uid, entry.pw_gid)
