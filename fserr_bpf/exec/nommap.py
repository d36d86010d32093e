"""mmap(2) of an exact descriptor fails with ENODEV, as of a group, on kernels since 6.9.

``fuse_file_mmap()`` lets nobody map a file while another descriptor of it is open in passthrough
mode. So the server keeps one of each file, whose backing file nobody reads. Before 6.9 a
private mapping is possible; what is read from it is SIGBUS, because the file is empty.
"""

from __future__ import annotations

import errno
import fcntl
import os
from struct import Struct

from fserr_bpf.closing import Closing
from fserr_bpf.uapi import fuse

# include/uapi/linux/fuse.h of 6.9; the build machine may have an earlier one
_INIT_EXT = 1 << 30
_PASSTHROUGH_2 = 1 << (37 - 32)  # in flags2
_MAX_STACK_DEPTH = 1
_INIT_IN_FLAGS2 = Struct("<16xI")
# what follows map_alignment in struct fuse_init_out: flags2, max_stack_depth
_INIT_OUT_REST = Struct("<II24x")
_OPEN_PASSTHROUGH = 1 << 7
# struct fuse_backing_map: fd, flags, padding
_BACKING_MAP = Struct("<iIQ")
_BACKING_OPEN = 0x4010E501  # _IOW(229, 1, struct fuse_backing_map)
_OUR_FLAGS = _OPEN_PASSTHROUGH | fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH
_OUR_HANDLE = 0  # no node has this number
_HANDLE = Struct("<Q")


class MmapRefusal(Closing):
    """Descriptors in passthrough mode, one for each file that is open."""

    def __init__(self) -> None:
        self._possible = False
        self._backing: int | None = None
        self._descriptors: dict[int, int] = {}
        self._beginning = False

    def negotiate(self, init: bytes) -> tuple[int, bytes]:
        """``flags`` to add to the answer of FUSE_INIT, and its last 32 bytes."""
        *_, flags = fuse.INIT_IN.unpack_from(init)
        if flags & _INIT_EXT and _INIT_IN_FLAGS2.unpack_from(init)[0] & _PASSTHROUGH_2:
            self._possible = True
            return _INIT_EXT, _INIT_OUT_REST.pack(_PASSTHROUGH_2, _MAX_STACK_DEPTH)
        return 0, bytes(_INIT_OUT_REST.size)

    def prepare(self, device: int) -> None:
        """Once FUSE_INIT was answered. Raises OSError."""
        if not self._possible:
            return
        file = os.memfd_create("never read")
        try:
            self._backing = fcntl.ioctl(
                device, _BACKING_OPEN, bytearray(_BACKING_MAP.pack(file, 0, 0))
            )
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTTY, errno.EOPNOTSUPP):
                raise
        finally:
            os.close(file)

    def begin(self, node: int, mount: int) -> None:
        """From now on, for a file that is open. Waits for the server. Raises OSError."""
        if self._backing is None:
            return
        self._beginning = True
        try:
            self._descriptors[node] = os.open(str(node), os.O_RDONLY | os.O_CLOEXEC, dir_fd=mount)
        finally:
            self._beginning = False

    def open_out(self, node: int) -> bytes | None:
        """The answer to the FUSE_OPEN of `begin`; None to another."""
        if not self._beginning or self._backing is None:
            return None
        return fuse.OPEN_OUT.pack(_OUR_HANDLE, _OUR_FLAGS, self._backing)

    def is_ours(self, release: bytes) -> bool:
        """Whether a FUSE_RELEASE is of a descriptor of ours."""
        return bool(_HANDLE.unpack_from(release)[0] == _OUR_HANDLE)

    def forget(self, node: int) -> None:
        """The file is of no use any more."""
        if node in self._descriptors:
            os.close(self._descriptors.pop(node))

    def close(self) -> None:
        """Close all; the backing file goes with the connection."""
        for node in list(self._descriptors):
            self.forget(node)
