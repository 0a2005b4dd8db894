"""Signals become a wish, and a second one an interrupt."""

import signal
import threading

import pytest

from pcamjax.stopping import SIGNALS, stop_requests


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_interrupts(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with stop_requests() as request:
        assert not request.signal
        signal.raise_signal(number)
        assert request.signal == number.name
        for second in SIGNALS:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(second)
        assert request.signal == number.name
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_outside_the_main_thread_nothing_changes():
    seen = []

    def work():
        with stop_requests() as request:
            seen.append((request.signal, [signal.getsignal(each) for each in SIGNALS]))

    before = [signal.getsignal(each) for each in SIGNALS]
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [("", before)]
