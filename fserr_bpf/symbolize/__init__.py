"""Kernel addresses to function, file and line: ``docs/symbols.md``.

Only the worker needs pyelftools; what is imported here needs nothing.
"""

from fserr_bpf.model.event import Address as PortableAddress
from fserr_bpf.symbolize.client import Symbolizer
from fserr_bpf.symbolize.place import Frame, Place
from fserr_bpf.symbolize.running import RunningKernel

__all__ = ["Frame", "Place", "PortableAddress", "RunningKernel", "Symbolizer"]
