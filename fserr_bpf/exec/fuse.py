"""The FUSE server whose files are the clients' descriptors of exact channels.

The supervisor serves the mount in the same thread that could ask for it: what is to touch the
mount goes through `FuseServer.in_thread`, or would wait for ever. Attributes do not expire,
but reading invalidates the access time, so stat(2) asks; statx(2) of other fields does not.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple, Protocol, TypeVar

from fserr_bpf.closing import Closing
from fserr_bpf.errors import KernelError
from fserr_bpf.exec.loop import Loop
from fserr_bpf.exec.nommap import MmapRefusal
from fserr_bpf.kernel.fuse import mount_fuse, open_fuse
from fserr_bpf.tasks.restart import Restarting
from fserr_bpf.uapi import fuse
from fserr_bpf.uapi.fuse import Opcode

_MINOR = 31  # the protocol of Linux 5.4, the last whose layouts these are
_NOFLUSH_MINOR = 35  # that of Linux 5.16
_OPEN_FLAGS = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NONSEEKABLE | fuse.FOPEN_STREAM | fuse.FOPEN_NOFLUSH
_MAX_WRITE = 4096
MAX_PAGES = 256
"""Of the largest READ."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_FOREVER = 1 << 32  # seconds
_DIRECTORY, _FILE = 0o040555, 0o100600
_RESTART_TIMEOUT_NS = 10_000_000

# What clients ask of a file: it waits while a thread uses the mount.
_OF_FILES = frozenset({Opcode.READ, Opcode.POLL, Opcode.RELEASE})
_DEFERRED = _OF_FILES | {Opcode.INTERRUPT}

# As a group: it cannot be opened through /proc, takes no responses and no ioctl but FIONREAD.
_FIXED_ANSWERS: dict[int, int] = {
    Opcode.OPEN: errno.ENXIO,
    Opcode.WRITE: errno.EINVAL,
    Opcode.IOCTL: errno.ENOTTY,
    Opcode.DESTROY: 0,
}
_UNANSWERED = (Opcode.FORGET, Opcode.BATCH_FORGET)

T = TypeVar("T")


class PendingRead(NamedTuple):
    """A read(2) of ``size`` bytes by the thread ``tid`` that has no answer yet."""

    unique: int
    tid: int
    size: int


class FuseFile(Protocol):
    """What the server calls for one file."""

    def read(self, request: PendingRead, *, wait: bool) -> None:
        """Answer a READ, or if ``wait`` is set and there is nothing to read, later."""

    def poll(self, unique: int, handle: int | None) -> None:
        """Answer a POLL; ``handle`` is what to wake when there is more, None for nothing."""

    def interrupted(self, unique: int) -> None:
        """A signal has come for the READ ``unique``, which may be another file's."""

    def released(self) -> None:
        """The last descriptor was closed."""


class _Request(NamedTuple):
    opcode: int
    unique: int
    node: int
    tid: int
    body: bytes


class FuseServer(Closing):
    """The mount with the files of all exact channels.

    Raises KernelError where the kernel has no FUSE, PrivilegeError where we may not mount.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._files: dict[int, FuseFile] = {}
        self._last_node = fuse.FUSE_ROOT_ID
        self._opening: int | None = None
        self._closes_silently = False
        self._refusal = MmapRefusal()
        self._deferred: deque[_Request] = deque()
        self._restarting: set[Restarting] = set()
        # kept: to start a thread takes longer than to open a file
        self._thread = ThreadPoolExecutor(1)
        with ExitStack() as undo:
            undo.callback(self._thread.shutdown)
            self._device = open_fuse()
            undo.callback(os.close, self._device)
            self._mount = mount_fuse(self._device)
            undo.callback(os.close, self._mount)
            undo.callback(self._refusal.close)
            self.st_dev = self.in_thread(lambda: os.fstat(self._mount).st_dev)
            self._refusal.prepare(self._device)
            loop.add(self._device, select.EPOLLIN, self._ready)
            undo.pop_all()

    def close(self) -> None:
        """Serve no more; every client's descriptor is in error from now on."""
        if self._device >= 0:
            for restarting in self._restarting:
                restarting.answer_now()
            self._loop.remove(self._device)
            os.close(self._device)
            os.close(self._mount)
            self._refusal.close()
            self._thread.shutdown()
            self._device = -1

    def in_thread(self, work: Callable[[], T]) -> T:
        """Run ``work`` in another thread and answer what it asks of this mount meanwhile.

        Reads and polls of clients wait. An exception of ``work`` is raised here.
        """
        done = os.eventfd(0, os.EFD_CLOEXEC)
        running = self._thread.submit(work)
        running.add_done_callback(lambda _: os.eventfd_write(done, 1))
        try:
            poller = select.poll()
            poller.register(self._device, select.POLLIN)
            poller.register(done, select.POLLIN)
            while done not in (ready := dict(poller.poll())):
                self._serve_while(ready[self._device])
        except BaseException:
            # it would wait for its answer for ever, and we for it
            os.close(self._device)
            self._device = -1
            raise
        finally:
            # the callback comes last of all: until then the number is in use
            os.eventfd_read(done)
            os.close(done)
        if self._deferred:
            self._loop.call_at(0, self._serve_deferred)
        return running.result()

    def _serve_while(self, events: int) -> None:
        if not events & select.POLLIN:
            raise KernelError("the FUSE connection was aborted", "run without --exact")
        request = self._receive()
        if request is None:
            return
        if request.opcode in _DEFERRED:
            self._deferred.append(request)
        else:
            self._serve(request)

    def _serve_deferred(self) -> None:
        while self._deferred:
            self._serve(self._deferred.popleft())

    # -- for the files ---------------------------------------------------------------

    def add(self, file: FuseFile) -> int:
        """A new file; its inode number."""
        self._last_node += 1
        self._files[self._last_node] = file
        return self._last_node

    def remove(self, node: int) -> None:
        """There is no such file any more."""
        self._files.pop(node, None)
        self._refusal.forget(node)

    def open(self, node: int, *, nonblocking: bool) -> int:
        """A descriptor of the file; others cannot open it. Raises OSError."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_NONBLOCK if nonblocking else 0)

        def open_both() -> int:
            descriptor = os.open(str(node), flags, dir_fd=self._mount)
            try:
                self._refusal.begin(node, self._mount)
            except OSError:
                os.close(descriptor)
                raise
            return descriptor

        self._opening = node
        try:
            return self.in_thread(open_both)
        finally:
            self._opening = None

    def close_copy(self, descriptor: int) -> None:
        """Close a copy of a client's descriptor.

        Before 5.16 that waits for a write of the client, even if the answer is that we do not
        want to know of closes (``fuse_flush()``).
        """
        if self._closes_silently or self._device < 0:
            _close(descriptor)
        else:
            self.in_thread(lambda: _close(descriptor))

    def answer(self, unique: int, error: int = 0, body: bytes = b"") -> None:
        """Answer a request with an errno (positive, 0 for none) and what belongs to it."""
        size = fuse.OUT_HEADER.size + len(body)
        self._write(fuse.OUT_HEADER.pack(size, -error, unique), body)

    def wake_pollers(self, handle: int) -> None:
        """Let all who poll the file of this poll handle ask again."""
        body = fuse.NOTIFY_POLL_WAKEUP_OUT.pack(handle)
        size = fuse.OUT_HEADER.size + len(body)
        self._write(fuse.OUT_HEADER.pack(size, fuse.FUSE_NOTIFY_POLL, 0), body)

    def interrupt(self, unique: int, tid: int) -> None:
        """Answer EINTR, or what the kernel makes of ERESTARTSYS, to a request of ``tid``."""
        restarting = Restarting(tid, lambda: self.answer(unique, errno.EINTR))
        self._restarting.add(restarting)

        def give_up() -> None:
            restarting.answer_now()
            self._restarting.discard(restarting)

        self._loop.call_at(time.monotonic_ns() + _RESTART_TIMEOUT_NS, give_up)

    # -- the protocol ----------------------------------------------------------------

    def _write(self, header: bytes, body: bytes) -> None:
        try:
            os.writev(self._device, (header, body))
        except FileNotFoundError:  # interrupted, or its thread was killed
            return

    def _receive(self) -> _Request | None:
        try:
            data = os.read(self._device, fuse.FUSE_MIN_READ_BUFFER)
        except (BlockingIOError, FileNotFoundError):  # taken back before we came
            return None
        _, opcode, unique, node, _, _, tid, _ = fuse.IN_HEADER.unpack_from(data)
        return _Request(opcode, unique, node, tid, data[fuse.IN_HEADER.size :])

    def _ready(self, events: int) -> None:
        if not events & select.EPOLLIN:
            self._aborted()
            return
        request = self._receive()
        if request is not None:
            self._serve(request)

    def _aborted(self) -> None:
        """The connection was aborted: no descriptor of a client works any more."""
        self.close()
        for file in list(self._files.values()):
            file.released()

    def _serve(self, request: _Request) -> None:
        opcode, unique, node, _, body = request
        if opcode in _OF_FILES:
            self._serve_file(request)
        elif opcode == Opcode.INTERRUPT:
            (interrupted,) = fuse.INTERRUPT_IN.unpack_from(body)
            for file in self._files.values():
                file.interrupted(interrupted)
        elif opcode == Opcode.INIT:
            self._closes_silently = _kernel_minor(body) >= _NOFLUSH_MINOR
            limits = (0, 0, _MAX_WRITE, 1, MAX_PAGES, 0)
            version = (fuse.FUSE_KERNEL_VERSION, _MINOR)
            more, rest = self._refusal.negotiate(body)
            reply = fuse.INIT_OUT.pack(*version, 0, fuse.FUSE_MAX_PAGES | more, *limits, rest)
            self.answer(unique, 0, reply)
        elif opcode == Opcode.LOOKUP:
            self._look_up(unique, body.split(b"\0")[0])
        elif opcode == Opcode.GETATTR:
            self.answer(unique, 0, fuse.ATTR_OUT.pack(_FOREVER, 0, 0) + _attributes(node))
        elif opcode == Opcode.STATFS:
            self.answer(unique, 0, fuse.STATFS_OUT.pack(0, 0, 0, 0, 0, _PAGE, 255, _PAGE, 0, b""))
        elif opcode == Opcode.OPEN and node == self._opening:
            answer = self._refusal.open_out(node)
            self.answer(unique, 0, answer or fuse.OPEN_OUT.pack(node, _OPEN_FLAGS, 0))
        elif opcode not in _UNANSWERED:
            self.answer(unique, _FIXED_ANSWERS.get(opcode, errno.ENOSYS))

    def _serve_file(self, request: _Request) -> None:
        opcode, unique, node, tid, body = request
        file = self._files.get(node)
        if opcode == Opcode.RELEASE:
            self.answer(unique)
            if file is not None and not self._refusal.is_ours(body):
                file.released()
        elif file is None:  # closed by us
            self.answer(unique, errno.EIO)
        elif opcode == Opcode.READ:
            _, _, size, _, _, flags, _ = fuse.READ_IN.unpack_from(body)
            file.read(PendingRead(unique, tid, size), wait=not flags & os.O_NONBLOCK)
        else:
            _, handle, flags, _ = fuse.POLL_IN.unpack_from(body)
            wanted = flags & fuse.FUSE_POLL_SCHEDULE_NOTIFY
            file.poll(unique, handle if wanted else None)

    def _look_up(self, unique: int, name: bytes) -> None:
        node = int(name) if name.isdigit() else 0
        if node in self._files:
            # as long as it takes to open it twice
            entry = fuse.ENTRY_OUT.pack(node, 0, 1, _FOREVER, 0, 0)
            self.answer(unique, 0, entry + _attributes(node))
        else:
            self.answer(unique, errno.ENOENT)


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError as error:  # it is closed all the same
        if error.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
            raise


def _kernel_minor(init: bytes) -> int:
    major, minor, _, _ = fuse.INIT_IN.unpack_from(init)
    if major != fuse.FUSE_KERNEL_VERSION or minor < _MINOR:
        raise KernelError(f"FUSE protocol {major}.{minor} is not supported", "run without --exact")
    return int(minor)


def _attributes(node: int) -> bytes:
    mode = _DIRECTORY if node == fuse.FUSE_ROOT_ID else _FILE
    return fuse.ATTR.pack(node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, _PAGE, 0)
