"""What no single line of a template shows: names taken twice, sides exchanged, sources that are not there."""

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter

from daemon.config_source import Location
from daemon.derivation import Operation
from daemon.destination_profile import Profile
from daemon.short_names import short_names, shortening_remarks
from daemon.side_words import sides
from daemon.structure_template import Template, TemplateStructure
from model.structures import EXTRA_STRUCTURES, LEFT, RIGHT, STRUCTURES, Code

_ORGANS = {each.name: each for each in STRUCTURES + EXTRA_STRUCTURES}
_ORGAN_NAMES = {name.casefold(): name for name in _ORGANS}


def contradictions(template: Template) -> Iterator[tuple[Location, str]]:
    """Every contradiction between a template's lines, with the key it stands in."""
    yield from _names_twice(template)
    yield from _organs_twice(template)
    for index, line in enumerate(template.structures):
        yield from ((("structures", index, "name"), text) for text in _misleading(line, template))
    yield from _unknown_sources(template)
    yield from _cycles(template)


def notes(template: Template, profile: Profile, known: tuple[str, ...] | None = None) -> list[str]:
    """What works and may surprise: names that a profile cuts, organs that the model does not know."""
    names = [line.name for line in template.structures]
    found = shortening_remarks(short_names(names, profile), profile)
    if known is not None:
        found += [f"the model does not know {organ}" for organ in template.organs if organ not in known]
    return found


def _names_twice(template: Template) -> Iterator[tuple[Location, str]]:
    seen: dict[str, str] = {}
    for index, line in enumerate(template.structures):
        for key, name in (("name", line.name), *(("synonyms", each) for each in line.synonyms)):
            if name.casefold() in seen:
                yield ("structures", index, key), f'"{name}" also stands for {seen[name.casefold()]}'
            seen.setdefault(name.casefold(), f"structure {index + 1}, {line.name}")


def _organs_twice(template: Template) -> Iterator[tuple[Location, str]]:
    seen: dict[str, str] = {}
    for index, line in enumerate(template.structures):
        if line.organ:
            if line.organ.name in seen:
                yield ("structures", index, "organ"), f"{line.organ.name} is also {seen[line.organ.name]}"
            seen.setdefault(line.organ.name, f"structure {index + 1}, {line.name}")


def _misleading(line: TemplateStructure, template: Template) -> Iterator[str]:
    """Names that say another organ or the other side."""
    own = line.organ.name if line.organ else None
    is_on = _sides(line.name, template)
    for name in (line.name, *line.synonyms):
        meant = _ORGAN_NAMES.get(name.casefold())
        if meant and meant != own:
            yield f'"{name}" is TG-263\'s name of {meant}, and this structure is {own or "derived"}'
        says = sides(name)
        # A derived structure may be named after what is cut away as well.
        is_wrong = says != is_on if own else says.isdisjoint(is_on)
        if len(is_on) == 1 and says and is_wrong:
            truth = f"the organ is {own}" if own else f"what it is made from is {_in_words(is_on)}"
            yield f'"{name}" says {_in_words(says)}, and {truth}'


def _in_words(sides: Collection[Code]) -> str:
    return " and ".join(side.meaning.lower() for side in (LEFT, RIGHT) if side in sides)


def _sides(name: str, template: Template, on_the_way: frozenset[str] = frozenset()) -> frozenset[Code]:
    """On which sides a structure lies: of one that is grown or made smaller, where the first source does."""
    line = template.line(name)
    organ = line.organ if line else _ORGANS.get(name)
    if line is None or line.derivation is None or name in on_the_way:
        return frozenset({organ.laterality} if organ and organ.laterality else ())
    is_of_all = line.derivation.operation in {Operation.UNION, Operation.INTERSECTION}
    sources = line.sources if is_of_all else line.sources[:1]
    return frozenset[Code]().union(*(_sides(each, template, on_the_way | {name}) for each in sources))


def _unknown_sources(template: Template) -> Iterator[tuple[Location, str]]:
    known = {line.name for line in template.structures} | set(_ORGAN_NAMES.values())
    for index, line in enumerate(template.structures):
        for source in line.sources:
            if source not in known:
                near = get_close_matches(source, sorted(known), n=1, cutoff=0.5)
                hint = f'; did you mean "{near[0]}"?' if near else ""
                yield _operation(index, line), f'no structure is called "{source}"{hint}'


def _cycles(template: Template) -> Iterator[tuple[Location, str]]:
    names = {line.name: index for index, line in enumerate(template.structures)}
    graph = {
        line.name: [source for source in line.sources if source in names] for line in template.structures
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        way: list[str] = error.args[1]
        first = names[way[0]]
        yield (
            _operation(first, template.structures[first]),
            f"derived from itself: {' from '.join(way[::-1])}",
        )


def _operation(index: int, line: TemplateStructure) -> Location:
    return "structures", index, line.derivation.operation.value if line.derivation else "organ"
