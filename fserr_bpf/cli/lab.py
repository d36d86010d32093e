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

    listing = actions.add_parser("list", help="the known kernels and what is in the cache")
    listing.set_defaults(function=list_kernels)

    fetch = actions.add_parser("fetch", help="fetch a kernel, unless the cache has it")
    fetch.add_argument("--kernel", required=True, metavar="K", help="a name from lab list")
    fetch.set_defaults(function=fetch_kernel)

    run = actions.add_parser("run", help="boot a kernel and run a command under it")
    run.add_argument("--kernel", required=True, metavar="K", help="a name from lab list")
    run.add_argument("--timeout", type=float, default=300.0, metavar="S", help="seconds, with boot")
    run.add_argument("--memory", default="2G", help="of the machine (default: %(default)s)")
    run.add_argument(
        "--output", type=Path, metavar="DIR", help="gets what is put in $FSERR_LAB_OUTPUT"
    )
    run.add_argument("argv", nargs="+", metavar="COMMAND", help="after --: command and arguments")
    run.set_defaults(function=run_command)


def list_kernels(_arguments: argparse.Namespace) -> int:
    """Print name, release in the cache or why there is none, and reason, tab-separated."""
    from compare import kernels, packages  # noqa: PLC0415

    for kernel in kernels.KERNELS:
        image, why = packages.check(packages.cache_folder() / "kernels" / kernel.name)
        state = image.release if image else f"not cached ({why})"
        print(kernel.name, state, kernel.reason, sep="\t")
    return 0


def fetch_kernel(arguments: argparse.Namespace) -> int:
    """Print the release that is now in the cache."""
    from compare import kernels, packages  # noqa: PLC0415

    print(packages.ensure(kernels.find(arguments.kernel)).release)
    return 0


def run_command(arguments: argparse.Namespace) -> int:
    """Return the command's own exit status."""
    from compare import kernels, vm  # noqa: PLC0415

    return vm.run(
        kernels.find(arguments.kernel),
        arguments.argv,
        timeout=arguments.timeout,
        memory=arguments.memory,
        output=arguments.output,
    )
