"""Predictions out of nothing: of given labels and scores, or of slides whose patches resemble each other."""

import numpy as np
from scipy.special import expit

from pcamjax.inference.predictions import Predictions

META = {"model": "m", "run": "r", "checkpoint": "last, step 7", "split": "official", "store_sha256": "ab"}


def predictions(labels, scores=None, slides=None, *, margins=None, role: str = "valid", **meta) -> Predictions:
    """Scores as given, or logits with these margins; the slides are not known unless they are given."""
    labels, logits = np.array(labels, np.int8), None
    if margins is not None:
        logits = np.stack([np.zeros(len(labels)), margins], 1).astype(np.float32)
        scores = expit(logits[:, 1].astype(np.float64))
    ids = np.array([f"patch_{i}" for i in range(len(labels))])
    slides = np.full(len(labels), "") if slides is None else np.array(slides, "U")
    return Predictions(ids, slides, labels, np.array(scores, np.float32), logits, META | {"role": role} | meta)


def correlated(rng: np.random.Generator, slides: int, per_slide: int, *, known: bool = True, shift: float = 0.0,
               **meta) -> Predictions:
    """Patches that share with their slide both a tendency to be metastasis and an error of the score.

    `shift` is added to every margin; scores are rounded to two digits, so that some are equal.
    """
    tendency, error = rng.normal(0, 1.5, (slides, 1)), rng.normal(0, 1, (slides, 1))
    labels = rng.random((slides, per_slide)) < expit(tendency)
    margins = 2 * labels - 1 + shift + error + rng.normal(0, 1, labels.shape)
    names = np.repeat([f"slide_{i}" for i in range(slides)], per_slide) if known else None
    return predictions(labels.ravel(), np.round(expit(margins.ravel()), 2), names, **meta)
