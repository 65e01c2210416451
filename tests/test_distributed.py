"""Two processes that share every batch train the same network as one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conditions import wait_until
from tests.paths import REPOSITORY
from tests.training_cases import a_config
from training.checkpoint import LAST
from training.distributed import Ranks

MORE = 'batch = 5\nprecision = "float32"\n'


def torchrun(config: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """Start two processes of one machine that meet on the loopback."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
        "training.train", str(config), "--out", str(out), "--device", "cpu", *options,
    ]  # fmt: skip
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def alone(config: Path, out: Path) -> None:
    command = [sys.executable, "-m", "training.train", str(config), "--out", str(out), "--device", "cpu"]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / LAST, weights_only=True)["network"]


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_every_sample_of_a_batch_belongs_to_one_process(rank: int) -> None:
    assert Ranks(rank, 3).share(7) == range(rank, 7, 3)
    assert sorted(place for r in range(3) for place in Ranks(r, 3).share(7)) == list(range(7))


def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    """Five samples of unlike organs on two processes: weights and curve agree with those of one process."""
    config = a_config(tmp_path, steps=4, more=MORE)
    alone(config, tmp_path / "one")

    process = torchrun(config, tmp_path / "two")
    said, _ = process.communicate(timeout=120)

    assert process.returncode == 0, said
    assert said.count("bundle written") == 1
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        torch.testing.assert_close(
            two[name], value, rtol=1e-4, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
    rows = [(tmp_path / name / "curve.csv").read_text().split() for name in ("one", "two")]
    assert len(rows[0]) == len(rows[1]) == 5
    for first, second in zip(rows[0][1:], rows[1][1:], strict=True):
        pairs = zip(first.split(","), second.split(","), strict=True)
        assert all(abs(float(a) - float(b)) < 1e-4 for a, b in pairs)


def test_a_signal_stops_all_processes_with_one_checkpoint(tmp_path: Path) -> None:
    """SIGTERM to torchrun, as a scheduler sends it: the checkpoint of the step that was running is there."""
    config = a_config(tmp_path, steps=100_000, more=MORE)
    process = torchrun(config, tmp_path / "out")
    curve = tmp_path / "out/curve.csv"
    wait_until(lambda: curve.exists() and len(curve.read_text().split()) > 20, "twenty steps", 90)

    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)

    state = torch.load(tmp_path / "out" / LAST, weights_only=True)
    assert state["step"] >= 20, said
    assert len(curve.read_text().split()) == state["step"] + 1
    assert not (tmp_path / "out/checkpoint.part").exists()


def test_a_batch_smaller_than_the_processes_is_refused(tmp_path: Path) -> None:
    process = torchrun(a_config(tmp_path, steps=1), tmp_path / "out")

    said, _ = process.communicate(timeout=120)

    assert process.returncode != 0
    assert "batch 1 cannot be shared by 2 processes" in said
