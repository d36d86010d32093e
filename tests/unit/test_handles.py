"""File handles from the numbers of an inode, laid out by hand; their way back."""

from __future__ import annotations

import pytest

from fserr_bpf.codec.handles import encode_handle, inode_of
from fserr_bpf.model.event import FileHandle
from fserr_bpf.uapi.inode import InodeId

INODE = InodeId(0x1_0000_0063, 7, 0x2_0000_0100)


@pytest.mark.parametrize(
    ("form", "handle", "back"),
    [
        # generic_encode_ino32_fh() cuts the number
        (0x1, "63000000 07000000", InodeId(0x63, 7)),
        (0x81, "6300000001000000 07000000", InodeId(0x1_0000_0063, 7)),
        (0x4D, "6300000001000000 0001000002000000 07000000", INODE),
    ],
)
def test_a_handle_of_each_form(form: int, handle: str, back: InodeId) -> None:
    encoded = encode_handle(form, INODE)
    assert encoded == FileHandle(form, bytes.fromhex(handle))
    assert inode_of(encoded) == back


@pytest.mark.parametrize("form", [None, 0x2, 0x4E, 0xFF])
def test_other_forms_have_no_handle(form: int | None) -> None:
    assert encode_handle(form, INODE) is None
