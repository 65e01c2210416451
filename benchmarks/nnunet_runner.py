"""Train and apply nnU-Net for a budget of CPU time; `benchmarks.nnunet_peer` runs it in its own environment.

python nnunet_runner.py train DATASET CPU_MINUTES
python nnunet_runner.py predict DATASET IMAGES OUT
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

CONFIGURATION = "3d_fullres"


def train(dataset: str, cpu_minutes: float) -> None:
    """As many steps as the budget holds, on all cases; the learning rate falls as nnU-Net's own, by time used."""
    folder = Path(nnUNet_preprocessed.require()) / dataset
    plans, about = (json.loads((folder / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    plans["continue_training"] = False
    torch.manual_seed(1)
    trainer: Any = nnUNetTrainerNoMirroring(plans, CONFIGURATION, "all", about, torch.device("cpu"))
    trainer.on_train_start()
    steps, used, budget = 0, 0.0, cpu_minutes * 60
    begun = time.process_time()
    while used < budget:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - used / budget) ** 0.9
        loss = trainer.train_step(next(trainer.dataloader_train))["loss"]
        steps += 1
        used = time.process_time() - begun
        said = f"step {steps}: loss {float(loss):.3f}, {used / 60:.1f} of {cpu_minutes:g} CPU minutes"
        print(said, flush=True)  # noqa: T201 - a script for a terminal
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    about_run = {
        "steps": steps,
        "cpu_minutes": used / 60,
        "weights": sum(value.numel() for value in trainer.network.parameters()),
        "patch": [int(side) for side in trainer.configuration_manager.patch_size],
        "batch": int(trainer.batch_size),
        "spacing_mm": [float(side) for side in trainer.configuration_manager.spacing],
    }
    (Path(nnUNet_results.require()) / "training.json").write_text(json.dumps(about_run, indent=1))


def predict(dataset: str, images: str, out: str) -> None:
    """Label maps of every image in a folder; no mirroring, as it was trained without."""
    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
    )
    trainer = nnUNetTrainerNoMirroring.__name__
    folder = Path(nnUNet_results.require()) / dataset / f"{trainer}__nnUNetPlans__{CONFIGURATION}"
    plans = PlansManager(json.loads((folder / "plans.json").read_text()))
    about = json.loads((folder / "dataset.json").read_text())
    configuration = plans.get_configuration(CONFIGURATION)
    outputs = plans.get_label_manager(about).num_segmentation_heads
    # Not by the trainer's name, for which nnU-Net would import every trainer it has, and what they need.
    network = nnUNetTrainerNoMirroring.build_network_architecture(
        plans, configuration, 1, outputs, enable_deep_supervision=False
    )
    trained = torch.load(folder / "fold_all/checkpoint_final.pth", weights_only=False)["network_weights"]
    network.load_state_dict(trained)
    predictor.manual_initialization(network, plans, configuration, [trained], about, trainer, None)
    Path(out).mkdir(parents=True, exist_ok=True)
    predictor.predict_from_files_sequential(images, out, overwrite=False)


if __name__ == "__main__":
    # Patches are drawn in this process, so that its CPU time counts them.
    os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112 - nnU-Net's name
    if sys.argv[1] == "train":
        train(sys.argv[2], float(sys.argv[3]))
    else:
        predict(*sys.argv[2:5])
