"""The thesis' tables with what was measured beside what was published, and those that it does not have."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pcamjax.report.compared_runs import ComparedRun, Model
from pcamjax.report.significance import Significance
from pcamjax.report.table import Table
from pcamjax.report.thesis import METRICS

NOT_RUN, NOT_MEASURED, NONE = "not run", "not measured", "–"
MEASURED, PUBLISHED = "measured here", "published (measured on other data)"
TITLES = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1",
          "specificity": "specificity", "auc": "AUC", "average_precision": "average precision", "brier": "Brier",
          "expected_calibration_error": "calibration error"}
_FURTHER = ("average_precision", "brier", "expected_calibration_error")

Line = tuple[str, Sequence[ComparedRun]]
Layers = Callable[[str, str], tuple[int, int]]


def all_tables(models: Sequence[Model], significance: Significance, layers: Layers | None = None) -> list[Table]:
    """Tables 3.1, 4.1, 4.2, 5.1, 5.2 and 5.3 of the thesis, then ours."""
    families = {family: [model for model in models if model.published.family == family]
                for family in ("scratch", "fine-tuned", "histogram", "features")}
    networks = families["scratch"] + families["fine-tuned"]
    classical = families["histogram"] + families["features"]
    return [
        _fine_tuned(families["fine-tuned"], layers),
        _merit("table_4.1", "Table 4.1. Networks from scratch", families["scratch"], significance),
        _merit("table_4.2", "Table 4.2. Fine-tuned networks", families["fine-tuned"], significance),
        _merit("table_classical", "Classical models", classical, significance),
        _by_accuracy(networks, significance),
        _parameters(networks),
        _times(models, significance),
        _further(models, significance),
        _cost(models),
        _tests(significance),
        _runs(models, significance),
        _values(models, significance),
    ]


def _lines(model: Model) -> Iterator[Line]:
    """A model's row, and below it one a run if it has several."""
    yield model.title, model.runs
    if len(model.runs) > 1:
        for run in model.runs:
            yield f"{model.title}, run {run.name}", (run,)


def _rows(models: Sequence[Model], measured: Callable[[Sequence[ComparedRun]], tuple[str, ...]],
          published: Callable[[Model], tuple[str, ...]]) -> list[tuple[str, ...]]:
    rows = []
    for model in models:
        for number, (title, runs) in enumerate(_lines(model)):
            beside = published(model)
            rows.append((title, *measured(runs), *(beside if number == 0 else ("",) * len(beside))))
    return rows


def _percent(value: float | None) -> str:
    return NONE if value is None or math.isnan(value) else f"{value:.2f}"


def _estimate(runs: Sequence[ComparedRun], metric: str, significance: Significance) -> str:
    """A value in per cent with its interval and mark, or the mean of several runs with their range."""
    if not runs:
        return NOT_RUN
    values = [100 * run.estimates[metric].value for run in runs]
    if len(runs) > 1:
        return f"{_percent(sum(values) / len(values))}\n{_percent(min(values))} to {_percent(max(values))}"
    found, mark = runs[0].estimates[metric], significance.mark(runs[0], metric)
    return (f"{_percent(values[0])}{' ' if mark else ''}{mark}\n"
            f"[{_percent(100 * found.low)}, {_percent(100 * found.high)}]")


def _mean(runs: Sequence[ComparedRun], read: Callable[[ComparedRun], float | None], form: str) -> str:
    """The mean over the runs, with their range where there are several; "not measured" where one does not say."""
    if not runs:
        return NOT_RUN
    values = [read(run) for run in runs]
    if any(value is None for value in values):
        return NOT_MEASURED
    text = f"{sum(values) / len(values):{form}}"
    return text if min(values) == max(values) else f"{text}\n{min(values):{form}} to {max(values):{form}}"


def _cost_of(name: str, scale: float = 1.0) -> Callable[[ComparedRun], float | None]:
    return lambda run: run.cost[name] * scale if name in run.cost else None


def _recorded(*keys: str, scale: float = 1.0) -> Callable[[ComparedRun], float | None]:
    def read(run: ComparedRun) -> float | None:
        value: Any = run.record
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value * scale if isinstance(value, int | float) else None
    return read


def _form(value: float | int | None, form: str) -> str:
    return NONE if value is None else f"{value:{form}}"


def _merit(name: str, title: str, models: Sequence[Model], significance: Significance) -> Table:
    columns = tuple(TITLES[metric] for metric in METRICS)
    rows = _rows(models, lambda runs: tuple(_estimate(runs, metric, significance) for metric in METRICS),
                 lambda model: tuple(map(_percent, model.published.metrics)))
    return Table(name, f"{title}: figures of merit, %", (("", 1), (MEASURED, 6), (PUBLISHED, 6)),
                 ("model", *columns, *columns), rows)


def _fine_tuned(models: Sequence[Model], layers: Layers | None) -> Table:
    def setting(runs: Sequence[ComparedRun], group: str, key: str) -> str:
        if not runs:
            return NOT_RUN
        table = runs[0].config.get(group)
        return str(table.get(key, "not recorded")) if isinstance(table, dict) else "not recorded"

    def measured(runs: Sequence[ComparedRun]) -> tuple[str, ...]:
        name, frozen = setting(runs, "model", "name"), setting(runs, "model", "frozen")
        counted = NOT_RUN if not runs else NONE if layers is None else "{} of {}".format(*layers(name, frozen))
        return (frozen, counted, setting(runs, "optimizer", "name"), *_sizes(runs),
                _mean(runs, _recorded("train_seconds", scale=1 / 3600), ".2f"))

    def published(model: Model) -> tuple[str, ...]:
        frozen, layers = model.published.layers
        total, trainable = model.published.parameters
        return (NONE if layers is None else f"{frozen} of {layers}", model.published.optimizer or NONE,
                _form(total, ",d"), _form(trainable, ",d"), _form(model.published.hours, ".2f"))

    what = ("optimizer", "parameters", "trained", "hours")
    return Table("table_3.1", "Table 3.1. Fine-tuned networks: frozen layers, optimizer, parameters, hours of training",
                 (("", 1), (MEASURED, 6), (PUBLISHED, 5)),
                 ("network", "frozen up to", "layers frozen", *what, "layers frozen", *what),
                 _rows(models, measured, published),
                 "Layers of the backbone; here its input is not counted as one.")


def _sizes(runs: Sequence[ComparedRun]) -> tuple[str, str]:
    return (_mean(runs, _recorded("parameters", "total"), ",.0f"),
            _mean(runs, _recorded("parameters", "trainable"), ",.0f"))


def _by_accuracy(networks: Sequence[Model], significance: Significance) -> Table:
    def order(model: Model) -> tuple[bool, float]:
        mean = model.mean("accuracy")
        return math.isnan(mean), -(mean if not math.isnan(mean) else model.published.metrics[0] or 0)

    rows = _rows(sorted(networks, key=order), lambda runs: (_estimate(runs, "accuracy", significance),),
                 lambda model: (_percent(model.published.metrics[0]),))
    return Table("table_5.1", "Table 5.1. Networks by accuracy, %", (), ("network", MEASURED, PUBLISHED), rows,
                 "In the order of what was measured here; networks that were not run follow, in the published order.")


def _parameters(networks: Sequence[Model]) -> Table:
    def measured(runs: Sequence[ComparedRun]) -> tuple[str, ...]:
        return *_sizes(runs), _mean(runs, _recorded("train_seconds", scale=1 / 3600), ".2f")

    def published(model: Model) -> tuple[str, ...]:
        return (*(_form(count, ",d") for count in model.published.parameters), _form(model.published.hours, ".2f"))

    columns = ("parameters", "trained", "hours of training")
    return Table("table_5.2", "Table 5.2. Networks: parameters and hours of training",
                 (("", 1), (MEASURED, 3), (PUBLISHED, 3)), ("network", *columns, *columns),
                 _rows(networks, measured, published),
                 "Hours depend on the machine and on the numbers of patches and epochs; published: one Tesla P100.")


def _times(models: Sequence[Model], significance: Significance) -> Table:
    def measured(runs: Sequence[ComparedRun]) -> tuple[str, ...]:
        return (_mean(runs, _cost_of("train_ms_per_image"), ",.2f"), _mean(runs, _cost_of("test_ms_per_image"), ",.2f"),
                _estimate(runs, "accuracy", significance))

    def published(model: Model) -> tuple[str, ...]:
        return (*(_form(time, ",.2f") for time in model.published.milliseconds),
                _percent(model.published.metrics[0]))

    columns = ("training, ms an image", "test, ms an image", "accuracy, %")
    return Table("table_5.3", "Table 5.3. Time for an image, and accuracy", (("", 1), (MEASURED, 3), (PUBLISHED, 3)),
                 ("model", *columns, *columns), _rows(models, measured, published),
                 "Training: all epochs, over the number of training patches. Published times of networks are of a "
                 "Tesla P100, those of the classical models of a CPU, a fifth of the patches and another test set. "
                 "VGG19's 119.52 ms do not fit its published 6.54 hours, which make 125.9 ms.")


def _further(models: Sequence[Model], significance: Significance) -> Table:
    rows = _rows(models, lambda runs: tuple(_estimate(runs, metric, significance) for metric in _FURTHER),
                 lambda model: ())
    return Table("table_calibration", "Ranking and calibration, % (not in the thesis)", (),
                 ("model", *(TITLES[metric] for metric in _FURTHER)), rows,
                 "Average precision: higher is better. Brier score and expected calibration error: lower is better. "
                 "A mark says which is higher, not which is better. In resamples the calibration error is biased "
                 "upwards, of both models, so take its tests with care.")


def _cost(models: Sequence[Model]) -> Table:
    def measured(runs: Sequence[ComparedRun]) -> tuple[str, ...]:
        said = [run.record.get("cost") or {} for run in runs]
        how = dict.fromkeys(str(cost[key]) for cost in said for key in ("method", "region", "device") if cost.get(key))
        return (_mean(runs, _cost_of("bytes", 1e-6), ",.2f"), _mean(runs, _cost_of("flops_per_image", 1e-9), ",.3f"),
                _mean(runs, _cost_of("energy_kwh"), ".3g"), _mean(runs, _cost_of("co2_kg"), ".3g"),
                ", ".join(how) or (NOT_MEASURED if runs else NOT_RUN))
    return Table("table_cost", "Cost (not in the thesis)", (),
                 ("model", "size, MB", "GFLOPs an image", "energy of training, kWh", "CO2 of training, kg",
                  "method, region, device"),
                 _rows(models, measured, lambda model: ()))


def _tests(significance: Significance) -> Table:
    def signed(value: float) -> str:
        return NONE if math.isnan(value) else f"{100 * value:+.2f}"

    def p(value: float) -> str:
        return NONE if math.isnan(value) else "< 0.0001" if value < 1e-4 else f"{value:.4f}"

    rows = [(test.run, TITLES[test.metric], f"{signed(test.difference)}\n[{signed(test.low)}, {signed(test.high)}]",
             test.test, p(test.p), p(test.adjusted), test.mark or NONE) for test in significance.tests]
    reference = significance.reference.name
    rows += [(name, "all", "not tested", why, NONE, NONE, NONE) for name, why in significance.untested.items()]
    return Table("table_tests", f"Paired tests against {reference}", (),
                 ("run", "metric", f"minus {reference}, points", "test", "p", "p by Holm", "mark"), rows,
                 f"Differences in per cent; their {significance.resampling}."
                 if significance.resampling else "", textual=True)


def _runs(models: Sequence[Model], significance: Significance) -> Table:
    def text(value: Any) -> str:
        return {True: "yes", False: "no", None: "not known"}.get(value, str(value))

    rows = []
    for model in models:
        for run in model.runs:
            meta = run.predictions.meta
            rows.append((run.name, model.title, text(meta.get("checkpoint")), str(run.config.get("seed", NONE)),
                         text(meta.get("split")), text(meta.get("leaks_slides")), f"{run.metrics.n:,}",
                         f"{run.metrics.positives:,}", text(significance.untested.get(run.name, "yes"))))
    return Table("table_runs", "The runs", (),
                 ("run", "model", "checkpoint or settings", "seed", "split", "slides shared with training", "patches",
                  "metastasis", "on the patches of the reference"), rows,
                 "Every figure of merit of every run, with all digits and its test: tables/values.csv.", textual=True)


def _values(models: Sequence[Model], significance: Significance) -> Table:
    """One row a run and metric, for programs: fractions of 1, and nothing where there is nothing."""
    def text(value: float) -> str:
        return "" if math.isnan(value) else repr(value)

    tests = {(test.run, test.metric): test for test in significance.tests}
    rows = []
    for model in models:
        for run in model.runs:
            for metric, found in run.estimates.items():
                test = tests.get((run.name, metric))
                tested = ("",) * 7 if test is None else (
                    significance.reference.name, text(test.difference), text(test.low), text(test.high), test.test,
                    text(test.p), text(test.adjusted))
                rows.append((model.title, run.name, metric, str(run.metrics.n), text(found.value), text(found.low),
                             text(found.high), *tested))
    return Table("values", "Every figure of merit of every run", (),
                 ("model", "run", "metric", "patches", "value", "low", "high", "reference", "difference",
                  "difference_low", "difference_high", "test", "p", "p_holm"), rows)
