"""Averages of predictions: of one network over the eight symmetries of the square, and of several over their members.

What is averaged is the probability of metastasis, without weights (Krizhevsky et al. 2012 over views of an image;
Lakshminarayanan et al. 2017, "Simple and scalable predictive uncertainty estimation using deep ensembles"), not the
margin: a member that is wrong with a margin of 50 is then one vote, however sure it is.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, UInt8
from scipy.special import log_expit, logsumexp

from pcamjax.errors import InputError
from pcamjax.inference.predictions import Predictions, require_same_patches, scores

OF_THE_PART = ("role", "split", "split_description", "store_sha256")


def symmetric_views(images: UInt8[np.ndarray, "n s s 3"]) -> Iterator[UInt8[np.ndarray, "n s s 3"]]:
    """The images under the eight symmetries of the square, without a copy: mirrored or not, then turned."""
    for mirrored in (images, images.swapaxes(1, 2)):
        for quarter_turns in range(4):
            yield np.rot90(mirrored, quarter_turns, axes=(1, 2))


def mean_logits(margins: Float[np.ndarray, "k n"]) -> Float64[np.ndarray, "n 2"]:
    """Logits of the mean over k members of sigmoid(margin): the logarithms of the mean probabilities of both classes.

    Logarithms, so that means near 0 and 1 keep their order where the probabilities themselves would round to equals.
    The members are sorted before they are added, so their order changes no bit.
    """
    ascending = np.sort(margins, axis=0)
    healthy, metastasis = (logsumexp(log_expit(sign * ascending), axis=0) for sign in (-1, 1))
    return np.stack([healthy, metastasis], 1) - np.log(len(margins))


def ensemble(members: Sequence[Predictions]) -> Predictions:
    """The mean probability of several models' predictions of the same patches, each counted once and alike.

    Where their meta differ (run, checkpoint), the values are joined with " + " in the order given; the scores do not
    depend on that order.

    Raises:
      InputError: there are fewer than two members, one is there twice, or they are of different patches, parts, splits
        or stores.
    """
    if len(members) < 2:
        raise InputError(f"an ensemble of {len(members)}, expected two members at least; name more runs")
    first, metas = members[0], [member.meta for member in members]
    for number, member in enumerate(members):
        require_same_patches(first, member)
        if member.meta in metas[:number]:
            raise InputError(f"members {metas.index(member.meta) + 1} and {number + 1} of an ensemble are both "
                             f"{member.meta}, expected every model once")
        for key in OF_THE_PART:
            if member.meta.get(key) != first.meta.get(key):
                raise InputError(f"members of an ensemble differ in {key}: {first.meta.get(key)!r} and "
                                 f"{member.meta.get(key)!r}, expected predictions of one part of one split")
    logits = mean_logits(np.stack([member.margins for member in members])).astype(np.float32)
    return Predictions(first.ids, first.slides, first.labels, scores(logits), logits, _joined(metas))


def _joined(metas: list[dict[str, Any]]) -> dict[str, Any]:
    values = {key: [meta.get(key) for meta in metas] for meta in metas for key in meta}
    return {key: each[0] if all(value == each[0] for value in each) else " + ".join(map(str, each))
            for key, each in values.items()}
