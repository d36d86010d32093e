"""A seccomp filter that stops some system calls for a listener, by the bits of one argument.

It runs at every system call of the client, so what it loads matters: the kernel remembers the
numbers that are allowed whatever their arguments are (``seccomp_is_const_allow()``), and asks no
filter for these again. Only the calls of a rule load an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fserr_bpf.uapi.seccomp import (
    AUDIT_ARCH_X86_64,
    BPF_JMP_JEQ_K,
    BPF_JMP_JSET_K,
    BPF_LD_W_ABS,
    BPF_RET_K,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_USER_NOTIF,
    SOCK_FILTER,
)

_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data
_ARGUMENT_SIZE = 8


class Rule(NamedTuple):
    """Which calls of the system call ``number`` are stopped.

    Those whose ``argument`` (0 to 5; its lower 32 bits) has one of the bits ``stops``; of the
    others those go on that have one of ``passes``; ``otherwise`` says whether the rest is stopped.
    """

    number: int
    argument: int
    stops: int = 0
    passes: int = 0
    otherwise: bool = True


def program(rules: Sequence[Rule]) -> bytes:
    """Instructions of classic BPF for calls of x86-64; all others are allowed.

    x32 has bit 30 in its numbers and i386 another architecture: both go past.
    """
    allow, stop = (BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW), (BPF_RET_K, 0, 0, SECCOMP_RET_USER_NOTIF)
    code = [
        (BPF_LD_W_ABS, 0, 0, _ARCH),
        (BPF_JMP_JEQ_K, 1, 0, AUDIT_ARCH_X86_64),
        allow,
        (BPF_LD_W_ABS, 0, 0, _NR),
    ]
    for rule in rules:
        body = [
            (BPF_LD_W_ABS, 0, 0, _ARGS + _ARGUMENT_SIZE * rule.argument),
            (BPF_JMP_JSET_K, 0, 1, rule.stops),
            stop,
            (BPF_JMP_JSET_K, 0, 1, rule.passes),
            allow,
            stop if rule.otherwise else allow,
        ]
        code += [(BPF_JMP_JEQ_K, 0, len(body), rule.number), *body]
    return b"".join(SOCK_FILTER.pack(*instruction) for instruction in [*code, allow])
