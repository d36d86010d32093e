"""The tracer of walks sees each module that is entered, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from tests.walk import Stay, walked

Make = Callable[[str, str], ModuleType]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a module of that name and source, which can be imported until the test ends."""

    def made(name: str, source: str) -> ModuleType:
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(source, f"{name}.py", "exec"), module.__dict__)
        return module

    return made


OUTER = """
from inner import *
def twice(): return value() + value()
def own(): return [local() for _ in range(3)]
def local(): return 1
def sort(): return sorted([2, 1], key=identity)
def raised():
    try: fails()
    except ValueError: return local()
def generated(): return list(numbers()), Pair(1), Whole(1)
def within():
    with block(): local()
"""
INNER = """
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple
def value(): return 1
def identity(x): return x
def fails(): raise ValueError
def numbers():
    yield 1
    yield 2
class Pair(NamedTuple):
    first: int
@dataclass
class Whole:
    first: int
@contextmanager
def block(): yield
"""


@pytest.mark.parametrize(
    ("function", "inside", "returns"),
    [
        ("twice", ["value", "value"], 2),
        ("own", [], 0),
        ("sort", ["identity", "identity"], 2),
        ("raised", ["fails"], 1),
        ("generated", ["numbers", "numbers", "numbers"], 3),
        ("within", ["block", "block"], 2),
    ],
)
def test_stays_and_returns(make: Make, function: str, inside: list[str], returns: int) -> None:
    make("inner", INNER).__dict__["__name__"] = "fserr_bpf.inner"
    outer = make("fserr_bpf.outer", OUTER)
    with walked() as walk:
        getattr(outer, function)()
    assert walk.stays == [Stay("outer", function), *(Stay("inner", name) for name in inside)]
    assert walk.returns == returns


def test_modules_of_others_are_looked_through(make: Make) -> None:
    make("inner", "def value(): return 1")
    outer = make("fserr_bpf.outer", "from inner import value\ndef work(): return value()")
    with walked() as walk:
        outer.work()
    assert (walk.stays, walk.returns) == ([Stay("outer", "work")], 0)


@pytest.mark.parametrize("inner", ["fserr_bpf.uapi.inner", "fserr_bpf.kernel.libc"])
def test_layouts_and_the_c_library_are_looked_through(make: Make, inner: str) -> None:
    make("inner", "def value(): return 1").__dict__["__name__"] = inner
    outer = make("fserr_bpf.outer", "from inner import value\ndef work(): return value()")
    with walked() as walk:
        outer.work()
    assert (walk.stays, walk.returns) == ([Stay("outer", "work")], 0)


def test_what_the_trace_began_in_is_no_stay_of_it(make: Make) -> None:
    outer = make("fserr_bpf.outer", "def begin(within): within.__enter__(); return 1")
    within = walked()
    outer.begin(within)
    assert sys.getprofile() is not None
    within.__exit__(None, None, None)
    assert sys.getprofile() is None
