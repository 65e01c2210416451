"""An unexpected error is told completely, and without the patient."""

import pytest

from daemon.failure_words import WITHHELD, call_path, describe, is_cuda_fault, without_patient
from daemon.job_queue_rows import Job


@pytest.fixture
def job():
    return Job(patient_name="Müller-Lüdenscheidt^Jörg=Mueller", patient_id="P-4711", accession_number="A.17+")


def fails():
    raise ValueError("bad PatientName for P-4711")


@pytest.mark.parametrize(
    "text",
    [
        "value 'Müller-Lüdenscheidt^Jörg' is bad",
        "jörg",
        "JÖRG came too late",
        "id P-4711.",
        "accession A.17+ twice",
        "born 19610230",
        "born 1961-02-28",
        "bad DA '1961.02.28'",
        "born 28.02.1961 or 1961/02/28",
        "cannot write /archive/MUELLER_JÖRG_P-4711/x.dcm",
        "AccessionNumber_A.17+",
    ],
)
def test_name_id_accession_and_dates_are_withheld(job, text):
    told = without_patient(text, job).lower()

    assert WITHHELD in told
    for secret in ("jörg", "lüdenscheidt", "4711", "a.17+", "1961"):
        assert secret not in told


@pytest.mark.parametrize(
    "text",
    [
        "1.2.840.10008.5.1.4.1.1.481.3 is no CT",
        "1.3.12.2.1107.5.1.4.1980.01.02.7 is there",
        "10.20.1.2019",
        "212 slices of 512 × 512",
        "P-47110 and XP-4711 are others",
    ],
)
def test_what_points_at_nobody_is_kept(job, text):
    assert text == without_patient(text, job)


def test_names_in_scripts_without_blanks_are_withheld_wherever_they_stand():
    job = Job(patient_name="Wang^XiaoMing=王^小明", patient_id="", accession_number="")

    assert "小明" not in without_patient("患者王小明已存在", job)
    assert without_patient("the wangle is kept", job) == "the wangle is kept"


def test_patient_without_name_and_id_hides_nothing():
    nobody = Job(patient_name=None, patient_id="", accession_number="")

    assert without_patient("a b c", nobody) == "a b c"


def test_error_is_told_with_kind_words_and_place(job):
    with pytest.raises(ValueError, match="bad") as caught:
        fails()

    words = describe(caught.value, job)
    assert words.startswith("ValueError: bad PatientName for [withheld] (test_failure_words.py:")
    assert words.endswith("in fails)")
    assert call_path(caught.value)[-1].endswith(" fails")


def test_endless_words_are_cut(job):
    assert len(describe(ValueError("x" * 10_000), job)) < 1000


def test_only_a_cuda_fault_asks_for_a_new_process():
    class AcceleratorError(RuntimeError):
        """As torch names it."""

    assert is_cuda_fault(RuntimeError("CUDA error: device-side assert triggered"))
    assert is_cuda_fault(AcceleratorError("unspecified launch failure"))
    assert not is_cuda_fault(RuntimeError("shape mismatch"))
    assert not is_cuda_fault(ValueError("CUDA error"))
