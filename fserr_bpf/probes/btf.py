"""Questions to a kernel's BTF, answered by libbpf.

Only the compiler's process uses this: vmlinux BTF is megabytes that the monitor must
not carry. libbpf comes with Debian's bcc.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from struct import Struct

from fserr_bpf.errors import KernelError

# include/uapi/linux/btf.h
_KIND_STRUCT, _KIND_UNION, _KIND_FUNC = 4, 5, 12
# modifiers that stand between a member and its type: typedef, volatile, const, restrict, type tag
_MODIFIERS = {8, 9, 10, 11, 18}
_TYPE = Struct("<III")  # struct btf_type: name_off, info, size or type
_MEMBER = Struct("<III")  # struct btf_member: name_off, type, offset
_PARAM = Struct("<II")  # struct btf_param: name_off, type


def _library() -> ctypes.CDLL:
    lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    lib.libbpf_set_print(None)  # its warnings are for developers; we report the errno
    for name, result, *arguments in (
        ("btf__parse", ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p),
        ("btf__parse_split", ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p),
        ("btf__type_by_id", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32),
        ("btf__name_by_offset", ctypes.c_char_p, ctypes.c_void_p, ctypes.c_uint32),
        ("btf__find_by_name_kind", ctypes.c_int32, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class Btf:
    """BTF of vmlinux, or of one module on top of it.

    ``folder`` has a file for each, as ``/sys/kernel/btf``. Raises KernelError when a file
    cannot be read.
    """

    def __init__(self, folder: Path, module: str = "", base: Btf | None = None) -> None:
        self._lib: ctypes.CDLL = base._lib if base else _library()
        self._base = base  # keeps the handle that the split BTF points into
        self._btf: int
        path = folder / (module or "vmlinux")
        if base:
            self._btf = self._lib.btf__parse_split(bytes(path), base._btf)
        else:
            self._btf = self._lib.btf__parse(bytes(path), None)
        if not self._btf:
            raise KernelError(
                f"cannot read the kernel's type information {path}",
                "use a kernel built with CONFIG_DEBUG_INFO_BTF (every Debian kernel since 5.10)",
            )

    def offset(self, struct: str, member: str) -> int | None:
        """Byte offset of a member, also inside anonymous unions; None if there is none.

        ``member`` may be a path: ``i_sb_list.next``.
        """
        type_id, total = self._find(struct, _KIND_STRUCT), 0
        for part in member.split("."):
            found = self._find_member(type_id, part)
            if not found:
                return None
            total, type_id = total + found[0], found[1]
        return total

    def size(self, name: str) -> int | None:
        """Size in bytes of a struct or union by name; None if there is none."""
        for kind in (_KIND_STRUCT, _KIND_UNION):
            if type_id := self._find(name, kind):
                return self._type(type_id)[2]
        return None

    def parameters(self, function: str) -> list[str] | None:
        """Parameter names of a function; None if it is not in the BTF."""
        type_id = self._find(function, _KIND_FUNC)
        if not type_id:
            return None
        prototype = self._type(type_id)[2]
        address, info, _ = self._type(prototype)
        records = ctypes.string_at(address + _TYPE.size, _PARAM.size * (info & 0xFFFF))
        return [self._name(name) for name, _ in _PARAM.iter_unpack(records)]

    def _find(self, name: str, kind: int) -> int:
        found: int = self._lib.btf__find_by_name_kind(self._btf, name.encode(), kind)
        return max(0, found)

    def _type(self, type_id: int) -> tuple[int, int, int]:
        """Address of a struct btf_type, its info word, its size or type."""
        address = self._lib.btf__type_by_id(self._btf, type_id)
        _, info, value = _TYPE.unpack(ctypes.string_at(address, _TYPE.size))
        return address, info, value

    def _name(self, offset: int) -> str:
        name: bytes = self._lib.btf__name_by_offset(self._btf, offset) or b""
        return name.decode()

    def _members(self, type_id: int) -> Iterator[tuple[str, int, int]]:
        """Name, byte offset and type of each member."""
        address, info, _ = self._type(type_id)
        bitfields = info >> 31
        records = ctypes.string_at(address + _TYPE.size, _MEMBER.size * (info & 0xFFFF))
        for name, member_type, bits in _MEMBER.iter_unpack(records):
            yield self._name(name), (bits & 0xFFFFFF if bitfields else bits) // 8, member_type

    def _find_member(self, type_id: int, member: str) -> tuple[int, int] | None:
        while type_id and self._kind(type_id) in _MODIFIERS:
            type_id = self._type(type_id)[2]
        if not type_id or self._kind(type_id) not in (_KIND_STRUCT, _KIND_UNION):
            return None
        for name, offset, member_type in self._members(type_id):
            if name == member:
                return offset, member_type
            if not name and (found := self._find_member(member_type, member)):
                return offset + found[0], found[1]
        return None

    def _kind(self, type_id: int) -> int:
        return self._type(type_id)[1] >> 24 & 0x1F
