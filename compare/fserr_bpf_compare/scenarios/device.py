"""The scenario of a device that fails as a whole, for every file system."""

from __future__ import annotations

import errno

from fserr_bpf_compare.faults.fault import Expected
from fserr_bpf_compare.faults.mapper import DeviceFault, mapped
from fserr_bpf_compare.scenarios.scenario import Fixture, Need, Scenario, by_stream


def device_scenario(fault: DeviceFault, evidence: str, *errors: Expected) -> Scenario:
    """Mount through device-mapper, watch, fail; every stock kernel sends ``errors``.

    ``evidence`` names the device as ``dm-\\d+``.
    """

    def run(fixture: Fixture) -> None:
        fs = fixture.scratch(fault.fstype)
        fault.prepare(fs)
        device = fixture.enter(mapped(fs))
        fixture.watch(fs)
        fixture.record(fault.cause(fs, device))

    return Scenario(
        name=fault.name,
        area=fault.fstype,
        summary=fault.summary,
        run=run,
        # the series of kernel-patch/ does not send the end yet
        expected=by_stream(
            errors, errors, [e for e in fault.proposed if e.error != errno.ESHUTDOWN]
        ),
        evidence=evidence,
        needs=frozenset({Need.DEVICE_MAPPER}),
    )
