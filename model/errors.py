"""What can be wrong with a CT series or a model bundle, said so that the one who must act can act."""

from enum import StrEnum


class ReasonCode(StrEnum):
    """Why a series was refused; the value is what administrators see and query for."""

    NOT_CT = "not-ct"
    LOCALIZER_ONLY = "localizer-only"
    TOO_FEW_SLICES = "too-few-slices"
    MIXED_SERIES = "mixed-series"
    MIXED_PATIENT = "mixed-patient"
    NO_FRAME_OF_REFERENCE = "no-frame-of-reference"
    MIXED_FRAME_OF_REFERENCE = "mixed-frame-of-reference"
    MISSING_POSITION = "missing-position"
    MIXED_ORIENTATION = "mixed-orientation"
    NOT_AXIAL = "not-axial"
    DUPLICATE_INSTANCE = "duplicate-instance"
    DUPLICATE_POSITION = "duplicate-position"
    MISSING_SLICE = "missing-slice"
    IRREGULAR_SPACING = "irregular-spacing"
    NO_PIXEL_SPACING = "no-pixel-spacing"
    MIXED_SPACING = "mixed-spacing"
    MIXED_MATRIX = "mixed-matrix"
    NO_RESCALE = "no-rescale"
    IMPLAUSIBLE_HU = "implausible-hu"
    UNDECODABLE = "undecodable"
    TOO_LARGE = "too-large"
    NOT_HEAD_AND_NECK = "not-head-and-neck"
    NOTHING_TO_WRITE = "nothing-to-write"
    NO_ROUTE = "no-route"


class SeriesUnsuitable(Exception):  # noqa: N818 - it says what holds, and reads so in `except`
    """The series cannot be contoured; whoever sent it must send another.

    The message says what was found, with its numbers, and what is needed.
    It never carries a patient's name, id or birth date, so it may be logged.
    """

    def __init__(self, code: ReasonCode, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class BundleError(Exception):
    """The model bundle is incomplete, altered or does not fit the program; the operator must replace it."""
