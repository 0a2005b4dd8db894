"""Whether scores are probabilities: the reliability diagram, and a temperature that is fitted on validation."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq
from scipy.special import expit, log_expit

from pcamjax.errors import InputError
from pcamjax.evaluation.metrics import checked
from pcamjax.evaluation.validation import require_same_model, require_validation
from pcamjax.inference.predictions import Predictions, scores

BINS = 15
"""Equal parts of [0, 1], each with its upper end; as many as Guo et al. 2017 take."""

TEMPERATURES = (0.01, 100.0)


class Reliability(NamedTuple):
    """A reliability diagram: bin i holds the scores in (edges[i], edges[i + 1]], bin 0 also 0; NaN where empty."""

    edges: Float[np.ndarray, " edges"]
    count: Int[np.ndarray, " bins"]
    mean_score: Float[np.ndarray, " bins"]
    positive_fraction: Float[np.ndarray, " bins"]


def reliability(labels: Int[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> Reliability:
    """Mean score and fraction of metastasis in 15 bins of equal width (DeGroot and Fienberg 1983).

    Raises:
      InputError: as `metrics.evaluate`.
    """
    labels, scores = checked(labels, scores)
    bins = bin_numbers(scores)
    count = np.bincount(bins, minlength=BINS)
    mean_score, positive_fraction = (
        np.divide(np.bincount(bins, values, BINS), count, out=np.full(BINS, np.nan), where=count > 0)
        for values in (scores, labels))
    return Reliability(_edges(), count, mean_score, positive_fraction)


def bin_numbers(scores: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The bin of each score in [0, 1], from 0."""
    return np.searchsorted(_edges()[1:-1], scores.astype(np.float64))


def _edges() -> Float[np.ndarray, " edges"]:
    return np.linspace(0, 1, BINS + 1)


@dataclasses.dataclass(frozen=True)
class Temperature:
    """What divides a model's margins z1 - z0 so that its scores fit the validation patches best.

    loss_before and loss_after: mean negative log-likelihood of the validation labels, in nats.
    fitted_on: the meta of the validation predictions.
    """

    value: float
    loss_before: float
    loss_after: float
    fitted_on: dict[str, Any]

    def apply(self, predictions: Predictions) -> Predictions:
        """The same predictions with calibrated scores, and the temperature in their meta.

        Raises:
          InputError: they are of another model or split than the temperature was fitted on.
        """
        require_same_model(self.fitted_on, predictions, "temperature")
        meta = predictions.meta | {"temperature": self.value}
        if predictions.logits is None:
            return dataclasses.replace(predictions, meta=meta,
                                       scores=expit(predictions.margins / self.value).astype(np.float32))
        logits = (predictions.logits / self.value).astype(np.float32)
        return dataclasses.replace(predictions, meta=meta, logits=logits, scores=scores(logits))


def fit_temperature(valid: Predictions) -> Temperature:
    """The temperature with the least negative log-likelihood on validation (Guo et al. 2017, section 4.2).

    It lies between 0.01 and 100: the nearer end is taken where the loss falls all the way, as it does towards 0 if the
    sign of the margin tells the classes apart without a mistake.

    Raises:
      InputError: the predictions are not of the validation part, have a temperature already, or as `metrics.evaluate`.
    """
    require_validation(valid, "a temperature")
    labels, _ = checked(valid.labels, valid.scores)
    if "temperature" in valid.meta:
        raise InputError(f"these predictions were divided by the temperature {valid.meta['temperature']:g} already; "
                         "fit on those that the model made")
    margins, signs = valid.margins, 2.0 * labels - 1

    def loss(inverse: float) -> float:
        return float(-np.mean(log_expit(signs * margins * inverse)))

    def slope(log_inverse: float) -> float:
        """Of the loss along the inverse of the temperature, in which the loss is convex."""
        return float(-np.mean(signs * margins * expit(-signs * margins * np.exp(log_inverse))))

    low, high = (-np.log(temperature) for temperature in reversed(TEMPERATURES))
    if slope(low) >= 0:
        value = TEMPERATURES[1]
    elif slope(high) <= 0:
        value = TEMPERATURES[0]
    else:
        value = float(np.exp(-brentq(slope, low, high, xtol=1e-12)))
    return Temperature(value, loss(1.0), loss(1 / value), valid.meta)
