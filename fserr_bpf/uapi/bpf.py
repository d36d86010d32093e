"""Numbers and layouts of bpf(2) and of perf_event_open(2), as far as the loader has them.

Source: include/uapi/linux/bpf.h and include/uapi/linux/perf_event.h. The structures are
longer in newer kernels, which take what is missing at the end as zero.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

# system call numbers, by machine as uname(2) names it
NR_BPF = {"x86_64": 321, "aarch64": 280}
NR_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}

# enum bpf_cmd
BPF_MAP_CREATE, BPF_PROG_LOAD, BPF_OBJ_GET_INFO_BY_FD, BPF_RAW_TRACEPOINT_OPEN = 0, 5, 15, 17

BPF_OBJ_NAME_LEN = 16
# its members of union bpf_attr
MAP_CREATE = Struct("=7I16s")
"""map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node, map_name."""
PROG_LOAD = Struct("=2I2Q2IQ2I16s")
"""prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags,
prog_name."""
INFO_BY_FD = Struct("=2IQ")
"""bpf_fd, info_len, info."""
RAW_TRACEPOINT = Struct("=QI4x")
"""name, prog_fd."""
MAP_INFO = Struct("=6I16s")
"""The beginning of struct bpf_map_info: type, id, key_size, value_size, max_entries,
map_flags, name."""

INSTRUCTION = Struct("=BBhi")
"""struct bpf_insn: code, dst_reg in the low and src_reg in the high half, off, imm."""
BPF_LD_IMM64 = 0x18  # BPF_LD | BPF_DW | BPF_IMM, two instructions long
BPF_PSEUDO_MAP_FD = 1


class ProgType(IntEnum):
    """enum bpf_prog_type, those that are attached here."""

    KPROBE = 2
    TRACEPOINT = 5
    RAW_TRACEPOINT = 17


PERF_ATTR = Struct("=2I5Q2I2Q")
"""The beginning of struct perf_event_attr (PERF_ATTR_SIZE_VER1): type, size, config,
sample_period, sample_type, read_format, flags, wakeup_events, bp_type, config1, config2."""
PERF_TYPE_TRACEPOINT = 2
PERF_SAMPLE_RAW = 1 << 10
PERF_FLAG_FD_CLOEXEC = 1 << 3
PERF_EVENT_IOC_ENABLE = 0x2400
PERF_EVENT_IOC_SET_BPF = 0x40042408
