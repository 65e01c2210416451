"""Every object of a job says the same of it, whoever gets which."""

from pathlib import Path

import pytest
from pydicom import dcmread

from daemon.result_building import Contoured, build
from daemon.result_objects import ResultKind, WantedObject
from tests.phantom import make_grid
from tests.structure_set_samples import IDENTITY, MODEL, ct_volume, organ_masks, rois_of


@pytest.mark.parametrize("kind", ResultKind)
def test_what_is_doubtful_stands_in_the_series_description_of_every_object(tmp_path: Path, kind) -> None:
    """An archive may get only some of them."""

    def store(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    grid = make_grid()
    rois = rois_of(organ_masks(grid), grid)
    contoured = Contoured(ct_volume(grid), rois, (), (), MODEL, IDENTITY, doubts=("Brain", "Parotid_L"))
    profile = "generic" if kind is ResultKind.STRUCTURE_SET else ""
    made = build(WantedObject(kind, profile, ("tps",)), contoured, store, lambda _stage, _share: None)

    assert dcmread(made.path).SeriesDescription == "CHECK: Brain, Parotid_L - NEEDS REVIEW"
