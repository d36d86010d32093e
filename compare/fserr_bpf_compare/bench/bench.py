"""``make bench``: the numbers of the product on this machine, beside what they should be.

Nothing here fails when a number is bad: it says so in the last column. Floods run on
ext4, on this kernel and, where it has no kprobes, in the lab on one that has.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from fserr_bpf.codec.fanotify import Decoder, encode
from fserr_bpf.errors import FserrError, LabError
from fserr_bpf.kernel.bpf import KPROBE_PMU
from fserr_bpf.model.event import FileHandle, FsErrorEvent, Fsid
from fserr_bpf.uapi.exportfs import FILEID_INO32_GEN
from fserr_bpf_compare.bench import execbench, flood, latency, symbolbench
from fserr_bpf_compare.bench.flood import Outcome
from fserr_bpf_compare.bench.measured import measured
from fserr_bpf_compare.faults.scratch import scratch
from fserr_bpf_compare.machines import kernels, vm

_STARTS = 5
_IDLE = 3.0  # seconds
_ERRORS = 200_000
_EVENTS = 100_000
_READ_SIZE = 65536
_LAB_KERNEL = "6.12"
_LAB_TIMEOUT = 400.0  # seconds, with the boot
_COLD_TARGET, _WARM_TARGET = 12.0, 5.0  # times as long as Python alone
_MEMORY_TARGET, _SHARE_TARGET = 40e6, 20e6  # bytes
_CODEC_TARGET = 300_000  # events per second


@dataclass(frozen=True)
class Row:
    """A line of the table; ``value`` is the bare number, ``ok`` None without a target."""

    name: str
    measured: str
    target: str
    ok: bool | None
    value: float | None


def _memory(name: str, size: int, most: float = _MEMORY_TARGET) -> Row:
    text, target = f"{size / 1e6:.1f} MB", f"at most {most / 1e6:.0f} MB"
    return Row(name, text, target, size <= most, size)


def _start(name: str, seconds: Sequence[float], alone: float, most: float) -> Row:
    middle = statistics.median(seconds)
    times = middle / alone
    text = f"{middle:.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), {times:.1f}x"
    return Row(name, text, f"at most {most:g}x", times <= most, times)


def _starts_and_idle() -> Iterator[Row]:
    alone, cold, warm, cpu = [], [], [], []
    with scratch("ext4") as fs, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(_STARTS):
            begin = time.monotonic()
            subprocess.run([sys.executable, "-c", "pass"], check=True)
            alone.append(time.monotonic() - begin)
            before = _children_cpu()
            cache = folder / str(number)
            with measured(fs.mount_point, folder / "events", cache) as monitor:
                cold.append(monitor.started)
                monitor.stop()
            cpu.append(_children_cpu() - before)
            with measured(fs.mount_point, folder / "events", cache) as monitor:
                warm.append(monitor.started)
                if len(warm) == _STARTS:
                    wake_ups = monitor.wake_ups(_IDLE)
                    memory = [monitor.memory(field) for field in ("VmHWM", "VmRSS")]
                    share = monitor.share_of_memory()
                monitor.stop()
    python = statistics.median(alone)
    yield Row("python3 -c pass", f"{python * 1e3:.0f} ms", "-", None, python)
    yield _start("start, compiling", cold, python, _COLD_TARGET)
    yield Row("  its CPU, with compiler and end", f"{min(cpu):.2f} s", "-", None, min(cpu))
    yield _start("start from the cache", warm, python, _WARM_TARGET)
    yield _memory("  highest memory (RSS)", memory[0])
    yield _memory("memory, idle (RSS)", memory[1])
    yield _memory("memory, idle (PSS)", share, _SHARE_TARGET)
    text = "mounts never at rest" if wake_ups is None else str(wake_ups)
    yield Row(f"wake-ups in {_IDLE:g} s without errors", text, "0", wake_ups == 0, wake_ups)


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _codec() -> Row:
    handles = [FileHandle(FILEID_INO32_GEN, ino.to_bytes(8, "little")) for ino in range(_EVENTS)]
    data = b"".join(encode(FsErrorEvent(Fsid(1, 2), handle, 117, 1, 42)) for handle in handles)
    best = min(_recode(data) for _ in range(_STARTS))
    rate = _EVENTS / best
    target = f"at least {_CODEC_TARGET:,}/s"
    return Row("decode + encode, one core", f"{rate:,.0f}/s", target, rate >= _CODEC_TARGET, rate)


def _recode(data: bytes) -> float:
    """CPU seconds for bytes to events to bytes, in pieces as read(2) gives them."""
    begin = time.process_time()
    decoder = Decoder()
    for offset in range(0, len(data), _READ_SIZE):
        for event in decoder.feed(data[offset : offset + _READ_SIZE]):
            encode(event)
    decoder.close()
    return time.process_time() - begin


def _flood_rows(name: str, outcome: Outcome) -> Iterator[Row]:
    text = f"{outcome.summed:,} in {outcome.events:,} events"
    target = f"{outcome.injected:,} accounted for"
    yield Row(f"flood: {name}", text, target, outcome.accounted, outcome.summed)
    if lost := outcome.injected - outcome.summed:
        text = f"{lost:,}; ring full {outcome.ring_full:,}, {outcome.overflows} overflow records"
        yield Row("  not in events", text, "-", None, lost)
    rate = outcome.injected / outcome.seconds
    share = 1e6 * outcome.cpu / outcome.injected
    yield Row("  speed", f"{rate:,.0f}/s, monitor's CPU {share:.1f} us each", "-", None, rate)


def _lab_flood() -> Outcome:
    command = [sys.executable, "-m", "fserr_bpf_compare.bench.flood", "trigger", str(_ERRORS)]
    answer = io.BytesIO()
    kernel = kernels.find(_LAB_KERNEL)
    status = vm.run(kernel, command, timeout=_LAB_TIMEOUT, stdout=answer)
    if status:
        raise LabError(f"flood in the lab: ended with status {status}")
    return Outcome(**json.loads(answer.getvalue()))


def _latency_row(name: str) -> Row:
    found = latency.latency()
    text = f"{found.median * 1e3:.2f} ms, p99 {found.p99 * 1e3:.1f} ms"
    return Row(name, text, "-", None, found.median)


def _symbol_rows() -> Iterator[Row]:
    kernel = kernels.find(_LAB_KERNEL)
    with latency.resolving(symbolbench.debug_tree(kernel)):
        yield _latency_row("  while places are resolved")
    for module in symbolbench.MODULES:
        found = symbolbench.measure(kernel, module)
        name = f"{_LAB_KERNEL} {module or 'vmlinux'}"
        target = f"at most {symbolbench.FIRST_TARGET:g} s"
        ok = found.first <= symbolbench.FIRST_TARGET
        yield Row(f"first place, {name}", f"{found.first:.2f} s", target, ok, found.first)
        text = f"{found.later * 1e3:.2f} ms, slowest {found.slowest * 1e3:.1f}"
        target = f"at most {symbolbench.LATER_TARGET * 1e3:g} ms"
        ok = found.later <= symbolbench.LATER_TARGET
        yield Row("  later ones", text, target, ok, found.later)
        text = f"{found.memory / 1e6:.0f} MB"
        target = f"at most {symbolbench.MEMORY_TARGET / 1e6:.0f} MB"
        ok = found.memory <= symbolbench.MEMORY_TARGET
        yield Row("  memory of the worker", text, target, ok, found.memory)


def _exec_rows() -> Iterator[Row]:
    asking, times = execbench.measure()
    native = times["native"]
    text = f"{asking / 1e3:.1f} us"
    yield Row("a mark that is asked about", text, "-", None, asking)
    for name, found in times.items():
        emulated = found is not native
        for what, value, least, times_of in (
            ("fanotify_init", found.init, native.init, execbench.INIT_TARGET),
            ("first mark for errors", found.mark, asking, execbench.CALL_TARGET),
            ("mark for other events", found.ordinary, asking, execbench.CALL_TARGET),
        ):
            ok = value <= times_of * least if emulated else None
            target = f"at most {times_of * least / 1e3:.1f} us" if emulated else "-"
            yield Row(f"{name}: {what}", f"{value / 1e3:.1f} us", target, ok, value)
        slower = found.other - native.other
        ok = slower <= execbench.OTHER_TARGET if emulated else None
        target = f"at most {execbench.OTHER_TARGET} ns more" if emulated else "-"
        yield Row("  other system calls", f"{found.other:.0f} ns", target, ok, found.other)
        ok = found.event_p99 <= execbench.EVENT_TARGET if emulated else None
        target = f"p99 at most {execbench.EVENT_TARGET / 1e6:.0f} ms" if emulated else "-"
        text = f"{found.event / 1e6:.2f} ms, p99 {found.event_p99 / 1e6:.1f} ms"
        yield Row("  from error to read", text, target, ok, found.event_p99)


def rows(*, lab: bool) -> Iterator[Row]:
    """Measure; a row comes as soon as it is known. Raises FserrError."""
    yield from _starts_and_idle()
    yield _codec()
    kprobes = KPROBE_PMU.exists()
    by = "kprobes" if kprobes else "kernel's group"
    trigger = flood.run("trigger", _ERRORS)
    yield from _flood_rows(f"ext4, {by}", trigger)
    writeback = flood.run("writeback", _ERRORS)
    yield from _flood_rows("writeback, ring", writeback)
    yield _memory("memory, highest in the floods", max(trigger.memory, writeback.memory))
    if lab and not kprobes:
        yield from _flood_rows(f"ext4, kprobes of {_LAB_KERNEL}", _lab_flood())
    yield _latency_row("from error to output")
    yield from _exec_rows()
    if lab or symbolbench.debug_cached(kernels.find(_LAB_KERNEL)):
        yield from _symbol_rows()


def machine() -> list[str]:
    """What the numbers depend on, in two lines."""
    models = (
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    probes = "kprobes" if KPROBE_PMU.exists() else "no kprobes"
    return [
        f"{date.today()}, {os.cpu_count()} x {next(models, platform.machine())},"
        f" load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}",
        f"Linux {platform.release()}, {probes}; lab: {_LAB_KERNEL} under {vm.accelerator()[1]}",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 0 even if a number is bad, else the code of the FserrError."""
    parser = argparse.ArgumentParser(prog="fserr_bpf_compare.bench.bench", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    parser.add_argument("--no-lab", action="store_true", help="only on this kernel")
    arguments = parser.parse_args(argv)
    about, found = machine(), []
    print(*about, "", sep="\n")
    print(f"{'':32} {'measured':38} {'target':22} ok")
    try:
        for row in rows(lab=not arguments.no_lab):
            ok = {True: "yes", False: "NO", None: "-"}[row.ok]
            print(f"{row.name:32} {row.measured:38} {row.target:22} {ok}", flush=True)
            found.append(asdict(row))
    except FserrError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": about, "rows": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
