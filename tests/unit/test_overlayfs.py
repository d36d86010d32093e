"""The layers of an overlay, and which of their objects a path stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from fserr_bpf.errors import MarkError
from fserr_bpf.marks.overlayfs import Layers, layers_in, objects_in


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ("rw,lowerdir=/l,upperdir=/u,workdir=/w", Layers("/u", ("/l",))),
        ("ro,lowerdir=/a:/b", Layers("", ("/a", "/b"))),
        (r"rw,lowerdir=/a\:b:/c\,d,upperdir=/u\,v,workdir=/w", Layers("/u,v", ("/a:b", "/c,d"))),
        ("rw,lowerdir=/a::/data,upperdir=/u", Layers("/u", ("/a",))),
        ("rw,lowerdir+=/a,lowerdir+=/b,datadir+=/c,upperdir=/u", Layers("/u", ("/a", "/b"))),
    ],
)
def test_layers_are_in_the_options(options: str, layers: Layers) -> None:
    assert layers_in(options) == layers


def test_a_layer_hides_those_below_where_the_overlay_does(tmp_path: Path) -> None:
    upper, middle, lower = (tmp_path / name for name in ("upper", "middle", "lower"))
    for layer in (upper, middle, lower):
        (layer / "a" / "b").mkdir(parents=True)
    (middle / "a" / "file").touch()
    (lower / "a" / "file").touch()
    (lower / "only").mkdir()
    layers = Layers(str(upper), (str(middle), str(lower)))
    all_of_them = [f"{layer}/a/b" for layer in (upper, middle, lower)]
    assert objects_in(layers, "a/b", "/m/a/b") == all_of_them
    assert objects_in(layers, "", "/m") == [str(upper), str(middle), str(lower)]
    assert objects_in(layers, "a/file", "/m/a/file") == [f"{middle}/a/file"]
    assert objects_in(layers, "only", "/m/only") == [f"{lower}/only"]
    with pytest.raises(MarkError, match=r"^/m/none: not found in the overlay's layers"):
        objects_in(layers, "none", "/m/none")
    with pytest.raises(MarkError, match=r"^/m: the overlay's layer l has no absolute path; "):
        objects_in(Layers("", ("l",)), "", "/m")
