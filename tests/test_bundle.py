"""A bundle's reference ranges: bound to it by their digest, optional, and never the cause of a wrong model."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from model.bundle import Bundle, add_reference_ranges, write_bundle
from model.errors import BundleError
from model.reference_ranges import Range, ReferenceRanges
from model.segmenter import Segmenter
from tests.band_bundle import write_band_bundle
from tests.bands import band_bundle
from tests.phantom import make_grid
from tests.test_segmenter import volume_on

RANGES = ReferenceRanges(
    "nobody",
    volume_cm3={"Eye_L": Range(5.0, 14.5, 54)},
    offset_mm={"Eye from Brainstem": (Range(20.0, 40.0, 54), Range(-90.0, -50.0, 54), Range(0.0, 50.0, 54))},
)


def test_a_bundle_without_ranges_loads_and_has_none(tmp_path: Path) -> None:
    """Bundles from before there were ranges stay good."""
    assert Bundle.load(write_band_bundle(tmp_path)).reference_ranges is None


def test_whoever_may_read_the_folder_reads_the_weights(tmp_path: Path) -> None:
    """The service is another user than the one who trained."""
    write_band_bundle(tmp_path)

    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes["weights.safetensors"] == modes["model.json"]


def test_ranges_come_back_with_the_bundle(tmp_path: Path) -> None:
    """Adding them changes nothing else of the bundle."""
    before = Bundle.load(write_band_bundle(tmp_path))

    add_reference_ranges(tmp_path, RANGES)

    after = Bundle.load(tmp_path)
    assert after.reference_ranges == RANGES
    assert (after.digest, after.name, after.structure_names) == (
        before.digest,
        before.name,
        before.structure_names,
    )


def test_a_changed_byte_of_the_ranges_is_refused(tmp_path: Path) -> None:
    """Someone's edit of a limit must not pass for measured."""
    add_reference_ranges(write_band_bundle(tmp_path), RANGES)
    path = tmp_path / "reference.json"
    path.write_text(path.read_text().replace("14.5", "94.5"))

    with pytest.raises(BundleError, match=r"reference\.json was changed"):
        Bundle.load(tmp_path)


@pytest.mark.parametrize(("low", "high"), [(2.0, 1.0), (math.nan, 1.0), (0.0, math.inf)])
def test_limits_with_which_nothing_can_be_compared_are_no_range(low: float, high: float) -> None:
    """Every organ would be usual, or none."""
    with pytest.raises(ValueError, match="is no range"):
        Range(low, high, 54)


def test_a_changed_byte_of_the_weights_is_refused(tmp_path: Path) -> None:
    add_reference_ranges(write_band_bundle(tmp_path), RANGES)
    path = tmp_path / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(BundleError, match=r"weights\.safetensors was changed"):
        Bundle.load(tmp_path)


def test_ranges_that_were_lost_are_missed(tmp_path: Path) -> None:
    """A bundle that names ranges is incomplete without them."""
    add_reference_ranges(write_band_bundle(tmp_path), RANGES)
    (tmp_path / "reference.json").unlink()

    with pytest.raises(BundleError, match=r"reference\.json cannot be read"):
        Bundle.load(tmp_path)


def test_new_weights_leave_old_ranges_behind(tmp_path: Path) -> None:
    """Ranges go with the weights whose results they judge."""
    add_reference_ranges(write_band_bundle(tmp_path), RANGES)
    write_band_bundle(tmp_path)
    bundle = Bundle.load(tmp_path)
    assert bundle.reference_ranges == RANGES

    bundle.network.head.bias.data += 1
    write_bundle(
        tmp_path, bundle.network, name="n", version="2", structure_names=bundle.structure_names,
        preprocessing=bundle.preprocessing, tile=bundle.tile, card={},
    )  # fmt: skip

    assert Bundle.load(tmp_path).reference_ranges is None


def test_ranges_may_be_replaced(tmp_path: Path) -> None:
    add_reference_ranges(write_band_bundle(tmp_path), RANGES)

    add_reference_ranges(tmp_path, ReferenceRanges("somebody else"))

    assert Bundle.load(tmp_path).reference_ranges == ReferenceRanges("somebody else")
    assert not list(tmp_path.glob("*.part"))


def test_a_table_that_cannot_be_read_is_the_bundles_fault(tmp_path: Path) -> None:
    """Digest right, content not: said in words of the bundle."""
    add_reference_ranges(write_band_bundle(tmp_path), RANGES)
    about = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "reference.json").write_text("{}")
    about["reference_sha256"] = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    (tmp_path / "model.json").write_text(json.dumps(about))

    with pytest.raises(BundleError, match="not a table of reference ranges"):
        Bundle.load(tmp_path)


def test_ranges_need_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"model\.json cannot be read"):
        add_reference_ranges(tmp_path, RANGES)
    assert not list(tmp_path.iterdir())


def test_confidence_is_told_for_what_was_found_and_for_nothing_else() -> None:
    """A mean over voxels that the network took for inside lies between one half and one."""
    found = Segmenter(band_bundle(), "cpu").segment(volume_on(make_grid()))

    assert set(found.confidence) == set(found.masks)
    assert all(0.5 < mean <= 1 for mean in found.confidence.values())
    assert np.isfinite(list(found.confidence.values())).all()
