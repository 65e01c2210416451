"""The RT Structure Set: what it says of patient, CT, model and organs, and that others can read it."""

import shutil
import subprocess
import time
import warnings
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import SimpleITK
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from daemon.destination_profile import PROFILES, EmptyStructures
from daemon.result_header import encode, readable, unlike_identifiers
from daemon.structure_set import build_structure_set
from daemon.structure_set_check import check_structure_set
from daemon.structure_template import DEFAULT_TEMPLATE, Codes, InterpretedType, apply_template, template_of
from model.contours import Contour, fill
from model.ct import read_series
from model.structures import STRUCTURES, Code, structure
from tests.phantom import ORIENTATIONS, make_grid, write_series
from tests.structure_set_samples import IDENTITY, MODEL, NOT_FOUND, ct_header, ct_volume, organ_masks, rois_of

GENERIC = PROFILES["generic"]
ASYMMETRIC_OFFSETS_MM = [*np.arange(-100, 0, 2.5), *np.arange(0, 101, 5)]


@pytest.fixture(scope="module")
def made():
    """Volume, masks and the structure set as read back from its bytes."""
    grid = make_grid()
    volume, masks = ct_volume(grid), organ_masks(grid)
    return volume, masks, rebuilt(volume, masks)


def rebuilt(volume, masks, remarks=()):
    return dcmread(
        BytesIO(encode(build_structure_set(volume, rois_of(masks, volume.grid), IDENTITY, MODEL, remarks)))
    )


def only_cord(header: Dataset) -> Dataset:
    """A structure set of one organ, made from a CT with the given attributes."""
    grid = make_grid()
    masks = {"SpinalCord": organ_masks(grid)["SpinalCord"]}
    return rebuilt(ct_volume(grid, header), masks)


def contours_of(dataset: Dataset) -> list[tuple[str, Dataset]]:
    names = {roi.ROINumber: roi.ROIName for roi in dataset.StructureSetROISequence}
    return [
        (names[item.ReferencedROINumber], contour)
        for item in dataset.ROIContourSequence
        for contour in item.ContourSequence
    ]


def encoded(dataset: Dataset, values: dict[int, bytes]) -> Dataset:
    """The dataset as read from a file with further elements of any bytes."""
    buffer = BytesIO()
    dcmwrite(buffer, dataset, implicit_vr=True, little_endian=True)
    content = buffer.getvalue()
    for tag, value in values.items():
        element = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
        content += element + len(value).to_bytes(4, "little") + value
    return dcmread(BytesIO(content), force=True)


def needs(program: str) -> str:
    return shutil.which(program) or pytest.skip(f"{program} is not installed")


# What it says


def test_the_same_input_makes_the_same_bytes(made):
    volume, masks, _ = made
    first, second = (
        encode(build_structure_set(volume, rois_of(masks, volume.grid), IDENTITY, MODEL, ["a remark"]))
        for _ in range(2)
    )
    assert first == second


def test_the_file_is_part_10_in_implicit_vr_under_the_jobs_uids(made):
    *_, dataset = made
    meta = dataset.file_meta
    assert meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID == IDENTITY.sop_instance_uid
    assert dataset.SeriesInstanceUID == IDENTITY.series_instance_uid
    assert len(meta.ImplementationVersionName) <= 16


def test_patient_study_and_frame_of_reference_are_the_cts():
    header = ct_header(
        PatientID="4711",
        PatientName="Doe^Jane",
        PatientBirthDate="19660504",
        PatientSex="F",
        StudyID="77",
        StudyDate="20240228",
        StudyTime="081500",
        AccessionNumber="A1",
        StudyDescription="Head and neck",
        ReferringPhysicianName="Who^Doctor",
        PositionReferenceIndicator="OM",
    )
    dataset = only_cord(header)
    for keyword in (
        "StudyInstanceUID",
        "FrameOfReferenceUID",
        *(e.keyword for e in header if e.tag.group == 0x10),
    ):
        assert dataset[keyword].value == header[keyword].value
    assert (dataset.StudyID, dataset.AccessionNumber) == ("77", "A1")
    assert dataset.PositionReferenceIndicator == "OM"


def test_a_ct_that_says_nothing_of_its_patient_still_gets_a_structure_set():
    """Attributes of type 2 are present and empty."""
    dataset = only_cord(ct_header())
    for keyword in (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "StudyID",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "ReferringPhysicianName",
        "OperatorsName",
        "PositionReferenceIndicator",
    ):
        assert not dataset[keyword].value


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 192", "Łukasz^Ž"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 144", "Люкceмбypг"),
    ],
)
def test_names_survive_in_every_character_set(character_set, name):
    """The header is read from a file, as a CT's is, so its names are bytes until somebody asks."""
    dataset = only_cord(encoded(ct_header(SpecificCharacterSet=character_set, PatientName=name), {}))
    assert dataset.PatientName == name
    assert dataset.SpecificCharacterSet == character_set


def test_bytes_of_an_undeclared_character_set_survive_as_they_are():
    """Many scanners write umlauts without declaring a character set."""
    assert b"M\xfcller" in encode(only_cord(encoded(ct_header(), {0x00100010: b"M\xfcller"})))


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.filterwarnings("ignore:Value")
def test_broken_optional_values_of_the_ct_do_not_stop_it():
    """Text that is not what it should be is kept as the CT has it; what cannot be decoded is left out."""
    pregnancy_status = {0x001021C0: b"abc"}  # two bytes are a number
    broken = {0x00100040: b"MALE", 0x00101010: b"old ", 0x00101030: b"unknown "} | pregnancy_status
    dataset = only_cord(encoded(ct_header(PatientID="1"), broken))
    assert "PregnancyStatus" not in dataset
    assert dataset.PatientSex == "MALE"


def test_it_says_that_it_is_automatic_unreviewed_and_by_which_model(made):
    volume, masks, _ = made
    dataset = rebuilt(volume, masks, remarks=["gantry tilt 14.0°", "spacing 2.5–5 mm"])
    assert dataset.ApprovalStatus == "UNAPPROVED"
    assert "REVIEW" in dataset.SeriesDescription
    assert len(dataset.StructureSetLabel) <= 16
    assert (dataset.Manufacturer, dataset.Modality) == ("oarlock", "RTSTRUCT")
    for part in ("head-and-neck 1.2.0", MODEL.digest, "not reviewed", "14.0 deg", "2.5-5 mm"):
        assert part in dataset.StructureSetDescription
    network = dataset.ContributingEquipmentSequence[-1]
    assert (network.ManufacturerModelName, network.SoftwareVersions) == (MODEL.name, MODEL.version)
    assert MODEL.digest in network.ContributionDescription
    for roi in dataset.StructureSetROISequence:
        assert roi.ROIGenerationAlgorithm == "AUTOMATIC"
        (algorithm,) = roi.ROIDerivationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (MODEL.name, MODEL.version)


@pytest.mark.parametrize(("said", "written"), [("联影", "unknown"), ("", "unknown"), ("Müller", "Muller")])
def test_the_scanner_is_named_whatever_script_it_is_written_in(said, written):
    """Manufacturer of contributing equipment is type 1 (PS3.3 C.12.1); what we write is ASCII."""
    header = ct_header(SpecificCharacterSet="ISO_IR 192", Manufacturer=said, ManufacturerModelName=said)
    scanner = only_cord(header).ContributingEquipmentSequence[0]
    assert (scanner.Manufacturer, scanner.ManufacturerModelName) == (written, written)


def test_its_dates_are_local_and_the_jobs(made):
    """Shortly before midnight in a zone ahead of UTC, where UTC would be off by two hours."""
    *_, dataset = made
    for kind in ("StructureSet", "Series", "InstanceCreation"):
        assert (dataset[f"{kind}Date"].value, dataset[f"{kind}Time"].value) == ("20240229", "235907")


def test_remarks_of_any_length_fit_their_attribute(made):
    volume, masks, _ = made
    assert len(rebuilt(volume, masks, ["very long"] * 500).StructureSetDescription) <= 1024


# Organs


def test_organs_have_tg263_names_codes_sides_and_fixed_colours(made):
    *_, dataset = made
    by_name = {each.name: each for each in STRUCTURES}
    for roi, contour, observation in zip(
        dataset.StructureSetROISequence,
        dataset.ROIContourSequence,
        dataset.RTROIObservationsSequence,
        strict=True,
    ):
        organ = by_name[roi.ROIName]
        number = STRUCTURES.index(organ) + 1
        assert number == roi.ROINumber == contour.ReferencedROINumber == observation.ReferencedROINumber
        assert tuple(contour.ROIDisplayColor) == organ.colour_rgb
        assert observation.RTROIInterpretedType == "ORGAN"
        (code,) = observation.RTROIIdentificationCodeSequence
        assert (code.CodeValue, code.CodingSchemeDesignator) == (organ.code.value, "SCT")
        sides = [m.CodeMeaning for m in code.get("SegmentedPropertyTypeModifierCodeSequence", ())]
        assert sides == ([organ.laterality.meaning] if organ.laterality else [])


def test_an_organ_without_contours_is_left_out(made):
    *_, dataset = made
    names = [roi.ROIName for roi in dataset.StructureSetROISequence]
    assert names == ["Brain", "Lens_L", "Parotid_L", "Parotid_R", "SpinalCord"]
    assert NOT_FOUND not in names


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="Parotid_L"):
        template_of(["Parotid_Left"])


# What a destination's profile and a site's template change


def cord_for(profile, **changes) -> Dataset:
    """A structure set of the cord alone for one profile, its ROI changed."""
    grid = make_grid()
    (roi,) = rois_of({"SpinalCord": organ_masks(grid)["SpinalCord"]}, grid)
    changed = replace(roi, **changes)
    made = build_structure_set(ct_volume(grid), [changed], IDENTITY, MODEL, (), profile)
    return dcmread(BytesIO(encode(made)))


def test_snomed_ct_identifies_and_the_fma_is_equivalent(made):
    *_, dataset = made
    observations = {
        roi.ROIName: item
        for roi, item in zip(dataset.StructureSetROISequence, dataset.RTROIObservationsSequence, strict=True)
    }
    (code,) = observations["Parotid_L"].RTROIIdentificationCodeSequence
    (equivalent,) = code.EquivalentCodeSequence
    assert (equivalent.CodeValue, equivalent.CodingSchemeDesignator) == ("59798", "FMA")
    assert equivalent.CodeMeaning == "Left parotid gland"
    assert "PrimaryAnatomicStructureSequence" not in observations["Parotid_L"]


def test_for_eclipse_the_fma_identifies_and_snomed_ct_stands_beside_it():
    grid = make_grid()
    rois = rois_of({"Parotid_L": organ_masks(grid)["Parotid_L"]}, grid)
    made = build_structure_set(ct_volume(grid), rois, IDENTITY, MODEL, (), PROFILES["eclipse"])
    (item,) = dcmread(BytesIO(encode(made))).RTROIObservationsSequence
    (code,) = item.RTROIIdentificationCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("59798", "FMA")
    assert "SegmentedPropertyTypeModifierCodeSequence" not in code
    (anatomy,) = item.PrimaryAnatomicStructureSequence
    assert (anatomy.CodeValue, anatomy.CodingSchemeDesignator) == ("45289007", "SCT")
    assert [side.CodeMeaning for side in anatomy.PrimaryAnatomicStructureModifierSequence] == ["Left"]


def test_the_sites_own_code_identifies_and_a_derived_structure_may_have_none():
    site = Code("CORD", "99SITE", "Cord")
    cord = structure("SpinalCord")
    (item,) = cord_for(GENERIC, codes=Codes(cord.code, None, cord.fma_code, site)).RTROIObservationsSequence
    (code,) = item.RTROIIdentificationCodeSequence
    assert (code.CodeValue, code.EquivalentCodeSequence[0].CodeValue) == ("CORD", "7647")
    (item,) = cord_for(GENERIC, codes=Codes(), organ=None).RTROIObservationsSequence
    assert "RTROIIdentificationCodeSequence" not in item
    assert "SegmentedPropertyCategoryCodeSequence" not in item


def test_a_structure_says_what_it_was_made_from_and_what_was_noticed():
    dataset = cord_for(GENERIC, generation="SpinalCord + 5 mm", remark="Shorter than any seen – look at it")
    (roi,) = dataset.StructureSetROISequence
    assert roi.ROIDescription == "Made from SpinalCord + 5 mm. Shorter than any seen - look at it"
    assert roi.ROIGenerationDescription == "head-and-neck 1.2.0, not reviewed, SpinalCord + 5 mm"
    (plain,) = cord_for(GENERIC).StructureSetROISequence
    assert "ROIDescription" not in plain
    (long,) = cord_for(GENERIC, remark="x" * 5000, generation="y" * 100).StructureSetROISequence
    assert (len(long.ROIDescription), len(long.ROIGenerationDescription)) == (1024, 64)


def test_colour_type_name_and_number_are_the_templates():
    changes = {
        "number": 7,
        "name": "Myelon",
        "colour_rgb": (1, 2, 3),
        "interpreted_type": InterpretedType.CONTROL,
    }
    dataset = cord_for(GENERIC, **changes)
    (roi,) = dataset.StructureSetROISequence
    (contour,) = dataset.ROIContourSequence
    (observation,) = dataset.RTROIObservationsSequence
    assert (roi.ROINumber, roi.ROIName) == (7, "Myelon")
    assert (contour.ReferencedROINumber, list(contour.ROIDisplayColor)) == (7, [1, 2, 3])
    assert (observation.ReferencedROINumber, observation.RTROIInterpretedType) == (7, "CONTROL")


def test_a_name_that_is_too_long_is_shortened_and_the_description_says_so():
    dataset = cord_for(PROFILES["eclipse"], name="Spinal_Cord_and_its_Canal")
    (roi,) = dataset.StructureSetROISequence
    assert roi.ROIName == "Spinal_Cord_and"
    assert "Spinal_Cord_and_its_Canal is called Spinal_Cord_and" in dataset.StructureSetDescription
    assert roi.ROIDescription == "Spinal_Cord_and_its_Canal in the template"
    (whole,) = cord_for(PROFILES["mim"], name="Spinal_Cord_and_its_Canal").StructureSetROISequence
    assert whole.ROIName == "Spinal_Cord_and_its_Canal"


@pytest.mark.filterwarnings("ignore:Failed to decode")
@pytest.mark.parametrize(
    ("name", "told"), [("Müller^Jörg".encode("latin-1"), True), ("Müller^Jörg".encode(), False), (b"", False)]
)
def test_a_name_that_cannot_be_written_as_it_came_is_told(name, told):
    header = ct_header(PatientID="P1", SpecificCharacterSet="ISO_IR 192")
    tag = Tag("PatientName")
    header._dict[tag] = RawDataElement(
        tag, "PN", len(name), name, 0, is_implicit_VR=False, is_little_endian=True
    )

    remarks = unlike_identifiers(header)

    assert bool(remarks) == told
    assert all("Patient's Name" in remark and "ller" not in remark for remark in remarks)


def test_a_description_without_room_for_every_remark_counts_the_others():
    remarks = [f"remark {number}, {'x' * 60}" for number in range(40)]

    said = build_structure_set(ct_volume(make_grid()), [], IDENTITY, MODEL, remarks).StructureSetDescription

    shown = sum(remark in said for remark in remarks)
    assert len(said) <= 1024
    assert 5 < shown < 40
    assert said.endswith(f"{remarks[shown - 1]}. {40 - shown} more remarks.")


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_the_referenced_study_has_the_class_that_the_destination_writes_itself(profile):
    (frame_of_reference,) = cord_for(profile).ReferencedFrameOfReferenceSequence
    (study,) = frame_of_reference.RTReferencedStudySequence
    assert study.ReferencedSOPClassUID == profile.study_sop_class_uid


@pytest.mark.parametrize("decimals", [1, 2, 3])
def test_coordinates_have_the_decimals_that_the_destination_writes_itself(decimals):
    (_, first), *_ = contours_of(cord_for(replace(GENERIC, decimals=decimals)))
    assert {len(str(value).partition(".")[2]) for value in first.ContourData} == {decimals}


def test_no_contour_has_more_points_than_the_destination_takes():
    dataset = cord_for(replace(GENERIC, max_points=8))
    counts = [contour.NumberOfContourPoints for _, contour in contours_of(dataset)]
    assert max(counts) == 8


def test_what_was_not_found_is_written_empty_where_the_destination_wants_that():
    grid = make_grid()
    rois = rois_of(organ_masks(grid), grid)
    wanting = replace(GENERIC, empty_structures=EmptyStructures.WRITE_EMPTY)
    dataset = dcmread(
        BytesIO(encode(build_structure_set(ct_volume(grid), rois, IDENTITY, MODEL, (), wanting)))
    )
    number = next(roi.ROINumber for roi in dataset.StructureSetROISequence if roi.ROIName == NOT_FOUND)
    (empty,) = (item for item in dataset.ROIContourSequence if item.ReferencedROINumber == number)
    assert "ContourSequence" not in empty


def test_a_derived_structure_that_lacks_a_source_is_never_written_and_always_told():
    wanting = replace(GENERIC, empty_structures=EmptyStructures.WRITE_EMPTY)
    grid = make_grid()
    cord, found = rois_of({name: organ_masks(grid)[name] for name in ("Brain", "SpinalCord")}, grid)
    lacking = replace(cord, number=99, name="X", contours=(), generation="Y + 5 mm", missing=("Y",))
    made = build_structure_set(ct_volume(grid), [found, lacking], IDENTITY, MODEL, (), wanting)
    assert [roi.ROIName for roi in made.StructureSetROISequence] == [found.name]
    assert "X (Y + 5 mm) is left out: Y was not found" in made.StructureSetDescription


def test_a_suspicious_result_says_so_in_lists_of_series():
    grid = make_grid()
    rois = rois_of({"SpinalCord": organ_masks(grid)["SpinalCord"]}, grid)
    many = ["Brainstem", "Glnd_Lacrimal_L", "Glnd_Lacrimal_R", "OpticNrv_L", "OpticNrv_R"]
    for doubts, said in (
        (["Brain", "Parotid_L"], "CHECK: Brain, Parotid_L - NEEDS REVIEW"),
        (many, "CHECK: Brainstem, Glnd_Lacrimal_L +3 - NEEDS REVIEW"),
    ):
        made = build_structure_set(ct_volume(grid), rois, IDENTITY, MODEL, doubts=doubts)
        assert made.SeriesDescription == said


def test_a_sequence_that_the_ct_left_incomplete_does_not_cost_the_result(tmp_path):
    """Many scanners leave out what the standard wants in the items of sequences that nobody needs here."""
    grid = make_grid()
    volume, masks = ct_volume(grid), organ_masks(grid)
    header = volume.header
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "CTHEAD", "99SITE"  # without Code Meaning
    header.ProcedureCodeSequence = [code]
    header.ReferencedStudySequence = [Dataset()]
    header.OtherPatientIDsSequence = [Dataset()]
    header.OtherPatientIDsSequence[0].PatientID = "also 4711"
    header.StudyDescription = "Head and neck"
    rois = rois_of({"SpinalCord": masks["SpinalCord"]}, grid)

    path = tmp_path / "rtstruct.dcm"
    path.write_bytes(encode(build_structure_set(volume, rois, IDENTITY, MODEL)))

    check_structure_set(path, volume, rois, IDENTITY)
    written = dcmread(path)
    assert "ProcedureCodeSequence" not in written
    assert written.StudyDescription == "Head and neck"


def test_an_item_that_cannot_be_decoded_costs_its_sequence_alone():
    header = Dataset()
    header.PatientID = "4711"
    item = Dataset()
    item[0x00091001] = RawDataElement(Tag(0x00091001), "ZZ", 2, b"ab", 0, False, True)  # noqa: FBT003 - its order
    header.ReferencedStudySequence = [item]

    assert [element.keyword for element in readable(header)] == ["PatientID"]


# References and geometry


def test_every_slice_is_listed_also_those_without_contours(made):
    volume, _, dataset = made
    (frame_of_reference,) = dataset.ReferencedFrameOfReferenceSequence
    (study,) = frame_of_reference.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    assert frame_of_reference.FrameOfReferenceUID == volume.header.FrameOfReferenceUID
    assert study.ReferencedSOPInstanceUID == volume.header.StudyInstanceUID
    assert series.SeriesInstanceUID == volume.header.SeriesInstanceUID
    assert [i.ReferencedSOPInstanceUID for i in series.ContourImageSequence] == list(volume.sop_instance_uids)
    assert {i.ReferencedSOPClassUID for i in series.ContourImageSequence} == {CTImageStorage}


@pytest.mark.parametrize("orientation", [*ORIENTATIONS, "tilted", "uneven"])
def test_contours_lie_on_their_slices_and_return_the_masks(orientation):
    """Whatever the patient's position, a tilted gantry or uneven spacing: plane and voxels are right."""
    if orientation == "tilted":
        grid = make_grid(tilt_degrees=14)
    elif orientation == "uneven":
        grid = make_grid(offsets_mm=ASYMMETRIC_OFFSETS_MM)
    else:
        grid = make_grid(orientation)
    volume, masks = ct_volume(grid), organ_masks(grid)
    index_of = {uid: index for index, uid in enumerate(volume.sop_instance_uids)}
    back: dict[str, list[Contour]] = {name: [] for name in masks}
    for name, contour in contours_of(rebuilt(volume, masks)):
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        (image,) = contour.ContourImageSequence
        index = index_of[image.ReferencedSOPInstanceUID]
        points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
        assert contour.NumberOfContourPoints == len(points)
        assert not np.array_equal(points[0], points[-1])
        assert np.abs((points - grid.positions_mm[index]) @ grid.normal).max() < 0.01
        back[name].append(Contour(index, grid.to_pixel(index, points)))
    for name, contours in back.items():
        np.testing.assert_array_equal(fill(contours, grid.shape).full(), masks[name].full(), err_msg=name)


def test_contour_data_stay_decimal_strings_when_a_peer_writes_them_in_explicit_vr(made):
    """Also from the object in memory, whose values are kept as text: nothing turns into UN."""
    volume, masks, _ = made
    structure_set = build_structure_set(volume, rois_of(masks, volume.grid), IDENTITY, MODEL)
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        structure_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dcmwrite(buffer, structure_set)
    explicit = dcmread(BytesIO(buffer.getvalue()))
    (_, first), *_ = contours_of(explicit)
    assert first["ContourData"].VR == "DS"
    assert len(explicit.ROIContourSequence) == 5


def test_21_organs_on_200_large_slices_take_no_more_than_a_breath():
    """Processor time, as other work may share the machine: typically a quarter of a second."""
    grid = make_grid(offsets_mm=np.arange(200) * 2.5, size=(512, 512), pixel_spacing_mm=(1, 1))
    volume = ct_volume(make_grid(), None)
    volume = type(volume)(volume.hu, grid, tuple(f"1.2.{i}" for i in range(200)), volume.header)
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = 256 + 80 * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    contours = [Contour(i, circle) for i in range(60, 100)]
    rois = [replace(roi, contours=contours) for roi in apply_template(DEFAULT_TEMPLATE, {}, grid)]
    started = time.process_time()
    content = encode(build_structure_set(volume, rois, IDENTITY, MODEL))
    assert time.process_time() - started < 2
    assert len(content) > 5_000_000


# Other readers


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A CT series on disk, its volume and masks, and the structure set beside it."""
    folder = tmp_path_factory.mktemp("series")
    grid = make_grid(offsets_mm=np.arange(-100, 100.1, 2.5))
    volume = read_series(write_series(folder / "ct", grid=grid))
    masks = organ_masks(volume.grid)
    path = folder / "rtstruct.dcm"
    path.write_bytes(encode(build_structure_set(volume, rois_of(masks, volume.grid), IDENTITY, MODEL)))
    return folder / "ct", volume, masks, path


def test_dciodvfy_finds_no_error(series):
    """David Clunie's validator knows types, conditions, value lengths and defined terms."""
    *_, path = series
    found = subprocess.run([needs("dciodvfy"), path], capture_output=True, text=True, check=False)
    said = found.stdout + found.stderr
    assert "RTStructureSet" in said
    assert "Error" not in said, said


def test_dcmtk_reads_it(series):
    *_, path = series
    dumped = subprocess.run([needs("dcmdump"), path], capture_output=True, text=True, check=True)
    assert "[Parotid_L]" in dumped.stdout
    assert not dumped.stderr


def test_plastimatch_finds_the_organs_where_they_are(series, tmp_path):
    """An independent reader, by its own geometry, gets the voxels back."""
    folder, volume, masks, path = series
    command = [needs("plastimatch"), "convert", "--input", path, "--referenced-ct", folder]
    command += ["--output-prefix", tmp_path / "masks", "--prefix-format", "nrrd", "--xor-contours"]
    subprocess.run(command, capture_output=True, text=True, check=True)
    for name, mask in masks.items():
        if mask.is_empty:
            continue
        image = SimpleITK.ReadImage(tmp_path / "masks" / f"{name}.nrrd")
        theirs = SimpleITK.GetArrayFromImage(image).astype(bool)
        np.testing.assert_allclose(image.GetOrigin(), volume.grid.positions_mm[0], atol=0.01)
        ours = mask.full()
        dice = 2 * (theirs & ours).sum() / (theirs.sum() + ours.sum())
        assert dice >= 0.99, name


def test_one_long_doubt_is_named():
    grid = make_grid()
    rois = rois_of(organ_masks(grid), grid)
    made = build_structure_set(ct_volume(grid), rois, IDENTITY, MODEL, doubts=("Parotid_L",))
    assert made.SeriesDescription == "CHECK: Parotid_L - NEEDS REVIEW"
    many = ("Glnd_Lacrimal_L", "Glnd_Lacrimal_R", "Glnd_Submand_L", "Glnd_Submand_R")
    assert (
        "Glnd_Lacrimal_L"
        in build_structure_set(ct_volume(grid), rois, IDENTITY, MODEL, doubts=many).SeriesDescription
    )


def test_a_shortened_structure_keeps_its_remark():
    grid = make_grid()
    rois = [
        replace(each, name=f"{each.name}_of_this_hospital", remark="reaches the image's end")
        for each in rois_of(organ_masks(grid), grid)
    ]
    made = build_structure_set(ct_volume(grid), rois, IDENTITY, MODEL)
    assert all("reaches the image's end" in each.ROIDescription for each in made.StructureSetROISequence)
