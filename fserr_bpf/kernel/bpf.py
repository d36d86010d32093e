"""BPF maps and programs by bpf(2), and what attaches programs.

Every descriptor is close-on-exec, as the kernel makes those of bpf(2). All functions raise
OSError with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import resource
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fserr_bpf.kernel.libc import syscall
from fserr_bpf.uapi.bpf import (
    BPF_MAP_CREATE,
    BPF_OBJ_GET_INFO_BY_FD,
    BPF_OBJ_NAME_LEN,
    BPF_PROG_LOAD,
    BPF_RAW_TRACEPOINT_OPEN,
    INFO_BY_FD,
    INSTRUCTION,
    MAP_CREATE,
    MAP_INFO,
    NR_BPF,
    NR_PERF_EVENT_OPEN,
    PERF_ATTR,
    PERF_EVENT_IOC_ENABLE,
    PERF_EVENT_IOC_SET_BPF,
    PERF_FLAG_FD_CLOEXEC,
    PERF_SAMPLE_RAW,
    PERF_TYPE_TRACEPOINT,
    PROG_LOAD,
    RAW_TRACEPOINT,
    ProgType,
)

KPROBE_PMU = Path("/sys/bus/event_source/devices/kprobe/type")
"""Where kernels with kprobes have the number by which perf events are made of them."""
_EVENTS = Path("/sys/kernel/tracing/events")
_LICENSE = ctypes.c_char_p(b"GPL")
_LOG_SIZE = 1 << 20


class MapDefinition(NamedTuple):
    """What a map is made of, as in ``union bpf_attr``; sizes in bytes."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


class ProgramRefused(OSError):
    """The kernel does not load a program; ``log`` is what its verifier says."""

    log = ""


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))  # some commands write
    return syscall(NR_BPF[platform.machine()], command, buffer, len(buffer))


def _with_memory(call: Callable[[], int]) -> int:
    """``call()``; where the limit of locked memory refuses it, again without that limit.

    Until 5.11 it counts BPF's memory (bpf_map_charge_init()); what was made stays when the
    limit is back.
    """
    try:
        return call()
    except PermissionError:
        limits = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)
        try:
            return call()
        finally:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, limits)


def _name(name: str) -> bytes:
    return name.encode()[: BPF_OBJ_NAME_LEN - 1]


def create_map(name: str, definition: MapDefinition) -> int:
    """A new map."""
    attributes = MAP_CREATE.pack(*definition, 0, 0, _name(name))
    return _with_memory(lambda: _bpf(BPF_MAP_CREATE, attributes))


def definition_of(map_fd: int) -> MapDefinition:
    """What a map was made of."""
    info = ctypes.create_string_buffer(MAP_INFO.size)
    _bpf(BPF_OBJ_GET_INFO_BY_FD, INFO_BY_FD.pack(map_fd, len(info), ctypes.addressof(info)))
    kind, _, key_size, value_size, max_entries, flags, _ = MAP_INFO.unpack(info)
    return MapDefinition(kind, key_size, value_size, max_entries, flags)


def load_program(name: str, kind: ProgType, instructions: bytes) -> int:
    """Load ``instructions`` as a program under the GPL. Raises `ProgramRefused`."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    license_at = ctypes.cast(_LICENSE, ctypes.c_void_p).value

    def load(level: int, size: int, log: int) -> int:
        count = len(instructions) // INSTRUCTION.size
        return _bpf(
            BPF_PROG_LOAD,
            PROG_LOAD.pack(
                *(kind, count, ctypes.addressof(code), license_at),
                *(level, size, log, 0, 0, _name(name)),
            ),
        )

    try:
        return _with_memory(lambda: load(0, 0, 0))
    except OSError as error:
        log = ctypes.create_string_buffer(_LOG_SIZE)
        refused = ProgramRefused(error.errno, error.strerror)
        try:
            # it may pass now: a signal, or a shortage that is over
            return load(1, len(log), ctypes.addressof(log))
        except OSError:
            refused.log = log.value.decode(errors="replace")
    raise refused


def attach_raw_tracepoint(name: str, program: int) -> int:
    """Run ``program`` at a tracepoint as long as the descriptor is open."""
    target = ctypes.create_string_buffer(name.encode())
    attributes = RAW_TRACEPOINT.pack(ctypes.addressof(target), program)
    return _bpf(BPF_RAW_TRACEPOINT_OPEN, attributes)


def attach_kprobe(function: str, program: int) -> int:
    """Run ``program`` at the entry of a function as long as the descriptor is open.

    As Documentation/ABI/testing/sysfs-bus-event_source-devices says and
    kernel/events/core.c, perf_kprobe_event_init() reads: config1 is the name's address.
    """
    target = ctypes.create_string_buffer(function.encode())
    event = _perf_event(int(KPROBE_PMU.read_text()), config1=ctypes.addressof(target))
    return _run_at(event, program)


def attach_tracepoint(category: str, name: str, program: int) -> int:
    """Run ``program`` with the fields of a tracepoint as long as the descriptor is open."""
    number = int((_EVENTS / category / name / "id").read_text())
    event = _perf_event(PERF_TYPE_TRACEPOINT, config=number, sample_type=PERF_SAMPLE_RAW)
    return _run_at(event, program)


def _perf_event(kind: int, *, config: int = 0, config1: int = 0, sample_type: int = 0) -> int:
    """A perf event of all tasks. Its processor does not matter: programs run on every one."""
    period = 1
    attributes = ctypes.create_string_buffer(
        PERF_ATTR.pack(kind, PERF_ATTR.size, config, period, sample_type, 0, 0, 1, 0, config1, 0),
        PERF_ATTR.size,
    )
    number = NR_PERF_EVENT_OPEN[platform.machine()]
    return syscall(number, attributes, -1, 0, -1, PERF_FLAG_FD_CLOEXEC)


def _run_at(event: int, program: int) -> int:
    try:
        fcntl.ioctl(event, PERF_EVENT_IOC_SET_BPF, program)
        fcntl.ioctl(event, PERF_EVENT_IOC_ENABLE, 0)
    except OSError:
        os.close(event)
        raise
    return event
