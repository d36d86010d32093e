"""What there is to say of each mounted file system: its state, and whether it can be watched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fserr_bpf.doctor.finding import Finding, Level
from fserr_bpf.errors import FserrError, PrivilegeError
from fserr_bpf.kernel import syscalls
from fserr_bpf.kernel.handles import check_markable
from fserr_bpf.model.state import Condition, FilesystemState
from fserr_bpf.state.superblocks import Superblock

_REPAIR = {
    "ext2": "unmount it and run e2fsck -f on {device}",
    "ext3": "unmount it and run e2fsck -f on {device}",
    "ext4": "unmount it and run e2fsck -f on {device}",
    "xfs": "unmount it, mount and unmount it once to replay its log, run xfs_repair on {device}",
    "btrfs": "look at btrfs device stats and run btrfs scrub; once mended, device stats --reset",
    "f2fs": "unmount it and run fsck.f2fs on {device}",
}
_OTHERWISE = "unmount it and check {device} with the tool of its file system"
_Fsid = tuple[int, int]


def look_at_filesystems(
    found: Sequence[Superblock], states: Sequence[FilesystemState]
) -> Iterator[Finding]:
    """Of each in ``found``, with its state at the same place in ``states``."""
    fsids = [_fsid_of(superblock) for superblock in found]
    for superblock, state, fsid in zip(found, states, fsids, strict=True):
        place = state.mount_points[0]
        yield _state(place, state)
        if superblock.visible is None:
            remedy = "mount it at a second place too"
            yield Finding(Level.NOTE, place, "another mount hides it: it is not watched", remedy)
            continue
        yield _markable(place, superblock.visible.mount_point)
        twins = [
            other.mount_points[0]
            for other, theirs in zip(states, fsids, strict=True)
            if fsid and any(fsid) and theirs == fsid and other.dev != state.dev
        ]
        if twins:
            words = f"its fsid is that of {', '.join(twins)}: raw events do not distinguish them"
            remedy = "give one of them a new UUID, as tune2fs -U random or xfs_admin -U generate do"
            yield Finding(Level.PROBLEM, place, words, remedy)


def _state(place: str, state: FilesystemState) -> Finding:
    names = f"{state.device} ({state.mapper})" if state.mapper else state.device
    below = f" on {', '.join(state.below)}" if state.below else ""
    reason = f"; {state.reason}" if state.reason else ""
    words = f"{state.fstype} on {names}{below}: {state.condition}{reason}"
    if state.ok:
        return Finding(Level.OK, place, words)
    if state.condition is Condition.GONE:
        return Finding(Level.PROBLEM, place, words, "unmount it, and replace the device")
    if state.condition is Condition.UNKNOWN:
        remedy = "" if state.hidden else "look at its device and at the kernel log"
        level = Level.NOTE if state.hidden else Level.PROBLEM
        return Finding(level, place, words, remedy)
    remedy = _REPAIR.get(state.fstype, _OTHERWISE).format(device=f"/dev/{state.device}")
    return Finding(Level.PROBLEM, place, words, remedy)


def _fsid_of(superblock: Superblock) -> _Fsid | None:
    mount = superblock.visible
    try:
        return syscalls.statfs(mount.mount_point).f_fsid if mount else None
    except OSError:
        return None


def _markable(place: str, path: str) -> Finding:
    try:
        check_markable(path)
    except PrivilegeError as error:
        return Finding(Level.NOTE, place, "whether it can be watched is not known", error.remedy)
    except FserrError as error:
        words = f"it cannot be watched: {error.cause.removeprefix(f'{path}: ')}"
        return Finding(Level.PROBLEM, place, words, error.remedy)
    return Finding(Level.OK, place, "the kernel takes a mark on it")
