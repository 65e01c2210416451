"""docs/performance.md and its plots, from the records of all benchmarks; other machines have pages beside it."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks import MODULES
from benchmarks.record import Machine, Record
from benchmarks.result import SLOPE_TOLERANCE, Curve, Goal, Limit, Row, Sample, Table, Unit

PAGE = Path("docs/performance.md")
FIGURES = "figures"  # beside the page; each begins with the page's name
OURS, PEER = "#1f6f8b", "#999999"

INTRODUCTION = """# How fast it is

Written by `make bench`; nothing on this page is typed by hand.
A figure is the median of so many rounds as its line says, with the first and third quartile in brackets.
Programs that are compared took turns on the same machine.
Where they did not give equal results there would be no figures.
A ratio over 1 means that oarlock is better by so many times.
**Bold** marks a goal that is not reached.
"""

SLOPES = f"""The slope is that of the upper half of the points: 0 is no growth, 1 is in proportion.
A slope that exceeds its goal by {SLOPE_TOLERANCE:g} or less is taken for noise, and the goal for reached."""

REPEAT = """## How to repeat it

```sh
make bench                                   # everything; installs the peers first
.venv/bin/python -m benchmarks.contours      # one part, kept under runs/bench
.venv/bin/python -m benchmarks --page        # writes the page from what is kept; --to names another
```

Debian's packages (`{programs}`) are installed where `make bench` runs as root.
Python packages of peers are installed in virtual environments of their own under `runs/peers`.
What is missing is left out, and said.
"""


def write(records: Sequence[Record], path: Path = PAGE) -> None:
    """Write a page and its plots; it links the pages of other machines, `performance-*.md` beside it."""
    from benchmarks.peers import PROGRAMS

    by_name = {each.name: each for each in records if each.name in MODULES}
    ordered = [by_name[name] for name in MODULES if name in by_name]
    parts = [
        INTRODUCTION,
        _other_machines(path),
        _overview(ordered, path),
        *(_section(each, path) for each in ordered),
        _limits(ordered),
        _unmeasured(ordered),
        _origin(ordered),
        REPEAT.format(programs="`, `".join(PROGRAMS)),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(part for part in parts if part), encoding="utf-8")


def _other_machines(path: Path) -> str:
    others = sorted(each.name for each in path.parent.glob(f"{PAGE.stem}*.md") if each.name != path.name)
    return f"On other machines: {', '.join(f'[{name}]({name})' for name in others)}.\n" if others else ""


def _overview(records: Sequence[Record], path: Path) -> str:
    """All ratios in one plot."""
    rows = [row for each in records for row in each.report.rows if row.ratio is not None]
    if not rows:
        return ""
    figure, axes = plt.subplots(figsize=(9, 0.8 + 0.3 * len(rows)), layout="constrained")
    places = range(len(rows), 0, -1)
    ratios = [row.ratio or 0.0 for row in rows]
    axes.barh(places, ratios, color=[OURS if ratio >= 1 else PEER for ratio in ratios])
    for place, row, ratio in zip(places, rows, ratios, strict=True):
        axes.text(ratio, place, f" {ratio:.3g} ×", va="center", fontsize=8)
        if row.goal is not None and row.goal.ratio is not None:
            axes.plot([row.goal.ratio] * 2, [place - 0.4, place + 0.4], color="black", linewidth=1.5)
    axes.set_yticks(places, [f"{row.what}, {row.size}, beside {row.peer_name}" for row in rows], fontsize=8)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.5)
    axes.set_xlabel("times better than the peer; a black stroke is the goal")
    axes.margins(x=0.15)
    return f"{_saved(figure, path, 'ratios', 'Ratios of all comparisons')}\n"


def _section(record: Record, path: Path) -> str:
    report = record.report
    lines = [f"## {report.title}", "", *report.about, ""]
    if report.rows:
        lines += [
            "| what | size | oarlock | beside | peer | unit | rounds | ratio | goal |",
            "|---|---|---|---|---|---|---|---|---|",
            *(_row(row) for row in report.rows),
            "",
            *(
                f"- {', '.join(filter(None, (row.what, row.size, row.peer_name)))}: {row.note}"
                for row in report.rows
                if row.note
            ),
            "",
        ]
    if report.curves:
        lines += [
            "| cost | of | unit | at least work | at most work | rounds | slope | goal |",
            "|---|---|---|---|---|---|---|---|",
            *(_curve(curve) for curve in report.curves),
            "",
            SLOPES,
            "",
            _plot(record.name, report.curves, path),
            "",
        ]
    for table in report.tables:
        lines += _table(table)
    if report.versions:
        lines += [f"Peers: {', '.join(report.versions)}.", ""]
    return "\n".join(lines)


def _row(row: Row) -> str:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f} ×"
    goal = "" if row.goal is None else _goal(row.goal, row.unit)
    if row.reaches_goal is False:
        goal = f"**{goal}**"
    peer = "" if row.peer is None else _sample(row.peer)
    rounds = _rounds([row.ours] if row.peer is None else [row.ours, row.peer])
    cells = (row.what, row.size, _sample(row.ours), row.peer_name, peer, row.unit, rounds, ratio, goal)
    return f"| {' | '.join(cells)} |"


def _goal(goal: Goal, unit: Unit) -> str:
    said = (
        ("≥ {:g} ×", goal.ratio),
        (f"≤ {{:g}} {unit}", goal.at_most),
        (f"≥ {{:g}} {unit}", goal.at_least),
    )
    return ", ".join(text.format(value) for text, value in said if value is not None)


def _sample(sample: Sample) -> str:
    if sample.rounds == 1:
        return _middle(sample)
    return f"{_number(sample.median)} ({_number(sample.low)} – {_number(sample.high)})"


def _middle(sample: Sample) -> str:
    return _number(sample.median) + (" (once)" if sample.rounds == 1 else "")


def _rounds(samples: Sequence[Sample]) -> str:
    """Of all samples of a line, each number once."""
    return ", ".join(map(str, dict.fromkeys(each.rounds for each in samples)))


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _curve(curve: Curve) -> str:
    ends = [f"{_middle(each.cost)} at {each.work:,.0f}" for each in (curve.points[0], curve.points[-1])]
    rounds = _rounds([each.cost for each in curve.points])
    goal = f"slope ≤ {curve.steepest:g}"
    if curve.ceiling is not None:
        goal += f", ≤ {curve.ceiling:g} {curve.unit}"
    goal = goal if curve.reaches_goal else f"**{goal}**"
    cells = (curve.what, curve.work, curve.unit, *ends, rounds, f"{curve.slope:.2f}", goal)
    return f"| {' | '.join(cells)} |"


def _plot(name: str, curves: Sequence[Curve], path: Path) -> str:
    columns = min(3, len(curves))
    lines = -(-len(curves) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(4 * columns, 3.2 * lines), layout="constrained", squeeze=False
    )
    for axes in grid.flat[len(curves) :]:
        axes.set_visible(False)
    for axes, curve in zip(grid.flat, curves, strict=False):
        _draw(axes, curve)
    return _saved(figure, path, name, "Cost against work")


def _draw(axes: Axes, curve: Curve) -> None:
    x = [each.work for each in curve.points]
    y = [each.cost.median for each in curve.points]
    spread = [
        [each.cost.median - each.cost.low for each in curve.points],
        [each.cost.high - each.cost.median for each in curve.points],
    ]
    axes.errorbar(x, y, yerr=spread, color=OURS, marker="o", markersize=4, capsize=2)
    axes.plot(
        x, [y[-1] * (each / x[-1]) ** curve.steepest for each in x], color=PEER, linestyle="--", linewidth=1
    )
    if curve.ceiling is not None:
        axes.axhline(curve.ceiling, color="black", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel=curve.work, ylabel=curve.unit)
    axes.set_title(f"{curve.what}\nslope {curve.slope:.2f}, dashed: {curve.steepest:g}", fontsize=9)
    axes.grid(visible=True, which="major", linewidth=0.3)


def _saved(figure: plt.Figure, path: Path, name: str, said: str) -> str:
    """Save a plot of the page at `path`, and give the line that shows it there."""
    place = f"{FIGURES}/{path.stem}-{name}.png"
    (path.parent / FIGURES).mkdir(parents=True, exist_ok=True)
    figure.savefig(path.parent / place, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return f"![{said}]({place})"


def _table(table: Table) -> list[str]:
    head = [f"### {table.title}", "", f"| {' | '.join(table.columns)} |", "|---" * len(table.columns) + "|"]
    rows = (f"| {' | '.join(row)} |" for row in table.rows)
    return [*head, *rows, "", *table.verdict, *([""] if table.verdict else [])]


def _limits(records: Sequence[Record]) -> str:
    limits = [limit for each in records for limit in each.report.limits]
    if not limits:
        return ""
    head = (
        "## How far the limits are",
        "",
        "| what | reached | limit | unit | share of the limit | which limit |",
        "|---|---|---|---|---|---|",
    )
    return "\n".join([*head, *(_limit(each) for each in limits), ""])


def _limit(limit: Limit) -> str:
    figures = f"{_number(limit.reached)} | {_number(limit.limit)} | {limit.unit} | {limit.share:.0%}"
    return f"| {limit.what} | {figures} | {limit.source} |"


def _unmeasured(records: Sequence[Record]) -> str:
    missing = [f"- Nothing of *{name}*." for name in MODULES if name not in {each.name for each in records}]
    said = [f"- {sentence}" for each in records for sentence in each.report.unmeasured]
    if any(each.machine.gpu == "none" for each in records):
        said.append("- The machine has no GPU: nothing on this page was measured on one.")
    return "\n".join(["## What was not measured", "", *missing, *said, ""]) if missing or said else ""


def _origin(records: Sequence[Record]) -> str:
    """Where the figures come from: machines, commits, times."""
    machines = list(dict.fromkeys(each.machine for each in records))
    lines = ["## Where the figures come from", "", *(_machine(each) for each in machines), ""]
    if len(machines) > 1 or len({each.commit for each in records}) > 1:
        lines += ["**Not all parts were measured on the same commit and machine.**", ""]
    lines += ["| part | commit | measured, UTC | took, s | load before |", "|---|---|---|---|---|"]
    lines += [
        f"| {each.report.title} | {each.commit} | {each.measured_at:%Y-%m-%d %H:%M} | {each.seconds:.0f} "
        f"| {each.load:.1f} |"
        for each in records
    ]
    return "\n".join([*lines, ""])


def _machine(machine: Machine) -> str:
    return (
        f"{machine.processor}, {machine.cores} cores, {machine.memory_gb:.0f} GB of memory, GPU: {machine.gpu}; "
        f"Linux {machine.kernel}, {machine.file_system}; Python {machine.python}, {', '.join(machine.packages)}."
    )
