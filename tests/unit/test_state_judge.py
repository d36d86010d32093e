"""What is shown and answered, to a condition: cases that need a broken disk or an old kernel."""

from __future__ import annotations

import errno

import pytest

from fserr_bpf.model.state import Condition, DeviceErrors, RecordedError
from fserr_bpf.state.ask import Answer
from fserr_bpf.state.judge import judge, sick_parts
from fserr_bpf.state.signs import Signs

WELL = Signs("ext4", frozenset({"rw"}), writable_mount=True, hidden=False, removed=False)
READ_ONLY = WELL._replace(options=frozenset({"ro"}))
ERROR = RecordedError(1000, "f", 1, errno.EUCLEAN, 12, 0)
RECORDED = WELL._replace(errors=1, first=ERROR, last=ERROR)
ABORTED = ERROR._replace(function="ext4_journal_check_start")
STATS = DeviceErrors("/dev/sda", 1, 0, 0, 0, 0)
CASES = {
    "well": (WELL, Answer(error=0), Condition.OK),
    "removed-and-more": (RECORDED._replace(removed=True), None, Condition.GONE),
    "hangs": (WELL, None, Condition.UNKNOWN),
    "hangs-with-a-record": (RECORDED, None, Condition.UNKNOWN),
    "hidden": (WELL._replace(hidden=True), None, Condition.UNKNOWN),
    "hidden-vfat": (WELL._replace(driver="vfat", hidden=True), None, Condition.OK),
    "hidden-emergency": (
        WELL._replace(hidden=True, options=frozenset({"rw", "emergency_ro"})),
        None,
        Condition.READ_ONLY_AFTER_ERROR,
    ),
    "refused": (WELL, Answer(refused=errno.EACCES), Condition.UNKNOWN),
    "ext4-ro-mount-rw": (READ_ONLY, Answer(error=0), Condition.READ_ONLY),
    "xfs-ro-mount-rw": (
        READ_ONLY._replace(driver="xfs"),
        Answer(error=0),
        Condition.READ_ONLY_AFTER_ERROR,
    ),
    "ro-and-mount-ro": (
        READ_ONLY._replace(driver="vfat", writable_mount=False),
        Answer(),
        Condition.READ_ONLY,
    ),
    "squashfs": (READ_ONLY._replace(driver="squashfs"), Answer(), Condition.READ_ONLY),
    "erofs-answer": (READ_ONLY, Answer(error=errno.EROFS), Condition.READ_ONLY_AFTER_ERROR),
    "eio": (RECORDED, Answer(error=errno.EIO), Condition.SHUTDOWN),
    "strange-answer": (WELL, Answer(error=errno.ENOMEM), Condition.UNKNOWN),
    "f2fs-answer": (WELL._replace(driver="f2fs"), Answer(error=errno.EIO), Condition.SHUTDOWN),
    "f2fs-remount-ro": (
        READ_ONLY._replace(driver="f2fs", stopped=True),
        Answer(error=errno.EIO),
        Condition.READ_ONLY_AFTER_ERROR,
    ),
    "record-is-older-than-the-mount": (
        RECORDED,
        Answer(error=0, mounted=1001, policy=2),
        Condition.ERRORS,
    ),
    "record-since-the-mount": (
        RECORDED,
        Answer(error=0, mounted=1000, policy=2),
        Condition.READ_ONLY_AFTER_ERROR,
    ),
    "option-beats-the-default": (
        RECORDED._replace(options=frozenset({"errors=continue"})),
        Answer(error=0, mounted=999, policy=2),
        Condition.ERRORS,
    ),
    "option-remount-ro": (
        RECORDED._replace(options=frozenset({"errors=remount-ro"})),
        Answer(error=0, mounted=999, policy=1),
        Condition.READ_ONLY_AFTER_ERROR,
    ),
    "aborted-journal": (
        RECORDED._replace(last=ABORTED, options=frozenset({"errors=continue"})),
        Answer(error=0, mounted=999, policy=1),
        Condition.READ_ONLY_AFTER_ERROR,
    ),
    "sick": (WELL._replace(driver="xfs"), Answer(error=0, sick=1), Condition.ERRORS),
    "counted": (WELL._replace(driver="btrfs"), Answer(error=0, devices=(STATS,)), Condition.ERRORS),
    "missing": (WELL._replace(driver="btrfs"), Answer(error=0, missing=(2,)), Condition.ERRORS),
}


@pytest.mark.parametrize(("signs", "answer", "condition"), CASES.values(), ids=CASES.keys())
def test_condition(signs: Signs, answer: Answer | None, condition: Condition) -> None:
    found, reason = judge(signs, answer)
    assert found is condition
    assert bool(reason) == (condition is not Condition.OK)


def test_sick_parts_of_a_newer_kernel_have_their_number() -> None:
    assert sick_parts(1 << 0 | 1 << 31) == ("summary counters", "part 0x80000000")
