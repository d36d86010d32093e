"""Public programs that use fanotify say under ``fserr-bpf exec`` what they say without it."""

from __future__ import annotations

import shutil

import pytest

from tests.live.conftest import skip
from tests.publicclients import CLIENTS, Client, natively, played, taken_over

pytestmark = pytest.mark.root


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.program)
def test_client_says_the_same(client: Client) -> None:
    if shutil.which(client.program) is None:
        skip(f"{client.program} is not installed", expected=False)
    native = played(client, natively).said
    assert native
    assert played(client, taken_over).said == native
