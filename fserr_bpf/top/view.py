"""A snapshot as lines for a terminal of any size. Everything shown is printable already."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from rich.text import Text

from fserr_bpf.model.event import Event, FsErrorEvent, Origin
from fserr_bpf.outputs.errno import errno_name
from fserr_bpf.outputs.text import line as in_words
from fserr_bpf.outputs.text import printable
from fserr_bpf.top.ages import Ages
from fserr_bpf.top.columns import Column, fit, join
from fserr_bpf.top.model import FileSystem, Order, Row, Site, Snapshot, ranked, site_of

_TITLE = "fserr-bpf top   "
_KEYS = ("q quit   c by count   t by time   p pause", "q quit  c count  t time  p pause", "q c t p")
_ROOMY = 20  # lines from which sections are set apart
_SECTION = 4  # lines without which a section is not worth showing
_NOTICES = 5  # one line in so many may be a notice
_UNITS = {10**6: "M", 10**9: "G", 10**12: "T", 10**15: "P"}

# numbers first, so that they are beside what they count on any terminal; widths in cells
_NUMBERS = (Column("ERRORS", 7, right=True), Column("LAST", 8, rank=3), Column("DEVICE", 8))
_FILE_SYSTEMS = (
    *_NUMBERS,
    Column("STATE", 14, rank=2),
    Column("TYPE", 8, rank=4),
    Column("MOUNT POINT", 20, rank=1, grows=True),
)
_SITES = (
    *_NUMBERS,
    Column("ERROR", 12, rank=1),
    Column("PLACE", 12, grows=True),
)
_EVENTS = (
    Column("COUNT", 7, rank=3, right=True),
    Column("TIME", 8, rank=2),
    Column("DEVICE", 8),
    Column("ERROR", 12),
    Column("OBJECT", 12, rank=1, grows=True),
    Column("PROCESS", 18, rank=4),
    Column("PLACE", 28, rank=5, grows=True),
)


class Frame(NamedTuple):
    """What is said around a snapshot. ``notices`` are losses, blind spots and news, in words."""

    stream: str
    order: Order
    paused: bool
    notices: Sequence[str]


class _Section(NamedTuple):
    """``rows`` are lines that are not made before they are shown; ``hidden`` exist beside them."""

    header: Text
    rows: Sequence[Callable[[], Text]]
    hidden: int
    urgent: int  # rows that come before any row that is not

    @property
    def least(self) -> int:
        """Lines for the urgent rows, and for how many more there are."""
        return min(self.urgent + 1, self.lines)

    @property
    def lines(self) -> int:
        """How many it would like to have under its header."""
        return len(self.rows) + (self.hidden > 0)

    def show(self, lines: int) -> Iterator[Text]:
        """The header and as many lines; the last one counts the rows that are not shown."""
        shown = self.rows if lines >= self.lines else self.rows[: max(lines - 1, 0)]
        more = self.hidden + len(self.rows) - len(shown)
        yield self.header
        yield from (make() for make in shown)
        if more and lines:
            yield Text(f"and {more} more", "dim")


def render(
    snapshot: Snapshot, frame: Frame, ages: Ages, width: int, height: int | None = None
) -> list[Text]:
    """Exactly ``height`` lines of at most ``width`` cells; with None as many as there are."""
    sections = _sections(snapshot, frame.order, ages, width)
    lines = [_header(snapshot, frame, width)]
    lines += _notices(frame.notices, width, None if height is None else height // _NOTICES)
    if height is None:
        for section in sections:
            lines += [Text(), *section.show(section.lines)]
    else:
        room = height - len(lines) - 1
        lines += _body(sections, room, apart=height >= _ROOMY)[: max(room, 0)]
        lines += [Text()] * (height - len(lines) - 1)
        lines = [*lines[: height - 1], Text(_that_fits(_KEYS, width), "dim")]
    for line in lines:
        line.truncate(width)
    return lines


def _body(sections: Sequence[_Section], room: int, *, apart: bool) -> list[Text]:
    """As many of the sections as are worth showing, on about ``room`` lines."""
    shown = sections[: max(room // _SECTION, 1)]
    before = [Text()] if apart else []
    room -= len(shown) * (len(before) + 1)
    least = _share(room, [section.least for section in shown])
    shares = _share(room, [section.lines for section in shown], least)
    lines: list[Text] = []
    for section, share in zip(shown, shares, strict=True):
        lines += [*before, *section.show(share)]
    return lines


def _share(room: int, needs: Sequence[int], first: Sequence[int] = ()) -> list[int]:
    """Lines for each beyond ``first``: one in turn to those that need more, while there is room."""
    got = list(first) or [0] * len(needs)
    while sum(got) < room and (short := [i for i, need in enumerate(needs) if got[i] < need]):
        got[min(short, key=got.__getitem__)] += 1
    return got


def _that_fits(words: Sequence[str], width: int) -> str:
    """The first, which is the longest, that fits."""
    return next((w for w in words if len(w) <= width), words[-1])


def _header(snapshot: Snapshot, frame: Frame, width: int) -> Text:
    gone = snapshot.forgotten_file_systems.rows
    damaged = gone + sum(1 for row in snapshot.file_systems if row.errors)
    errors = f"{count(snapshot.errors)} errors"
    bad = sum(1 for row in snapshot.file_systems if _is_bad(row, snapshot))
    where = f"{errors} on {damaged} of {gone + len(snapshot.file_systems)} file systems"
    where += f", {bad} not ok" if bad else ""
    how = "PAUSED" if frame.paused else f"by {frame.order}"
    stream = "PAUSED" if frame.paused else f"{frame.stream}, by {frame.order}"
    wide = (
        f"{left:<{width - len(right)}}{right}"
        for left, right in ((_TITLE + where, stream), (where, stream), (where, how), (errors, how))
        if len(left) + len(right) < width
    )
    return Text(next(wide, errors), "bold")


def _notices(notices: Sequence[str], width: int, room: int | None) -> list[Text]:
    """Each on as many lines as it needs, ``room`` at most."""
    wrapped = [part for notice in notices for part in textwrap.wrap(printable(notice), width)]
    lines = [Text(part, "yellow") for part in wrapped]
    if room is None or len(lines) <= room:
        return lines
    shown = max(room - 1, 0)
    more = Text(f"and {len(lines) - shown} more lines", "yellow")
    return [*lines[:shown], more][:room]


def _sections(snapshot: Snapshot, order: Order, ages: Ages, width: int) -> list[_Section]:
    file_systems = _Table(_FILE_SYSTEMS, width)
    listed = [
        partial(_file_system, file_systems, row, snapshot, ages)
        # one that is not ok is as urgent as one with errors
        for row in sorted(
            ranked(snapshot.file_systems, order),
            key=lambda row: not (row.errors or _is_bad(row, snapshot)),
        )
    ]
    damaged = sum(1 for row in snapshot.file_systems if row.errors or _is_bad(row, snapshot))
    gone = snapshot.forgotten_file_systems.rows
    first = _Section(file_systems.header, listed, gone, damaged)
    if not snapshot.events:
        return [first, _Section(Text("no errors yet", "dim"), (), 0, 0)]
    sites = _Table(_SITES, width)
    found = [partial(_site, sites, row, ages) for row in ranked(snapshot.sites, order)]
    events = _Table(_EVENTS, width)
    recent = [partial(_event, events, event, ages) for event in snapshot.events]
    return [
        first,
        _Section(sites.header, found, snapshot.forgotten_sites.rows, len(found)),
        _Section(events.header, recent, snapshot.forgotten_events, len(recent)),
    ]


def _is_bad(row: Row[FileSystem], snapshot: Snapshot) -> bool:
    state = snapshot.states.get(row.what.dev) if row.what.key in snapshot.watched else None
    return state is not None and not state.ok


class _Table:
    """Columns at one width of the terminal."""

    def __init__(self, columns: Sequence[Column], width: int) -> None:
        self._columns = columns
        self._widths = fit(columns, width)
        self.header = Text(self._line([column.title for column in columns]), "bold cyan")

    def row(self, *cells: str, style: str = "") -> Text:
        """Cells of any text, from anywhere."""
        return Text(self._line([printable(cell) for cell in cells]), style)

    def _line(self, cells: Sequence[str]) -> str:
        return join(self._columns, self._widths, cells)


def _file_system(table: _Table, row: Row[FileSystem], snapshot: Snapshot, ages: Ages) -> Text:
    what = row.what
    watched = what.key in snapshot.watched
    state = snapshot.states.get(what.dev) if watched else None
    text = table.row(
        count(row.errors),
        ages.ago(row.last_ns) if row.errors else "-",
        what.device,
        str(state.condition) if state else "-",
        what.fstype,
        what.mount_point if watched else f"{what.mount_point} (unmounted)",
        style="" if watched else "dim",
    )
    if (row.errors and watched) or _is_bad(row, snapshot):
        text.stylize("red", 0, _NUMBERS[0].width)
    return text


def _site(table: _Table, row: Row[Site], ages: Ages) -> Text:
    what = row.what
    return table.row(
        count(row.errors),
        ages.ago(row.last_ns),
        what.device,
        errno_name(what.error),
        what.name,
    )


def _event(table: _Table, event: Event, ages: Ages) -> Text:
    if not isinstance(event, FsErrorEvent) or event.origin is None:
        return Text(in_words(event), "yellow")
    origin = event.origin
    return table.row(
        count(event.error_count),
        ages.clock(origin.time_ns),
        origin.device,
        errno_name(event.error),
        _object(origin),
        f"{origin.comm}[{event.pid}]" if origin.comm else f"pid {event.pid}" if event.pid else "-",
        site_of(event.error, origin).name,
    )


def _object(origin: Origin) -> str:
    """What is damaged: the path inside of the file system, a name, or the inode."""
    detail = origin.detail
    if detail and detail.path:
        inside = detail.path.removeprefix(origin.mount_point.rstrip("/"))
        return inside if inside.startswith("/") else detail.path
    if detail and detail.name:
        return detail.name
    return f"ino {origin.ino}" if origin.ino else "superblock"


def count(number: int) -> str:
    """In seven characters: exact up to 9999999, rounded down from there."""
    if number < 10**7:
        return str(number)
    unit = max(u for u in _UNITS if number >= u)
    return f"{number // unit}{_UNITS[unit]}"
