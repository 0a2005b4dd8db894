"""A pre-trained network through the jobs: weights in, two phases, pictures, weights out."""

import json

import jax
import numpy as np
import pytest

from pcamjax.files import sha256_file
from pcamjax.inference.predict import load_run
from pcamjax.models import frozen_layers
from pcamjax.models.variables import initial_variables
from pcamjax.weights import export_keras, load

NAME = "mobilenet_025"
CONFIG = f"""import tiny
from configs.pretrained import fine_tuned

def get_config():
    tiny.register()
    config = fine_tuned("{NAME}", {{"name": "adam", "schedule": {{"name": "constant", "learning_rate": 1e-3}}}})
    config.head.epochs = config.epochs = 1
    config.batch_size = config.eval_batch_size = 8
    config.parallel.devices = 1
    return config
"""


@pytest.fixture(scope="module")
def tuned(job, finished, tmp_path_factory):
    """A folder with a file of weights, a configuration and a run that began with them, explained and exported."""
    root, store = tmp_path_factory.mktemp("pretrained"), finished[0] / "store"
    export_keras(root / "start.h5", NAME, initial_variables(NAME, 5))
    (root / "config.py").write_text(CONFIG)
    train = ("train", f"--workdir={root / 'run'}", f"--config={root / 'config.py'}", f"--config.data.path={store}",
             f"--config.model.weights={root / 'start.h5'}")
    for arguments in (train, ("explain", f"--workdir={root / 'run'}", "--split=valid", "--num=4"),
                      ("export", f"--workdir={root / 'run'}", f"--output={root / 'end.h5'}")):
        ended = job(*arguments)
        assert ended.code == 0, ended
    return root, store


def test_the_record_tells_of_weights_and_phases(tuned):
    record = json.loads((tuned[0] / "run" / "record.json").read_text())
    assert record["weights"] == {"file": "start.h5", "sha256": sha256_file(tuned[0] / "start.h5"), "classifier": "read"}
    assert [(phase["name"], phase["trainable"], phase["steps"]) for phase in record["phases"]] == [
        ("head", 788_994, 6), ("network", 982_786, 6)]
    assert record["parameters"] == {"total": 1_007_538, "trainable": 982_786}
    page = (tuned[0] / "run" / "report.html").read_text()
    assert record["weights"]["sha256"] in page and "phase head" in page


def test_what_is_exported_is_what_was_trained(tuned):
    run = load_run(tuned[0] / "run")
    _, variables = load(NAME, tuned[0] / "end.h5")
    for (path, a), b in zip(jax.tree.leaves_with_path(variables), jax.tree.leaves(run.variables), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), jax.tree_util.keystr(path))


def test_frozen_layers_end_as_they_began_and_the_others_do_not(tuned):
    start, end = initial_variables(NAME, 5), load_run(tuned[0] / "run").variables
    frozen, seen = frozen_layers(NAME), set()
    for collection in ("params", "batch_stats"):
        for layer, values in start[collection]["backbone"].items():
            for name, value in values.items():
                same = np.array_equal(value, end[collection]["backbone"][layer][name])
                assert same == (layer in frozen), (collection, layer, name)
                seen.add(layer)
    assert len(seen & frozen) == 26 and len(seen) == 54


def test_it_is_explained_at_its_layer_and_at_any_other(job, tuned, tmp_path):
    with np.load(tuned[0] / "run" / "explanations" / "valid.npz") as file:
        assert str(file["layer"]) == "conv_pw_13_relu"
        before = file["maps"]
    assert job("explain", f"--workdir={tuned[0] / 'run'}", "--split=valid", "--num=4", "--layers=conv_dw_6").code == 0
    with np.load(tuned[0] / "run" / "explanations" / "valid.npz") as file:
        assert str(file["layer"]) == "conv_dw_6" and not np.array_equal(file["maps"], before)


@pytest.mark.parametrize(("overrides", "said"), [
    (["--config.model.weights=missing.h5"], "weights 'missing.h5' for mobilenet_025: no such file; choose imagenet, "),
    (["--config.model.weights={root}/start.h5", "--config.model.name=mobilenet"], "start.h5: .*those of mobilenet_025"),
    (["--config.model.weights={root}/config.py"], "config.py: "),
    (["--config.model.frozen=conv_pw_99"], "model.frozen: the backbone of mobilenet_025 has no layer 'conv_pw_99'"),
    (["--config.head.epochs=-1"], "config.head.epochs = -1: expected at least 0"),
    (["--config.head.optimizer.name=adem"], "optimizer 'adem' is not known")])
def test_bad_weights_and_boundaries_are_refused_before_the_folder_is_taken(job, tuned, tmp_path, overrides, said):
    root, store = tuned
    line = job("train", f"--workdir={tmp_path / 'new'}", f"--config={root / 'config.py'}",
               f"--config.data.path={store}", *(override.format(root=root) for override in overrides)).refusal()
    assert all(words in line for words in said.split(".*")), line
    assert not (tmp_path / "new").exists()


def test_export_says_what_it_needs(job, tuned, tmp_path):
    workdir = f"--workdir={tuned[0] / 'run'}"
    assert "--output is missing" in job("export", workdir).refusal()
    output = f"--output={tmp_path / 'net.h5'}"
    other = job("export", workdir, output, "--config.model.name=vgg19")
    assert "holds a checkpoint of 'mobilenet_025'" in other.refusal()
    store = f"--config.data.path={tuned[1]}"
    assert "expected a multiple of 128" in job("export", workdir, output, store, "--recalibrate=999").refusal()
    assert "without .weights" in job("export", workdir, f"--output={tmp_path / 'net.weights.h5'}").refusal()
    assert not list(tmp_path.iterdir())


def test_the_summary_counts_and_marks_what_is_frozen(job, tuned):
    ended = job("summary", f"--config={tuned[0] / 'config.py'}")
    lines = ended.out.splitlines()
    assert "1,007,538 parameters, 982,786 of them trained" in lines[-1] and "conv_pw_13_relu" in lines[-1]
    rows = {line.split()[0]: line for line in lines[1:-1]}
    assert "frozen" in rows["conv_pw_6_relu"] and "frozen" not in rows["conv_dw_7"]
    assert "needs images of at least 32" in job("summary", f"--config={tuned[0] / 'config.py'}", "--size=31").refusal()
    assert "leave --size or" in job("summary", "--config.model.name=vgg19", "--imagenet", "--size=96").refusal()
    assert "scratch1 has no classifier" in job("summary", "--imagenet").refusal()
