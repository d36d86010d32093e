"""Programs for the running kernel: those that are kept, or new ones from the compiler."""

from __future__ import annotations

import errno
import sys
import tempfile
from pathlib import Path

from fserr_bpf.children.spawn import spawn
from fserr_bpf.errors import FserrError, KernelError
from fserr_bpf.kernel.environment import require_descriptors
from fserr_bpf.probes import cache
from fserr_bpf.probes.compiler import installed_compiler
from fserr_bpf.probes.programs import BadFile, Programs
from fserr_bpf.probes.target import DETAIL, PLACES, Target

# why nothing can be kept where that is as it should be: an image, a container
_QUIET = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_OF_COMPILER = 20  # descriptors


def obtain(*, detail: bool, places: bool, debug: bool) -> tuple[Programs, list[str]]:
    """The programs, and notes about the cache.

    Raises FserrError subclasses: KernelError, BccError.
    """
    target = Target.here(detail=detail, places=places)
    folder, notes = cache.cache_folder(), list[str]()
    try:
        programs = cache.load(folder, target.key(), installed_compiler())
        if programs:
            return programs, notes
    except (BadFile, OSError) as error:
        notes.append(f"compiled anew: programs in {folder} are not used ({_reason(error)})")
    programs = _compile(target, debug=debug)
    return programs, notes + _keep(folder, programs)


def _keep(folder: Path, programs: Programs) -> list[str]:
    try:
        cache.store(folder, programs)
    except BadFile:
        return []  # the folder is as it was when programs were looked for, and that was said
    except OSError as error:
        if error.errno not in _QUIET:
            return [f"cannot keep compiled programs in {folder}: {_reason(error)}"]
    return []


def _reason(error: BadFile | OSError) -> str:
    return str((isinstance(error, OSError) and error.strerror) or error)


def _compile(target: Target, *, debug: bool) -> Programs:
    """What the compiler's process makes; with ``debug`` what it and LLVM print is shown."""
    extras = [*([DETAIL] if target.detail else []), *([PLACES] if target.places else [])]
    require_descriptors(_OF_COMPILER)  # clang does not say why it cannot open a header
    with tempfile.TemporaryFile() as output:
        compiler = spawn("fserr_bpf.probes.compiler", *extras, output=output)
        try:
            answer, files = compiler.channel.receive_descriptors()
        except EOFError:
            answer, files = {}, []
        except BaseException:
            compiler.process.kill()
            raise
        finally:
            compiler.channel.close()
            status = compiler.process.wait()
        output.seek(0)
        messages = output.read().decode(errors="replace")
    if debug and messages:
        print(messages, file=sys.stderr, end="")
    if "error" in answer:
        if debug:
            answer["cause"] = f"{answer['cause']}\n{messages}".rstrip()
        raise FserrError.from_json(answer)
    if not files:
        last = messages.strip().splitlines()[-1:] or ["no message"]
        cause = f"the compiler died with status {status}: {last[0]}"
        raise KernelError(cause, "run it with fserr-bpf --debug")
    with open(files[0], "rb") as file:
        file.seek(0)
        return Programs.decode(file.read())
