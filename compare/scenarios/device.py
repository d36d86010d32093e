"""The scenario of a device that fails as a whole, for every file system."""

from __future__ import annotations

from compare.faults.fault import Expected
from compare.mapper import DeviceFault, mapped
from compare.scenario import Need, Scenario, Stage, by_stream


def device_scenario(fault: DeviceFault, evidence: str, *errors: Expected) -> Scenario:
    """Mount through device-mapper, watch, fail; every stock kernel sends ``errors``.

    ``evidence`` names the device as ``dm-\\d+``.
    """

    def play(stage: Stage) -> None:
        fs = stage.scratch(fault.fstype)
        fault.prepare(fs)
        device = stage.enter(mapped(fs))
        stage.watch(fs)
        stage.caused(fault.cause(fs, device))

    return Scenario(
        name=fault.name,
        area=fault.fstype,
        summary=fault.summary,
        play=play,
        expected=by_stream(errors, errors, fault.proposed),
        evidence=evidence,
        needs=frozenset({Need.DEVICE_MAPPER}),
    )
