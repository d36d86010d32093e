"""The three files of a report: what is in them, and what hostile text cannot do to them."""

from __future__ import annotations

import errno
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from fserr_bpf.errors import OutputError
from fserr_bpf_compare import report
from fserr_bpf_compare.report import document, junit, page
from fserr_bpf_compare.report.streams import streams
from fserr_bpf_compare.report.text import visible
from fserr_bpf_compare.verdict.cells import Cell, Difference, Judged, Level, Outcome, Read, Witness
from fserr_bpf_compare.verdict.judge import judge
from fserr_bpf_compare.verdict.unheard import Unheard
from tests.unit.report_cells import (
    OTHER_PID,
    OVERFLOW,
    RUN,
    cell,
    judged,
    one_of_each,
    whole_matrix,
)
from tests.unit.test_fanotify_codec import CAPTURED, INODE_ERROR, SB_ERROR

ROOT = Path(__file__).parents[2]
HOSTILE = (
    "<script>alert(1)</script>\"><img src=x onerror=alert(2)>\x1b[2J\0\ud800.\udcff\u202e\ufffe'&"
)
SEEN = "\"><img src=x onerror=alert(2)>\\x1b[2J\\x00\\ud800.\\xff\\u202e\\ufffe'&"


def hostile() -> Judged:
    """Every text of a cell is hostile."""
    base = cell([SB_ERROR], [OTHER_PID], kernel=HOSTILE, scenario=HOSTILE)._replace(
        release=HOSTILE,
        stream=HOSTILE,
        basis=HOSTILE,
        trigger=(HOSTILE, "two\nlines"),
        log=(HOSTILE, "two\nlines"),
        missing=(HOSTILE,),
        statistics=HOSTILE,
    )
    left = (Difference(0, HOSTILE, HOSTILE, HOSTILE),)
    return Judged(base, Outcome.DIFFERENT, Level.L0, Level.L2, left, (HOSTILE,), HOSTILE)


def text_of(page_text: str) -> str:
    """The page as people read it: without tags, spaces as one."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page_text)).split())


def rows(name: str) -> set[str]:
    """Keys in the first column of the table below a heading of the document."""
    text = (ROOT / "docs/compare-report.md").read_text()
    section = re.search(rf"^#+ {re.escape(name)}\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    assert section is not None, name
    return set(re.findall(r"^\| `(\w+)` \|", section[1], re.MULTILINE))


def test_three_files_and_nothing_else(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "report"
    report.write(directory, one_of_each(), RUN)
    assert {path.name for path in directory.iterdir()} == {
        *("index.html", "report.json", "junit.xml")
    }
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o644}


def test_full_disk_leaves_the_old_report(tmp_path: Path) -> None:
    report.write(tmp_path, one_of_each(), RUN)
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from pathlib import Path\nfrom fserr_bpf_compare import report\n"
        "from fserr_bpf.errors import OutputError\n"
        "from tests.unit.report_cells import RUN, whole_matrix\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))\n"
        "try:\n    report.write(Path(sys.argv[1]), whole_matrix(), RUN)\n"
        "except OutputError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (
        f"cannot write the report to {tmp_path}: File too large; give another --report\n"
    )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old


def test_directory_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OutputError, match=os.strerror(errno.EEXIST)):
        report.write(file, one_of_each(), RUN)
    with pytest.raises(OutputError, match=os.strerror(errno.EEXIST)):
        report.check(file)


def test_without_jinja2_the_remedy_is_said_before_the_run() -> None:
    code = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from pathlib import Path\nfrom fserr_bpf_compare import report\n"
        "from fserr_bpf.errors import FserrError\n"
        "try:\n    report.check(Path())\nexcept FserrError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        "--report needs Jinja2; run pip install 'fserr-bpf[compare]', or make compare\n"
    )


def test_json_has_what_the_document_says() -> None:
    whole = json.loads(document.render(one_of_each(), RUN))
    assert whole["v"] == document.VERSION
    assert whole.keys() == rows("report.json")
    assert whole["run"].keys() == rows("run")
    different = whole["cells"][1]
    for one in whole["cells"]:
        assert one.keys() == rows("cells")
        assert one["cell"].keys() == rows("cell")
    assert different["cell"]["real"][0].keys() == rows("read")
    assert different["differences"][0].keys() == rows("difference")


def test_json_gives_back_every_cell() -> None:
    found = [*one_of_each(), hostile()]
    text = document.render(found, RUN)
    assert text.isascii()
    whole = json.loads(text)
    assert [Cell.from_json(one["cell"]) for one in whole["cells"]] == [one.cell for one in found]
    assert whole["totals"] == {"same": 1, "different": 2, "broken": 1, "not run": 1}
    assert [one["outcome"] for one in whole["cells"]] == [str(one.outcome) for one in found]
    assert [one["reached"] for one in whole["cells"]] == ["L0", "L3", None, None, "L2"]
    assert whole["cells"][1]["differences"][0] == {
        "event": 0, "field": "pid", "real": "3859", "emulated": "3860"
    }  # fmt: skip
    assert whole["run"]["started"] == "2026-03-01T12:30:05+00:00"


def test_json_is_read_as_it_was_written() -> None:
    for cells in (one_of_each(), [hostile()], []):
        assert document.read(document.render(cells, RUN)) == (cells, RUN)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"v": 2, "run": {}, "cells": []}', '{"v": 1, "run": {}, "cells": []}'],
)
def test_json_of_something_else_is_refused(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        document.read(text)


def test_junit_tells_the_outcomes_apart() -> None:
    root = Xml.fromstring(junit.render(one_of_each(), RUN))
    first, second = root.iter("testsuite")
    counts = ("name", "tests", "failures", "errors", "skipped")
    assert [first.get(name) for name in counts] == ["6.12", "3", "1", "1", "0"]
    assert [second.get(name) for name in counts] == ["5.10", "1", "0", "0", "1"]
    same, different, broken = first
    assert (same.get("name"), same.get("classname")) == ("ext4_trigger", "compare.6.12")
    assert same.get("time") == "1.250"
    assert len(same) == 0
    assert [child.tag for child in different] == ["failure"]
    assert (different[0].text or "").splitlines()[0] == "event 0 pid: 3859 / 3860"
    assert [(child.tag, child.get("message")) for child in broken] == [
        ("error", "nothing failed: the kernel logged no message that matches EXT4-fs error")
    ]
    assert second[0][0].tag == "skipped"
    assert second[0][0].get("message") == "this kernel has no FAN_FS_ERROR: it refuses the mark"


def test_junit_of_hostile_text_can_be_parsed() -> None:
    text = junit.render([hostile()], RUN)
    root = Xml.fromstring(text.encode())
    assert [element.tag for element in root.iter()] == [
        *("testsuites", "testsuite", "testcase", "failure")
    ]
    (case,) = root.iter("testcase")
    assert case.get("name") == "<script>alert(1)</script>" + SEEN


@pytest.mark.parametrize("character", [*map(chr, range(32)), "\x7f", "\x85", "\u200b", "\ue000"])
def test_what_does_not_print_is_an_escape(character: str) -> None:
    shown = visible(f"a{character}b")
    if character in "\n\t":
        assert shown == f"a{character}b"
    else:
        assert re.fullmatch(r"a\\(x..|u....)b", shown)
        assert int(shown[3:-1], 16) == ord(character)


def test_page_of_hostile_text_has_no_tag_of_it() -> None:
    text = page.render([hostile()], RUN._replace(command=("fserr-bpf", HOSTILE)))
    text.encode()
    assert "<script" not in text
    assert "<img" not in text
    assert set(re.findall(r"[^\x20-\x7e\n]", text.partition("</style>")[2])) <= set("≠○→∅")
    assert "<script>alert(1)</script>" + SEEN in text_of(text)


def test_page_allows_its_style_and_nothing_else() -> None:
    text = page.render(one_of_each(), RUN)
    assert re.findall(r"(?:src|srcset|style|on\w+)=", text.partition("</style>")[2]) == []
    assert set(re.findall(r'href="(.)', text)) == {"#"}
    assert "url(" not in text
    assert "@import" not in text


def test_page_has_outcomes_in_order_and_a_way_to_run_each_again() -> None:
    text = page.render(one_of_each(), RUN)
    shown = text_of(text)
    headings = ["≠ 1 different", "! 1 broken", "○ 1 not run", "= 1 same"]
    at = [shown.rindex(heading) for heading in headings]
    assert at == sorted(at)
    assert text.count("<details open>") == 3
    assert "1 of 2 compared cells is different; 1 is broken." in shown
    again = "sudo fserr-bpf compare --kernel 5.10 --scenario ext4_trigger --stream native"
    assert again in shown
    assert "fserr-bpf compare --kernel 6.12 --scenario 'xfs_*'" in shown


def test_same_for_want_of_events_is_said() -> None:
    shown = text_of(
        page.render([judged(cell([b""], [b""])), judged(cell(scenario="ext4_htree"))], RUN)
    )
    assert shown.count("L0 ∅") == 2  # matrix and detail
    assert (
        shown.count("No event on either side, and none is due; the kernel log shows the fault.")
        == 1
    )


def test_own_kernel_is_run_again_with_its_modules() -> None:
    one = judged(cell(kernel="/boot/my kernel/bzImage"))
    run = RUN._replace(command=("fserr-bpf", "compare", "--modules", "/lib/my modules"))
    shown = text_of(page.render([one, judged(cell(kernel="here"))], run))
    assert (
        "sudo fserr-bpf compare --kernel '/boot/my kernel/bzImage' --modules '/lib/my modules' "
        "--scenario ext4_trigger --stream native"
    ) in shown
    assert "sudo fserr-bpf compare --here --scenario ext4_trigger --stream native" in shown


def test_each_byte_of_every_captured_event_is_in_one_field() -> None:
    for name, (data, _) in CAPTURED.items():
        (shown,) = streams([Read(4096, data)], [Read(4096, data)]).events
        assert shown.equal
        fields = [row for record in shown.records for row in record.rows]
        digits = "".join(run.digits for row in fields for run in row.sides[0].digits)
        assert bytes.fromhex(digits) == data, name
        assert all(len(row.sides) == 1 for row in fields)
        ends = [int(row.offset) for row in fields]
        assert ends == sorted(ends)


def fields_of(name: str) -> dict[str, tuple[str, str]]:
    """Offset and words of a captured event's fields by record and name."""
    (shown,) = streams([Read(4096, CAPTURED[name][0])], [Read(4096, CAPTURED[name][0])]).events
    return {
        f"{record.name}.{row.name}": (row.offset, row.sides[0].words)
        for record in shown.records
        for row in record.rows
    }


def test_fields_in_words() -> None:
    fields = fields_of("dead reporter, FAN_REPORT_FD_ERROR")
    assert fields["metadata.event_len"] == ("0", "64")
    assert fields["metadata.mask"] == ("8", "0x8000 FAN_FS_ERROR")
    assert fields["metadata.fd"] == ("16", "-9 EBADF")
    assert fields["metadata.pid"] == ("20", "3859")
    assert fields["FID.fsid"] == ("28", "88888888:88888888")
    assert fields["FID.handle_type"] == ("40", "0xff FILEID_INVALID")
    assert fields["PIDFD.pidfd"] == ("48", "-3 ESRCH")
    assert fields["ERROR.error"] == ("56", "117 EFSCORRUPTED")
    assert fields["ERROR.error_count"] == ("60", "1")
    assert fields_of("inode 14")["FID.f_handle"] == ("44", "ino 14 gen 1630451116")
    btrfs = fields_of("btrfs inode 257 of root 5")
    assert btrfs["FID.f_handle"] == ("44", "ino 257 gen 7 root 5")
    assert btrfs["ERROR.error"] == ("68", "-5 EIO")
    assert fields_of("overflow of a pidfd group")["PIDFD.pidfd"] == ("28", "-1 FAN_NOPIDFD")
    # the proposal has this type, and no record as short
    assert fields_of("unknown info record 8")["DETAILED.kind"] == ("60", "67305985")


def test_the_proposals_records_in_words() -> None:
    records = (
        "08002800 04000000 00000000 00000000 00100000 00000000 18000000 00000000 67452381 ffffffff"
        "09001400 9d130000 65787434 5f696765 74000000"
    )
    data = bytes.fromhex("74000000") + SB_ERROR[4:] + bytes.fromhex(records)
    (shown,) = streams([Read(4096, data)], [Read(4096, data)]).events
    fields = {
        f"{record.name}.{row.name}": (row.offset, row.sides[0].words)
        for record in shown.records
        for row in record.rows
    }
    assert fields["DETAILED.kind"] == ("60", "4 WRITEBACK")
    assert fields["DETAILED.length"] == ("72", "4096")
    assert fields["DETAILED.block"] == ("80", "0x18")
    assert fields["DETAILED.failaddr"] == ("88", "0xffffffff81234567")
    assert fields["LOCATION.line"] == ("100", "5021")
    assert fields["LOCATION.function"] == ("104", "ext4_iget")


def test_exactly_the_differing_bytes_are_marked() -> None:
    (shown,) = streams([Read(4096, SB_ERROR)], [Read(4096, OTHER_PID)]).events
    pairs = [row for record in shown.records for row in record.rows if len(row.sides) == 2]
    (pid,) = pairs
    assert [(run.digits, run.differs) for run in pid.sides[0].digits] == [
        ("13", True),
        ("0f0000", False),
    ]
    assert [side.words for side in pid.sides] == ["3859", "3860"]


def test_event_that_one_side_lacks_does_not_shift_the_others() -> None:
    shown = streams(
        [Read(4096, OVERFLOW + SB_ERROR + INODE_ERROR)], [Read(9, SB_ERROR + INODE_ERROR)]
    )
    assert [(event.number, event.equal) for event in shown.events] == [
        (0, False),
        (1, True),
        (2, True),
    ]
    assert shown.events[0].titles == ["FAN_Q_OVERFLOW, 24 bytes", "nothing"]
    marked = [run for r in shown.events[0].records for row in r.rows for run in row.sides[0].digits]
    assert all(run.differs for run in marked)
    assert shown.reads[0] == (1, "4096 | 9", "144 bytes, 3 events", "120 bytes, 2 events")


def test_reads_in_words() -> None:
    real = [Read(0, b"", errno.EINVAL), Read(56, SB_ERROR), Read(0, SB_ERROR)]
    emulated = [Read(0, b"", errno.EAGAIN), Read(56, SB_ERROR)]
    assert streams(real, emulated).reads == [
        (1, "0", "EINVAL", "EAGAIN"),
        (2, "56", "56 bytes, 1 event", "56 bytes, 1 event"),
        (3, "all", "56 bytes, 1 event", "no read"),
    ]


def test_what_is_no_event_is_shown_as_bytes() -> None:
    broken = SB_ERROR + b"\xab\xcd\xef"
    _, shown = streams([Read(4096, broken)], [Read(4096, SB_ERROR)]).events
    assert shown.titles[0].startswith("not an event (offset 56: ")
    (record,) = shown.records
    assert (record.name, [run.digits for run in record.rows[0].sides[0].digits]) == (
        "bytes",
        ["abcdef"],
    )


def test_what_is_left_out_is_counted() -> None:
    equal = [Read(0, SB_ERROR * 1000)]
    shown = streams(equal, equal)
    assert (len(shown.events), shown.more) == (8, ["992 more events that are equal"])
    shown = streams([Read(0, SB_ERROR * 50)], [Read(0, OTHER_PID * 40)])
    assert (len(shown.events), shown.more) == (32, ["18 more events that differ"])


def test_whole_matrix_stays_small() -> None:
    text = page.render(whole_matrix(), RUN)
    assert text.count('<div class="detail"') == 420
    assert len(text.encode()) < 4_000_000


def test_page_of_images_says_what_was_done_and_what_the_log_has_beyond() -> None:
    message = "EXT4-fs error (device loop0): ext4_mb_generate_buddy:1217: <b>"
    unheard = (Unheard("ext4_mb_generate_buddy", 2, message),)
    steps = ("mount -> 0", "read -> 0: 2 files; failed: EFSCORRUPTED x1")
    image = cell(scenario="a b.gz")._replace(
        trigger=steps, image="/x/a b.gz", fstype="ext4", unheard=unheard, mounting=3
    )
    alone = image._replace(scenario="b", witness=Witness.LOG, real=(), heard=(("x", 1),))
    text = page.render([judged(image), judge(alone, ())], RUN)
    assert "images of ext4" in text
    assert "read -&gt; 0: 2 files; failed: EFSCORRUPTED x1" in text
    assert (
        "sudo fserr-bpf compare --kernel 6.12 --images &#39;/x/a b.gz&#39; --stream native" in text
    )
    assert "Errors in the log of 6.12 without an event" in text
    assert "4<td>ext4_mb_generate_buddy<td>a b.gz and 1 more" in text
    assert "6 more are from before a mount was complete" in text
    assert "<b>" not in text
    assert "No group of the kernel sends this stream" in text
