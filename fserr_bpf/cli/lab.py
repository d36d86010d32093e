"""``fserr-bpf lab``: stock kernels fetched, and commands run under them in QEMU.

The lab is imported by the functions that need it: no other command should pay for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``lab list``, ``lab fetch`` and ``lab run`` to the command line."""
    lab = subparsers.add_parser("lab", help="run commands under other stock kernels")
    actions = lab.add_subparsers(dest="action", required=True, metavar="ACTION")

    listing = actions.add_parser("list", help="the known kernels, and which are fetched")
    listing.set_defaults(function=list_kernels)

    fetch = actions.add_parser("fetch", help="fetch a kernel, unless the cache has it")
    fetch.add_argument("--kernel", required=True, metavar="K", help="a name from lab list")
    fetch.add_argument(
        "--refresh", action="store_true", help="fetch what the archive has now in any case"
    )
    fetch.set_defaults(function=fetch_kernel)

    run = actions.add_parser("run", help="boot a kernel and run a command under it")
    run.add_argument(
        "--kernel",
        required=True,
        metavar="K",
        help="a name from lab list, or the path of a bzImage (with a slash)",
    )
    run.add_argument(
        "--modules",
        type=Path,
        metavar="DIR",
        help="lib/modules/RELEASE of a bzImage; default: 9p, overlay and virtio are built in",
    )
    run.add_argument("--timeout", type=float, default=300.0, metavar="S", help="seconds, with boot")
    run.add_argument(
        "--memory", default="2G", metavar="M", help="of the machine (default: %(default)s)"
    )
    run.add_argument(
        "--output", type=Path, metavar="DIR", help="gets what is put in $FSERR_LAB_OUTPUT"
    )
    run.add_argument("argv", nargs="+", metavar="COMMAND", help="after --: command and arguments")
    run.set_defaults(function=run_command)


def list_kernels(_arguments: argparse.Namespace) -> int:
    """Print a table: name, release in the cache or why there is none, reason."""
    from fserr_bpf_compare.machines import kernels, packages  # noqa: PLC0415
    from fserr_bpf_compare.machines.bootable import PATCHED  # noqa: PLC0415

    rows = []
    for kernel in kernels.KERNELS:
        image, why = packages.check(packages.cache_folder() / "kernels" / kernel.name)
        missing = "not fetched" if why == packages.ABSENT else f"damaged: {why}"
        rows.append((kernel.name, image.release if image else missing, kernel.reason))
    image, _ = packages.check(packages.cache_folder() / "kernels" / PATCHED)
    release = image.release if image else "not built"
    rows.append((PATCHED, release, "the series of kernel-patch/ on 6.12, by make kernel"))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, state, reason in rows:
        print(f"{name:{widths[0]}}  {state:{widths[1]}}  {reason}")
    return 0


def fetch_kernel(arguments: argparse.Namespace) -> int:
    """Print the release that is now in the cache."""
    from fserr_bpf_compare.machines import kernels, packages  # noqa: PLC0415

    kernel = kernels.find(arguments.kernel)
    print(packages.ensure(kernel, refresh=arguments.refresh).release)
    return 0


def run_command(arguments: argparse.Namespace) -> int:
    """Return the command's own exit status."""
    from fserr_bpf_compare.machines import vm  # noqa: PLC0415
    from fserr_bpf_compare.machines.bootable import bootable  # noqa: PLC0415

    return vm.run(
        bootable(arguments.kernel, arguments.modules),
        arguments.argv,
        timeout=arguments.timeout,
        memory=arguments.memory,
        output=arguments.output,
    )
