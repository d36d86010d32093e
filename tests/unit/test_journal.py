"""journald's datagrams: exact bytes, read back by a parser of the documented format."""

from __future__ import annotations

import re
import socket
import struct
from pathlib import Path

import pytest

from fserr_bpf.model.event import EventId, Lost, OverflowEvent
from fserr_bpf.model.state import Condition, FilesystemState, StateChange
from fserr_bpf.outputs.classes import MessageClass, class_of
from fserr_bpf.outputs.journal import MESSAGE_IDS, JournalSocket, encode
from fserr_bpf.outputs.schema import Message
from fserr_bpf.uapi.dev import Dev
from tests.unit.test_outputs import EVENT, ORIGIN

ROOT = Path(__file__).parents[2]
STATE = FilesystemState(
    Dev(7, 1), "loop1", "", (), "xfs", ("/srv/db",), False, Condition.SHUTDOWN, reason="stat fails"
)


def fields(datagram: bytes) -> dict[str, bytes]:
    """As systemd.io/JOURNAL_NATIVE_PROTOCOL describes them."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(datagram):
        end = datagram.index(b"\n", at)
        name, equals, value = datagram[at:end].partition(b"=")
        at = end + 1
        if not equals:
            (length,) = struct.unpack_from("<Q", datagram, at)
            value = datagram[at + 8 : at + 8 + length]
            at += 8 + length + 1
            assert datagram[at - 1 : at] == b"\n"
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]*", name)
        found[name.decode()] = value
    return found


def test_error_is_these_bytes() -> None:
    numbered = EVENT._replace(id=EventId("f7e1", 12, 7))
    assert encode(numbered) == (
        b"MESSAGE=EFSCORRUPTED 117 x3 on / (ext4 on vda), ino 14 at ext4_iget:5021, cat[6498]\n"
        b"MESSAGE_ID=4e8b1d0a7c5f43d59a4b6a3c7a1f2e01\nPRIORITY=2\nSYSLOG_IDENTIFIER=fserr-bpf\n"
        b"FSERR_CLASS=corruption\nFSERR_BOOT_ID=f7e1\nFSERR_RUN=12\nFSERR_SEQ=7\n"
        b"FSERR_ERROR=117\nFSERR_ERRNO=EFSCORRUPTED\nFSERR_COUNT=3\n"
        b"FSERR_FSID=88888888:88888888\nFSERR_PID=6498\nFSERR_TIME=1795379267.123456789\n"
        b"FSERR_DEVICE=vda\nFSERR_DEV=254:0\nFSERR_FSTYPE=ext4\nFSERR_MOUNT_POINT=/\n"
        b"FSERR_INO=14\nFSERR_GENERATION=1630451116\nFSERR_BLOCK=77\nFSERR_COMM=cat\n"
        b"FSERR_FUNCTION=ext4_iget\nFSERR_LINE=5021\nFSERR_SOURCE=kprobe:__ext4_error_inode\n"
    )


def test_newline_and_bytes_of_names_forge_nothing() -> None:
    hostile = ORIGIN._replace(mount_point="/\nPRIORITY=0\n\udcff", comm="a\nb")
    found = fields(encode(EVENT._replace(origin=hostile)))
    assert found["FSERR_MOUNT_POINT"] == b"/\nPRIORITY=0\n\xff"
    assert found["FSERR_COMM"] == b"a\nb"
    assert found["PRIORITY"] == b"2"
    assert b"\n" not in found["MESSAGE"]


EACH: dict[MessageClass, Message] = {
    MessageClass.CORRUPTION: EVENT,
    MessageClass.IO: EVENT._replace(error=-5),
    MessageClass.ENDED: EVENT._replace(error=108, origin=ORIGIN._replace(reason="asked for")),
    MessageClass.STATE: StateChange(5, STATE, Condition.OK),
    MessageClass.CLEARED: StateChange(5, STATE._replace(condition=Condition.OK)),
    MessageClass.LOST: Lost(3, 9, 70, 5),
}


@pytest.mark.parametrize("kind", MessageClass)
def test_each_class_has_its_id(kind: MessageClass) -> None:
    assert class_of(EACH[kind]) is kind
    found = fields(encode(EACH[kind]))
    assert found["MESSAGE_ID"].decode() == MESSAGE_IDS[kind]
    assert found["FSERR_CLASS"].decode() == kind


def test_ids_are_documented_in_catalog_and_runbook() -> None:
    """Those of the catalog are shown by ``journalctl -x``."""
    catalog = (ROOT / "packaging/fserr-bpf.catalog").read_text()
    assert re.findall(r"^-- ([0-9a-f]{32})$", catalog, re.MULTILINE) == list(MESSAGE_IDS.values())
    assert len(set(MESSAGE_IDS.values())) == len(MessageClass)
    runbook = (ROOT / "docs/runbook.md").read_text()
    assert {*MessageClass} <= set(re.findall(r"^## (\w+)$", runbook, re.MULTILINE))


def test_fields_are_documented() -> None:
    documented = set(re.findall(r"`(FSERR_\w+)`", (ROOT / "docs/service.md").read_text()))
    shown = {name for message in EACH.values() for name in fields(encode(message))}
    assert {name for name in shown if name.startswith("FSERR_")} <= documented


def test_overflow_and_loss_in_words() -> None:
    assert fields(encode(EACH[MessageClass.LOST]))["MESSAGE"] == (
        b"lost: messages 3 to 9, with 70 errors"
    )
    overflow = fields(encode(OverflowEvent()))
    assert overflow["MESSAGE"].startswith(b"FAN_Q_OVERFLOW: the queue was full")


def test_journald_that_was_restarted_gets_the_next(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with JournalSocket(path) as target:
        with pytest.raises(FileNotFoundError):
            target.send([EVENT])
        for _ in range(2):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
                journald.bind(path)
                assert target.send([EVENT, EVENT]) == 1
                assert journald.recv(9999) == encode(EVENT)
            (tmp_path / "socket").unlink()
