"""Packs of cases give back what was put into them."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training_cases import a_case
from training import dataset
from training.dataset import PackUnreadableError, described, patient_mark, read_packs, write_packs


def test_packs_give_back_what_was_packed(tmp_path: Path) -> None:
    """Arrays, frames and what is known survive the file."""
    case = a_case(known={"Parotid_L": (-np.inf, 20.0)})

    paths = write_packs([case, a_case("other")], tmp_path / "pack")
    first, second = read_packs(paths)

    assert (first.name, second.name) == ("case", "other")
    assert {"Parotid_L": (-np.inf, 20.0)} == first.known
    assert case.image_frame == first.image_frame
    assert np.array_equal(case.labels, first.labels)
    assert np.array_equal(case.image, first.image)


def test_a_pack_of_the_same_organs_in_another_order_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_packs([a_case()], tmp_path / "pack")
    first, second, *others = dataset.ORGANS
    monkeypatch.setattr(dataset, "ORGANS", (first, *reversed(others), second))

    with pytest.raises(PackUnreadableError, match="prepare it again"):
        list(read_packs(paths))


@pytest.mark.parametrize("organ", ["SpinalCord", "Bone_Mandible", "Parotid_R"])
def test_a_pack_in_which_the_clinics_organ_is_that_of_the_21_is_refused(tmp_path: Path, organ: str) -> None:
    """It was made before both were told apart."""
    case = replace(a_case(), group="openkbp", known={organ: (-np.inf, np.inf)})

    with pytest.raises(PackUnreadableError, match=f"names {organ} of OpenKBP's clinics"):
        list(read_packs(write_packs([case], tmp_path / "pack")))


def test_packs_say_which_organs_are_absent_and_who_it_is_and_those_of_before_are_read(tmp_path: Path) -> None:
    case = replace(
        a_case(known=dict.fromkeys(("Brain", "Lens_L"), (-np.inf, np.inf))), patient=patient_mark("P1")
    )
    paths = write_packs([case], tmp_path / "pack")

    [known] = described(paths)
    for key in ("absent", "patient"):
        without(paths[0], key)
    [silent] = described(paths)
    [read] = read_packs(paths)

    assert (known.organs, known.absent) == ({"Brain", "Lens_L"}, {"Lens_L"})
    assert (silent.organs, silent.absent) == ({"Brain", "Lens_L"}, frozenset())
    assert (known.marks, silent.marks) == ({known.mark, case.patient}, {known.mark})
    assert read.patient == ""


def without(pack: Path, key: str) -> None:
    """Leave out what packs of before did not say."""
    with np.load(pack) as arrays:
        kept = dict(arrays)
    about = json.loads(kept["about"].tobytes())
    for case in about:
        del case[key]
    np.savez_compressed(pack, **kept | {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)})


@pytest.mark.parametrize("content", [None, b"", b"no pack"])
def test_what_is_no_pack_is_told_with_its_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.npz"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(PackUnreadableError, match=r"a\.npz cannot be read as a pack"):
        list(described([path]))


def test_a_pack_that_was_damaged_is_told_with_its_name(tmp_path: Path) -> None:
    """Its beginning may be whole."""
    [path] = write_packs([a_case()], tmp_path / "pack")
    with zipfile.ZipFile(path) as pack:
        start = pack.getinfo("image0.npy").header_offset + 80
    damaged = bytearray(path.read_bytes())
    damaged[start : start + 20] = bytes(20)
    path.write_bytes(damaged)

    with pytest.raises(PackUnreadableError, match=r"pack-00\.npz cannot be read as a pack"):
        list(read_packs([path]))


def test_a_pack_of_fewer_organs_stays_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Organs that were appended since have bits of their own: nothing need be prepared again."""
    monkeypatch.setattr(dataset, "ORGANS", dataset.ORGANS[:-1])
    paths = write_packs([a_case()], tmp_path / "pack")
    monkeypatch.undo()

    (case,) = read_packs(paths)
    assert np.array_equal(case.organ("Parotid_L"), a_case().organ("Parotid_L"))


def test_a_pack_for_other_organs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits that would mean other organs are never read."""
    paths = write_packs([a_case()], tmp_path / "pack")
    monkeypatch.setattr(dataset, "ORGANS", ("Brain",))

    with pytest.raises(ValueError, match="prepare it again"):
        list(read_packs(paths))
