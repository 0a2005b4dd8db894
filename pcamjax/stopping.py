"""SIGTERM and SIGINT as a wish that work with steps can fulfil at a good moment."""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """Work that a signal has ended, with all that it had done saved; the message is one line."""


@dataclasses.dataclass
class StopRequest:
    """Which signal has asked for an end, "" for none so far."""

    signal: str = ""


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within the block, SIGTERM and SIGINT only note that they came; a second one raises KeyboardInterrupt.

    Outside the main thread, to which Python gives all signals, nothing changes.
    """
    request = StopRequest()

    def note(number: int, _: FrameType | None) -> None:
        if request.signal:
            raise KeyboardInterrupt
        request.signal = signal.Signals(number).name

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
