"""The compiler's process: text to instructions by bcc.

bcc maps LLVM, some 70 MB that the monitor must not carry, so it lives here. Run by
``children.spawn`` with the arguments ``[detail] [places]``: over the channel one message goes
back, and the descriptor of a file in memory that has the programs.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Collection, Sequence
from ctypes import c_char_p, c_size_t, c_void_p
from pathlib import Path
from typing import Any

from fserr_bpf.children.channel import channel_to_parent
from fserr_bpf.errors import BccError, FserrError
from fserr_bpf.kernel.bpf import MapDefinition, definition_of
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.btf import Btf
from fserr_bpf.probes.headers import kernel_types, version_code
from fserr_bpf.probes.programs import Programs, replace_maps
from fserr_bpf.probes.table import PROBES, Kernel, candidates, wanted
from fserr_bpf.probes.target import (
    DETAIL,
    HEADERS,
    MODULES,
    PLACES,
    SOURCES,
    Target,
    sources,
)

APT_LINE = "install python3-bpfcc with apt, and run fserr-bpf with Debian's /usr/bin/python3"


def program_text(types: str, functions: Collection[str]) -> str:
    """``types`` and all C sources as one text; of the probes' functions ``functions`` are kept.

    bcc rewrites map operations in the main text only, not in what it includes. The
    other functions become static: the compiler checks them and generates nothing,
    which saves a quarter of the start-up.
    """
    known = {a.function for spec in PROBES for a in spec.attachments}
    unused = "".join(
        f"#define {name} __attribute__((unused)) static {name}\n"
        for name in sorted(known.difference(functions))
    )
    head = f"#include <linux/ptrace.h>\n{types}"
    folder = sources()
    texts = [f'#line 1 "{name}"\n{(folder / name).read_text()}' for name in (*HEADERS, *SOURCES)]
    return "".join([head, unused, *texts])


def import_bcc() -> Any:
    """Debian's bcc module; BccError when it is missing or PyPI's unrelated one."""
    try:
        bcc = importlib.import_module("bcc")
    except ImportError as error:
        raise BccError(f"bcc cannot be imported ({error})", APT_LINE) from None
    if not hasattr(bcc, "BPF"):
        raise BccError(
            f"the module bcc at {bcc.__file__} is not the BPF Compiler Collection",
            f"remove it (pip uninstall bcc) and {APT_LINE}",
        )
    return bcc


def installed_compiler() -> str | None:
    """The compiler's name and version, without importing it; None where there is none."""
    spec = importlib.util.find_spec("bcc")
    if spec is None or not spec.submodule_search_locations:
        return None
    version = Path(spec.submodule_search_locations[0], "version.py")
    found = re.search(r"'([^']+)'", version.read_text()) if version.exists() else None
    return f"bcc {found[1] if found else 'of an unknown version'}"


def compile_programs(target: Target) -> Programs:
    """The programs of ``target``. Raises KernelError and BccError.

    bcc makes the maps, to have descriptors for the instructions: this takes CAP_SYS_ADMIN.
    """
    bcc = import_bcc()
    key = target.key()
    vmlinux = Btf(target.btf)
    btf = {"": vmlinux} | {
        name: Btf(target.btf, name, vmlinux) if target.has_btf(name) else vmlinux
        for name in MODULES
    }
    abort = _has_ext4_abort(btf["ext4"], running=target.running)
    text = kernel_types(btf, abort=abort, trace_fields=target.needs_tracefs)
    have = {line.split()[1] for line in text.splitlines() if line.startswith("#define HAVE_")}
    kernel = Kernel(
        kprobes=target.kprobes,
        fserror="HAVE_fserror_event_work" in have,
        abort=abort,
        sick=btf["xfs"].parameters("xfs_btree_mark_sick") is not None,
        gate="HAVE_ext4_sb_info_s_ext4_flags" in have,
    )
    types = {need for spec in PROBES for need in spec.needs if f"HAVE_{need}" in have}
    if target.detail:
        text += "#define FSERR_DETAIL 1\n"
    if target.places:
        text += "#define FSERR_PLACES 1\n"
    if target.pid_namespace:
        text += f"#define FSERR_PID_NAMESPACE {target.pid_namespace}U\n"
    probes = frozenset[Any]().union(*(wanted(stream, kernel) for stream in Stream))
    functions = {
        attachment.function
        for spec in PROBES
        if spec.probe in probes
        for attachment in candidates(spec, types, kprobes=kernel.kprobes)
    }
    maps, code = _compile(bcc, program_text(text, functions), target.release)
    return Programs(key, installed_compiler() or "bcc", kernel, frozenset(types), maps, code)


def _has_ext4_abort(ext4: Btf, *, running: bool) -> bool:
    """Whether ext4 has __ext4_abort(); by name where its module carries no BTF."""
    if ext4.parameters("__ext4_error") is not None or not running:
        return ext4.parameters("__ext4_abort") is not None
    return b" __ext4_abort\t" in Path("/proc/kallsyms").read_bytes()


def _compile(
    bcc: Any, text: str, release: str
) -> tuple[dict[str, MapDefinition], dict[str, bytes]]:
    """Maps and instructions, of which each map is named by its position among the maps."""
    # a kernel source tree in the eyes of bcc: the fixed headers are all of it
    os.environ["BCC_KERNEL_SOURCE"] = str(sources())
    version = f"-DLINUX_VERSION_CODE={version_code(release)}"
    try:
        # debug information would take 70 ms; it names source lines for the verifier
        module = bcc.BPF(text=text, cflags=["-g0", version])
    except Exception as error:  # bcc raises bare Exception
        raise BccError(
            f"bcc could not compile the probes ({error})",
            "run it again with fserr-bpf --debug, and report the compiler's messages",
        ) from error
    handle, lib = module.module, bcc.lib
    # bcc's Python does not declare these two (libbcc's bcc_common.h)
    lib.bpf_num_tables.restype, lib.bpf_num_tables.argtypes = c_size_t, [c_void_p]
    lib.bpf_table_name.restype, lib.bpf_table_name.argtypes = c_char_p, [c_void_p, c_size_t]
    names = [lib.bpf_table_name(handle, i) for i in range(lib.bpf_num_tables(handle))]
    descriptors = [lib.bpf_table_fd(handle, name) for name in names]
    maps = {name.decode(): definition_of(fd) for name, fd in zip(names, descriptors, strict=True)}
    positions = {fd: position for position, fd in enumerate(descriptors)}
    functions = [lib.bpf_function_name(handle, i) for i in range(lib.bpf_num_functions(handle))]
    code = {name.decode(): replace_maps(module.dump_func(name), positions) for name in functions}
    return maps, code


def main(arguments: Sequence[str]) -> int:
    """Entry point of the process; answers over the channel, never on stdout."""
    channel = channel_to_parent(arguments[0])
    target = Target.here(detail=DETAIL in arguments, places=PLACES in arguments)
    try:
        programs = compile_programs(target)
    except FserrError as error:
        channel.send(error.to_json())
        return error.exit_code
    file = os.memfd_create("fserr-bpf programs", os.MFD_CLOEXEC)
    with open(file, "wb") as stream:
        stream.write(programs.encode())
        stream.flush()
        channel.send_descriptors({"compiler": programs.compiler}, [file])
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # bcc's exit handlers take their time
