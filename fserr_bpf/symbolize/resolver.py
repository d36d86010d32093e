"""From a portable address to a place: through the on-disk index, else the debug file."""

from __future__ import annotations

import json
import re
import struct
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from fserr_bpf.model.event import Address
from fserr_bpf.symbolize.dwarf import AT, Dwarf
from fserr_bpf.symbolize.elf import DebugFile
from fserr_bpf.symbolize.files import open_debug_file
from fserr_bpf.symbolize.functions import FunctionReader
from fserr_bpf.symbolize.lines import LineTable, line_table
from fserr_bpf.symbolize.place import NoSymbol, Place
from fserr_bpf.symbolize.ranges import all_units
from fserr_bpf.symbolize.store import Store
from fserr_bpf.symbolize.unitindex import UnitIndex, pack, unpack

_Read = Callable[[DebugFile, Dwarf], bytes]

_UNITS = "units"
_COUNTS = struct.Struct("<2Q")
_WORD = 8
_KEPT_UNITS = 64
_GAP = 4096  # bytes of code that are looked up together; sections begin on pages
_BUILD_ID = re.compile("[0-9a-f]{8,80}")
_MODULE = re.compile(r"[\w-]{0,64}", re.ASCII)
_SPLIT = "split DWARF: the .dwo files are not read, so inlined functions are not shown"


class _Units:
    """Which unit of a file has an address, and where the file's sections are.

    Packed as two lengths, three columns (first addresses, addresses behind, units) and
    the sections as JSON.
    """

    def __init__(self, data: bytes) -> None:
        count, length = _COUNTS.unpack_from(data)
        end = _COUNTS.size + 3 * _WORD * count
        columns = memoryview(data)[_COUNTS.size : end].cast("Q")
        self._low, self._high, self._start = (
            columns[at * count : (at + 1) * count] for at in range(3)
        )
        self.bases: dict[str, int] = json.loads(data[end : end + length])

    def unit(self, address: int) -> int | None:
        """The start of the unit in .debug_info."""
        at = bisect_right(self._low, address) - 1
        return self._start[at] if at >= 0 and address < self._high[at] else None

    def ranges(self, unit: int) -> list[tuple[int, int]]:
        """The addresses of the unit that starts there."""
        return [
            (low, high)
            for low, high, start in zip(self._low, self._high, self._start, strict=True)
            if start == unit
        ]

    @staticmethod
    def pack(file: DebugFile, dwarf: Dwarf) -> bytes:
        """All of it, from the debug file."""
        bases = json.dumps(file.bases()).encode()
        ranges = sorted(all_units(dwarf))
        columns = [number for column in zip(*ranges, strict=True) for number in column]
        packed = struct.pack(f"<{len(columns)}Q", *columns)
        return _COUNTS.pack(len(ranges), len(bases)) + packed + bases


class Resolver:
    """Reads indices and debug files; for a process of its own, see `worker`."""

    def __init__(self, roots: Sequence[Path], urls: Sequence[str], store: Store) -> None:
        self._roots, self._urls, self._store = roots, urls, store
        self._units: dict[str, _Units] = {}
        self._indices: OrderedDict[tuple[str, str], UnitIndex] = OrderedDict()
        self._open: tuple[str, DebugFile, Dwarf] | None = None

    def place(self, address: Address) -> Place:
        """What is there; raises NoSymbol, or anything at all if the debug file is damaged."""
        if not _BUILD_ID.fullmatch(address.build_id) or not _MODULE.fullmatch(address.module):
            raise NoSymbol("no build-id or name of a module")
        units = self._units_of(address)
        if address.section not in units.bases:
            raise NoSymbol(f"no section {address.section!r} in the debug file")
        position = units.bases[address.section] + address.offset
        start = units.unit(position)
        if start is None:
            name = f"gap-{position // _GAP:x}"
            place = self._index_of(address, name, _gap(position)).place(position)
        else:
            place = self._index_of(address, f"{start:x}", _unit(start, units)).place(position)
        if place is None:
            raise NoSymbol("no function is there")
        return place

    def _units_of(self, address: Address) -> _Units:
        key = address.build_id
        if key not in self._units:
            data = self._store.get(key, _UNITS)
            if data is None:
                data = _Units.pack(*self._debug_file(address))
                self._store.put(key, _UNITS, data)
            self._units[key] = _Units(data)
        return self._units[key]

    def _index_of(self, address: Address, name: str, read: _Read) -> UnitIndex:
        key = address.build_id, name
        if key not in self._indices:
            data = self._store.get(*key)
            if data is None:
                data = read(*self._debug_file(address))
                self._store.put(*key, data)
            self._indices[key] = unpack(data)
            if len(self._indices) > _KEPT_UNITS:
                self._indices.popitem(last=False)
        self._indices.move_to_end(key)
        return self._indices[key]

    def _debug_file(self, address: Address) -> tuple[DebugFile, Dwarf]:
        if self._open is None or self._open[0] != address.build_id:
            self.forget()
            file = open_debug_file(
                address.build_id,
                address.module,
                self._roots,
                self._urls,
                self._store.folder / "downloads",
            )
            self._open = address.build_id, file, Dwarf(file)
        return self._open[1:]

    def forget(self) -> None:
        """Close the debug file, which may be damaged."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


def _unit(start: int, units: _Units) -> _Read:
    """How to read the unit at ``start``."""

    def read(file: DebugFile, dwarf: Dwarf) -> bytes:
        unit = dwarf.unit(start)
        program = unit.top.get(AT["stmt_list"])
        lines = line_table(dwarf, program) if isinstance(program, int) else LineTable([], [])
        functions = FunctionReader(dwarf, unit).read()
        symbols = {s for low, high in units.ranges(start) for s in file.symbols(low, high)}
        return pack(lines, functions, sorted(symbols), _SPLIT if unit.split else "")

    return read


def _gap(position: int) -> _Read:
    """How to read the symbols of what no unit describes: padding and bare assembler."""

    def read(file: DebugFile, _: Dwarf) -> bytes:
        if not file.is_code(position):
            raise NoSymbol("no code is there")
        start = position // _GAP * _GAP
        symbols = file.symbols(start, start + _GAP)
        return pack(LineTable([], []), [], symbols, "no debug information there")

    return read
