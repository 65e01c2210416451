"""A finished run becomes a bundle: it offers what was taught, and says on which cases."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from model.bundle import Bundle, write_bundle
from model.structures import STRUCTURES
from model.unet import UNet3D
from training.checkpoint import Taught, averaged_weights
from training.config import ORGANS, TrainConfig
from training.dataset import Known, described
from training.starting_weights import HEAD, outputs_of


def export(config: TrainConfig, out: Path, *, best: bool = False) -> Path:
    """Write the averaged weights of the last (or best) checkpoint as a bundle; returns its folder."""
    average, step, learned = averaged_weights(out, best=best)
    if not learned.marks:
        learned = taught_by(described(config.data.pack_files), config)
    taught = tuple(organ for organ in ORGANS if organ in learned.organs)
    chosen = [ORGANS.index(organ) for organ in taught]
    heads = {key: average[key].unflatten(0, (len(ORGANS), -1))[chosen].flatten(0, 1) for key in HEAD}
    network = UNet3D(replace(config.network, outputs=len(taught)))
    network.load_state_dict(average | heads)
    earlier = Bundle.load(Path(config.begin_with)) if config.begin_with else None
    patches = "patch" if config.optimiser.batch == 1 else "patches"
    side = " x ".join(map(str, config.patch))
    how = f"{step} steps of {config.optimiser.batch} {patches} of {side} voxels"
    if best:
        every, cases = config.validation.every, config.validation.cases
        how += f", the best of every {every} by Dice on {cases} validation cases"
    write_bundle(
        out / "bundle",
        network,
        name=config.name,
        version=config.version,
        structure_names=tuple(organ.name for organ in STRUCTURES if organ.name in taught),
        output_names=taught,
        preprocessing=config.preprocessing,
        tile=config.patch,
        card={
            "training_data": config.card.training_data or _groups_taught(config, earlier),
            "trained_on": sorted(learned.marks),
            "training": how,
            "limits": config.card.limits or _limits_inherited(earlier),
            "attribution": _attribution(config, earlier),
        },
    )
    return out / "bundle"


def _attribution(config: TrainConfig, earlier: Bundle | None) -> list[str]:
    """Whom to thank, for the weights that it began with too: their data's licences want it."""
    before = earlier.card.get("attribution", ()) if earlier else ()
    return list(dict.fromkeys((*before, *config.card.attribution)))


def _limits_inherited(earlier: Bundle | None) -> tuple[str, ...]:
    if earlier is None:
        return ()
    return (f"It began with the weights of {earlier.name} {earlier.version}, whose limits may be its own.",)


def _groups_taught(config: TrainConfig, earlier: Bundle | None) -> tuple[str, ...]:
    """What can be said of the training data where the author of the configuration says nothing."""
    groups = sorted(group for group, weight in config.data.group_weights.items() if weight)
    lines = [f"cases of {', '.join(groups)}; the bundle's author says no more of them"]
    if earlier:
        lines.append(
            f"before, what {earlier.name} {earlier.version} was trained on, with whose weights it began"
        )
    return tuple(lines)


def taught_by(cases: Iterable[Known], config: TrainConfig) -> Taught:
    """What a run with these cases teaches, and what the weights to begin with had learned.

    Those are the organs that a case which is drawn from has: any other would be drawn at random, or never.
    """
    data, organs, marks = config.data, set[str](), set[str]()
    for case in cases:
        if data.group_weights.get(case.group):
            organs |= case.organs - case.absent - set(data.untaught.get(case.group, ()))
            marks |= case.marks
    if config.begin_with:
        earlier = Bundle.load(Path(config.begin_with))
        organs.update(outputs_of(earlier))
        marks.update(earlier.card.get("trained_on", ()))
    return Taught(frozenset(organs), frozenset(marks))
