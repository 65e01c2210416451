"""The bundle loader: a description, weights and ranges, whose digests mostly agree whatever was done to them."""

import hashlib
import json
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch

from model.bundle import Bundle, add_reference_ranges, write_bundle
from model.errors import BundleError
from model.network_input import Preprocessing
from model.reference_ranges import Range, ReferenceRanges
from model.unet import UNet3D, UNetConfig
from tests.fuzz.oracle import Broken, require_typed
from tests.fuzz.target import Change, FuzzOne, Target

_FILES = ("model.json", "weights.safetensors", "reference.json")
_HEAD = struct.Struct("<III")
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 3, 65536, 2**31, 2**63, 2**64, 10**400, 0.5, 1e308, float("nan"), float("inf")),
    *("", "a", "Brain", "../../weights", "\x00", "\ud800", "x" * 1000),
    *(
        [],
        {},
        [[]],
        [1],
        [1, 1, 1],
        [0, 0, 0],
        [2, 2, 2],
        [-1, 1, 1],
        [1.5, 2, 2],
        [10**6] * 3,
        [[2, 2, 2]] * 40,
    ),
)


def seeds() -> list[bytes]:
    """Two bundles of a network of a few hundred weights, with and without ranges."""
    config = UNetConfig(
        outputs=2,
        hu_windows=((-160.0, 240.0),),
        fold=(1, 2, 2),
        channels=(2, 3),
        blocks=(1, 0),
        planar=(True, False),
        strides=((1, 2, 2),),
    )
    torch.manual_seed(1)
    ranges = ReferenceRanges(
        "nobody",
        volume_cm3={"Brain": Range(900.0, 2000.0, 54)},
        offset_mm={"Brain from Brainstem": (Range(0.0, 1.0, 54), Range(0.0, 1.0, 54), Range(0.0, 1.0, 54))},
    )
    with TemporaryDirectory(prefix="oarlock-fuzz-") as name:
        folder = Path(name)
        write_bundle(
            folder,
            UNet3D(config),
            name="fuzzed",
            version="1",
            structure_names=("Brain", "Brainstem"),
            preprocessing=Preprocessing((2.0, 2.0, 2.0), 1.0),
            tile=(4, 8, 8),
            card={"licence": "none"},
        )
        without = _packed([(folder / file).read_bytes() for file in _FILES[:2]] + [b""])
        add_reference_ranges(folder, ranges)
        return [without, _packed([(folder / file).read_bytes() for file in _FILES])]


def _packed(files: list[bytes]) -> bytes:
    return _HEAD.pack(*map(len, files)) + b"".join(files)


def _unpacked(data: bytes) -> list[bytes]:
    """The three files; lengths that cannot be are cut."""
    lengths = _HEAD.unpack(data[: _HEAD.size].ljust(_HEAD.size, b"\0"))
    files, start = [], _HEAD.size
    for length in lengths:
        files.append(data[start : start + length])
        start += len(files[-1])
    return files


def mutate(data: bytes, rng: Random, change: Change) -> bytes:
    """Damage one file, mostly its values and not its syntax, and mostly make the digests agree again."""
    files = _unpacked(data)
    which = rng.choice((0, 0, 0, 0, 1, 1, 2))
    if which == 1:
        files[1] = _mutated_weights(files[1], rng, change)
    else:
        files[which] = _mutated_json(files[which], rng, change)
    if rng.random() < 0.9:
        files[0] = _agreeing(files)
    return _packed(files)


def _mutated_weights(weights: bytes, rng: Random, change: Change) -> bytes:
    """Damage the header, which is JSON behind its length, or the numbers."""
    length = int.from_bytes(weights[:8], "little")
    if rng.random() < 0.3 or length > len(weights):
        return change(weights)
    header, numbers = weights[8 : 8 + length], weights[8 + length :]
    if rng.random() < 0.6:
        header = _mutated_json(header, rng, change)
    else:
        numbers = change(numbers)
    return len(header).to_bytes(8, "little") + header + numbers


def _mutated_json(text: bytes, rng: Random, change: Change) -> bytes:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict) or not tree or rng.random() < 0.1:
        return change(text)
    if rng.random() < 0.02:
        return text.replace(b"1", b"[" * 5000, 1)
    holder, key = _somewhere(tree, rng)
    kind = rng.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder[key], list):
        holder[key] = holder[key] * rng.choice((0, 2, 100))
    elif kind == 2 and isinstance(holder[key], int | float):
        holder[key] = holder[key] * rng.choice((-1, 2, 1000, 10**6))
    elif kind == 3 and isinstance(holder, dict):
        holder[rng.choice(("x", "", "reference_sha256", "fold", "__class__"))] = holder[key]
    else:
        holder[key] = rng.choice(_VALUES)
    return json.dumps(tree).encode()


def _somewhere(tree: Any, rng: Random) -> tuple[Any, Any]:
    """A dictionary or list, and a key of it."""
    holder: Any = tree
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = rng.choice(keys)
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.3:
            return holder, key
        holder = inner


def _agreeing(files: list[bytes]) -> bytes:
    """The description, naming the digests that the other files have."""
    try:
        about = json.loads(files[0])
    except (ValueError, RecursionError):
        return files[0]
    if not isinstance(about, dict):
        return files[0]
    about["weights_sha256"] = hashlib.sha256(files[1]).hexdigest()
    if "reference_sha256" in about:
        about["reference_sha256"] = hashlib.sha256(files[2]).hexdigest()
    return json.dumps(about).encode()


@contextmanager
def opened(folder: Path) -> Iterator[FuzzOne]:
    """Load each input as a bundle; what loads must have the shape that it says."""
    torch.set_num_threads(1)

    def fuzz_one(data: bytes) -> None:
        for name, content in zip(_FILES, _unpacked(data), strict=True):
            (folder / name).write_bytes(content)
        try:
            bundle = Bundle.load(folder)
        except BundleError as error:
            require_typed(error)
            return
        if bundle.digest != hashlib.sha256((folder / _FILES[1]).read_bytes()).hexdigest():
            raise Broken("a bundle whose weights are not those of its digest")
        if not bundle.structure_names or len(set(bundle.structure_names)) < len(bundle.structure_names):
            raise Broken(f"a bundle for {bundle.structure_names}")
        if not all(0 < mm < math.inf for mm in bundle.preprocessing.spacing_mm):
            raise Broken(f"a bundle for voxels of {bundle.preprocessing.spacing_mm} mm")

    yield fuzz_one


TARGET = Target(("model.bundle", "model.reference_ranges"), seeds, mutate, opened)
