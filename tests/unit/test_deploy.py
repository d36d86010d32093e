"""What is for other systems: alerts with promtool, node-problem-detector's check with a harness.

The harness is node-problem-detector's documented protocol of custom plugins: the exit code, and at
most 80 bytes of standard output, in at most five seconds.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from fserr_bpf.group.statistics import Statistics
from fserr_bpf.model.event import EventId
from fserr_bpf.model.state import Condition, FilesystemState
from fserr_bpf.outputs.classes import MessageClass
from fserr_bpf.service.metrics import CONDITIONS, Metrics
from fserr_bpf.service.output import OutputState
from fserr_bpf.service.report import Counted, Identity, Report, message, to_json
from fserr_bpf.service.statefile import running_service
from fserr_bpf.uapi.dev import Dev

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus/fserr-bpf.rules.yml"
CHECK = DEPLOY / "node-problem-detector/check-fserr"
RUNBOOK = (DEPLOY.parent / "docs/runbook.md").read_text()


def state(condition: Condition, place: str = "/srv/mail") -> FilesystemState:
    return FilesystemState(Dev(7, 1), "loop1", "", (), "xfs", (place,), False, condition)


def report(*states: FilesystemState, pid: int = 1, time_ns: int | None = None) -> Report:
    return Report(
        identity=Identity(pid, "0.2.0", "6.12", "proposed", 1_700_000_000_000_000_000),
        time_ns=time.time_ns() if time_ns is None else time_ns,
        last=EventId("boot", 1, 7),
        blind={"the kernel has no kprobes": ["fatal btrfs errors"]},
        states=states,
        statistics=Statistics(2, 1, 0, {}, {"kprobe:x": 4}),
        errors={Counted(Dev(7, 1), "dm", "xfs", "/", "io"): 3},
        outputs=(OutputState('file /v"ar', 1, 2, 3, 4, "full"),),
        reload_failures=5,
    )


def checked(file: Path) -> tuple[int, str]:
    done = subprocess.run(
        ["dash", CHECK, file], capture_output=True, text=True, timeout=5, check=False
    )
    assert done.stderr == ""
    assert len(done.stdout.encode()) <= 81
    return done.returncode, done.stdout.removesuffix("\n")


LONG = "/srv/" + "x" * 200
OLD = 1_700_000_000_000_000_000


@pytest.mark.parametrize(
    ("shown", "code", "words"),
    [
        (report(), 0, "0 file systems are ok"),
        (report(state(Condition.OK), state(Condition.READ_ONLY)), 0, "2 file systems are ok"),
        (report(state(Condition.SHUTDOWN)), 1, "/srv/mail: shut down"),
        (report(state(Condition.OK), *[state(Condition.GONE, LONG)] * 3), 1, ": gone and 2 more"),
        (report(state(Condition.ERRORS, '/a"b\\c\nd')), 1, ": errors"),
    ],
)
def test_node_condition(shown: Report, code: int, words: str, tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(to_json(shown._replace(time_ns=time.time_ns())))
    line = message(shown)
    assert line.endswith(words)
    assert len(line) <= 80
    assert checked(file) == (code, json.dumps(line)[1:-1][:80])  # as it stands in the file


def test_nobody_knows(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    assert checked(file) == (2, f"fserr-bpf does not run: no {file}"[:80])
    file.write_bytes(to_json(report(time_ns=OLD)))
    code, said = checked(file)
    assert (code, said.startswith("fserr-bpf has not written for ")) == (2, True)
    for nonsense in (b"", b"{}\n", b"\xff\n", b"x" * 100_000):
        file.write_bytes(nonsense)
        assert checked(file)[0] == 2


def test_condition_that_is_permanent_clears() -> None:
    """By exit code 0 of the same rule; the plugin is one of those that may set a condition."""
    config = json.loads((CHECK.parent / "fserr-bpf.json").read_text())
    (rule,), (condition,) = config["rules"], config["conditions"]
    assert (config["plugin"], rule["type"]) == ("custom", "permanent")
    assert rule["condition"] == condition["type"]
    assert rule["path"].endswith(f"/{CHECK.name}")
    assert config["pluginConfig"]["max_output_length"] == 80
    assert rule["timeout"] == config["pluginConfig"]["timeout"] == "5s"


def test_rules_fire_and_clear() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool (apt install prometheus)")
    done = subprocess.run(
        ["promtool", "test", "rules", "fserr-bpf.test.yml"],
        cwd=RULES.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    names = set(re.findall(r"alert: (\w+)", RULES.read_text()))
    tested = set(re.findall(r"alertname: (\w+)", (RULES.parent / "fserr-bpf.test.yml").read_text()))
    assert names - tested == {"FilesystemEnded"}  # as FilesystemCorruption


def test_each_alert_has_its_page() -> None:
    sections = set(re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE))
    alerts = RULES.read_text().split("- alert:")[1:]
    for alert in alerts:
        for key in ("severity: ", "summary: ", "description: ", "runbook_url: "):
            assert key in alert
        (section,) = re.findall(r"/runbook\.md#(\w+)$", alert, re.MULTILINE)
        assert section in sections


def test_rules_ask_for_metrics_that_exist() -> None:
    text = Metrics(lambda: report(state(Condition.SHUTDOWN))).text().decode()
    shown = set(re.findall(r"^(fserr_\w+?)(?:\{| )", text, re.MULTILINE))
    asked = set(re.findall(r"fserr_\w+", " ".join(re.findall(r"expr: .*", RULES.read_text()))))
    assert len(asked) >= 4
    assert asked <= shown
    documented = (DEPLOY.parent / "docs/service.md").read_text()
    assert {name for name in shown if not name.endswith("_created")} <= set(
        re.findall(r"fserr_\w+", documented)
    )


def test_metrics_of_a_state_and_its_errors() -> None:
    """Labels are those of the state, whatever the device was called in the error."""
    text = Metrics(lambda: report(state(Condition.SHUTDOWN))).text().decode()
    where = 'device="loop1",fstype="xfs",mountpoint="/srv/mail"'
    assert f"fserr_filesystem_state{{{where}}} {CONDITIONS.index(Condition.SHUTDOWN)}.0\n" in text
    for kind, number in ((MessageClass.IO, 3), (MessageClass.CORRUPTION, 0)):
        assert f'fserr_errors_total{{class="{kind}",{where}}} {number}.0\n' in text
    assert 'fserr_output_lost_total{output="file /v\\"ar"} 3.0\n' in text
    assert Metrics(lambda: None).text() == b""


def test_status_believes_a_service_that_runs(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    shown = report(state(Condition.SHUTDOWN))
    file.write_bytes(to_json(shown))
    found = running_service(str(tmp_path))
    assert found is not None
    assert found.states == shown.states
    assert found.about["last"] == {"boot_id": "boot", "run": 1, "seq": 7}
    assert found.in_words().endswith(
        '3 errors seen, 0 dropped, 3 messages lost by outputs; file /v"ar fails: full'
    )
    for wrong in (
        to_json(report(pid=2**22 + 1)),
        to_json(report(time_ns=OLD)),
        b"{}",
        b"",
        to_json(shown).replace(b'"v": 1', b'"v": 2'),
        to_json(shown).replace(b'"shut down"', b'"so so"'),
    ):
        file.write_bytes(wrong)
        assert running_service(str(tmp_path)) is None
