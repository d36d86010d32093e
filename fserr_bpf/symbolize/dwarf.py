"""The part of DWARF 2 to 5 that places need: units, their ranges, abbreviations, attributes.

Only unit headers and the first entry of each unit are read of the whole file; a ``vmlinux``
has some 220 MB of entries. Numbers are those of the DWARF 5 standard, chapter 7, taken
from pyelftools. Errors are those of `fserr_bpf.symbolize.elf`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from elftools.dwarf.enums import ENUM_DW_AT, ENUM_DW_FORM, ENUM_DW_TAG

from fserr_bpf.symbolize.elf import BadDebugFile, DebugFile, Section

AT = {name.removeprefix("DW_AT_"): number for name, number in ENUM_DW_AT.items()}
TAG = {name.removeprefix("DW_TAG_"): number for name, number in ENUM_DW_TAG.items()}
FORM = {name.removeprefix("DW_FORM_"): number for name, number in ENUM_DW_FORM.items()}
_UT_TYPE, _UT_SKELETON, _UT_SPLIT_COMPILE, _UT_SPLIT_TYPE = 2, 4, 5, 6
_HIGH_PC = AT["high_pc"]
_ADDRESS_SIZE = 8
_MAX_LEB128 = 10  # bytes of a 64 bit number

Value = int | bytes | None

_FIXED = {
    **dict.fromkeys(map(FORM.get, ("flag_present", "implicit_const")), 0),
    **dict.fromkeys(map(FORM.get, ("data1", "flag", "ref1", "strx1", "addrx1")), 1),
    **dict.fromkeys(map(FORM.get, ("data2", "ref2", "strx2", "addrx2")), 2),
    **dict.fromkeys(map(FORM.get, ("strx3", "addrx3")), 3),
    **dict.fromkeys(map(FORM.get, ("data4", "ref4", "strx4", "addrx4", "ref_sup4")), 4),
    **dict.fromkeys(map(FORM.get, ("data8", "ref8", "ref_sig8", "ref_sup8", "addr")), 8),
    FORM["data16"]: 16,
}
_OFFSETS = {
    FORM[name] for name in ("strp", "line_strp", "sec_offset", "strp_sup", "GNU_strp_alt")
} | {FORM["GNU_ref_alt"]}
_LEB128 = {
    FORM[name] for name in ("udata", "sdata", "ref_udata", "strx", "addrx", "loclistx", "rnglistx")
} | {FORM["GNU_addr_index"], FORM["GNU_str_index"]}
_BLOCK_LENGTHS = {FORM["block1"]: 1, FORM["block2"]: 2, FORM["block4"]: 4}
_STRX = {FORM[name] for name in ("strx", "strx1", "strx2", "strx3", "strx4", "GNU_str_index")}
_ADDRX = {FORM[n] for n in ("addrx", "addrx1", "addrx2", "addrx3", "addrx4", "GNU_addr_index")}
_UNIT_REFERENCES = {FORM[name] for name in ("ref1", "ref2", "ref4", "ref8", "ref_udata")}


class Abbreviation(NamedTuple):
    """``attributes`` are (attribute, form, implicit constant)."""

    tag: int
    children: bool
    attributes: tuple[tuple[int, int, int], ...]


@dataclass
class Unit:
    """A compilation unit; positions are in .debug_info.

    ``first`` is the position of its first entry, ``end`` of what follows the unit;
    ``offset_size`` is 4 or 8 bytes. ``top`` holds the attributes of the first entry, and
    ``split`` says that the rest is in a .dwo file.
    """

    start: int
    first: int
    end: int
    version: int
    offset_size: int
    abbreviations: int
    split: bool
    top: dict[int, Value]

    def base(self, attribute: str) -> int:
        """A section offset of the first entry, such as ``str_offsets_base``."""
        value = self.top.get(AT[attribute])
        return value if isinstance(value, int) else 0


class Dwarf:
    """The debug sections of a file."""

    def __init__(self, file: DebugFile) -> None:
        self._file = file
        self._sections: dict[str, Section] = {}
        self._abbreviations: dict[int, dict[int, Abbreviation]] = {}
        self.info = self.section(".debug_info")

    def section(self, name: str) -> Section:
        """The section ``name``, opened once."""
        if name not in self._sections:
            self._sections[name] = self._file.section(name)
        return self._sections[name]

    def extents(self) -> Iterator[tuple[int, int]]:
        """Start and end of every unit, from the lengths alone."""
        start = 0
        while start < len(self.info.data):
            length, size = self.info.number(start, 4), 4
            if length == 0xFFFFFFFF:
                length, size = self.info.number(start + 4, 8), 12
            yield start, start + size + length
            start += size + length

    def unit(self, start: int) -> Unit:
        """The unit at ``start``; ``first`` is 0 for one of types."""
        number = self.info.number
        length, position, offset_size = number(start, 4), start + 4, 4
        if length == 0xFFFFFFFF:
            length, position, offset_size = number(position, 8), position + 8, 8
        end = position + length
        version = number(position, 2)
        if not 2 <= version <= 5 or end > len(self.info.data):
            raise BadDebugFile(f"no unit of DWARF 2 to 5 at {start:#x}")
        kind = 0
        if version == 5:
            kind, abbreviations = number(position + 2, 1), number(position + 4, offset_size)
            first = position + 4 + offset_size
            first += 8 if kind in (_UT_SKELETON, _UT_SPLIT_COMPILE) else 0
        else:
            abbreviations = number(position + 2, offset_size)
            first = position + 3 + offset_size
        unit = Unit(start, first, end, version, offset_size, abbreviations, False, {})
        if kind in (_UT_TYPE, _UT_SPLIT_TYPE):
            unit.first = 0
            return unit
        code, after = leb128(self.info, first)
        if code not in (table := self.abbreviations(abbreviations)):
            raise BadDebugFile(f"no abbreviation {code} for the unit at {start:#x}")
        unit.top, _ = self.attributes(unit, table[code], after, raw=True)
        unit.split = kind == _UT_SKELETON or not unit.top.keys().isdisjoint(
            {AT["dwo_name"], AT["GNU_dwo_name"]}
        )
        if table[code].tag == TAG["partial_unit"]:
            unit.first = 0
        # what is an index needs the bases, which may stand behind it
        unit.top, _ = self.attributes(unit, table[code], after)
        return unit

    def abbreviations(self, start: int) -> dict[int, Abbreviation]:
        """The table at ``start`` of .debug_abbrev, the last few are kept."""
        if start not in self._abbreviations:
            if len(self._abbreviations) >= 2:
                self._abbreviations.clear()
            self._abbreviations[start] = self._read_abbreviations(start)
        return self._abbreviations[start]

    def _read_abbreviations(self, position: int) -> dict[int, Abbreviation]:
        section = self.section(".debug_abbrev")
        table: dict[int, Abbreviation] = {}
        while True:
            code, position = leb128(section, position)
            if code == 0:
                return table
            tag, position = leb128(section, position)
            children = section.number(position, 1) != 0
            position += 1
            attributes = []
            while True:
                attribute, position = leb128(section, position)
                form, position = leb128(section, position)
                constant = 0
                if form == FORM["implicit_const"]:
                    constant, position = leb128(section, position, signed=True)
                if not attribute and not form:
                    break
                attributes.append((attribute, form, constant))
            table[code] = Abbreviation(tag, children, tuple(attributes))

    def attributes(
        self,
        unit: Unit,
        abbreviation: Abbreviation,
        position: int,
        *,
        wanted: frozenset[int] | None = None,
        raw: bool = False,
    ) -> tuple[dict[int, Value], int]:
        """The ``wanted`` attributes of an entry, or all, and the position behind the entry.

        Strings are bytes, references positions in .debug_info, range lists their offset,
        DW_AT_high_pc always an address, blocks None; ``raw`` leaves indices as they are.
        """
        values: dict[int, Value] = {}
        for attribute, form, constant in abbreviation.attributes:
            if form == FORM["implicit_const"]:
                values[attribute] = constant
            elif wanted is None or attribute in wanted:
                values[attribute], position = self.value(unit, form, position, raw)
            else:
                position = self.skip(unit, form, position)
            if attribute == _HIGH_PC and form != FORM["addr"] and form not in _ADDRX:
                low, length = values.get(AT["low_pc"]), values[attribute]
                if isinstance(low, int) and isinstance(length, int):
                    values[attribute] = low + length
        return values, position

    def value(self, unit: Unit, form: int, position: int, raw: bool = False) -> tuple[Value, int]:
        """The value in .debug_info at ``position`` and the position behind it."""
        info = self.info
        if form == FORM["indirect"]:
            form, position = leb128(info, position)
        end = self.skip(unit, form, position)
        if form == FORM["string"]:
            return bytes(info.data[position : end - 1]), end
        if form == FORM["flag_present"]:
            return 1, end
        if form in _LEB128:
            number, _ = leb128(info, position, signed=form == FORM["sdata"])
        elif form in _FIXED or form in _OFFSETS or form == FORM["ref_addr"]:
            number = info.number(position, end - position)
        else:
            return None, end
        return (number if raw else self._meaning(unit, form, number)), end

    def _meaning(self, unit: Unit, form: int, number: int) -> Value:
        if form == FORM["strp"]:
            return self.section(".debug_str").text(number)
        if form == FORM["line_strp"]:
            return self.section(".debug_line_str").text(number)
        if form in _STRX:
            at = unit.base("str_offsets_base") + number * unit.offset_size
            where = self.section(".debug_str_offsets").number(at, unit.offset_size)
            return self.section(".debug_str").text(where)
        if form in _ADDRX:
            return self.indexed_address(unit, number)
        if form == FORM["rnglistx"]:
            base = unit.base("rnglists_base")
            at = base + number * unit.offset_size
            return base + self.section(".debug_rnglists").number(at, unit.offset_size)
        return unit.start + number if form in _UNIT_REFERENCES else number

    def indexed_address(self, unit: Unit, index: int) -> int:
        """Number ``index`` of the unit's part of .debug_addr."""
        base = unit.base("addr_base") or unit.base("GNU_addr_base")
        return self.section(".debug_addr").number(base + index * _ADDRESS_SIZE, _ADDRESS_SIZE)

    def fixed_size(self, unit: Unit, form: int) -> int | None:
        """Bytes that a value of ``form`` takes, None if that differs."""
        if form in _FIXED:
            return _FIXED[form]
        if form in _OFFSETS:
            return unit.offset_size
        if form == FORM["ref_addr"]:
            return _ADDRESS_SIZE if unit.version == 2 else unit.offset_size
        return None

    def skip(self, unit: Unit, form: int, position: int) -> int:
        """The position behind a value of ``form``."""
        size = self.fixed_size(unit, form)
        if size is not None:
            return position + size
        if form in _LEB128:
            return leb128(self.info, position)[1]
        if form == FORM["string"]:
            return position + len(self.info.text(position)) + 1
        if form in (FORM["exprloc"], FORM["block"]):
            length, position = leb128(self.info, position)
            return position + length
        if form in _BLOCK_LENGTHS:
            size = _BLOCK_LENGTHS[form]
            return position + size + self.info.number(position, size)
        if form == FORM["indirect"]:
            form, position = leb128(self.info, position)
            if form != FORM["indirect"]:
                return self.skip(unit, form, position)
        raise BadDebugFile(f"attribute form {form:#x}")


def leb128(section: Section, position: int, *, signed: bool = False) -> tuple[int, int]:
    """A variable-length number and the position behind it."""
    value = shift = 0
    for byte in section.data[position : position + _MAX_LEB128]:
        value |= (byte & 0x7F) << shift
        shift += 7
        position += 1
        if byte < 0x80:
            if signed and byte & 0x40:
                value -= 1 << shift
            return value, position
    raise BadDebugFile(f"a number at {position:#x} without an end")
