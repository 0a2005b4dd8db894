"""The job that compares run folders, as a user runs it."""

import pytest


@pytest.fixture(scope="module")
def ended(finished, job, tmp_path_factory):
    """The page of a network and a baseline on its store, and how the job ended."""
    root, output = finished[0], tmp_path_factory.mktemp("compare")
    colours = job("baselines", "--config=configs/baselines.py", f"--workdir={output / 'colours'}",
                  f"--config.data.path={root / 'store'}", "--split=valid", "--config.features.bins=(2, 2, 2)")
    assert colours.code == 0, colours
    made = job("compare", root / "run", output / "colours", "--split=valid", f"--output={output / 'page'}")
    return output / "page", made


def test_a_network_and_a_baseline_are_compared_with_patches_and_heat_maps(ended):
    output, made = ended
    assert made.code == 0 and f"2 runs compared on valid: {output / 'comparison.html'}" in made.out, made
    page = (output / "comparison.html").read_text(encoding="utf-8")
    for said in ("tiny", "colour histogram + k-NN", "from the 48 of the training part of run", "train: 24 healthy, 24"):
        assert said in page, said
    figures = {path.name for path in (output / "figures").iterdir()}
    assert {"figure_3.2.png", "figure_3.3.png", "figure_4.3.png", "figure_4.1_run.png"} <= figures


def test_what_is_refused(finished, job, tmp_path):
    run, output = finished[0] / "run", f"--output={tmp_path / 'page'}"
    for said, arguments in (("no run to compare", (output,)), ("--output is missing", (run,)),
                            ("nowhere: not a run folder", (tmp_path / "nowhere", output)),
                            ("evaluation/test.json: no such file; evaluate this run first", (run, output)),
                            ("--reference=x: is none of the runs; choose one of run", (
                                run, output, "--split=valid", "--reference=x"))):
        assert said in job("compare", *arguments).refusal()
    assert not (tmp_path / "page").exists()
