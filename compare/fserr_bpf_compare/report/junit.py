"""``junit.xml``: a test suite per kernel, a test case per scenario.

Different is a failure, broken an error, not run a skip.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as Xml

from fserr_bpf_compare.report import terminal
from fserr_bpf_compare.report.run import Run
from fserr_bpf_compare.report.text import visible
from fserr_bpf_compare.verdict.cells import Judged, Outcome

_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>'
_ELEMENTS = {Outcome.DIFFERENT: "failure", Outcome.BROKEN: "error", Outcome.NOT_RUN: "skipped"}


def render(judged: Sequence[Judged], run: Run) -> str:
    """The document; what XML 1.0 cannot hold is escaped as ``\\x1b``."""
    root = Xml.Element("testsuites", name="fserr-bpf compare", time=f"{run.seconds:.3f}")
    for kernel in dict.fromkeys(one.cell.kernel for one in judged):
        cases = [one for one in judged if one.cell.kernel == kernel]
        suite = Xml.SubElement(
            root,
            "testsuite",
            name=visible(kernel),
            tests=str(len(cases)),
            failures=_count(cases, Outcome.DIFFERENT),
            errors=_count(cases, Outcome.BROKEN),
            skipped=_count(cases, Outcome.NOT_RUN),
            time=f"{sum(one.cell.seconds for one in cases):.3f}",
            timestamp=run.started.strftime("%Y-%m-%dT%H:%M:%S"),
        )
        for one in cases:
            _case(suite, one)
    Xml.indent(root)
    return f"{_DECLARATION}\n{Xml.tostring(root, encoding='unicode')}\n"


def _count(cases: Sequence[Judged], outcome: Outcome) -> str:
    return str(sum(one.outcome is outcome for one in cases))


def _case(suite: Xml.Element, judged: Judged) -> None:
    cell = judged.cell
    case = Xml.SubElement(
        suite,
        "testcase",
        classname=visible(f"compare.{cell.kernel}"),
        name=visible(cell.scenario),
        time=f"{cell.seconds:.3f}",
    )
    if judged.outcome in _ELEMENTS:
        why = visible(terminal.reason(judged))
        Xml.SubElement(case, _ELEMENTS[judged.outcome], message=why).text = visible(_all(judged))


def _all(judged: Judged) -> str:
    lines = [judged.reason] if judged.reason else []
    for d in judged.differences:
        where = f"event {d.event} " if d.event >= 0 else ""
        lines.append(f"{where}{d.field}: {d.real} / {d.emulated}")
    return "\n".join((*lines, *judged.cell.missing))
