"""What a run says while it goes: one line of JSON an epoch, the same as TensorBoard events, and a progress bar."""

import json
from typing import Any

from tensorboardX import SummaryWriter
from tqdm import tqdm

from pcamjax.files import atomic_file
from pcamjax.training.run import RunFolder


class EpochLog:
    """`metrics.jsonl` and TensorBoard's event files of a run, continued after `epochs` when it resumes."""

    def __init__(self, folder: RunFolder, epochs: list[dict[str, Any]]):
        self._folder = folder
        self.epochs = list(epochs)
        self._write_lines()
        purge = epochs[-1]["step"] + 1 if epochs else 0
        self._events = SummaryWriter(str(folder.tensorboard), purge_step=purge)

    def append(self, epoch: dict[str, Any]) -> None:
        """Adds the record of an epoch; its "step" is the x axis in TensorBoard."""
        self.epochs.append(epoch)
        self._write_lines()
        for name, value in epoch.items():
            if name not in ("epoch", "step"):
                self._events.add_scalar(name, value, epoch["step"])
        self._events.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._events.close()

    def _write_lines(self) -> None:
        # Rewritten whole: fifty lines cost nothing, and what a killed run had logged beyond its checkpoint goes.
        with atomic_file(self._folder.metrics) as temporary:
            temporary.write_text("".join(json.dumps(epoch) + "\n" for epoch in self.epochs), encoding="utf-8")


def progress_bar(total_images: int, done_images: int, description: str) -> tqdm:
    """A bar over the images of a whole run, with images/s and the time left."""
    return tqdm(total=total_images, initial=done_images, desc=description, unit=" images", smoothing=0.05,
                dynamic_ncols=True)
