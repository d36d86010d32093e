"""Address ranges of units and functions: .debug_rnglists of DWARF 5, .debug_ranges before."""

from __future__ import annotations

from collections.abc import Iterator

from fserr_bpf.symbolize.dwarf import AT, Dwarf, Unit, Value, leb128
from fserr_bpf.symbolize.elf import BadDebugFile

_WORD = 8
_BASE_SELECTION = (1 << 64) - 1
# DW_RLE_*, DWARF 5 section 7.25
_END_OF_LIST, _BASE_ADDRESSX, _STARTX_ENDX, _STARTX_LENGTH = range(4)
_OFFSET_PAIR, _BASE_ADDRESS, _START_END, _START_LENGTH = range(4, 8)


def ranges_of(dwarf: Dwarf, unit: Unit, attributes: dict[int, Value]) -> list[tuple[int, int]]:
    """(first address, address behind) of what ``attributes`` describe, without empty ones."""
    listed = attributes.get(AT["ranges"])
    low, high = attributes.get(AT["low_pc"]), attributes.get(AT["high_pc"])
    if isinstance(listed, int):
        read = _rnglist if unit.version >= 5 else _old_list
        found = read(dwarf, unit, listed)
    elif isinstance(low, int) and isinstance(high, int):
        found = iter([(low, high)])
    else:
        found = iter([])
    return [(begin, end) for begin, end in found if begin < end]


def all_units(dwarf: Dwarf) -> Iterator[tuple[int, int, int]]:
    """(first address, address behind, start of the unit) of all code in the file.

    Of units that have no part in .debug_aranges the first entry is read, which is slow:
    the abbreviations of a ``vmlinux`` take seconds.
    """
    known = set()
    for low, high, start in _aranges(dwarf):
        known.add(start)
        yield low, high, start
    for start, _ in dwarf.extents():
        if start not in known:
            unit = dwarf.unit(start)
            if unit.first:
                for low, high in ranges_of(dwarf, unit, unit.top):
                    yield low, high, start


def _aranges(dwarf: Dwarf) -> Iterator[tuple[int, int, int]]:
    section, position = dwarf.section(".debug_aranges"), 0
    while position < len(section.data):
        start, size = position, 4
        length = section.number(position, 4)
        if length == 0xFFFFFFFF:
            length, size = section.number(position + 4, 8), 12
        end = start + size + length
        offset_size = 8 if size == 12 else 4
        unit = section.number(start + size + 2, offset_size)
        # behind the sizes of address and segment; pairs are aligned from the table's start
        position = start + size + 2 + offset_size + 2
        position += -(position - start) % (2 * _WORD)
        while position + 2 * _WORD <= end:
            low = section.number(position, _WORD)
            size_of_range = section.number(position + _WORD, _WORD)
            position += 2 * _WORD
            if size_of_range:
                yield low, low + size_of_range, unit
        position = end


def _base(unit: Unit) -> int:
    low = unit.top.get(AT["low_pc"])
    return low if isinstance(low, int) else 0


def _old_list(dwarf: Dwarf, unit: Unit, position: int) -> Iterator[tuple[int, int]]:
    section, base = dwarf.section(".debug_ranges"), _base(unit)
    while True:
        begin, end = section.number(position, _WORD), section.number(position + _WORD, _WORD)
        position += 2 * _WORD
        if begin == end == 0:
            return
        if begin == _BASE_SELECTION:
            base = end
        else:
            yield base + begin, base + end


def _rnglist(  # noqa: PLR0912 - one format
    dwarf: Dwarf, unit: Unit, position: int
) -> Iterator[tuple[int, int]]:
    section, base = dwarf.section(".debug_rnglists"), _base(unit)
    while True:
        kind = section.number(position, 1)
        position += 1
        if kind == _END_OF_LIST:
            return
        if kind in (_BASE_ADDRESS, _START_END, _START_LENGTH):
            first = section.number(position, _WORD)
            position += _WORD
        else:
            first, position = leb128(section, position)
            if kind in (_BASE_ADDRESSX, _STARTX_ENDX, _STARTX_LENGTH):
                first = dwarf.indexed_address(unit, first)
        if kind in (_BASE_ADDRESS, _BASE_ADDRESSX):
            base = first
            continue
        if kind == _START_END:
            second = section.number(position, _WORD)
            position += _WORD
        else:
            second, position = leb128(section, position)
        if kind in (_STARTX_LENGTH, _START_LENGTH):
            yield first, first + second
        elif kind == _START_END:
            yield first, second
        elif kind == _STARTX_ENDX:
            yield first, dwarf.indexed_address(unit, second)
        elif kind == _OFFSET_PAIR:
            yield base + first, base + second
        else:
            raise BadDebugFile(f"range list entry {kind}")
