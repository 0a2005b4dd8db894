"""What a run says while it goes: one line of JSON an epoch, the same as TensorBoard events, and a progress bar."""

import json
import time
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar
from tqdm import tqdm

from pcamjax.errors import InputError
from pcamjax.files import atomic_file, without_nan
from pcamjax.hosts import is_first
from pcamjax.training.run import RunFolder


class EpochLog:
    """`metrics.jsonl` and TensorBoard's event files of a run, continued after `epochs` when it resumes; of several
    processes the first one writes them."""

    def __init__(self, folder: RunFolder, epochs: list[dict[str, Any]]):
        self._folder = folder
        self.epochs = list(epochs)
        self._writes = is_first()
        self._write_lines()
        self._events: EventsWriter | None = None  # until there is something to write: a finished run stays as it is

    def append(self, epoch: dict[str, Any]) -> None:
        """Adds the record of an epoch; its "step" is the x axis in TensorBoard.

        Raises:
          InputError: the disk is full.
        """
        self.epochs.append(epoch)
        self._write_lines()
        try:
            self._write_events(epoch)
        except OSError as error:
            raise InputError(f"{self._folder.tensorboard}: cannot be written ({error.strerror or error}); free space "
                             "and start the same command again, it goes on from the last checkpoint") from error

    def close(self) -> None:
        """Closes the event file."""
        if self._events:
            self._events.close()

    def _write_events(self, epoch: dict[str, Any]) -> None:
        if not self._writes:
            return
        # In this thread: what SummaryWriter's own thread has not written yet is lost with a killed run.
        if self._events is None:
            self._folder.tensorboard.mkdir(parents=True, exist_ok=True)
            self._events = EventsWriter(str(self._folder.tensorboard / "events"))
            # TensorBoard forgets what a killed run had logged from this step on.
            done = self.epochs[-2]["step"] + 1 if len(self.epochs) > 1 else 0
            start = SessionLog(status=SessionLog.START)
            self._events.write_event(Event(wall_time=time.time(), step=done, session_log=start))
        for name, value in epoch.items():
            if name not in ("epoch", "step"):
                self._events.write_event(Event(wall_time=time.time(), step=epoch["step"], summary=scalar(name, value)))
        self._events.flush()

    def _write_lines(self) -> None:
        if not self._writes:
            return
        # Rewritten whole: fifty lines cost nothing, and what a killed run had logged beyond its checkpoint goes.
        with atomic_file(self._folder.metrics) as temporary:
            lines = (json.dumps(without_nan(epoch)) + "\n" for epoch in self.epochs)
            temporary.write_text("".join(lines), encoding="utf-8")


def progress_bar(total_images: int, done_images: int, description: str) -> tqdm:
    """A bar over the images of a whole run, with images/s and the time left."""
    return tqdm(total=total_images, initial=done_images, desc=description, unit=" images", smoothing=0.05,
                dynamic_ncols=True, disable=not is_first())
