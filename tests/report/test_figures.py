"""Figures: what they show is what they were given, and no word of theirs is cut off."""

import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from pcamjax.evaluation.metrics import evaluate, roc_curve
from pcamjax.report import figures

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 96, 96, 3), dtype=np.uint8)
LABELS = np.array([1, 0, 1, -1, 0], np.int8)


def words(figure) -> list[str]:
    """All words, after a check that nothing drawn leaves the figure and that no letter has serifs."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    box, (width, height) = figure.get_tightbbox(renderer), figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert {text.get_fontname() for text in texts} == {"DejaVu Sans"}
    return [text.get_text() for text in texts]


def history(epochs: int) -> dict[str, np.ndarray]:
    epoch = np.arange(1, epochs + 1, dtype=float)
    return {"epoch": epoch, "train_loss": 1 / epoch, "valid_loss": 2 / epoch,
            "train_accuracy": 1 - 0.5 / epoch, "valid_accuracy": 1 - 0.6 / epoch,
            "valid_auc": 1 - 0.4 / epoch}


@pytest.mark.parametrize("epochs", [1, 2, 50])
def test_learning_curves(epochs):
    figure = figures.learning_curves(history(epochs))
    text = words(figure)
    assert {"loss", "accuracy", "AUC", "epoch", "train", "valid"} <= set(text)
    assert [len(axes.lines) for axes in figure.axes] == [2, 2, 1]
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), history(epochs)["valid_loss"])
    assert all(line.get_marker() in ("o", "s") for axes in figure.axes for line in axes.lines)
    assert all(float(tick).is_integer() for tick in figure.axes[0].get_xticks())


def test_learning_curves_with_gaps():
    values = history(4)
    values["valid_loss"][1] = np.nan
    values["valid_auc"][:] = np.nan
    del values["train_accuracy"]
    figure = figures.learning_curves(values)
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy"]
    assert [len(axes.lines) for axes in figure.axes] == [2, 1]
    assert np.isnan(figure.axes[0].lines[1].get_ydata()[1])
    with pytest.raises(ValueError, match="no finite"):
        figures.learning_curves({"epoch": np.array([1.0]), "valid_auc": np.array([np.nan])})


def test_roc():
    labels = RNG.integers(0, 2, 300).astype(np.int8)
    scores = np.clip(0.3 * labels + 0.7 * RNG.random(300), 0, 1)
    metrics, curve = evaluate(labels, scores), roc_curve(labels, scores)
    figure = figures.roc(curve, metrics.auc)
    assert {"chance", f"AUC {metrics.auc:.4f}", "score > 0.5"} <= set(words(figure))
    chance, line, point = figure.axes[0].lines
    np.testing.assert_array_equal(line.get_ydata(), curve.true_positive_rate)
    np.testing.assert_array_equal(chance.get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_allclose(point.get_xydata(), [[1 - metrics.specificity, metrics.recall]])


def test_confusion_matrix():
    labels, scores = np.array([0] * 4 + [1] * 2000, np.int8), np.array([0.1, 0.2, 0.3, 0.9] + [0.8] * 2000)
    metrics = evaluate(labels, scores)
    assert {"3", "1", "0", "2,000", "75.00 %", "25.00 %", "100.00 %", "true", "called"} <= set(
        words(figures.confusion_matrix(metrics)))
    one_class = evaluate(np.array([1, 1], np.int8), np.array([0.1, 0.9]))
    assert words(figures.confusion_matrix(one_class)).count("–") == 2


def test_method_grid():
    maps = RNG.random((2, 3, 96, 96)).astype(np.float32)
    maps[1, 2] = 0
    figure = figures.method_grid(IMAGES[:3], maps, ["Grad-CAM", "occlusion"], [True, False],
                                 ["first", "second", "third"], "of margin")
    assert {"patch", "Grad-CAM", "occlusion", "first", "second", "third", "of margin"} <= set(words(figure))
    assert words(figure).count("zero everywhere") == 1
    assert len(figure.axes) == 3 * 3 + 1 and figure.axes[-1].get_xlim() == (0, 1)


@pytest.mark.parametrize("count", [1, 5])
def test_heat_map_grid(count):
    maps = RNG.random((count, 96, 96)).astype(np.float32)
    maps[0] = 0
    scores = np.linspace(0.9, 0.1, count, dtype=np.float32)
    is_zero = maps.max((1, 2)) == 0
    figure = figures.heat_map_grid(IMAGES[:count], maps, scores, LABELS[:count], is_zero, "Grad-CAM")
    text = words(figure)
    assert "metastasis, score 0.900; map is zero everywhere" in text and "Grad-CAM" in text
    panels, bar = figure.axes[:-1], figure.axes[-1]
    assert len(panels) == 3 * count and bar.get_xlim() == (0, 1)
    for axes in panels:
        assert axes.patches[-1].get_bbox().extents.tolist() == [31.5, 31.5, 63.5, 63.5]
    np.testing.assert_array_equal(panels[0].images[0].get_array(), IMAGES[0])
    np.testing.assert_allclose(panels[2].images[0].get_array(), IMAGES[0] / 255)  # what a zero map leaves


def test_patch_and_augmentation_grids():
    figure = figures.patch_grid(IMAGES, LABELS)
    assert words(figure) == ["metastasis", "healthy", "metastasis", "unlabelled", "healthy"]
    figure = figures.augmentation_grid(IMAGES[:2], np.stack([IMAGES[:3], IMAGES[2:]]))
    assert words(figure) == ["original", "augmented"]
    np.testing.assert_array_equal(figure.axes[7].images[0].get_array(), IMAGES[4])


def test_class_proportions():
    figure = figures.class_proportions({"train": (60, 40, 0), "valid": (5, 95, 0), "test": (0, 0, 7)})
    text = words(figure)
    assert {"60.0 %", "40.0 %", "95.0 %", "100.0 %", "train", "valid", "test", "unlabelled"} <= set(text)
    assert "5.0 %" not in text
    assert [bar.get_width() for bar in figure.axes[0].containers[1]] == [40, 95, 0]


def test_classes_differ_in_grey():
    luminance = [np.dot(to_rgb(colour), (0.299, 0.587, 0.114))
                 for colour in (figures.METASTASIS, figures.HEALTHY, figures.UNLABELLED)]
    assert np.all(np.diff(luminance) > 0.1)


def test_save(tmp_path):
    png = figures.save(figures.patch_grid(IMAGES, LABELS), tmp_path / "new" / "grid.png")
    assert (tmp_path / "new" / "grid.png").read_bytes() == png
    assert Image.open(io.BytesIO(png)).size == (1320, 190)
    assert figures.save(figures.patch_grid(IMAGES, LABELS), tmp_path / "again.png") == png


def test_a_dotted_line_stands_between_the_phases():
    values = history(4) | {"phase": np.array([1.0, 1.0, 2.0, 2.0])}
    for axes in figures.learning_curves(values).axes:
        assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [2.5]


def test_roofline():
    point = figures.RooflinePoint
    figure = figures.roofline([point("vgg19", "train", 20.0, 150e9, 120e9), point("vgg19", "infer", 30.0, 100e9, 200e9),
                               point("mobilenet", "train", 2.0, 40e9, float("nan"))], 160e9, 40e9)
    assert {"train", "infer", "FLOPs a byte", "GFLOP/s", "vgg19", "mobilenet", "pcamjax", "fastest peer"
            } <= set(words(figure))
    train, infer = figure.axes
    lines = {line.get_label(): line for line in train.lines}
    np.testing.assert_allclose(np.transpose(lines["pcamjax"].get_data()), [[20, 150], [2, 40]])
    np.testing.assert_allclose(np.transpose(lines["fastest peer"].get_data()), [[20, 120], [2, np.nan]])
    x, y = lines["product of matrices, memory"].get_data()
    np.testing.assert_allclose(y, np.minimum(160, 40 * x))
    assert x.min() < 2 and x.max() > 30 and infer.get_ylim() == train.get_ylim()
