"""What is chosen on validation alone, and for one model: a temperature, an operating point.

A choice takes `Predictions`, whose meta say which part of the split they are of, never bare arrays, so that choosing on
test by accident is an error. It remembers that meta, and is applied to other parts of the same split alone.
"""

from typing import Any

from pcamjax.errors import InputError
from pcamjax.inference.predictions import Predictions


def require_validation(predictions: Predictions, what: str) -> None:
    """Raises InputError unless the predictions are of the part "valid"; `what` names the choice with its article."""
    role = predictions.meta.get("role")
    if role != "valid":
        raise InputError(f"{what} is chosen on the part 'valid' alone, these predictions are of {role!r}; make those "
                         "of validation: python -m experiments.evaluate --split=valid")


def require_same_model(chosen_on: dict[str, Any], predictions: Predictions, what: str) -> None:
    """Raises InputError unless the meta of both differ in nothing but the part: run, checkpoint, split, store agree."""
    meta = predictions.meta
    for key in sorted((chosen_on.keys() | meta.keys()) - {"role"}):
        if chosen_on.get(key) != meta.get(key):
            raise InputError(f"the {what} was chosen for {key} {chosen_on.get(key)!r}, these predictions have "
                             f"{meta.get(key)!r}; choose one on the validation patches of the same model")
