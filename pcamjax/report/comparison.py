"""Run folders -> `comparison.html`: the thesis' tables and figures with what was measured beside what was published."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pcamjax.report.compared_runs import ComparedRun, as_models, read_runs
from pcamjax.report.comparison_galleries import Galleries, Gallery
from pcamjax.report.comparison_settings import settings_table
from pcamjax.report.comparison_tables import Layers, all_tables
from pcamjax.report.html import write_page
from pcamjax.report.significance import EQUAL, HIGHER, LEVEL, LOWER, Significance, against_reference, choose_reference
from pcamjax.report.table import write_table


def write_comparison(runs: Sequence[Path], output: Path, split: str = "test", reference: str | None = None, *,
                     layers: Layers | None = None) -> Path:
    """Writes `comparison.html` into `output`, its tables as CSV and Markdown and its figures as PNG into folders there.

    Args:
      runs: folders of networks and of baselines, evaluated on `split`; runs that differ in seed or fold alone are one
        model.
      reference: the run, by its folder's name or path, that the others are tested against; by default that of the best
        AUC.
      layers: counts the frozen and all layers of a network's backbone from config.model.name and config.model.frozen
        (`models.summary.layer_counts`); reports know no networks, so without it they are not counted.
    Raises:
      InputError: a folder is no run, was not evaluated on `split` or is damaged; `reference` is none of them; `output`
        cannot be written.
    """
    read = read_runs([Path(folder) for folder in runs], split)
    models = as_models(read)
    significance = against_reference(read, choose_reference(read, reference))
    tables = {table.name: table for table in [*all_tables(models, significance, layers), settings_table(models)]}
    for table in tables.values():
        write_table(table, output / "tables")
    galleries = Galleries(models, split, output / "figures")

    def section(title: str, names: Sequence[str], figures: Sequence[Gallery]) -> dict[str, Any]:
        return {"title": title, "tables": [tables[name] for name in names], "figures": list(figures)}

    return write_page(
        output / "comparison.html", "comparison.html",
        count=sum(bool(model.runs) for model in models), runs=len(read), split=split,
        leaking=", ".join(run.name for run in read if run.predictions.meta.get("leaks_slides")),
        unknown_slides=", ".join(run.name for run in read if (run.predictions.slides == "").any()),
        missing=", ".join(model.title for model in models if not model.runs),
        legend=_legend(read, significance, reference is None),
        sections=[
            section("The runs", ["table_runs", "table_settings"], []),
            section("Patches", [], galleries.data(read)),
            section("Networks from scratch", ["table_4.1"], galleries.of_family("scratch", ("4.1", "4.2", "4.3"),
                                                                                "Networks from scratch")),
            section("Fine-tuned networks", ["table_3.1", "table_4.2"],
                    galleries.of_family("fine-tuned", ("4.4", "4.5", "4.6"), "Fine-tuned networks")),
            section("Where networks look", [], [galleries.heat_maps()]),
            section("Classical models", ["table_classical"],
                    galleries.of_family("histogram and features", ("classical",) * 3,
                                        "Classical models (not in the thesis)")),
            section("All models", ["table_5.1", "table_5.2", "table_5.3", "table_calibration", "table_cost"],
                    [*galleries.times(), galleries.frontier()]),
            section("Tests", ["table_tests"], []),
        ])


def _legend(runs: Sequence[ComparedRun], significance: Significance, chosen_here: bool) -> list[str]:
    """What cells and marks mean, as these runs and tests made them."""
    lines = ["Figures of merit in per cent, AUC too; in brackets the 95 % interval. A patch is called metastasis when "
             "its score is greater than 0.5. A dash: there is no such figure."]
    for text in dict.fromkeys(run.resampling for run in runs):
        named = [run.name for run in runs if run.resampling == text]
        lines.append(f"Intervals of {'all runs' if len(named) == len(runs) else ', '.join(named)}: {text}.")
    lines.append("Several runs of one model, which differ in seed or fold alone: mean, lowest to highest, and below "
                 "it each run. That range is no interval. Figures show the first run.")
    lines.append("“Published” is what the thesis (J. Abad, 2020) states, on other data: 33,025 patches of the Kaggle "
                 "copy, drawn at random, so that slides lie on both sides. The two are not to be subtracted.")
    name = significance.reference.name
    if significance.tests:
        lines.append(f"{HIGHER} or {LOWER}: significantly higher or lower than the reference, {name}, on the same "
                     f"patches (p < {LEVEL:g}); {EQUAL}: no significant difference. AUC by DeLong's test, accuracy by "
                     "McNemar's exact one, the others by paired bootstrap; the p-values of a metric are corrected "
                     "together by Holm's method. DeLong's and McNemar's tests take patches for independent; where "
                     "slides are known, their p is therefore no smaller than that of the bootstrap over slides, and "
                     "where they are not, p-values are too small if patches of a slide resemble each other.")
        if chosen_here:
            lines.append(f"{name} is the reference because its AUC is the best on these very patches, which favours "
                         "it; --reference names another.")
    for run, why in significance.untested.items():
        lines.append(f"{run} was not tested, for it is not of the patches of {name}: {why}.")
    return lines
