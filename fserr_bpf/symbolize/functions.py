"""The functions of a unit and what was inlined into them, as a tree in one list."""

from __future__ import annotations

from typing import NamedTuple

from fserr_bpf.symbolize.dwarf import AT, FORM, TAG, Abbreviation, Dwarf, Unit, Value, leb128
from fserr_bpf.symbolize.ranges import ranges_of

_FUNCTIONS = frozenset({TAG["subprogram"], TAG["inlined_subroutine"]})
# what may have a function somewhere inside
_CONTAINERS = frozenset(
    TAG[name]
    for name in ("compile_unit", "skeleton_unit", "lexical_block", "try_block", "catch_block")
) | {TAG["namespace"], TAG["module"]}
_WANTED = frozenset(
    AT[name]
    for name in (
        *("name", "abstract_origin", "specification", "sibling"),
        *("low_pc", "high_pc", "ranges", "call_file", "call_line"),
    )
)
_SIBLING = frozenset({AT["sibling"]})
_MAX_REFERENCES = 8


class Function(NamedTuple):
    """One address range of a function, or of one inlined into the function around it.

    ``depth`` is 0 for a function of its own. In the list, ``child`` is the index of the
    first function inside and ``next`` of the one to look at if an address is not in here:
    another range of the same function or what follows all that is inside.
    """

    low: int
    high: int
    depth: int
    child: int
    next: int
    name: bytes
    call_file: int
    call_line: int


class FunctionReader:
    """Reads the functions of one unit."""

    def __init__(self, dwarf: Dwarf, unit: Unit) -> None:
        self._dwarf = dwarf
        self._unit = unit
        self._table = dwarf.abbreviations(unit.abbreviations)
        self._plans = {code: self._plan(found) for code, found in self._table.items()}
        self._entries: dict[int, dict[int, Value]] = {}
        self._found: list[Function] = []

    def read(self) -> list[Function]:
        """All functions, each before those inside of it."""
        data = self._dwarf.info.data
        position, end = self._unit.first, self._unit.end
        # of each open entry: depth of functions inside, its own place in the list
        depth = 0
        stack: list[tuple[int, int, int]] = []
        while position < end:
            code = data[position]
            if code < 0x80:
                position += 1
            else:
                code, position = leb128(self._dwarf.info, position)
            if code == 0:
                if not stack:
                    break
                depth, first, count = stack.pop()
                self._close(first, count)
                continue
            abbreviation = self._table[code]
            first, count, inner = len(self._found), 0, depth
            if abbreviation.tag in _FUNCTIONS:
                after, count, sibling = self._function(abbreviation, position, depth)
                inner = depth + 1 if abbreviation.tag == TAG["inlined_subroutine"] else 1
                # an abstract function has nothing with an address in it
                after = sibling if sibling and not count else after
                skipped = after == sibling
            elif abbreviation.tag not in _CONTAINERS and self._plans[code][1]:
                values, after = self._dwarf.attributes(
                    self._unit, abbreviation, position, wanted=_SIBLING
                )
                sibling = _forward(values, after)
                after, skipped = sibling or after, bool(sibling)
            else:
                after, skipped = self._skip(self._plans[code][0], position), False
            position = after
            if abbreviation.children and not skipped:
                stack.append((depth, first, count))
                depth = inner
        while stack:
            _, first, count = stack.pop()
            self._close(first, count)
        return self._found

    def _function(
        self, abbreviation: Abbreviation, position: int, depth: int
    ) -> tuple[int, int, int]:
        """Add a function; the position behind its entry, its ranges, its sibling or 0."""
        values, after = self._dwarf.attributes(self._unit, abbreviation, position, wanted=_WANTED)
        ranges = ranges_of(self._dwarf, self._unit, values)
        depth = depth if abbreviation.tag == TAG["inlined_subroutine"] else 0
        name = self._name(values) if ranges else b""
        first = len(self._found)
        child = first + len(ranges)
        file, line = (values.get(AT[key]) for key in ("call_file", "call_line"))
        call = [number if isinstance(number, int) else 0 for number in (file, line)]
        for index, (low, high) in enumerate(ranges, first + 1):
            self._found.append(Function(low, high, depth, child, index, name, *call))
        return after, len(ranges), _forward(values, after)

    def _close(self, first: int, count: int) -> None:
        """All inside of the function at ``first`` is known: lead over it."""
        if count:
            last = first + count - 1
            self._found[last] = self._found[last]._replace(next=len(self._found))

    def _name(self, values: dict[int, Value]) -> bytes:
        """The name, or that of what the entry refers to."""
        for _ in range(_MAX_REFERENCES):
            if isinstance(name := values.get(AT["name"]), bytes):
                return name
            origin = values.get(AT["abstract_origin"], values.get(AT["specification"]))
            if not isinstance(origin, int):
                break
            if origin not in self._entries:
                self._entries[origin] = self._entry(origin)
            values = self._entries[origin]
        return b""

    def _entry(self, position: int) -> dict[int, Value]:
        unit = self._unit
        if not unit.start <= position < unit.end:  # link-time optimization
            found = [start for start, end in self._dwarf.extents() if start <= position < end]
            unit = self._dwarf.unit(found[0])
        code, after = leb128(self._dwarf.info, position)
        abbreviation = self._dwarf.abbreviations(unit.abbreviations)[code]
        return self._dwarf.attributes(unit, abbreviation, after, wanted=_WANTED)[0]

    def _plan(self, abbreviation: Abbreviation) -> tuple[list[tuple[int, int]], bool]:
        """How to skip an entry: bytes, then a value of that form; and if it has a sibling."""
        plan, fixed = [], 0
        for _, form, _ in abbreviation.attributes:
            size = self._dwarf.fixed_size(self._unit, form)
            if size is None:
                plan.append((fixed, form))
                fixed = 0
            else:
                fixed += size
        plan.append((fixed, 0))
        return plan, any(name == AT["sibling"] for name, _, _ in abbreviation.attributes)

    def _skip(self, plan: list[tuple[int, int]], position: int) -> int:
        data = self._dwarf.info.data
        for fixed, form in plan:
            position += fixed
            # most of what has no fixed size is a short expression
            if form == FORM["exprloc"] and data[position] < 0x80:
                position += 1 + data[position]
            elif form:
                position = self._dwarf.skip(self._unit, form, position)
        return position


def _forward(values: dict[int, Value], after: int) -> int:
    """The sibling's position, 0 if there is none or it leads back."""
    sibling = values.get(AT["sibling"])
    return sibling if isinstance(sibling, int) and sibling >= after else 0
