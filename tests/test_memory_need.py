"""How much memory a series needs is known from its headers, and too much is refused with the numbers."""

import os

import pytest

from daemon.jobs import JobState
from model.bundle import Bundle
from model.errors import SeriesUnsuitable
from model.memory_need import machine_memory_bytes, memory_need, require_memory
from model.network_input import Preprocessing
from model.segmenter import Segmenter
from tests.band_bundle import write_band_bundle
from tests.phantom import make_grid
from tests.workplace import Workplace, small_series

COARSE = Preprocessing((2.5, 2.0, 2.0), 4.0)


def need(**grid):
    return memory_need(make_grid(**grid), COARSE, 21)


def test_the_need_grows_with_slices_matrix_and_field_of_view():
    usual = {"size": (512, 512), "pixel_spacing_mm": (1.0, 1.0), "offsets_mm": range(200)}

    assert need(**usual) < need(**usual | {"offsets_mm": range(400)})
    assert need(**usual) < need(**usual | {"size": (1024, 1024), "pixel_spacing_mm": (0.5, 0.5)})
    # The same voxels over ten times the length: the network's grid is what grows.
    assert need(**usual) < need(**usual | {"offsets_mm": range(0, 2000, 10)})


def test_unevenly_spaced_slices_are_counted_as_they_will_be_interpolated():
    usual = {"size": (512, 512), "pixel_spacing_mm": (1.0, 1.0)}
    even, uneven = [0.0, 10, 20, 30, 40, 50, 60, 70], [0.0, 0.1, 10, 20, 30, 40, 50, 60, 70]

    assert need(**usual, offsets_mm=uneven) > need(**usual, offsets_mm=even) + 14 * 600 * 512 * 512


def test_what_fits_passes_and_what_does_not_is_refused_with_slices_need_and_limit():
    grid = make_grid(size=(1024, 1024), pixel_spacing_mm=(0.5, 0.5), offsets_mm=range(2000))

    require_memory(grid, COARSE, 21, 10**12)
    with pytest.raises(
        SeriesUnsuitable, match=r"2000 slices of 1024 × 1024 need \d\d\.\d GB .* allowed are 8\.0 GB"
    ):
        require_memory(grid, COARSE, 21, 8_000_000_000)


def test_a_series_that_needs_too_much_is_rejected_before_its_pixels_are_read(tmp_path):
    """The pixels are cut off: reading them would be another reason."""
    workplace = Workplace(tmp_path, ports={"tps": 1})
    job = workplace.queue_series(small_series(tmp_path / "sent"))
    for path in workplace.spool.instance_paths(job):
        path.write_bytes(path.read_bytes()[:-2000])
    segmenter = Segmenter(Bundle.load(write_band_bundle(tmp_path / "bundle")), "cpu", 0, 1_000_000)

    workplace.runner(segmenter).run_next()

    row = workplace.job(job)
    assert (row.state, row.reason_code) == (JobState.REJECTED, "too-large")
    assert "21 slices of 60 × 65" in str(row.reason)
    assert "max_memory_bytes" in str(row.reason)
    workplace.queue.close()


def test_without_a_limit_in_the_configuration_it_is_that_of_the_machine(tmp_path):
    bundle = Bundle.load(write_band_bundle(tmp_path / "bundle"))

    assert Segmenter(bundle, "cpu").max_memory_bytes == machine_memory_bytes()
    assert 0 < machine_memory_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
