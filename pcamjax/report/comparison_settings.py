"""How the compared models were made, from their configurations: what the thesis says of each in its text."""

from collections.abc import Mapping, Sequence
from typing import Any

from pcamjax.report.compared_runs import ComparedRun, Model
from pcamjax.report.table import Table
from pcamjax.training.run import flatten

_OPTIMIZERS = {"sgd": "SGD", "rmsprop": "RMSProp"}
_COLUMNS = ("model", "epochs: head + network", "batch", "begins with, or features", "optimizer, or setting chosen",
            "augmentation, or fitted on")


def settings_table(models: Sequence[Model]) -> Table:
    """A row for each model that was run; runs of one model differ in none of this but the settings that each chose."""
    rows = [(model.title, *(_classical(model.runs[0]) if "features" in model.runs[0].config
                            else _network(model.runs[0]))) for model in models if model.runs]
    return Table("table_settings", "How the models were made", (), _COLUMNS, rows,
                 "Of several runs the first; scale of pixels and frozen layers are those of the model (table 3.1).")


def optimizer_text(settings: Mapping[str, Any]) -> str:
    """The optimizer with its rate, momentum and schedule, from a flat configuration."""
    name, rate = settings.get("optimizer.name"), settings.get("optimizer.schedule.learning_rate")
    if name is None:
        return "not recorded"
    words = [_OPTIMIZERS.get(name, str(name).capitalize()) + ("" if rate is None else f" {rate:g}")]
    if settings.get("optimizer.momentum"):
        words.append("Nesterov momentum" if settings.get("optimizer.nesterov") else "momentum")
    if (schedule := settings.get("optimizer.schedule.name", "constant")) != "constant":
        words.append(str(schedule).replace("_", " "))
    return ", ".join(words)


def _network(run: ComparedRun) -> tuple[str, ...]:
    settings = flatten(run.config)
    epochs = f"{settings.get('head.epochs', 0)} + {settings['epochs']}" if "epochs" in settings else "not recorded"
    changes = [key.removeprefix("augmentation.") + ("" if value is True else f" {value:g}")
               for key, value in settings.items() if key.startswith("augmentation.") and value]
    weights = run.record.get("weights") or {}
    return (epochs, str(settings.get("batch_size", "not recorded")), weights.get("file", "drawn weights"),
            optimizer_text(settings), ", ".join(changes) or "none")


def _classical(run: ComparedRun) -> tuple[str, ...]:
    chosen = (run.record.get("chosen") or {}).get("settings") or {}
    fitted = run.record.get("fitted_on")
    return ("–", "–", str(run.record.get("model", "not recorded")).partition(" on ")[2],
            ", ".join(f"{key} {value}" for key, value in chosen.items()) or "not recorded",
            "not recorded" if fitted is None else f"{fitted:,} patches")
