"""``fanotify_mark(2)`` on an emulated group, once the kernel has judged flags and mask.

A worker marks the shadow as the client itself would have, in its namespaces and with its
rights (``exec/markobject.py``); then the group remembers what its marks for errors are.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from fserr_bpf.exec.fanotifycalls import MarkCall
from fserr_bpf.exec.group import EmulatedGroup
from fserr_bpf.exec.markrequest import MarkAnswer, MarkJob
from fserr_bpf.exec.shadow import HOLD
from fserr_bpf.exec.workers import DoesMarks
from fserr_bpf.group.kernelgroup import KernelGroup
from fserr_bpf.tasks.seccomp import Notification
from fserr_bpf.uapi.fanotify import FAN_MARK_ADD


class MarkRequest(NamedTuple):
    """A ``call`` on ``group``.

    ``waits`` says whether the client still waits for the answer. ``done`` is called once with
    what came of it, or ``failed`` with what went wrong here.
    """

    notification: Notification
    call: MarkCall
    group: EmulatedGroup
    waits: Callable[[], bool]
    done: Callable[[MarkAnswer], None]
    failed: Callable[[Exception], None]


class MarkCalls:
    """Has them done by ``workers``; ``kernel_group`` replaces the probes of ext4.

    ``groups`` are all that are emulated, by device and inode of their descriptors.
    ``pump_errors`` brings the records that wait to all of them.
    """

    def __init__(
        self,
        kernel_group: KernelGroup | None,
        groups: Mapping[tuple[int, int], EmulatedGroup],
        workers: DoesMarks,
        pump_errors: Callable[[], None],
    ) -> None:
        self._kernel_group = kernel_group
        self._groups = groups
        self._workers = workers
        self._pump_errors = pump_errors

    def begin(self, request: MarkRequest) -> None:
        """Have it done; OSError with the errno that the client is to get."""
        call, shadow = request.call, request.group.shadow
        # what another call may do to the group meanwhile is not known
        locate = (call.errors or call.removes) and (call.whole or call.of_inode)
        locate &= not call.flushes
        adds = call.errors and not call.removes and not call.ignores
        job = _job(
            request.notification,
            call,
            call.flags,
            shadow.mask_of(call),
            locate=locate,
            kernel=locate and adds and self._kernel_group is not None,
            own_devs=tuple({dev for dev, _ in self._groups}),
        )
        self._submit(request, job, None, self._marked)

    def name(
        self,
        notification: Notification,
        call: MarkCall,
        waits: Callable[[], bool],
        named: Callable[[MarkAnswer], None],
    ) -> None:
        """Have the path read of a call that is the kernel's. Raises OSError."""
        job = _job(notification, call, call.flags, 0, names=True)
        self._workers.submit(job, [], waits, named)

    def _submit(
        self,
        request: MarkRequest,
        job: MarkJob,
        instead: EmulatedGroup | None,
        then: Callable[[MarkRequest, MarkAnswer], None],
    ) -> None:
        descriptors = [request.group.shadow.fileno()]
        if job.kernel and self._kernel_group is not None:
            descriptors.append(self._kernel_group.fileno())
        if instead is not None:
            descriptors.append(instead.shadow.fileno())
            job = job._replace(instead=True)
        done = partial(self._answered, request, job, then)
        self._workers.submit(job, descriptors, request.waits, done)

    def _answered(
        self,
        request: MarkRequest,
        job: MarkJob,
        then: Callable[[MarkRequest, MarkAnswer], None],
        answer: MarkAnswer,
    ) -> None:
        try:
            if answer.group is None:
                then(request, answer)
            elif self._groups.get(request.group.channel.identity) is not request.group:
                request.done(answer._replace(error=errno.EBADF))
            else:
                # either the real group behind it, or the object is none of ours after all
                again = job._replace(own_devs=())
                self._submit(request, again, self._groups.get(answer.group), then)
        except Exception as error:
            request.failed(error)

    def _marked(self, request: MarkRequest, answer: MarkAnswer) -> None:
        """The shadow has been marked, or not: so are the group's marks for errors."""
        call, group = request.call, request.group
        held = False
        if not answer.error and self._groups.get(group.channel.identity) is group:
            self._pump_errors()  # what came before the call must not see its effect
            if call.flushes:
                group.flushed(call)
            elif answer.marked is not None:
                held = group.remember(call, answer.marked)
        if held:
            flags = FAN_MARK_ADD | call.kind | call.lookup
            devs = tuple({dev for dev, _ in self._groups})
            job = _job(request.notification, call, flags, HOLD, own_devs=devs)
            self._submit(request, job, None, self._held)
        else:
            request.done(answer)

    def _held(self, request: MarkRequest, answer: MarkAnswer) -> None:
        """The mark of the shadow is there again that went with its last ordinary event."""
        request.group.refresh()
        request.done(answer)


def _job(
    notification: Notification,
    call: MarkCall,
    flags: int,
    mask: int,
    *,
    locate: bool = False,
    kernel: bool = False,
    names: bool = False,
    own_devs: Sequence[int] = (),
) -> MarkJob:
    return MarkJob(
        notification.id,
        notification.tid,
        flags,
        mask,
        call.lookup,
        call.dirfd,
        call.path,
        pathless=call.flushes,
        locate=locate,
        needed=call.whole,
        kernel=kernel,
        instead=False,
        names=names,
        own_devs=own_devs,
    )
