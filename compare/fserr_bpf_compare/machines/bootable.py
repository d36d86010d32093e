"""What a name on the command line boots: a kernel of the lab, our own, or the user's."""

from __future__ import annotations

from pathlib import Path

from fserr_bpf.errors import LabError, UsageError
from fserr_bpf_compare.machines import kernels, packages
from fserr_bpf_compare.machines.bzimage import own_image
from fserr_bpf_compare.machines.kernels import Kernel
from fserr_bpf_compare.machines.packages import Image

PATCHED = "patched"
"""The kernel with the series of ``kernel-patch/``, as ``make kernel`` leaves it in the cache."""


def bootable(name: str, modules: Path | None = None) -> Kernel | Image:
    """What vm.run() boots for ``name``; one with a slash is the path of a bzImage.

    Raises LabError for a name that is not known, a file that is no kernel, or a kernel
    that was not built; UsageError for modules of anything else than a bzImage.
    """
    if "/" in name:
        return own_image(Path(name), modules)
    if modules:
        raise UsageError("--modules is for a bzImage", "give its path with --kernel")
    if name != PATCHED:
        return kernels.find(name)
    image, why = packages.check(packages.cache_folder() / "kernels" / PATCHED)
    if image is None:
        cause = "was not built" if why == packages.ABSENT else f"is damaged: {why}"
        raise LabError(f"the patched kernel {cause}", "run make kernel")
    return image
