"""Lines for the sites that the kernel names by an address only, as they become known."""

from __future__ import annotations

from collections.abc import Hashable

from fserr_bpf.closing import Closing
from fserr_bpf.model.event import Address, Event, FsErrorEvent
from fserr_bpf.symbolize import Symbolizer
from fserr_bpf.symbolize.calls import asked_of
from fserr_bpf.top.model import KEPT_SITES, Row, Site, Snapshot, site_of


class Places(Closing):
    """Asks ``symbolizer``, and never waits for it; closes it too."""

    def __init__(self, symbolizer: Symbolizer) -> None:
        self._symbolizer = symbolizer
        self._addresses: dict[Hashable, Address] = {}

    def see(self, event: Event) -> None:
        """Remember the address of a site without a line, if the event has one."""
        origin = event.origin if isinstance(event, FsErrorEvent) else None
        if not isinstance(event, FsErrorEvent) or origin is None or origin.line:
            return
        address = asked_of(origin)
        if address and len(self._addresses) < KEPT_SITES:
            self._addresses.setdefault(site_of(event.error, origin).key, address)

    def named(self, snapshot: Snapshot) -> Snapshot:
        """``snapshot`` with function and line of the sites whose places are known by now."""
        return snapshot._replace(sites=tuple(map(self._named, snapshot.sites)))

    def _named(self, row: Row[Site]) -> Row[Site]:
        address = self._addresses.get(row.what.key)
        try:
            place = self._symbolizer.known(address) if address else None
        except OSError:  # no process to be had: the address will do
            return row
        if place is None or not place.frames[0].line:
            return row
        innermost = place.frames[0]
        site = row.what._replace(function=innermost.function, line=innermost.line, failaddr=0)
        return row._replace(what=site)

    def close(self) -> None:
        """End the worker."""
        self._symbolizer.close()
