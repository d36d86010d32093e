"""The faults that make file systems report real errors, as one table.

Use: ``with scratch(fault.fstype) as fs: fault.prepare(fs)``, open the groups, then
``fault.cause(fs)``. Preparing corrupts the unmounted file system and leaves it
freshly mounted; causing runs the operation that trips over the corruption, in a
process of its own, so that every fault has its own pid.

Several faults can share a file system that was made with the ``mkfs_options`` of
all: ``damage`` it for each instead of preparing it. Damage that stops allocation
(xfs_agf) has to come last, and the cause that cuts the device (writeback) too.
"""

from __future__ import annotations

from fserr_bpf_compare.faults import ext4, writeback, xfs
from fserr_bpf_compare.faults.fault import Fault

FAULTS: tuple[Fault, ...] = (*ext4.FAULTS, *xfs.FAULTS, *writeback.FAULTS)
