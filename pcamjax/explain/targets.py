"""What is explained: one number per image, made of a network's logits."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from pcamjax.errors import InputError

# A class (its logit), one of DIFFERENCES, or any function of the logits.
Target = int | str | Callable[[Float[Array, "b classes"]], Float[Array, " b"]]
DIFFERENCES = ("margin", "probability")


def target_score(logits: Float[Array, "b classes"], target: Target) -> Float[Array, " b"]:
    """The score of each image that a target asks for.

    Args:
      target: a class, for its logit: with two outputs that says nothing of the other one, so that what speaks for both
        classes counts as well; "margin" is logit 1 minus logit 0, by which softmax and a pair of sigmoids alike decide;
        "probability" is its sigmoid, the score of a patch; or a function of the logits.
    Raises:
      InputError: there is no such class or target, or a difference of other than two outputs is asked for.
    """
    if callable(target):
        return target(logits)
    if target in DIFFERENCES:
        if logits.shape[1] != 2:
            raise InputError(f"target {target!r} of {logits.shape[1]} outputs: expected two; name a class instead")
        margin = logits[:, 1] - logits[:, 0]
        return margin if target == "margin" else jax.nn.sigmoid(margin)
    if target not in range(logits.shape[1]):
        raise InputError(f"target {target!r}: expected a class from 0 to {logits.shape[1] - 1}, "
                         f"{' or '.join(map(repr, DIFFERENCES))} or a function of the logits")
    return logits[:, target]
