"""What is known of one unit, packed so that a place is found without unpacking it.

Little endian, as the rest of this package: six counts, the columns of the tables one
after the other, then the strings, each with a NUL behind it.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fserr_bpf.symbolize.elf import BadDebugFile, Symbol
from fserr_bpf.symbolize.functions import Function
from fserr_bpf.symbolize.lines import END, LineTable
from fserr_bpf.symbolize.place import Frame, Place

_COUNTS = struct.Struct("<6Q")  # rows, functions, symbols, files, bytes of strings, of the note


class UnitIndex(NamedTuple):
    """Columns of rows, functions and symbols; names are positions in ``strings``."""

    row_address: Sequence[int]
    function_low: Sequence[int]
    function_high: Sequence[int]
    symbol_address: Sequence[int]
    row_file: Sequence[int]
    row_line: Sequence[int]
    function_depth: Sequence[int]
    function_child: Sequence[int]
    function_next: Sequence[int]
    function_name: Sequence[int]
    function_call_file: Sequence[int]
    function_call_line: Sequence[int]
    symbol_name: Sequence[int]
    files: Sequence[int]
    strings: bytes
    note: str

    def place(self, address: int) -> Place | None:
        """What is at ``address`` of the file; None if neither symbol nor function is."""
        chain = self._chain(address)
        at = bisect_right(self.symbol_address, address) - 1
        if at >= 0:
            name, start = self._text(self.symbol_name[at]), self.symbol_address[at]
        elif chain:
            name, start = self._text(self.function_name[chain[0]]), self.function_low[chain[0]]
        else:
            return None
        frames = []
        file, line = self._line(address)
        for function in reversed(chain):
            frames.append(Frame(self._text(self.function_name[function]), file, line))
            file = self._file(self.function_call_file[function])
            line = self.function_call_line[function]
        if not chain:  # assembler, or the functions are in a .dwo file
            frames.append(Frame(name, file, line))
        return Place(name, address - start, tuple(frames), self.note)

    def _chain(self, address: int) -> list[int]:
        """The functions around ``address``, outermost first.

        Where compilers let two overlap, the smaller one is taken, as addr2line does.
        """
        chain: list[int] = []
        low, high = self.function_low, self.function_high
        at = 0
        while at < len(low):
            if not low[at] <= address < high[at]:
                at = self._later(at, self.function_next[at])
                continue
            depth = self.function_depth[at]
            if depth < len(chain) and high[at] - low[at] >= high[chain[depth]] - low[chain[depth]]:
                at = self._later(at, self.function_next[at])
                continue
            chain[depth:] = [at]
            at = self._later(at, self.function_child[at])
        return chain

    def _later(self, at: int, there: int) -> int:
        return max(at + 1, there)  # a damaged index must not go round in circles

    def _line(self, address: int) -> tuple[str, int]:
        at = bisect_right(self.row_address, address) - 1
        if at < 0 or self.row_file[at] == END:
            return "", 0
        return self._file(self.row_file[at]), self.row_line[at]

    def _file(self, number: int) -> str:
        return self._text(self.files[number]) if number < len(self.files) else ""

    def _text(self, position: int) -> str:
        end = self.strings.find(b"\0", position)
        return self.strings[position:end].decode(errors="backslashreplace")


class _Strings:
    """Each string once; its number is its position."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._known: dict[bytes, int] = {}

    def number(self, text: bytes) -> int:
        if text not in self._known:
            self._known[text] = len(self.data)
            self.data += text + b"\0"
        return self._known[text]


def pack(
    lines: LineTable, functions: Sequence[Function], symbols: Sequence[Symbol], note: str
) -> bytes:
    """The bytes for `unpack`; raises struct.error for numbers that no kernel has."""
    strings = _Strings()
    files = [strings.number(file) for file in lines.files]
    names = [strings.number(function.name) for function in functions]
    symbol_names = [strings.number(symbol.name) for symbol in symbols]
    wide = (
        [row.address for row in lines.rows],
        [function.low for function in functions],
        [function.high for function in functions],
        [symbol.address for symbol in symbols],
    )
    narrow = (
        [row.file for row in lines.rows],
        [row.line for row in lines.rows],
        [function.depth for function in functions],
        [function.child for function in functions],
        [function.next for function in functions],
        names,
        [function.call_file for function in functions],
        [function.call_line for function in functions],
        symbol_names,
        files,
    )
    said = note.encode()
    counts = (len(lines.rows), len(functions), len(symbols), len(files))
    return b"".join(
        [
            _COUNTS.pack(*counts, len(strings.data), len(said)),
            *(_column("Q", column) for column in wide),
            *(_column("I", column) for column in narrow),
            bytes(strings.data),
            said,
        ]
    )


def _column(code: str, values: Iterable[int]) -> bytes:
    numbers = list(values)
    return struct.pack(f"<{len(numbers)}{code}", *numbers)


def unpack(data: bytes) -> UnitIndex:
    """The index in ``data``; raises BadDebugFile for another length than it says."""
    view, position = memoryview(data), _COUNTS.size
    rows, functions, symbols, files, size, note_size = _COUNTS.unpack_from(data)
    columns: list[Sequence[int]] = []
    for count in (rows, functions, functions, symbols):
        columns.append(view[position : position + 8 * count].cast("Q"))
        position += 8 * count
    for count in (rows, rows, *[functions] * 6, symbols, files):
        columns.append(view[position : position + 4 * count].cast("I"))
        position += 4 * count
    if position + size + note_size != len(data):
        raise BadDebugFile("an index of another length than it says")
    strings, note = data[position : position + size], data[position + size :]
    return UnitIndex._make([*columns, strings, note.decode()])
