"""The line table of a unit: the program of .debug_line, DWARF 2 to 5, section 6.2."""

from __future__ import annotations

from typing import NamedTuple

from fserr_bpf.symbolize.dwarf import FORM, Dwarf, leb128
from fserr_bpf.symbolize.elf import BadDebugFile, Section

END = 0xFFFFFFFF
"""The file number of a row where code without lines begins."""

_LNCT_PATH, _LNCT_DIRECTORY_INDEX = 1, 2
_COPY, _ADVANCE_PC, _ADVANCE_LINE, _SET_FILE = 1, 2, 3, 4
_CONST_ADD_PC, _FIXED_ADVANCE_PC = 8, 9
_END_SEQUENCE, _SET_ADDRESS = 1, 2
_ADDRESS_SIZE = 8
_SIZES = {FORM["data1"]: 1, FORM["data2"]: 2, FORM["data4"]: 4, FORM["data8"]: 8}


class Row(NamedTuple):
    """From ``address`` on the code is of this file (a number) and line."""

    address: int
    file: int
    line: int


class LineTable(NamedTuple):
    """``files`` by number, relative to the directory of the build; ``rows`` by address."""

    files: list[bytes]
    rows: list[Row]


class _Header(NamedTuple):
    program: int
    end: int
    min_instruction: int
    line_base: int
    line_range: int
    opcode_base: int
    lengths: bytes
    files: list[bytes]


def line_table(dwarf: Dwarf, start: int) -> LineTable:
    """The table whose header is at ``start`` of .debug_line."""
    section = dwarf.section(".debug_line")
    header = _header(dwarf, section, start)
    rows = _run(section, header)
    # an end belongs before what begins at the same address
    rows.sort(key=lambda row: (row.address, row.file != END))
    return LineTable(header.files, rows)


def _header(dwarf: Dwarf, section: Section, start: int) -> _Header:
    number = section.number
    length, position, offset_size = number(start, 4), start + 4, 4
    if length == 0xFFFFFFFF:
        length, position, offset_size = number(position, 8), position + 8, 8
    end = position + length
    version = number(position, 2)
    if not 2 <= version <= 5 or end > len(section.data):
        raise BadDebugFile(f"no line table of DWARF 2 to 5 at {start:#x}")
    position += 4 if version == 5 else 2
    program = position + offset_size + number(position, offset_size)
    position += offset_size
    min_instruction = number(position, 1)
    position += 3 if version >= 4 else 2  # operations per VLIW instruction, default_is_stmt
    line_base = number(position, 1)
    line_range, opcode_base = number(position + 1, 1), number(position + 2, 1)
    position += 3
    lengths = bytes(section.data[position : position + opcode_base - 1])
    if not line_range or len(lengths) != opcode_base - 1:
        raise BadDebugFile(f"a damaged line table at {start:#x}")
    read = _files if version == 5 else _old_files
    files = read(dwarf, section, position + len(lengths), offset_size)
    line_base -= 256 if line_base > 127 else 0
    return _Header(
        program, end, min_instruction, line_base, line_range, opcode_base, lengths, files
    )


def _files(dwarf: Dwarf, section: Section, position: int, offset_size: int) -> list[bytes]:
    tables: list[list[tuple[bytes, int]]] = []
    for _ in ("directories", "files"):
        formats, table = [], []
        count = section.number(position, 1)
        position += 1
        for _ in range(count):
            content, position = leb128(section, position)
            form, position = leb128(section, position)
            formats.append((content, form))
        count, position = leb128(section, position)
        for _ in range(count if formats else 0):
            path, directory = b"", 0
            for content, form in formats:
                value, position = _content(dwarf, section, position, form, offset_size)
                if content == _LNCT_PATH and isinstance(value, bytes):
                    path = value
                elif content == _LNCT_DIRECTORY_INDEX and isinstance(value, int):
                    directory = value
            table.append((path, directory))
        tables.append(table)
    directories, files = tables
    return [_join([path for path, _ in directories], *file) for file in files]


def _content(
    dwarf: Dwarf, section: Section, position: int, form: int, offset_size: int
) -> tuple[bytes | int | None, int]:
    if form in (FORM["line_strp"], FORM["strp"]):
        where = section.number(position, offset_size)
        strings = dwarf.section(".debug_line_str" if form == FORM["line_strp"] else ".debug_str")
        return strings.text(where), position + offset_size
    if form == FORM["string"]:
        text = section.text(position)
        return text, position + len(text) + 1
    if form == FORM["udata"]:
        return leb128(section, position)
    if form in _SIZES:
        return section.number(position, _SIZES[form]), position + _SIZES[form]
    if form == FORM["data16"]:  # MD5
        return None, position + 16
    if form == FORM["block"]:
        length, position = leb128(section, position)
        return None, position + length
    raise BadDebugFile(f"form {form:#x} in a line table")


def _old_files(_dwarf: Dwarf, section: Section, position: int, _offset_size: int) -> list[bytes]:
    directories = [b""]
    while text := section.text(position):
        directories.append(text)
        position += len(text) + 1
    position += 1
    files = [b""]  # numbers begin with 1
    while name := section.text(position):
        directory, position = leb128(section, position + len(name) + 1)
        for _ in range(2):  # time of change and length
            position = leb128(section, position)[1]
        files.append(_join(directories, name, directory))
    return files


def _join(directories: list[bytes], name: bytes, directory: int) -> bytes:
    """The path of a file; directory 0 is that of the build."""
    if name[:1] == b"/" or not 0 < directory < len(directories):
        return name
    return directories[directory] + b"/" + name


def _run(section: Section, header: _Header) -> list[Row]:  # noqa: PLR0912 - one machine
    data, base, span = section.data, header.line_base, header.line_range
    step, opcode_base = header.min_instruction, header.opcode_base
    rows: list[Row] = []
    position, end = header.program, header.end
    address, file, line = 0, 1, 1
    while position < end:
        opcode = data[position]
        position += 1
        if opcode >= opcode_base:
            advance, delta = divmod(opcode - opcode_base, span)
            address += advance * step
            line += base + delta
            rows.append(Row(address, file, line))
        elif opcode == 0:
            length, position = leb128(section, position)
            extended = data[position] if length else 0
            if extended == _END_SEQUENCE:
                rows.append(Row(address, END, 0))
                address, file, line = 0, 1, 1
            elif extended == _SET_ADDRESS:
                address = section.number(position + 1, _ADDRESS_SIZE)
            position += length
        elif opcode == _COPY:
            rows.append(Row(address, file, line))
        elif opcode == _ADVANCE_PC:
            advance, position = leb128(section, position)
            address += advance * step
        elif opcode == _ADVANCE_LINE:
            delta, position = leb128(section, position, signed=True)
            line += delta
        elif opcode == _SET_FILE:
            file, position = leb128(section, position)
        elif opcode == _CONST_ADD_PC:
            address += (255 - opcode_base) // span * step
        elif opcode == _FIXED_ADVANCE_PC:
            address += section.number(position, 2)
            position += 2
        else:  # columns, marks of statements and blocks, and what is not known
            for _ in range(header.lengths[opcode - 1]):
                position = leb128(section, position)[1]
    return rows
