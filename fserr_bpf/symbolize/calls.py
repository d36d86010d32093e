"""Which address leads to the place of an error."""

from __future__ import annotations

from fserr_bpf.model.event import Address, Origin


def asked_of(origin: Origin) -> Address | None:
    """The address to look up; None if ``origin`` has none."""
    address = origin.address
    return call_before(address) if address and not _is_check(origin) else address


def call_before(address: Address) -> Address:
    """A return address is behind its call, perhaps on another line or in another function."""
    return address._replace(offset=max(address.offset - 1, 0))


def _is_check(origin: Origin) -> bool:
    """Whether failaddr is that of the check itself, as XFS has it, and not of a caller."""
    return origin.fstype == "xfs" and not origin.source.endswith("filemap_set_wb_err")
