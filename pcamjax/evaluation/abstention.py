"""What is gained by leaving the patches to a pathologist of which a model is least sure: risk against coverage."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pcamjax.evaluation.metrics import checked
from pcamjax.inference.predictions import THRESHOLD, Predictions


class RiskCoverage(NamedTuple):
    """A model answers the fraction `coverage` of the patches, those of which it is surest, and errs in `risk` of these.

    One point for each number of patches from 1 to all, so `area`, the mean of the risks, is the area under the curve.
    """

    coverage: Float[np.ndarray, " n"]
    risk: Float[np.ndarray, " n"]
    area: float


def risk_coverage(predictions: Predictions) -> RiskCoverage:
    """El-Yaniv and Wiener 2010; a patch is surer, the further its margin z1 - z0 lies from 0.

    Of patches that are equally sure each is as likely to be answered as another, and the risk is its expectation. The
    area is that of Geifman, Uziel and El-Yaniv 2019 (AURC).

    Raises:
      InputError: as `metrics.evaluate`.
    """
    labels, scores = checked(predictions.labels, predictions.scores)
    wrong = (scores > THRESHOLD) != (labels == 1)
    sureness = np.abs(predictions.margins)
    _, group, size = np.unique(-sureness, return_inverse=True, return_counts=True)
    share = np.bincount(group, wrong) / size
    answered = np.arange(1, len(labels) + 1)
    risk = np.cumsum(np.repeat(share, size)) / answered
    return RiskCoverage(answered / len(labels), risk, float(risk.mean()))
