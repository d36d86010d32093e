"""Compiled programs: all that is needed to load them without a compiler, and their file format.

docs/compiled-programs.md describes the file.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from fserr_bpf.kernel.bpf import MapDefinition
from fserr_bpf.probes.table import Kernel
from fserr_bpf.probes.target import Key, digest
from fserr_bpf.uapi.bpf import BPF_LD_IMM64, BPF_PSEUDO_MAP_FD, INSTRUCTION

_MAGIC = b"FSERR-BPF PROGRAMS 1"


class BadFile(Exception):
    """The file is not what it should be; one line says in what."""


@dataclass(frozen=True)
class Programs:
    """The programs of one target, of all streams.

    ``compiler``: which, with its version. ``types``: the ``HAVE_`` names that probes need and
    that the kernel has. ``maps`` by name. ``code``: the instructions of each function, in
    which a map is named by its position in ``maps``.
    """

    key: Key
    compiler: str
    kernel: Kernel
    types: frozenset[str]
    maps: Mapping[str, MapDefinition]
    code: Mapping[str, bytes]

    def with_maps(self, function: str, descriptors: Mapping[str, int]) -> bytes:
        """The instructions of ``function`` with the ``descriptors`` of the maps, by name."""
        return replace_maps(
            self.code[function], dict(enumerate(descriptors[name] for name in self.maps))
        )

    def encode(self) -> bytes:
        """The file."""
        body = json.dumps(
            {
                "key": self.key,
                "compiler": self.compiler,
                "kernel": asdict(self.kernel),
                "types": sorted(self.types),
                "maps": self.maps,
                "code": {name: b64encode(code).decode() for name, code in self.code.items()},
            }
        ).encode()
        return _first_line(body) + body

    @classmethod
    def decode(cls, data: bytes) -> Programs:
        """The programs of a file. Raises `BadFile` unless every byte is as it was written."""
        line, newline, body = data.partition(b"\n")
        if not line.startswith(_MAGIC + b" "):
            raise BadFile("not a file of this version")
        if line + newline != _first_line(body):
            raise BadFile("damaged")
        content = json.loads(body)
        return cls(
            content["key"],
            content["compiler"],
            Kernel(**content["kernel"]),
            frozenset(content["types"]),
            {name: MapDefinition(*values) for name, values in content["maps"].items()},
            {name: b64decode(code) for name, code in content["code"].items()},
        )


def _first_line(body: bytes) -> bytes:
    return b"%s %d %s\n" % (_MAGIC, len(body), digest(body).encode())


def replace_maps(code: bytes, numbers: Mapping[int, int]) -> bytes:
    """``code`` with other numbers where an instruction loads the address of a map."""
    changed = bytearray(code)
    position = 0
    while position < len(code):
        opcode, registers, offset, number = INSTRUCTION.unpack_from(code, position)
        wide = opcode == BPF_LD_IMM64
        if wide and registers >> 4 == BPF_PSEUDO_MAP_FD:
            INSTRUCTION.pack_into(changed, position, opcode, registers, offset, numbers[number])
        position += INSTRUCTION.size * (2 if wide else 1)
    return bytes(changed)
