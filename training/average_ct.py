"""Average CT of the training cases: each aligned to the mean of all, and again."""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage

Points = NDArray[np.float64]
Volume = NDArray[np.float32]
Bits = NDArray[np.bool_]
Image = SimpleITK.Image

SPACING_MM = (3.0, 3.0, 2.5)  # columns, rows, slices
SIZE = (176, 96, 180)
ORIGIN_MM = (-262.5, -150.0, -285.0)  # LPS; the origin of coordinates is the mean centre of the brainstem
SIGMAS = (2.0, 1.3)  # smoothness of the deformations, voxels, round by round
COVERED_ABOVE_BRAINSTEM_MM = 60.0


@dataclass(frozen=True)
class Case:
    """One training CT with the organs that were contoured on it."""

    name: str
    image: Path
    labels: Path
    label_of: Mapping[str, int]
    organs: Path | None  # bitmask of the 21 organs at native resolution


def training_cases(data: Path) -> list[Case]:
    """Return CTs that reach well above the brainstem, and those with 21 organs; training split only."""
    label_of = json.loads((data / "openkbp/dataset.json").read_text())["labels"]
    of_scan = {
        record["openkbp_case"]: name
        for name, record in json.loads((data / "tcia21/cases.json").read_text()).items()
        if record["openkbp_split"] == "train"
    }
    cases = []
    for name, record in json.loads((data / "openkbp/cases.json").read_text()).items():
        needed = {"Brainstem", "Parotid_L", "Parotid_R"}
        if record["source_split"] != "train" or not needed <= set(record["present_labels"]):
            continue
        above = record["size"][2] - 1 - record["label_slices"]["Brainstem"][1]
        native = data / f"tcia21/native/{of_scan.get(name)}_oncologist.nii.gz"
        if name in of_scan or above * record["spacing_mm"][2] >= COVERED_ABOVE_BRAINSTEM_MM:
            image, labels = (data / f"openkbp/{kind}/{name}" for kind in ("imagesTr", "labelsTr"))
            cases.append(
                Case(
                    name,
                    image.with_name(f"{name}_0000.nii.gz"),
                    labels.with_name(f"{name}.nii.gz"),
                    label_of,
                    native if name in of_scan else None,
                )
            )
    return cases


def read(path: Path) -> Image:
    """Return a NIfTI volume with axes to the patient's left, back and head."""
    return Image(SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS"))


def organ_centres(labels: Image, label_of: Mapping[str, int]) -> dict[str, Points]:
    """Return what cases are first aligned by, in mm: organs' centres, the jaw's front, the cord further down."""
    voxels = SimpleITK.GetArrayFromImage(labels)
    scale, origin = np.array(labels.GetSpacing()), np.array(labels.GetOrigin())
    found: dict[str, Points] = {}
    for name in ("Brainstem", "Parotid_L", "Parotid_R", "Bone_Mandible", "SpinalCord"):
        at = np.argwhere(voxels == label_of[name])[:, ::-1] * scale + origin
        if len(at) == 0:
            continue
        if name == "SpinalCord":
            stem = found["Brainstem"][2]
            for below in (70.0, 110.0):
                near = at[np.abs(at[:, 2] - stem + below) < 4]
                if len(near):
                    found[f"cord {below}"] = near.mean(axis=0)
        else:
            found[name] = at.mean(axis=0)
        if name == "Bone_Mandible":
            found["chin"] = at[at[:, 1] <= np.percentile(at[:, 1], 5)].mean(axis=0)
    return found


def similarity(source: Points, target: Points) -> tuple[Points, Points]:
    """Return the matrix (a rotation and one scale) and offset that bring points closest to others."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    u, s, vt = np.linalg.svd(b.T @ a)
    flip = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    matrix = (s @ np.diag(flip)) / (a * a).sum() * (u @ flip @ vt)
    return matrix, target.mean(axis=0) - matrix @ source.mean(axis=0)


def common_points(every: Sequence[Mapping[str, Points]]) -> dict[str, Points]:
    """Return mean landmarks, symmetric, the brainstem at the origin."""
    mean = dict(every[0])
    for points in every:
        mean = {**points, **mean}
    for _ in range(10):
        moved = []
        for points in every:
            names = [n for n in mean if n in points]
            matrix, offset = similarity(
                np.array([points[n] for n in names]), np.array([mean[n] for n in names])
            )
            matrix = matrix / np.cbrt(np.linalg.det(matrix))
            moved.append({n: matrix @ points[n] + offset for n in names})
        mean = {n: np.mean([m[n] for m in moved if n in m], axis=0) for n in mean}
        mean = {n: p - mean["Brainstem"] for n, p in mean.items()}
    return {name: (point + _mirrored(mean, name)) / 2 for name, point in mean.items()}


def _mirrored(points: Mapping[str, Points], name: str) -> Points:
    partner = {"Parotid_L": "Parotid_R", "Parotid_R": "Parotid_L"}.get(name, name)
    return points[partner] * (-1, 1, 1)


def brightness(hu: Volume) -> Volume:
    """Map HU so that equal steps are equally worth aligning: soft tissue is spread, bone compressed."""
    hu_at = [-1000, -400, -130, 0, 70, 150, 400, 1500]
    return np.interp(hu, hu_at, [0, 10, 35, 52, 66, 73, 90, 100]).astype(np.float32)


def grid() -> Image:
    """Return an empty image on the grid of the average."""
    image = Image(SIZE, SimpleITK.sitkFloat32)
    image.SetSpacing(SPACING_MM)
    image.SetOrigin(ORIGIN_MM)
    return image


def on_grid(voxels: Volume) -> Image:
    """Return voxels of the average as an image."""
    image = SimpleITK.GetImageFromArray(voxels.astype(np.float32))
    image.CopyInformation(grid())
    return image


def axes_mm() -> tuple[Points, Points, Points]:
    """Return LPS millimetres of slices, rows and columns of the average, shaped to broadcast."""
    x, y, z = (
        o + s * np.arange(n, dtype=np.float64) for o, s, n in zip(ORIGIN_MM, SPACING_MM, SIZE, strict=True)
    )
    return np.asarray(z[:, None, None]), np.asarray(y[:, None]), np.asarray(x)


@dataclass(frozen=True)
class Seen:
    """A case on the grid of the average: HU, what lies in its image, and how it was deformed (mm)."""

    hu: Volume
    imaged: Bits
    field: NDArray[np.float16] | None = None
    affine: tuple[float, ...] = ()

    def transform(self) -> SimpleITK.Transform:
        """Return the map from the average to the case."""
        affine = SimpleITK.AffineTransform(3)
        affine.SetParameters(self.affine)
        field = SimpleITK.GetImageFromArray(np.asarray(self.field, np.float64), isVector=True)
        field.CopyInformation(grid())
        return SimpleITK.CompositeTransform([affine, SimpleITK.DisplacementFieldTransform(field)])


def resampled(image: Image, transform: SimpleITK.Transform, outside: float) -> Volume:
    """Return an image's values on the grid of the average."""
    image = SimpleITK.Cast(image, SimpleITK.sitkFloat32)
    return SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(image, grid(), transform, SimpleITK.sitkLinear, outside)
    )


def look(image: Image, transform: SimpleITK.Transform) -> Seen:
    """Resample a case."""
    return Seen(resampled(image, transform, -1000.0), resampled(image > -3000, transform, 0.0) > 0.9)


def align(case: Case, start: SimpleITK.Transform, template: Volume, sigma: float) -> Seen:
    """Bring a case onto the average: affine, then a smooth deformation.

    Where the case has no image, the average stands in for it, so that nothing pulls there;
    so too beside the chest, where the source left out shoulders and arms of some cases (exactly -1000).
    """
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    image = read(case.image)
    hu = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    bright = SimpleITK.GetImageFromArray(brightness(hu))
    bright.CopyInformation(image)
    fixed = on_grid(brightness(template))
    affine = refine(fixed, bright, start)
    seen = look(image, affine)
    z, _, x = axes_mm()
    left_out = (resampled(image > -1000, affine, 0.0) < 0.5) & (z < -130) & (np.abs(x) > 90)
    moving = np.where(seen.imaged & ~left_out, brightness(seen.hu), brightness(template))
    field = deform(fixed, on_grid(moving), sigma)
    whole = Seen(
        seen.hu, seen.imaged, SimpleITK.GetArrayFromImage(field).astype(np.float16), affine.GetParameters()
    )
    final = look(image, whole.transform())
    return Seen(final.hu, final.imaged, whole.field, whole.affine)


def refine(fixed: Image, moving: Image, start: SimpleITK.Transform) -> SimpleITK.Transform:
    """Improve an affine transform by the images."""
    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.1)
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.05, 40)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([3, 2])
    method.SetSmoothingSigmasPerLevel([6.0, 3.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(SimpleITK.AffineTransform(start), inPlace=False)
    return SimpleITK.AffineTransform(
        SimpleITK.CompositeTransform(method.Execute(fixed, moving)).GetNthTransform(0)
    )


def deform(fixed: Image, moving: Image, sigma: float) -> Image:
    """Return the displacement (mm) that brings the moving image onto the fixed one, from coarse to fine."""
    field: Image | None = None
    for shrink, steps in ((4, 60), (2, 40), (1, 8)):
        small, other = (SimpleITK.SmoothingRecursiveGaussian(i, 1.5 * shrink) for i in (fixed, moving))
        small, other = (SimpleITK.Shrink(i, [shrink] * 3) for i in (small, other))
        if field is None:
            field = SimpleITK.Image(small.GetSize(), SimpleITK.sitkVectorFloat64)
            field.CopyInformation(small)
        else:
            field = SimpleITK.Resample(field, small)
        demons = SimpleITK.FastSymmetricForcesDemonsRegistrationFilter()
        demons.SetNumberOfIterations(steps)
        demons.SetStandardDeviations(sigma)
        field = demons.Execute(small, other, field)
    assert field is not None
    return SimpleITK.Resample(field, fixed)


def mean_ct(seen: Sequence[Seen]) -> Volume:
    """Average HU; where most patients have tissue, of tissue only, and where most have air, of air only."""
    total = sum(s.imaged.astype(np.float32) for s in seen)
    tissue = sum((s.imaged & (s.hu > -400)).astype(np.float32) for s in seen)
    tissue_hu = sum(np.where(s.imaged & (s.hu > -400), s.hu, 0) for s in seen) / np.maximum(tissue, 1)
    air_hu = sum(np.where(s.imaged & (s.hu <= -400), s.hu, 0) for s in seen) / np.maximum(total - tissue, 1)
    z, _, x = axes_mm()
    needed = np.where((z < -130) & (np.abs(x) > 90), 0.35, 0.5)  # some patients' arms were left out
    solid = ndimage.gaussian_filter(tissue, 0.5) >= needed * ndimage.gaussian_filter(
        np.maximum(total, 1), 0.5
    )
    return np.where(solid & (tissue > 1), tissue_hu, np.where(total > 0, air_hu, -1000)).astype(np.float32)


def recentred(template: Volume, seen: Sequence[Seen]) -> Volume:
    """Move the average to the patients' mean shape, so that their deformations cancel out."""
    weight = np.maximum(sum(s.imaged.astype(np.float32) for s in seen), 1)[..., None]
    drift = sum(np.where(s.imaged[..., None], np.asarray(s.field, np.float32), 0) for s in seen) / weight
    drift = ndimage.gaussian_filter(drift, (4, 4, 4, 0)).astype(np.float64)
    back = SimpleITK.GetImageFromArray(-drift, isVector=True)
    back.CopyInformation(grid())
    return resampled(on_grid(template), SimpleITK.DisplacementFieldTransform(back), -1000.0)


def build_ct(cases: Sequence[Case], starts: Sequence[SimpleITK.Transform]) -> tuple[Volume, list[Seen]]:
    """Average the cases, align each to the average, and again."""
    template = mean_ct([look(read(c.image), start) for c, start in zip(cases, starts, strict=True)])
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for number, sigma in enumerate(SIGMAS, start=1):
            jobs = [pool.submit(align, c, s, template, sigma) for c, s in zip(cases, starts, strict=True)]
            seen = [job.result() for job in jobs]
            template = mean_ct(seen)
            if number < len(SIGMAS):
                template = recentred(template, seen)
            print(
                f"round {number}: {sum(np.abs(s.hu - template)[s.imaged].mean() for s in seen) / len(seen):.0f} HU"
            )
    return template, seen


def first_transforms(cases: Sequence[Case]) -> list[SimpleITK.Transform]:
    """Return a map from the average's landmarks to every case's."""
    every = [organ_centres(read(case.labels), case.label_of) for case in cases]
    mean = common_points(every)
    transforms: list[SimpleITK.Transform] = []
    for points in every:
        names = [n for n in mean if n in points]
        matrix, offset = similarity(np.array([mean[n] for n in names]), np.array([points[n] for n in names]))
        transform = SimpleITK.AffineTransform(3)
        transform.SetMatrix(matrix.ravel())
        transform.SetTranslation(offset)
        transforms.append(transform)
    return transforms


def tissue_and_air(
    seen: Sequence[Seen],
) -> tuple[Volume, Volume, Volume]:
    """Return the share of patients with tissue, and the mean HU of their tissue and of their air."""
    imaged = sum(s.imaged.astype(np.float32) for s in seen)
    solid = [np.clip((np.asarray(s.hu, np.float32) + 700) / 500, 0, 1) * s.imaged for s in seen]
    share = sum(solid) / np.maximum(imaged, 1)
    dense = [s.imaged & (s.hu > -300) for s in seen]
    tissue = sum(np.where(d, s.hu, 0) for d, s in zip(dense, seen, strict=True)) / np.maximum(sum(dense), 1)
    thin = [s.imaged & (s.hu < -700) for s in seen]
    air = sum(np.where(t, s.hu, 0) for t, s in zip(thin, seen, strict=True)) / np.maximum(sum(thin), 1)
    few = sum(dense) < 2
    tissue[few] = 0
    air[sum(thin) < 2] = -1000
    z, _, x = axes_mm()
    beside = (z < -130) & (np.abs(x) > 90)  # where some patients' arms were left out
    share = np.where(beside, np.clip(share * 1.5, 0, 1), share)
    return share.astype(np.float32), tissue.astype(np.float32), air.astype(np.float32)


def average_cases(cases: Sequence[Case]) -> list[Seen]:
    """Return all cases, aligned to their average."""
    return build_ct(cases, first_transforms(cases))[1]
