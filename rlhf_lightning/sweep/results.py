"""What a study came to: on the screen, in ``optimization_results.yaml``, and as a page with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.report.results import write_atomic
from rlhf_lightning.sweep.space import words
from rlhf_lightning.sweep.study import Direction, best, counts, importances

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial
    from rich.table import Table

FILE, PAGE = "optimization_results.yaml", "pareto.html"


def summary(study: Study, directions: Mapping[str, Direction]) -> dict[str, Any]:
    """The study as plain values: the best trial or the Pareto front, and how much each option mattered."""
    found: dict[str, Any] = {"name": "optuna", "objectives": dict(directions), "trials": counts(study)}
    front, folders = best(study), study.user_attrs.get("folders", {})
    if len(directions) > 1:
        found["solutions"] = [
            {
                "params": dict(trial.params),
                "values": dict(zip(directions, trial.values, strict=True)),
                "trial": trial.number,
                "folder": folders[str(trial.number)],
            }
            for trial in front
        ]
    elif front:
        (trial,) = front
        found |= {"best_params": dict(trial.params), "best_value": trial.value, "best_trial": trial.number}
        found["folder"] = folders[str(trial.number)]
    if mattered := importances(study):
        found["importances"] = {name: round(share, 4) for name, share in mattered.items()}
    return found


def write(study: Study, directions: Mapping[str, Direction], folder: Path) -> None:
    """Write the results into the sweep's folder; with several objectives also the page."""
    import yaml

    found = summary(study, directions)
    write_atomic(folder / FILE, yaml.safe_dump(found, sort_keys=False, allow_unicode=True))
    if len(directions) > 1 and found["solutions"]:
        write_atomic(folder / PAGE, front_page(study, directions))


def show(study: Study, directions: Mapping[str, Direction], folder: Path) -> None:
    """Print the best options, or the Pareto front as a table, and what mattered."""
    from rich.text import Text

    from rlhf_lightning.report.screen import show as put
    from rlhf_lightning.report.screen import standard_output

    console = standard_output()
    done = ", ".join(f"{number} {word}" for word, number in counts(study).items())
    put(console, Text(f"\nTrials: {done}"))
    front = best(study)
    if front and len(directions) == 1:
        (name,) = directions
        chosen = " ".join(f"{option}={words(value)}" for option, value in front[0].params.items())
        put(console, Text(f"Best {name}: {front[0].value:.4g}, trial {front[0].number}: {chosen}"))
        as_good = [t.number for t in study.trials if t.values == front[0].values and t.number != front[0].number]
        if as_good:
            put(console, Text(f"As good: trial{'s' * (len(as_good) > 1)} {', '.join(map(str, as_good))}"))
    elif front:
        put(console, Text("Pareto front: no trial is better than one of these in every objective"))
        put(console, front_table(front, directions))
    if mattered := importances(study):
        shares = ", ".join(f"{name} {share:.0%}" for name, share in mattered.items())
        put(console, Text(f"What mattered for {next(iter(directions))}: {shares}"))
    put(console, Text(f"Results: {folder / FILE}"))
    if (folder / PAGE).exists():
        put(console, Text(f"Picture: {folder / PAGE}"))


def front_table(front: list[FrozenTrial], directions: Mapping[str, Direction]) -> Table:
    """One row a trial of the Pareto front: its objectives and its options."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("trial", justify="right")
    arrows = {"max": "↑", "min": "↓"}
    for name, direction in directions.items():
        table.add_column(Text(f"{name} {arrows[direction]}"), justify="right")
    options = list(dict.fromkeys(name for trial in front for name in trial.params))
    for name in options:
        table.add_column(Text(name))
    for trial in front:
        values = [f"{value:.4g}" for value in trial.values]
        table.add_row(str(trial.number), *values, *(Text(_short(trial.params.get(name, "-"))) for name in options))
    return table


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else words(value)


def front_page(study: Study, directions: Mapping[str, Direction]) -> str:
    """A page with every finished trial in the plane of the first two objectives, the front as a line, and its table."""
    from optuna.trial import TrialState

    from rlhf_lightning.report.curves import Curve, Line, draw
    from rlhf_lightning.report.page import figure, html_text, key, page

    (x, y), front = list(directions)[:2], best(study)
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    # The figure whose reader asks "at what price" goes to the right: the second objective, such as KL.
    points = [Line(Curve([t.values[1]], [t.values[0]]), 7, marked=True) for t in done]
    along = sorted((t.values[1], t.values[0]) for t in front)
    line = Line(Curve([a for a, _ in along], [b for _, b in along]), 0, marked=True)
    picture = draw([*points, line], label=f"{x} over {y}", x_label=y)
    options = list(dict.fromkeys(name for trial in front for name in trial.params))
    head = "".join(f"<th>{html_text(name)}</th>" for name in ("trial", *directions, *options))
    rows = "".join(
        "<tr>"
        + f"<td>{trial.number}</td>"
        + "".join(f"<td>{value:.4g}</td>" for value in trial.values)
        + "".join(f"<td>{html_text(_short(trial.params.get(name, '-')))}</td>" for name in options)
        + "</tr>"
        for trial in front
    )
    body = (
        f"<h1>{html_text(x)} against {html_text(y)}</h1><p>{len(done)} finished trials; no trial is better than those "
        f"of the Pareto front in every objective.</p>{key([(0, 'Pareto front'), (7, 'other trials')])}"
        f'<div class="panels wide">{figure(f"{x} over {y}", picture)}</div>'
        f'<h2>Pareto front</h2><div class="card"><table><tr>{head}</tr>{rows}</table></div>'
    )
    return page(f"Pareto front: {x}, {y}", body)
