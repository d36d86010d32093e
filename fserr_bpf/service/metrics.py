"""A report as metrics for Prometheus; alone has prometheus-client."""

from __future__ import annotations

from collections import Counter as CountedErrors
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import Metric

from fserr_bpf.model.state import Condition
from fserr_bpf.outputs.classes import MessageClass
from fserr_bpf.service.report import Report
from fserr_bpf.uapi.dev import Dev

ERRORS = (MessageClass.CORRUPTION, MessageClass.IO, MessageClass.ENDED)
"""Classes that errors are of."""
CONDITIONS = tuple(Condition)
"""The value of fserr_filesystem_state is the place in it; the last two of them need no alert."""


class Metrics:
    """``registry`` shows what ``newest`` returns, None for nothing yet."""

    def __init__(self, newest: Callable[[], Report | None]) -> None:
        self._newest = newest
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """The families of metrics now; called by the registry."""
        report = self._newest()
        return _families(report) if report else ()

    def text(self) -> bytes:
        """In the text format."""
        return generate_latest(self.registry)


def _families(report: Report) -> Iterable[Metric]:
    names = ["device", "fstype", "mountpoint"]
    conditions = ", ".join(f"{value} {name}" for value, name in enumerate(CONDITIONS))
    state = Gauge("fserr_filesystem_state", f"How it is now: {conditions}.", labels=names)
    shown: dict[Dev | None, tuple[str, str, str]] = {}
    # from 0 on: what begins with its first error is no increase for Prometheus
    numbers = CountedErrors[tuple[str, ...]]()
    for each in report.states:
        place = each.mount_points[0] if each.mount_points else ""
        shown[each.dev] = (each.device, each.fstype, place)
        state.add_metric(list(map(_label, shown[each.dev])), CONDITIONS.index(each.condition))
        for kind in ERRORS:
            numbers[*shown[each.dev], str(kind)] += 0
    yield state
    errors = Counter("fserr_errors", "Errors in delivered events.", labels=[*names, "class"])
    for counted, number in report.errors.items():
        numbers[*shown.get(counted.dev, counted[1:4]), counted.kind] += number
    for labels, number in numbers.items():
        errors.add_metric(list(map(_label, labels)), number)
    yield errors
    yield from _own(report)


def _own(report: Report) -> Iterable[Metric]:
    """About the service itself."""
    who, statistics = report.identity, report.statistics
    info = Gauge("fserr_build_info", "Always 1.", labels=["version", "kernel", "stream"])
    info.add_metric([who.version, who.kernel, who.stream], 1)
    yield info
    yield Gauge("fserr_armed_timestamp_seconds", "Errors are seen since then.", who.since_ns / 1e9)
    yield Counter("fserr_messages", "Messages so far in this boot.", report.last.seq)
    outcome = Counter(
        "fserr_monitor_errors",
        "Errors that reached a probe, by what became of them.",
        labels=["outcome"],
    )
    outcome.add_metric(["delivered"], statistics.delivered)
    outcome.add_metric(["merged"], statistics.merged)
    for reason, number in statistics.dropped.items():
        outcome.add_metric([str(reason)], number)
    yield outcome
    missed = Counter("fserr_probe_missed", "Runs that the kernel skipped.", labels=["probe"])
    for probe, number in statistics.missed.items():
        missed.add_metric([probe], number)
    yield missed
    yield Gauge(
        "fserr_deaf_gaps", "Times in which kprobes were switched off.", len(statistics.gaps)
    )
    blind = Gauge("fserr_blind", "1 for what this kernel hides.", labels=["what"])
    for what in sorted({each for hidden in report.blind.values() for each in hidden}):
        blind.add_metric([what], 1)
    yield blind
    waiting = Gauge("fserr_output_queue", "Messages that wait.", labels=["output"])
    works = Gauge("fserr_output_up", "0 while it fails.", labels=["output"])
    sent = Counter("fserr_output_sent", "Messages delivered.", labels=["output"])
    lost = Counter("fserr_output_lost", "Messages lost.", labels=["output"])
    failures = Counter("fserr_output_failures", "Failed attempts.", labels=["output"])
    for output in report.outputs:
        name = [_label(output.name)]
        waiting.add_metric(name, output.waiting)
        works.add_metric(name, 0 if output.trouble else 1)
        sent.add_metric(name, output.sent)
        lost.add_metric(name, output.lost)
        failures.add_metric(name, output.failures)
    yield from (waiting, works, sent, lost, failures)
    yield Counter("fserr_config_reload_failures", "Configurations refused.", report.reload_failures)


def _label(text: str) -> str:
    """Bytes of names that are no UTF-8 are shown as ?: a scrape must not fail for one."""
    return text.encode("utf-8", "replace").decode()
