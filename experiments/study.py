"""The runs of a study: which there are, which are done, and how one is made from its first step to its page."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from experiments.evaluate import evaluate_run, write_evaluation
from experiments.explain import explain_run
from pcamjax.baselines.baseline import fit_baseline
from pcamjax.data.splits import Split, make_split
from pcamjax.data.store import Patches
from pcamjax.errors import InputError
from pcamjax.inference.predict import load_run
from pcamjax.meter import Meter
from pcamjax.report.page import write_report
from pcamjax.training.loop import fit
from pcamjax.training.run import RunFolder, data_identity, flatten

PARTS = ("valid", "test")  # in this order: what is chosen on the first is measured on the second
EXPLAINED = 16  # patches by Grad-CAM, as figure 4.7 shows some


@dataclasses.dataclass(frozen=True)
class Division:
    """A split that the runs of one comparison share, or one of its folds.

    Attributes:
      group: names the comparison; the folds of a split are in one.
      name: of this one.
      settings: `config.data.split`.
    """

    group: str
    name: str
    settings: dict[str, Any]
    split: Split


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A network or a classical model on one division, from one seed.

    Attributes:
      model: what it is a run of, whatever the division and the seed.
      source: the run whose network's features are read, None for colours and for networks themselves.
    """

    folder: RunFolder
    model: str
    division: Division
    config: ConfigDict
    source: RunFolder | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.path.name

    @property
    def is_network(self) -> bool:
        """Whether it is trained rather than fitted."""
        return "features" not in self.config

    def done(self, patches: Patches) -> bool:
        """Whether all of it is there.

        Raises:
          InputError: its folder holds a run of another configuration or on other data.
        """
        data = data_identity(patches, self.division.split)
        if self.source and self.folder.data():
            data["network_sha256"] = self.folder.data().get("network_sha256")
        self.folder.require_fits(self.config, data)
        wanted = [*map(self.folder.evaluation, PARTS), self.folder.report,
                  *([self.folder.explanations("test").with_suffix(".json")] if self.is_network else [])]
        return self.folder.record() is not None and all(file.exists() for file in wanted)

    def make(self, patches: Patches) -> None:
        """Does what is not there yet: fits, evaluates, explains a network, and writes the page."""
        if self.is_network:
            self._make_network(patches)
        else:
            baseline, meter = fit_baseline(self.config, patches, self.division.split, self.folder), None
            for part in PARTS:
                if not self.folder.evaluation(part).exists():
                    meter = meter or Meter(self.config.carbon.country)
                    write_evaluation(self.folder, part, *baseline.measured_predictions(
                        patches, self.division.split, part, meter))
        write_report(self.folder.path)

    def _make_network(self, patches: Patches) -> None:
        split = self.division.split
        if self.folder.record() is None:
            fit(self.config, patches, split, self.folder)
        trained = load_run(self.folder.path, config=self.config)
        for part in PARTS:
            if not self.folder.evaluation(part).exists():
                evaluate_run(trained, patches, split, part)
        if not self.folder.explanations("test").with_suffix(".json").exists():
            explain_run(trained, patches, split, "test", EXPLAINED)


def divisions(patches: Patches, names: Sequence[str], folds: int, file: str = "") -> tuple[list[Division], list[str]]:
    """The splits of these names that the store allows, and a line for each that it does not, with the reason.

    Args:
      folds: by_slide in so many folds, each a division; 0: as one split.
      file: the CSV of the split "file".
    """
    made, left_out = [], []
    for name in names:
        numbers = range(1, folds + 1) if name == "by_slide" and folds else (1,)
        for fold in numbers:
            settings = {"name": name, "folds": folds if name == "by_slide" else 0, "fold": fold, "file": file}
            try:
                split = make_split(patches, **settings)
                for part in ("train", *PARTS):
                    patches.require_labels(split.part(part))
            except InputError as error:
                left_out.append(f"{name}: {error}")
                break
            group = f"by_slide_{folds}_folds" if len(numbers) > 1 else name
            made.append(Division(group, split.name, settings, split))
    return made, left_out


def plan(folder: Path, data: str, divided: Sequence[Division], *, networks: Sequence[str], classical: Sequence[str],
         features_of: str, seeds: Sequence[int], overrides: Mapping[str, Any]) -> list[PlannedRun]:
    """All runs of a study in the order in which they are made: of each seed and division the quick ones first.

    Args:
      folder: where their folders lie.
      networks: names in `configs/`, or paths of such files.
      classical: classifiers that are fitted on colour histograms and on the features of `features_of`.
      features_of: one of the networks, "" for none.
      overrides: values of flattened keys for each run whose configuration has them.
    Raises:
      InputError: a configuration cannot be read.
    """
    runs = []
    for seed in seeds:
        for division in divided:
            def planned(model: str, file: str, source: RunFolder | None = None, seed: int = seed,
                        division: Division = division, **values: Any) -> PlannedRun:
                config = _configuration(file)
                known = flatten(config.to_dict())
                given = {**overrides, **values, "seed": seed, "data.path": data,
                         **{f"data.split.{key}": value for key, value in division.settings.items()}}
                config.update_from_flattened_dict({key: value for key, value in given.items() if key in known})
                path = folder / f"{model}_{division.name}_seed{seed}"
                return PlannedRun(RunFolder(path), model, division, config, source)

            runs += [planned(f"histogram_{name}", "baselines", **{"model.name": name}) for name in classical]
            for network in networks:
                model = Path(network).stem
                runs.append(planned(model, network))
                if network == features_of:
                    source = runs[-1].folder
                    runs += [planned(f"{model}_{name}", "baselines", source, **{
                        "model.name": name, "features.name": "network", "features.run": str(source.path)})
                             for name in classical]
    return runs


def _configuration(name: str) -> ConfigDict:
    file = name if name.endswith(".py") else f"configs/{name}.py"
    if not Path(file).is_file():
        raise InputError(f"{file}: no such file; choose networks by their names in configs/, or give a path")
    return flags.FLAGS["config"].parser.parse(file)
