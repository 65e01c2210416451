"""nnU-Net v2 beside this project's network: same training cases, CPU time, validation cases and metric.

    python -m benchmarks.nnunet_peer --minutes 25 --out runs/nnunet --table docs/nnunet.md

Both train on the OpenKBP training cases in which brainstem, cord, parotids and mandible were all contoured:
nnU-Net has one label map per case and cannot leave out an organ that nobody contoured, it would learn it as
background. Slices below the lowest contour of the cord are marked with its ignore label, because the cord is
there without a contour. Larynx and oesophagus, contoured in few cases, are background to it. It trains without
mirroring, which would exchange left and right, and with a plan for little memory, so that its steps are short
enough to be many. Everything else is as it plans for itself.

Each stage that has left its result in the folder is not repeated.
"""

import json
import math
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from model.bundle import Bundle
from model.segmenter import Segmenter
from model.unet import UNet3D
from training.config import TrainConfig, build_config, merged, read_table
from training.dataset import CLINICAL_NAMES, Case, counted, described, read_packs, write_packs
from training.evaluate import score_case, with_every_output
from training.export import export
from training.failures import failures_in_words
from training.metrics import dice
from training.stop import Stop
from training.train import (
    draw_chances,
    draw_samples,
    load_data,
    network_and_optimiser,
    optimise,
    run,
)

ORGANS = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Bone_Mandible")
CLINICAL = tuple(CLINICAL_NAMES.get(organ, organ) for organ in ORGANS)
"""The same organs as the packs of OpenKBP and our network's outputs name them."""
IGNORE = len(ORGANS) + 1
DATASET = "Dataset501_OpenKBP"
VERSION = "2.8.1"
RUNNER = Path(__file__).with_name("nnunet_runner.py")
CONFIGURATION = Path(__file__).parents[1] / "training/configs/ablation.toml"
MEASURED_STEPS = 20

Scores = dict[tuple[str, str], float]


def main(
    data: Path = typer.Option(Path("../shared/data/openkbp"), help="OpenKBP in nnU-Net's raw layout."),  # noqa: B008
    out: Path = typer.Option(Path("runs/nnunet"), help="Folder of both trainings."),  # noqa: B008
    table: Path | None = typer.Option(None, help="Write the table here too."),  # noqa: B008
    minutes: float = typer.Option(25, help="CPU minutes of training for each of the two."),
    memory_gb: float = typer.Option(1.0, help="What nnU-Net plans its patch for."),
) -> None:
    """Train, apply and measure both, and write one table."""
    console = Console()
    train_cases = chosen_cases(data)
    console.print(f"{len(train_cases)} training cases with all of {', '.join(ORGANS)}")
    with failures_in_words():  # before nnU-Net trains for nothing
        config = own_configuration(out / "own", train_cases, minutes)
    peer = Peer(out)
    peer.install(console)
    peer.prepare(data, train_cases, memory_gb)
    peer.train(minutes)
    validation = [*read_packs([Path("runs/packs/openkbp-validation-00.npz")])]
    peer.predict(data, [case.name for case in validation])
    theirs = {
        (case.name, organ): value
        for case in track(validation, "measuring nnU-Net", console=console)
        for organ, value in measured(case, peer.masks(case.name)).items()
    }
    run(config, out / "own", torch.device("cpu"), Stop(math.inf), console)
    ours = own_scores(out / "own", config, validation, console)
    about = json.loads((out / "results/training.json").read_text())
    text = as_markdown(ours, theirs, about, config, minutes, len(train_cases))
    for path in {out / "peer.md", table or out / "peer.md"}:
        path.write_text(text, encoding="utf-8")
    console.print(text, markup=False)


def chosen_cases(data: Path) -> dict[str, int]:
    """Training cases in which every organ was contoured, and the cord's lowest contoured slice in each."""
    cases = json.loads((data / "cases.json").read_text())
    return {
        name: int(about["label_slices"]["SpinalCord"][0])
        for name, about in cases.items()
        if about["source_split"] == "train" and set(ORGANS) <= set(about["present_labels"])
    }


class Peer:
    """nnU-Net in an environment and folders of its own."""

    def __init__(self, out: Path) -> None:
        self.out = out.resolve()
        self.python = self.out / "venv/bin/python"
        self.environment = {
            **os.environ,
            "nnUNet_raw": str(self.out / "raw"),
            "nnUNet_preprocessed": str(self.out / "preprocessed"),
            "nnUNet_results": str(self.out / "results"),
            "nnUNet_n_proc_DA": "1",  # for the plan; the runner itself draws in its own process
            "nnUNet_compile": "0",
            "OMP_NUM_THREADS": "1",
        }

    def install(self, console: Console) -> None:
        """A virtual environment that sees this one's torch, and nnU-Net in it."""
        if (self.out / "venv/installed").exists():
            return
        console.print("installing nnU-Net")
        subprocess.run([sys.executable, "-m", "venv", str(self.out / "venv")], check=True)
        packages = next((self.out / "venv/lib").glob("python*")) / "site-packages"
        (packages / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        pinned = self.out / "constraints.txt"
        pinned.write_text(f"torch=={torch.__version__.split('+')[0]}\n", encoding="utf-8")
        command = [str(self.python), "-m", "pip", "install", "-q", "-c", str(pinned), f"nnunetv2=={VERSION}"]
        subprocess.run(command, check=True)
        (self.out / "venv/installed").touch()

    def prepare(self, data: Path, cases: Mapping[str, int], memory_gb: float) -> None:
        """Raw folder, fingerprint, plan, preprocessed cases."""
        if (self.out / "preprocessed/prepared").exists():
            return
        raw = self.out / "raw" / DATASET
        for name in ("imagesTr", "labelsTr"):
            (raw / name).mkdir(parents=True, exist_ok=True)
        numbers = json.loads((data / "dataset.json").read_text())["labels"]
        for name, lowest in cases.items():
            image = raw / "imagesTr" / f"{name}_0000.nii.gz"
            if not image.exists():
                image.symlink_to((data / "imagesTr" / image.name).resolve())
            labels = sitk.ReadImage(str(data / "labelsTr" / f"{name}.nii.gz"))
            relabelled = sitk.GetImageFromArray(relabel(sitk.GetArrayFromImage(labels), numbers, lowest))
            relabelled.CopyInformation(labels)
            sitk.WriteImage(relabelled, str(raw / "labelsTr" / f"{name}.nii.gz"))
        labels_of = {
            "background": 0,
            **{organ: index + 1 for index, organ in enumerate(ORGANS)},
            "ignore": IGNORE,
        }
        about = {
            "channel_names": {"0": "CT"},
            "labels": labels_of,
            "numTraining": len(cases),
            "file_ending": ".nii.gz",
        }
        (raw / "dataset.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        number = DATASET.removeprefix("Dataset").split("_")[0]
        command = ["nnUNetv2_plan_and_preprocess", "-d", number, "-c", "3d_fullres", "-np", "1", "-npfp", "1"]
        self._call([*command, "-gpu_memory_target", str(memory_gb)])
        (self.out / "preprocessed/prepared").touch()

    def train(self, minutes: float) -> None:
        """For so many CPU minutes."""
        if not (self.out / "results/training.json").exists():
            (self.out / "results").mkdir(exist_ok=True)
            self._call([str(self.python), str(RUNNER), "train", DATASET, str(minutes)])

    def predict(self, data: Path, names: list[str]) -> None:
        """Label maps of the named cases."""
        images = self.out / "validation"
        images.mkdir(exist_ok=True)
        for name in names:
            image = images / f"{name}_0000.nii.gz"
            if not image.exists():
                image.symlink_to((data / "imagesTr" / image.name).resolve())
        if not all((self.out / "predicted" / f"{name}.nii.gz").exists() for name in names):
            predicted = str(self.out / "predicted")
            self._call([str(self.python), str(RUNNER), "predict", DATASET, str(images), predicted])

    def masks(self, name: str) -> dict[str, NDArray[np.bool_]]:
        """What was predicted of a case, on its own grid."""
        image = sitk.ReadImage(str(self.out / "predicted" / f"{name}.nii.gz"))
        labels = sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS"))
        return {organ: labels == index + 1 for index, organ in enumerate(CLINICAL)}

    def _call(self, command: list[str]) -> None:
        if not Path(command[0]).is_absolute():
            command = [str(self.python.with_name(command[0])), *command[1:]]
        subprocess.run(command, check=True, env=self.environment)


def relabel(labels: NDArray[np.uint8], numbers: Mapping[str, int], lowest: int) -> NDArray[np.uint8]:
    """The five organs as 1 to 5 in slices (first axis) feet to head, with `IGNORE` below the cord's contours."""
    ordered = np.zeros_like(labels)
    for index, organ in enumerate(ORGANS):
        ordered[labels == numbers[organ]] = index + 1
    below = ordered[:lowest]
    below[below == 0] = IGNORE
    return ordered


def measured(case: Case, masks: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
    """Dice of every known organ over the heights where it is known, as `training.evaluate.score_case` counts."""
    return {
        organ: dice(case.organ(organ) & slices, masks[organ] & slices)
        for organ in CLINICAL
        if organ in case.known
        for slices in (counted(case, organ),)
    }


def own_configuration(out: Path, names: Mapping[str, int], minutes: float) -> TrainConfig:
    """Our network on the same cases, which are packed; as many steps as the budget holds, measured on a few.

    Raises
    ------
    ConfigurationError
        The cases are none, or not those of OpenKBP alone.
    """
    out.mkdir(parents=True, exist_ok=True)
    packs = sorted(out.glob("cases-*.npz")) or write_packs(
        (case for case in _openkbp() if case.name in names), out / "cases"
    )
    table = merged(read_table(CONFIGURATION), {"name": "peer", "data": {"packs": [*map(str, packs)]}})
    del table["variant"], table["about"]
    # What is set group by group must name no group that these packs lack.
    table["data"] |= {"group_weights": {"openkbp": 1.0}, "untaught": {}}
    config = build_config(table)
    draw_chances([*described(packs)], config.data)
    steps = out / "steps.txt"
    if not steps.exists():
        steps.write_text(str(int(minutes * 60 / _seconds_per_step(config))))
    return build_config(merged(table, {"optimiser": {"steps": int(steps.read_text())}}))


def _openkbp() -> Iterator[Case]:
    return read_packs(sorted(Path("runs/packs").glob("openkbp-train-*.npz")))


def _seconds_per_step(config: TrainConfig) -> float:
    """CPU seconds of a step, drawing included."""
    data = load_data(config, torch.device("cpu"))
    torch.set_num_threads(config.threads)
    network, optimiser = network_and_optimiser(config, torch.device("cpu"))
    for step in range(MEASURED_STEPS + 2):
        if step == 2:  # the first steps allocate
            begun = time.process_time()
        optimise(network, optimiser, draw_samples(data, config, step), config, step)
    return (time.process_time() - begun) / MEASURED_STEPS


def own_scores(out: Path, config: TrainConfig, validation: list[Case], console: Console) -> Scores:
    """Dice of this project's network."""
    segmenter = Segmenter(with_every_output(Bundle.load(export(config, out))), "cpu")
    return {
        (case.name, score.organ): score.dice
        for case in track(validation, "measuring our own", console=console)
        for score in score_case(segmenter, case)
        if score.organ in CLINICAL
    }


def as_markdown(
    ours: Scores, theirs: Scores, about: dict[str, Any], config: TrainConfig, minutes: float, cases: int
) -> str:
    """Per organ both means with their standard deviation, and the paired difference."""
    rows = []
    for organ in CLINICAL:
        keys = sorted(key for key in ours.keys() & theirs.keys() if key[1] == organ)
        pairs = np.array([(ours[key], theirs[key]) for key in keys])
        pairs = pairs[~np.isnan(pairs).any(1)]
        own, peer = (f"{column.mean():.3f} ± {column.std(ddof=1):.3f}" for column in pairs.T)
        change = pairs[:, 0] - pairs[:, 1]
        rows.append(
            f"| {organ} | {own} | {peer} | {change.mean():+.3f} ± {change.std(ddof=1):.3f} | {len(pairs)} |"
        )
    weights = sum(value.numel() for value in UNet3D(config.network).parameters())
    return PAGE.format(
        cases=cases,
        minutes=minutes,
        steps=config.optimiser.steps,
        weights=weights / 1e6,
        patch=" x ".join(map(str, config.patch)),
        spacing=" x ".join(f"{side:g}" for side in config.spacing_mm),
        peer_steps=about["steps"],
        peer_weights=about["weights"] / 1e6,
        peer_batch=about["batch"],
        peer_patch=" x ".join(map(str, about["patch"])),
        peer_spacing=" x ".join(f"{side:.3g}" for side in about["spacing_mm"]),
        rows="\n".join(rows),
        version=VERSION,
    )


PAGE = """# nnU-Net on the same data for the same time

Dice, mean ± standard deviation over validation cases, of two small trainings of {minutes:g} CPU minutes each
on the same {cases} OpenKBP training cases, those in which all five organs were contoured.
It compares how far a little computing goes, not what either reaches when it is trained to its end.

| | this project | nnU-Net {version} |
|---|---|---|
| steps | {steps} of 1 patch | {peer_steps} of {peer_batch} patches |
| patch | {patch} voxels of {spacing} mm | {peer_patch} voxels of {peer_spacing} mm |
| weights | {weights:.1f} million | {peer_weights:.1f} million |

| organ | this project | nnU-Net | difference | cases |
|---|---|---|---|---|
{rows}

nnU-Net computes in float32 on a CPU, as it does unless it has CUDA; ours in bfloat16, which takes half the time.
It planned for itself, with two exceptions: no mirroring, which would exchange left and right, and a patch for
little memory, so that its steps are many. It has no loss for an organ that was not contoured, which is why only
complete cases are used here; slices below the cord's lowest contour are left out with its ignore label.

Made with `python -m benchmarks.nnunet_peer --out runs/nnunet --table docs/nnunet.md`.
"""


if __name__ == "__main__":
    typer.run(main)
