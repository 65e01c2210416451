"""From any way of scanning to the network's one view of a patient, and back to the CT's own voxels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydicom import Dataset

from model import segmenter as module
from model.bundle import DEFAULT_BUNDLE, Bundle
from model.contours import trace
from model.ct import CTVolume, read_series
from model.errors import BundleError
from model.findings import Severity
from model.geometry import Mask, SliceGrid
from model.network_input import Preprocessing, lateral_mm, smoothing_sigma_mm
from model.plausibility import check_plausibility
from model.preprocess import body_box, to_mask, to_network_grid
from model.segmenter import Segmenter, fastest_precision, is_speck, largest_component
from model.slice_spacing import refuse_leaning_stack
from model.sliding_window import predict
from model.structures import EXTRA_STRUCTURES, OTHER_PROTOCOLS, STRUCTURES
from tests.bands import ORGAN_OF_PART, band_bundle
from tests.phantom import ORIENTATIONS, PARTS, make_grid, phantom_hu, phantom_masks, write_series
from tests.stub_segmenter import StubSegmenter

SCANS = {
    **{name: {"orientation": name} for name in ORIENTATIONS},
    "tilted": {"tilt_degrees": 14},
    "tilted the other way, feet first": {"tilt_degrees": -20, "orientation": "FFS"},
    "2.5 then 5 mm": {"offsets_mm": [*np.arange(-100, 0, 2.5), *np.arange(0, 101, 5)]},
    "tilted, 2.5 then 5 mm": {
        "tilt_degrees": 10,
        "offsets_mm": [*np.arange(-100, 0, 2.5), *np.arange(0, 101, 5)],
    },
    "negative cosines": {"orientation": "HFP", "pixel_spacing_mm": (1.3, 2.1)},
}
BOUNDS_MM = {  # of each part, LPS: least and greatest x, y, z
    "left_ball": ((23, 67), (-22, 22), (-22, 22)),
    "right_cube": ((-59, -25), (-9, 25), (-23, 11)),
    "superior_bar": ((-45, 15), (21, 39), (49, 75)),
}


def volume_on(grid: SliceGrid) -> CTVolume:
    uids = tuple(f"2.25.{index}" for index in range(1, len(grid.positions_mm) + 1))
    return CTVolume(phantom_hu(grid), grid, uids, Dataset())


def overlap(a: Mask, b: Mask) -> float:
    return 2 * np.count_nonzero(a.full() & b.full()) / (a.count + b.count)


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS.keys())
def test_parts_are_found_where_they_are_in_the_patient(scan: dict, tmp_path) -> None:
    """However the series was made, each part's contours lie in the patient where the part lies, within a voxel."""
    volume = read_series(write_series(tmp_path, **scan))
    segmenter = Segmenter(band_bundle(), "cpu")

    found = segmenter.segment(volume).masks

    truth = phantom_masks(volume.grid)
    assert set(ORGAN_OF_PART.values()) == set(found)
    for part, organ in ORGAN_OF_PART.items():
        assert overlap(found[organ], truth[part]) > 0.85, part
    for part, bounds in BOUNDS_MM.items():
        points = np.concatenate(
            [volume.grid.to_patient(c.slice_index, c.points) for c in trace(found[ORGAN_OF_PART[part]])]
        )
        # Slices may miss up to a whole gap at either end of a part.
        voxel_mm = np.max([*volume.grid.pixel_spacing_mm, *np.diff(volume.grid.offsets_mm)])
        assert np.abs(points.min(0) - [low for low, _ in bounds]).max() <= voxel_mm + 0.5, part
        assert np.abs(points.max(0) - [high for _, high in bounds]).max() <= voxel_mm + 0.5, part


def test_masks_can_be_had_on_another_grid_of_the_same_patient() -> None:
    """The same answer on planes that are not the CT's own lies at the same place."""
    fine = make_grid(offsets_mm=np.arange(-90, 90, 3.0), pixel_spacing_mm=(1.0, 1.0), size=(230, 220))

    found = Segmenter(band_bundle(), "cpu").segment(volume_on(make_grid()), grid=fine).masks

    assert fine.shape == found["Parotid_L"].shape
    assert overlap(found["Parotid_L"], phantom_masks(fine)["left_ball"]) > 0.85


def test_what_stands_for_it_in_tests_has_all_that_it_shows() -> None:
    """Roles in other tests are built on the stub, which must not lag behind."""
    shown = {name for name in dir(Segmenter(band_bundle(), "cpu")) if not name.startswith("_")}

    assert shown <= set(dir(StubSegmenter()))


def test_progress_and_durations_of_every_stage_are_told() -> None:
    """Stages come in order, and shares never fall within a stage."""
    heard: list[tuple[str, float]] = []

    done = Segmenter(band_bundle(), "cpu").segment(volume_on(make_grid()), lambda *told: heard.append(told))

    assert list(dict.fromkeys(stage for stage, _ in heard)) == ["resample", "network", "grid"]
    assert {"resample", "network", "grid"} == set(done.seconds)
    shares = [share for stage, share in heard if stage == "network"]
    assert sorted(shares) == shares
    assert shares[-1] == 1.0


def test_the_same_ct_gives_the_same_masks_bit_for_bit() -> None:
    """Repeating a segmentation on the same device repeats its result."""
    segmenter, volume = Segmenter(band_bundle(), "cpu"), volume_on(make_grid())

    first, second = segmenter.segment(volume), segmenter.segment(volume)

    for name, mask in first.masks.items():
        assert np.array_equal(mask.voxels, second.masks[name].voxels)
        assert mask.corner == second.masks[name].corner


def test_out_of_memory_falls_back_to_smaller_tiles_then_the_cpu_and_says_so(monkeypatch) -> None:
    """Memory that does not suffice costs speed, never the study, and the remark tells the operator."""
    segmenter = Segmenter(band_bundle(), "cpu")
    segmenter.device = torch.device("meta")  # stands for a GPU
    tried: list[tuple[str, tuple[int, ...]]] = []
    real_predict = module.predict

    def refuse_all_but_cpu(network, hu, tile, outputs, **options):
        tried.append((hu.device.type, tile))
        if hu.device.type != "cpu":
            raise torch.OutOfMemoryError
        return real_predict(network, hu, tile, outputs, **options)

    monkeypatch.setattr(module, "predict", refuse_all_but_cpu)
    monkeypatch.setattr(segmenter.bundle.network, "to", lambda _device: segmenter.bundle.network)

    found = segmenter.segment(volume_on(make_grid()))

    assert tried == [("meta", (32, 48, 64)), ("meta", (16, 24, 32)), ("cpu", (32, 48, 64))]
    assert "segmented on cpu" in found.remarks[-1]
    assert len(found.masks) == 4


def test_the_smaller_tile_is_one_that_the_network_takes() -> None:
    """Half of 80 voxels is no multiple of 16: the weights that ship could not predict it."""
    segmenter = Segmenter(Bundle.load(DEFAULT_BUNDLE), "cpu")
    segmenter.device = torch.device("meta")

    _, (_, tile), _ = segmenter._attempts()

    assert tile == (24, 32, 32)
    image = torch.full((2, 30, 40, 40), 40.0)
    assert predict(segmenter.bundle.network, image, tile, 21).shape == (21, 30, 40, 40)


def test_weights_that_the_device_cannot_hold_fall_back_too(monkeypatch) -> None:
    segmenter = Segmenter(band_bundle(), "cpu")
    segmenter.device = torch.device("meta")
    network = segmenter.bundle.network

    def to(device):
        if device.type != "cpu":
            raise torch.OutOfMemoryError
        return network

    monkeypatch.setattr(network, "to", to)

    found = segmenter.segment(volume_on(make_grid()))

    assert "segmented on cpu" in found.remarks[-1]
    assert len(found.masks) == 4


def test_what_lies_apart_from_an_organ_is_left_out_and_its_share_is_told(monkeypatch) -> None:
    """A cord that the network breaks on one slice would end there without a word."""
    segmenter = Segmenter(band_bundle(), "cpu")
    whole = segmenter.segment(volume_on(make_grid()))
    real_predict = module.predict

    def broken(*arguments, **options):
        probabilities = real_predict(*arguments, **options)
        inside = (probabilities[0] > 0.5).nonzero()[:, 0].float()
        probabilities[0, int(inside.quantile(0.7))] = 0
        return probabilities

    monkeypatch.setattr(module, "predict", broken)
    found = segmenter.segment(volume_on(make_grid()))
    name = segmenter.bundle.structure_names[0]

    assert set(whole.left_out.values()) == {0.0}
    assert found.left_out[name] == pytest.approx(0.3, abs=0.15)
    (finding,) = (f for f in check_plausibility({}, make_grid(), None, {}, found.left_out) if f.structure)
    assert (finding.code, finding.structure, finding.severity) == ("parts-left-out", name, Severity.WARNING)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_cuda_that_is_configured_but_absent_is_refused_at_start() -> None:
    """A missing device is an error with what to do, not a silent fall back."""
    with pytest.raises(BundleError, match="use auto or cpu"):
        Segmenter(band_bundle(), "cuda")


def test_largest_component_drops_islands_and_fills_holes() -> None:
    """An organ is one piece without holes; only its own voxels change."""
    probability = np.zeros((9, 9, 9), np.float16)
    probability[2:7, 2:7, 2:7] = 0.9
    probability[4, 4, 4] = 0.1
    probability[0, 0, 0] = 0.8
    probability[8, 8, 8] = 0.4

    cleaned = largest_component(probability)

    assert cleaned[0, 0, 0] == 0
    assert cleaned[4, 4, 4] == 1
    assert np.float16(0.4) == cleaned[8, 8, 8]
    assert np.float16(0.9) == cleaned[2, 2, 2]


def test_slices_a_little_beside_each_other_shear_nothing() -> None:
    """As far as a series is accepted: whatever lies between the first slices does not lean all that follow."""
    straight = make_grid(offsets_mm=np.arange(-90, 91, 2.0), pixel_spacing_mm=(2.0, 2.0))
    positions = straight.positions_mm.copy()
    positions[1:3, 0] += [0.11, -0.11]
    grid = replace(straight, positions_mm=positions)
    refuse_leaning_stack(grid)
    image = to_network_grid(volume_on(grid), Preprocessing((2.0, 2.0, 2.0), 2.0))
    bone = (image.hu > 1000).astype(np.float32)

    found, expected = to_mask(bone, image, grid), Mask.from_full(phantom_hu(grid) > 1000)

    assert overlap(found, expected) > 0.95


def test_probabilities_are_interpolated_and_not_labels() -> None:
    """A border half-way between coarse voxels comes out straight on fine ones, not as steps of coarse voxels."""
    grid = make_grid(offsets_mm=np.arange(-20, 20, 2.0), pixel_spacing_mm=(0.5, 0.5), size=(160, 160))
    image = to_network_grid(volume_on(grid), Preprocessing((2.0, 4.0, 4.0), 1.0))
    slope = np.clip(
        0.5 + (np.arange(image.hu.shape[2]) - 9.25) / 8 + (np.arange(image.hu.shape[1])[:, None] - 9) / 8,
        0,
        1,
    )
    probability = np.broadcast_to(slope, image.hu.shape)

    mask = to_mask(probability, image, grid).full()

    # The border runs diagonally: consecutive rows shift by one fine voxel each.
    starts = mask[10].argmax(axis=1)[40:110]
    assert {-1} == set(np.diff(starts))


@pytest.mark.parametrize(("spacing_mm", "expected"), [(5.0, 0.0), (4.0, 0.0), (0.0, 4.0 / 2.355)])
def test_smoothing_only_takes_away_what_is_sharper(spacing_mm: float, expected: float) -> None:
    """Images as coarse as the network's resolution pass as they are."""
    assert pytest.approx(expected) == smoothing_sigma_mm(spacing_mm, 4.0)


def test_the_body_is_cut_out_and_the_couch_left() -> None:
    """The box holds the body with a margin, but neither far air nor a thin couch apart from it."""
    grid = make_grid(pixel_spacing_mm=(2.0, 2.0), size=(250, 250))
    hu = phantom_hu(grid)
    hu[:, 230:232, 20:230] = 300

    slices, rows, columns = body_box(hu, grid)

    body = np.argwhere(phantom_hu(grid)[:, :225] > -400)
    low, high = body.min(0), body.max(0)
    assert slices.start <= low[0] <= high[0] < slices.stop
    assert low[1] - 8 <= rows.start <= low[1]
    assert high[1] < rows.stop <= high[1] + 9
    assert low[2] - 8 <= columns.start <= low[2]


def test_specks_are_nothing() -> None:
    """A hundred cubic millimetres of brain are noise, a brain that the image cuts off is not."""
    assert is_speck("Brain", 0.1)
    assert not is_speck("Brain", 60.0)
    assert not is_speck("Cochlea_L", 0.03)
    assert not is_speck("Brain", 0.0)
    every = STRUCTURES + EXTRA_STRUCTURES + OTHER_PROTOCOLS
    assert not any(is_speck(organ.name, organ.tolerance_mm * 100) for organ in every)


def test_a_speck_is_left_out_with_a_remark() -> None:
    """What is too small for the organ never becomes a contour."""
    grid = make_grid()
    hu = np.full(grid.shape, -1000, np.int16)
    hu[10:30, 20:100, 20:110] = 40
    hu[18:20, 50:56, 50:57] = 1200
    volume = CTVolume(hu, grid, ("2.25.1",) * grid.shape[0], Dataset())

    found = Segmenter(band_bundle(), "cpu").segment(volume)

    assert "Brain" not in found.masks
    assert found.remarks == ("Brain: a speck was found and taken for nothing",)


def test_the_lateral_channel_counts_millimetres_from_the_middle_of_the_body() -> None:
    """Zero lies in the middle of what is dense, wherever that is in the image; without a body, in the image's."""
    hu = np.full((2, 3, 10), -1000, np.int16)
    assert lateral_mm(hu, 2.0)[[0, -1]].tolist() == [-9.0, 9.0]

    hu[:, :, 5:8] = 40

    assert lateral_mm(hu, 2.0)[[0, 6, 9]].tolist() == [-12.0, 0.0, 6.0]


def test_a_volume_of_air_gives_nothing() -> None:
    """Nothing to find is an empty answer and no error."""
    grid = make_grid()
    empty = CTVolume(np.full(grid.shape, -1000, np.int16), grid, ("2.25.1",) * grid.shape[0], Dataset())

    assert dict(Segmenter(band_bundle(), "cpu").segment(empty).masks) == {}


def test_parts_of_the_phantom_have_bounds() -> None:
    """The bounds above are those of the phantom's parts."""
    assert set(BOUNDS_MM) < {part.name for part in PARTS}


@pytest.mark.parametrize(
    ("bf16", "amx", "precision"),
    [(False, False, torch.float32), (True, False, torch.bfloat16), (False, True, torch.bfloat16)],
)
def test_a_cpu_computes_in_what_it_has_instructions_for(
    monkeypatch, *, bf16: bool, amx: bool, precision: torch.dtype
) -> None:
    """Without them bfloat16 would be emulated, and slower than float32."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)

    assert fastest_precision(torch.device("cpu")) == precision
