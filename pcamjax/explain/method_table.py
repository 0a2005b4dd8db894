"""The table that compares methods of explanation, as JSON, CSV and Markdown."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pcamjax.explain.intervals import Estimate
from pcamjax.explain.sanity import Survival
from pcamjax.files import atomic_file, write_json

# The tables of the Markdown form, and whose figures they hold; what is in none of them is in the first.
TABLES = {"where the maps point": (),
          "whether the network follows them": ("intact", "all deleted", "none inserted", "deletion", "insertion",
                                               "confidence drop", "confidence increase"),
          "what is left of them on random weights": ("Spearman after randomisation", "SSIM after randomisation",
                                                     "zero maps")}


@dataclass(frozen=True)
class MethodRow:
    """What was measured of one method on one group of patches.

    method: its name; "chance" and the baselines are methods too.
    weights: "trained" or "random", the network that was explained; "none" for what looks at no network.
    group, patches: which patches these are, and how many.
    figures: the mean of each measure with its 95 % interval.
    margins: of measures of localisation, by how much the method's mean is above each rival's: the mean of the
      differences patch by patch with its 95 % interval, and so above the rival's where `low` is above 0.
    maps_per_second: NaN for what was not timed.
    """

    method: str
    weights: str
    group: str
    patches: int
    figures: Mapping[str, Estimate]
    margins: Mapping[str, Mapping[str, Estimate]]
    maps_per_second: float = math.nan


def write_method_table(folder: Path, name: str, header: Mapping[str, Any], rows: Sequence[MethodRow],
                       survivals: Mapping[str, Sequence[Survival]]) -> None:
    """Writes <name>.json (`header` and everything), .csv (a line a row) and .md; each is whole or as it was before.

    survivals: of each method, what `sanity.survival` found; none where randomisation was not measured.
    """
    plain = [asdict(row) | {"figures": _as_dicts(row.figures),
                            "margins": {key: _as_dicts(rivals) for key, rivals in row.margins.items()}} for row in rows]
    stages = {method: [{"stage": row.stage, **_as_dicts(row._asdict() | {"stage": None})} for row in found]
              for method, found in survivals.items()}
    write_json(folder / f"{name}.json", {**header, "rows": plain, "cascade": stages})
    lines, text = [_flat(row) for row in rows], io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    for suffix, content in (("csv", text.getvalue()), ("md", markdown(rows, survivals))):
        with atomic_file(folder / f"{name}.{suffix}") as temporary:
            temporary.write_text(content, encoding="utf-8")


def markdown(rows: Sequence[MethodRow], survivals: Mapping[str, Sequence[Survival]]) -> str:
    """For each group of patches the tables of `TABLES` and the margins, means with their 95 % intervals; then how like
    themselves the maps stay while layers are drawn anew, and the speed."""
    parts = []
    for group in dict.fromkeys(row.group for row in rows):
        here = [row for row in rows if row.group == group]
        parts.append(f"### {group}: {here[0].patches} patches")
        elsewhere = {name for names in TABLES.values() for name in names}
        there = list(dict.fromkeys(name for row in here for name in row.figures))
        for title, names in TABLES.items():
            shown = [name for name in there if name in names or (not names and name not in elsewhere)]
            lines = [[row.method, row.weights, *(_cell(row.figures.get(name)) for name in shown)] for row in here]
            parts += _titled(title, ["method", "weights", *shown], [line for line in lines if any(line[2:])])
        for measure in dict.fromkeys(measure for row in here for measure in row.margins):
            compared = [row for row in here if measure in row.margins]
            rivals = list(dict.fromkeys(rival for row in compared for rival in row.margins[measure]))
            parts += _titled(f"{measure}: how much above", ["method", *rivals], [
                [row.method, *(_cell(row.margins[measure].get(rival), "+") for rival in rivals)] for row in compared])
    if survivals:
        stages = [row.stage for row in next(iter(survivals.values()))]
        title = "Spearman correlation with the trained network's maps, layers drawn anew from the logits down to"
        parts += _titled(title, ["method", *stages], [[method, *(_cell(row.spearman) for row in found)]
                                                      for method, found in survivals.items()])
    timed = {row.method: row.maps_per_second for row in rows if not math.isnan(row.maps_per_second)}
    parts += _titled("maps per second", ["method", "maps/s"], [[name, f"{speed:.1f}"] for name, speed in timed.items()])
    return "\n\n".join(parts) + "\n"


def _flat(row: MethodRow) -> dict[str, Any]:
    line: dict[str, Any] = {"method": row.method, "weights": row.weights, "group": row.group, "patches": row.patches}
    named = {**row.figures, **{f"{measure} above {rival}": estimate for measure, rivals in row.margins.items()
                               for rival, estimate in rivals.items()}}
    for name, estimate in named.items():
        line |= {name: estimate.mean, f"{name} low": estimate.low, f"{name} high": estimate.high}
    line["maps/s"] = row.maps_per_second
    return {key: "" if isinstance(value, float) and math.isnan(value) else value for key, value in line.items()}


def _as_dicts(estimates: Mapping[str, Estimate | None]) -> dict[str, dict[str, int | float]]:
    return {name: estimate._asdict() for name, estimate in estimates.items() if estimate is not None}


def _cell(estimate: Estimate | None, sign: str = "") -> str:
    if estimate is None or estimate.n == 0:
        return ""
    return f"{estimate.mean:{sign}.3f} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"


def _titled(title: str, head: list[str], rows: list[list[str]]) -> list[str]:
    """A title and a table, or nothing where no row is left."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"{title}:", "\n".join(f"| {' | '.join(line)} |" for line in lines)] if rows else []
