"""What was measured as rows of figures, and these as JSON, CSV and Markdown."""

import csv
import io
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pcamjax.benchmark.session import Measurement, baseline, ratios
from pcamjax.benchmark.subjects import COMPARED, OF_BATCHES, OURS, ROOFS
from pcamjax.files import atomic_file, write_json
from pcamjax.report.figures import RooflinePoint, roofline, save

Row = dict[str, Any]
CASE = ("task", "network", "batch_size", "frozen", "precision")
WAY = ("devices", "steps_per_dispatch")
# Columns of the table of all that was measured: key in a row, unit, format.
FIGURES = {"ms": ("seconds", 1e-3, ".1f"), "images/s": ("images_per_second", 1.0, ".0f"),
           "ratio to pcamjax": ("ratio", 1.0, ".2f"), "first time s": ("first_seconds", 1.0, ".1f"),
           "compile s": ("compile_seconds", 1.0, ".1f"), "peak MiB": ("peak_bytes", 2.0**20, ".0f"),
           "GFLOP": ("flops", 1e9, ".2f"), "GFLOP/s": ("flop_per_second", 1e9, ".1f"),
           "of product": ("share_of_product", 1.0, ".0%"), "GB/s": ("bytes_per_second", 1e9, ".1f"),
           "of bandwidth": ("share_of_bandwidth", 1.0, ".0%")}


def rows_of(group: str, measurements: Sequence[Measurement]) -> list[Row]:
    """A row for each of the entrants that were measured in turn, `group` being the name of that.

    flops is counted on our program and stands in the rows of peers as well, for they compute the same; the shares are
    of the best product of matrices, in the same precision, and the bandwidth of the same group.
    """
    products: dict[str, float] = {}
    for made in measurements:
        if made.entrant.case.task == "product" and not made.reason:
            precision = made.entrant.case.precision
            products[precision] = max(products.get(precision, 0), made.facts["flops"] / made.seconds)
    bandwidth = next((made.facts["bytes"] / made.seconds for made in measurements
                      if made.entrant.case.task == "bandwidth" and not made.reason), math.nan)
    return [_row(group, made, baseline(made, measurements), products.get(made.entrant.case.precision, math.nan),
                 bandwidth) for made in measurements]


def _row(group: str, made: Measurement, ours: Measurement | None, product: float, bandwidth: float) -> Row:
    case, facts = made.entrant.case, made.facts
    row = {"group": group, "subject": made.entrant.subject, "reason": made.reason,
           **{key: value for key, value in asdict(case).items() if key not in ("augmentation", "data")}}
    if made.reason:
        return row
    seconds, flops = made.seconds, facts.get("flops")
    row |= {"seconds": seconds, "peak_bytes": made.peak_bytes, **facts}
    if case.task not in ROOFS:
        row["images_per_second"] = facts.get("images", case.batch_size) / seconds
    if ours is not None and not ours.reason:
        ratio, each = ratios(made, ours)
        row |= {"ratio": ratio, "ratio_least": min(each), "ratio_most": max(each)}
        flops = row["flops"] = ours.facts["flops"]
    if flops:
        row |= {"flop_per_second": flops / seconds, "share_of_product": flops / seconds / product}
    if facts.get("bytes"):
        row |= {"bytes_per_second": facts["bytes"] / seconds,
                "share_of_bandwidth": facts["bytes"] / seconds / bandwidth}
    return row | {"rounds": made.rounds}


def write(folder: Path, header: dict[str, Any], rows: Sequence[Row]) -> None:
    """Writes benchmark.json (all, every single time included), .csv, .md and, once there is a network of ours in it,
    roofline.png and .svg; each is whole or as it was before."""
    write_json(folder / "benchmark.json", header | {"rows": rows})
    plain = [{key: value for key, value in row.items() if key != "rounds"} for row in rows]
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(key for row in plain for key in row)), lineterminator="\n")
    table.writeheader()
    table.writerows(plain)
    for name, content in (("benchmark.csv", text.getvalue()), ("benchmark.md", markdown(rows))):
        with atomic_file(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    if points := _points(rows):
        figure = roofline(points, *_roofs(rows))
        for suffix in ("png", "svg"):
            save(figure, folder / f"roofline.{suffix}")


def markdown(rows: Sequence[Row]) -> str:
    """Three tables: ours beside the fastest peer, what feeds a step beside the step, and all that was measured."""
    measured = [row for row in rows if not row["reason"]]
    duels = [(ours, peers) for ours in measured if ours["subject"] == OURS
             and (peers := [row for row in measured if row["subject"] != OURS and _same(row, ours)])]
    beside = []
    for ours, peers in duels:
        fastest, smallest = (min(peers, key=lambda row: row[key]) for key in ("seconds", "peak_bytes"))
        beside.append([*_case(ours), _milliseconds(ours), fastest["subject"], _milliseconds(fastest),
                       f"{fastest['ratio']:.2f} ({fastest['ratio_least']:.2f} to {fastest['ratio_most']:.2f})",
                       f"{ours['peak_bytes'] / 2**20:.0f}", smallest["subject"],
                       f"{smallest['peak_bytes'] / 2**20:.0f}",
                       f"{ours['peak_bytes'] / smallest['peak_bytes']:.2f}"])
    feeding = []
    for row in measured:
        for step in measured:
            if row["task"] in OF_BATCHES and step["subject"] == OURS and step["task"] == "train" and all(
                    row[key] == step[key] for key in ("group", "batch_size", *WAY)):
                feeding.append([row["task"], *_case(step), f"{1e3 * row['batch_size'] / row['images_per_second']:.2f}",
                                f"{row['images_per_second']:.0f}",
                                f"{step['images_per_second'] / row['images_per_second']:.1%}"])
    everything = [[row["subject"], *_case(row), *(row[key] for key in WAY), *(
        _figure(row, *figure) for figure in FIGURES.values())] for row in rows]
    for cells, row in zip(everything, rows, strict=True):
        if row["reason"]:
            cells[-len(FIGURES)] = f"not measured: {row['reason']}"
    case = ["task", "network", "batch", "frozen", "precision"]
    return "\n\n".join([
        _table([*case, "pcamjax ms", "fastest peer", "its ms", "ratio (by round)", "pcamjax peak MiB", "smallest peer",
                "its peak MiB", "ratio"], beside),
        _table(["what", *case, "ms a batch", "images/s", "share of the step's time"], feeding),
        _table(["subject", *case, "devices", "steps a program", *FIGURES], everything)]) + "\n"


def _same(row: Row, other: Row) -> bool:
    """Whether two rows of one group are of one case."""
    return all(row[key] == other[key] for key in ("group", *CASE, *WAY))


def _case(row: Row) -> list[Any]:
    return [row[key] for key in CASE]


def _milliseconds(row: Row) -> str:
    return _figure(row, *FIGURES["ms"])


def _figure(row: Row, key: str, unit: float, form: str) -> str:
    return f"{row[key] / unit:{form}}" if row.get(key) else ""


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _points(rows: Sequence[Row]) -> list[RooflinePoint]:
    """The first case of each network and task, ours beside the fastest of its peers."""
    points: dict[tuple[str, str], RooflinePoint] = {}
    for row in rows:
        key = (row["network"], row["task"])
        if row["subject"] == OURS and row["task"] in COMPARED and row.get("bytes") and key not in points:
            peers = [peer["flop_per_second"] for peer in rows if peer["subject"] != OURS and not peer["reason"]
                     and _same(peer, row)]
            points[key] = RooflinePoint(*key, row["flops"] / row["bytes"], row["flop_per_second"],
                                        max(peers, default=math.nan))
    return list(points.values())


def _roofs(rows: Sequence[Row]) -> tuple[float, float]:
    """The best product of matrices in the first row's precision (FLOP/s) and the bandwidth (bytes/s): medians over the
    groups."""
    measured = [row for row in rows if not row["reason"]]
    products = [max(row["flop_per_second"] for row in group) for _, group in itertools.groupby(
        (row for row in measured if row["task"] == "product" and row["precision"] == rows[0]["precision"]),
        key=lambda row: row["group"])]
    bandwidths = [row["bytes_per_second"] for row in measured if row["task"] == "bandwidth"]
    return tuple(statistics.median(values) if values else math.nan for values in (products, bandwidths))
