"""The kernel of the lab that a test boots."""

from __future__ import annotations

from fserr_bpf.errors import LabError
from fserr_bpf_compare.machines.kernels import find
from fserr_bpf_compare.machines.packages import Image, ensure
from fserr_bpf_compare.machines.tools import tool
from tests.live.conftest import skip


def require_machine(kernel: str) -> Image:
    """The unpacked kernel; without it, or without the tools, there is nothing to test."""
    try:
        for name in ("qemu-system-x86_64", "busybox"):
            tool(name)
        return ensure(find(kernel))
    except LabError as error:
        skip(str(error), expected=False)
