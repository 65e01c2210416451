"""Rules about ROI names: that no system cuts them, refuses them, or takes one for another."""

from collections import defaultdict
from collections.abc import Callable, Iterator

from daemon.lint_finding import Finding, Rule, error, note, warning
from daemon.lint_view import RoiView, StructureSetView

NO_NAME = error(
    "name-empty",
    "an ROI has no name",
    "Name it; RayStation stops at a missing name.",
    "IHE-RO BRTO; pytrip #266",
)
TWICE = error(
    "name-twice",
    "two ROIs have one name, letter by letter or but for upper and lower case",
    "Give each its own name.",
    "IHE-RO BRTO; AAPM TG-263",
)
LONG = note(
    "name-over-16",
    "a name has more than 16 characters, which several systems cut or refuse",
    "Shorten it to 16 characters.",
    "AAPM TG-263; dicompyler #56",
)
CUT_ALIKE = warning(
    "name-cut-alike",
    "two names are the same in their first 16 characters",
    "Shorten them by hand, so that no system makes them one.",
    "AAPM TG-263",
)
CHARACTERS = warning(
    "name-characters",
    "a name has characters that file systems, scripts or queries give a meaning of their own",
    "Use letters, digits and _ - + ~ ^ ! only.",
    "AAPM TG-263",
)
FOREIGN = note(
    "name-not-ascii",
    "a name has letters beyond ASCII",
    "Write it in ASCII: not every system shows every character set.",
    "AAPM TG-263",
)
SPACES = warning(
    "name-spaces",
    "a name begins or ends with a space, or has two in a row",
    "Remove them: some systems strip them and then find no such name.",
    "PS3.5 6.2, LO",
)

RULES = (NO_NAME, TWICE, LONG, CUT_ALIKE, CHARACTERS, FOREIGN, SPACES)

SHORT_NAME = 16
_TROUBLESOME = frozenset("\\/:*?\"<>|,;=%&#@$'`[]{}")


def check_names(view: StructureSetView) -> Iterator[Finding]:
    """Each name by itself."""
    for roi in view.rois:
        path = f"{roi.path}.ROIName"
        if not roi.name:
            yield NO_NAME.at(path, f"ROI {roi.number} has no name")
        if len(roi.name) > SHORT_NAME:
            yield LONG.at(path, f"the name has {len(roi.name)} characters", roi.name)
        troublesome = sorted(set(roi.name) & _TROUBLESOME)
        if troublesome:
            yield CHARACTERS.at(path, f"the name has {' '.join(troublesome)}", roi.name)
        if not roi.name.isascii():
            foreign = sorted({each for each in roi.name if not each.isascii()})
            yield FOREIGN.at(path, f"the name has {' '.join(foreign)}", roi.name)
        if _has_stray_spaces(roi):
            yield SPACES.at(path, "the name has spaces that no reader sees", roi.name)


def _has_stray_spaces(roi: RoiView) -> bool:
    """One space at the end may be padding."""
    value = roi.item.get_item("ROIName").value if "ROIName" in roi.item else ""
    written = value.decode("latin-1") if isinstance(value, bytes) else str(value or "")
    is_padded = written.endswith(" ") and len(written) % 2 == 0
    kept = written[:-1] if is_padded else written
    return bool(kept.strip()) and (kept != kept.strip() or "  " in kept)


def check_pairs_of_names(view: StructureSetView) -> Iterator[Finding]:
    """No two names are, or become, one."""
    yield from _alike(view, str.casefold, TWICE, "the name is also that of {other}")
    yield from _alike(
        view, lambda name: name.casefold()[:SHORT_NAME], CUT_ALIKE, "cut, it is that of {other}"
    )


def _alike(view: StructureSetView, key: Callable[[str], str], rule: Rule, words: str) -> Iterator[Finding]:
    """Names that a key makes one; names that are one already are told by `name-twice` alone."""
    groups: dict[str, list[RoiView]] = defaultdict(list)
    for roi in view.rois:
        if roi.name:
            groups[key(roi.name)].append(roi)
    for first, *others in groups.values():
        for other in others:
            if rule is TWICE or other.name.casefold() != first.name.casefold():
                said = words.format(other=f"{first.path} ({first.name})")
                yield rule.at(f"{other.path}.ROIName", said, other.name)


CHECKS = (check_names, check_pairs_of_names)
