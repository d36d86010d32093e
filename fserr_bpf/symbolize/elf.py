"""An ELF file with debug information, mapped into memory and relocated where it is read.

pyelftools reads the headers. Its relocation of whole sections takes a minute for a
``vmlinux`` and all of the memory, so what a reader asks for is relocated here, field by
field. x86-64 only. Errors are OSError, `BadDebugFile` and those of pyelftools and struct.
"""

from __future__ import annotations

import mmap
import struct
import tempfile
import zlib
from bisect import bisect_left
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from elftools.elf.elffile import ELFFile

from fserr_bpf.closing import Closing
from fserr_bpf.symbolize.notes import note_build_id

_ET_REL = 1
_SHF_ALLOC, _SHF_EXECINSTR, _SHF_COMPRESSED = 2, 4, 0x800
_ELFCOMPRESS_ZLIB = 1
_CODE = (0, 2)  # STT_NOTYPE, as of assembler labels, and STT_FUNC
_STB_WEAK = 2
# psABI of x86-64: S + A in 64, 32 and 32 bits; nothing else occurs in debug sections
_RELOCATIONS = {1, 10, 11}
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA_WORDS = 3
_FIRST_BASE = 0x10000000
_MAX_SECTION = 1 << 31
_PIECE = 1 << 20
_NONE = memoryview(b"")


class BadDebugFile(Exception):
    """The file is damaged, or has something that is not read; one line says what."""


class Symbol(NamedTuple):
    """What the symbol table calls an address of the file, see `DebugFile`."""

    address: int
    name: bytes


class Section:
    """The bytes of one section; absent sections are empty."""

    def __init__(self, file: DebugFile, data: memoryview, rela: memoryview) -> None:
        self.data = data
        self._file = file
        self._words = rela.cast("Q")
        self._offsets = self._words[::_RELA_WORDS]
        offsets = self._offsets.tolist()
        if offsets != sorted(offsets):
            raise BadDebugFile("its relocations are not in order")

    def number(self, position: int, size: int) -> int:
        """The unsigned field of ``size`` bytes at ``position``, relocated."""
        if not 0 <= position <= len(self.data) - size:
            raise BadDebugFile(f"a field at {position:#x} is outside of its section")
        if self._offsets:
            at = bisect_left(self._offsets, position)
            if at < len(self._offsets) and self._offsets[at] == position:
                return self._relocated(at) & (1 << 8 * size) - 1
        return int.from_bytes(self.data[position : position + size], "little")

    def _relocated(self, at: int) -> int:
        _, info, addend = self._words[at * _RELA_WORDS : (at + 1) * _RELA_WORDS]
        if info & 0xFFFFFFFF not in _RELOCATIONS:
            raise BadDebugFile(f"relocation of type {info & 0xFFFFFFFF}")
        return self._file.symbol_value(info >> 32) + addend

    def text(self, position: int) -> bytes:
        """The string at ``position``, without its NUL."""
        pieces = bytearray()
        while True:
            piece = bytes(self.data[position : position + 256])
            end = piece.find(b"\0")
            if end >= 0:
                return bytes(pieces) + piece[:end]
            if not piece:
                raise BadDebugFile("a string without an end")
            pieces += piece
            position += len(piece)


class DebugFile(Closing):
    """One debug file, open.

    Addresses are those that the file was linked for. A relocatable file (a module) was
    linked for none: its sections are laid out one after the other here, and `bases`
    has where. ``scratch`` is a folder for what has to be decompressed.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        self._scratch = scratch
        self._file: BinaryIO = path.open("rb")
        try:
            self._map = memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))
            self._elf: Any = ELFFile(self._file)
            if self._elf["e_machine"] != "EM_X86_64":
                raise BadDebugFile(f"made for {self._elf['e_machine']}")
            self._headers = [section.header for section in self._elf.iter_sections()]
            names = [section.name for section in self._elf.iter_sections()]
        except BaseException:
            self._file.close()
            raise
        self._index = {name: index for index, name in reversed(list(enumerate(names)))}
        self._relocatable = self._elf.header["e_type"] == "ET_REL"
        self._bases = self._lay_out()
        self._symbols = self._plain(self._index.get(".symtab"))
        self._strings = Section(self, self._plain(self._index.get(".strtab")), _NONE)
        self._code: list[tuple[int, ...]] | None = None

    def _lay_out(self) -> list[int]:
        if not self._relocatable:
            return [header["sh_addr"] for header in self._headers]
        bases, free = [], _FIRST_BASE
        for header in self._headers:
            allocated = header["sh_flags"] & _SHF_ALLOC
            bases.append(free if allocated else 0)
            free += (header["sh_size"] + 0x1FFF) & ~0xFFF if allocated else 0
        return bases

    def _plain(self, index: int | None) -> memoryview:
        if index is None or self._headers[index]["sh_type"] == "SHT_NOBITS":
            return _NONE
        header = self._headers[index]
        end = header["sh_offset"] + header["sh_size"]
        if end > len(self._map):
            raise BadDebugFile("it is cut off")
        return self._map[header["sh_offset"] : end]

    def build_id(self) -> str:
        """The GNU build-id in lower-case hexadecimal, "" if there is none."""
        for name in (".note.gnu.build-id", ".notes"):
            if name in self._index:
                return note_build_id(bytes(self._plain(self._index[name])))
        return ""

    def has_debug_information(self) -> bool:
        """Whether there is more than symbols."""
        return not self._index.keys().isdisjoint({".debug_info", ".zdebug_info"})

    def bases(self) -> dict[str, int]:
        """The file's address of the start of every section that is loaded."""
        return {
            name: self._bases[index]
            for name, index in self._index.items()
            if self._headers[index]["sh_flags"] & _SHF_ALLOC
        }

    def is_code(self, address: int) -> bool:
        """Whether ``address`` lies in a section with code."""
        return any(
            header["sh_flags"] & _SHF_EXECINSTR and base <= address < base + header["sh_size"]
            for header, base in zip(self._headers, self._bases, strict=True)
        )

    def section(self, name: str) -> Section:
        """``name``, decompressed; an empty one if the file has none."""
        index = self._index.get(name, self._index.get(name.replace(".debug", ".zdebug", 1)))
        if index is not None:
            name = self._elf.get_section(index).name
        rela = _NONE
        if self._relocatable:  # else the linker has relocated it
            rela = self._plain(self._index.get(f".rela{name}"))
            rela = rela[: len(rela) // 24 * 24]
        return Section(self, self._unpacked(index, name), rela)

    def _unpacked(self, index: int | None, name: str) -> memoryview:
        data = self._plain(index)
        if index is None:
            return data
        if self._headers[index]["sh_flags"] & _SHF_COMPRESSED:  # Elf64_Chdr
            kind, _, size, _ = struct.unpack_from("<IIQQ", data)
            if kind != _ELFCOMPRESS_ZLIB:
                raise BadDebugFile(f"{name} is compressed by method {kind}, only zlib is read")
            return self._inflated(data[24:], size)
        if name.startswith(".zdebug") and bytes(data[:4]) == b"ZLIB":
            return self._inflated(data[12:], int.from_bytes(data[4:12], "big"))
        return data

    def _inflated(self, data: memoryview, size: int) -> memoryview:
        """Decompressed into a file without a name: it may be larger than the memory allowed."""
        if size > _MAX_SECTION:
            raise BadDebugFile(f"a section of {size} bytes")
        self._scratch.mkdir(parents=True, exist_ok=True)
        inflate = zlib.decompressobj()
        with tempfile.TemporaryFile(dir=self._scratch) as file:
            while not inflate.eof and file.tell() < size:
                piece = inflate.decompress(data[:_PIECE], _PIECE)
                if not piece and not data:
                    break
                file.write(piece)
                rest = len(inflate.unconsumed_tail)
                data = data[min(_PIECE, len(data)) - rest :]
            if file.tell() != size:
                raise BadDebugFile("a compressed section is damaged")
            file.flush()
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def symbol_value(self, index: int) -> int:
        """The address of symbol number ``index`` of the symbol table."""
        _, _, _, section, value, _ = _SYMBOL.unpack_from(self._symbols, index * _SYMBOL.size)
        known = section < len(self._bases)  # else SHN_ABS and the like
        return int(value) + (self._bases[section] if known else 0)

    def symbols(self, low: int, high: int) -> list[Symbol]:
        """The names of code from the last one at or before ``low`` to ``high``, by address.

        Of several names of one address the one that kallsyms prefers.
        """
        if self._code is None:
            self._code = self._read_code()
        begin = bisect_left(self._code, (low + 1,))
        begin = bisect_left(self._code, self._code[begin - 1][:1]) if begin else 0
        best: dict[int, tuple[int, int, int, bytes]] = {}
        for address, kind, strong, name in self._code[begin : bisect_left(self._code, (high,))]:
            text = self._strings.text(name)
            # scripts/kallsyms.c compare_symbols(): strong ones, then those with fewer _
            rank = (kind, strong, len(text.lstrip(b"_")) - len(text), text)
            best[address] = max(best.get(address, rank), rank)
        return [Symbol(address, rank[-1]) for address, rank in best.items()]

    def _read_code(self) -> list[tuple[int, ...]]:
        executable = [bool(header["sh_flags"] & _SHF_EXECINSTR) for header in self._headers]
        found: list[tuple[int, ...]] = []
        whole = len(self._symbols) // _SYMBOL.size * _SYMBOL.size
        for name, info, _, section, value, _ in _SYMBOL.iter_unpack(self._symbols[:whole]):
            kind = info & 15
            if name and section < len(executable) and executable[section] and kind in _CODE:
                base = self._bases[section] if self._relocatable else 0
                found.append((value + base, kind, info >> 4 != _STB_WEAK, name))
        found.sort()
        return found

    def close(self) -> None:
        """Close the file; the memory goes with the last view of it."""
        self._file.close()
