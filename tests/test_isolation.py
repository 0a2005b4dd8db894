"""A reader in a process of its own answers like an object, and whatever it does the job gets one line and goes on."""

import os
import time

import pytest

from pcamjax import isolation
from pcamjax.errors import InputError
from pcamjax.isolation import Isolated, UnreadableError


@pytest.fixture
def fragile():
    with Isolated("fragile:Fragile") as made:
        yield made


def running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_values_and_bytes_come_back(fragile):
    assert fragile.call("echo", 1, "zwei", [3.5, None]) == [1, "zwei", [3.5, None]]
    assert fragile.read("reversed", size=3, payload=b"abc") == b"cba"
    assert fragile.read("zeros", 0, size=0) == b""
    assert fragile.read("zeros", 1 << 20, size=1 << 20) == bytes(1 << 20)


def test_it_is_another_process_which_ends_with_the_object():
    with Isolated("fragile:Fragile") as first, Isolated("fragile:Fragile") as second:
        processes = [first.call("process"), second.call("process")]
        assert len({os.getpid(), *processes}) == 3 and all(map(running, processes))
    for _ in range(500):
        if not any(map(running, processes)):
            break
        time.sleep(0.01)
    else:
        pytest.fail("a reader outlives its object")


def test_what_it_refuses_is_refused_in_its_words():
    with pytest.raises(InputError, match="^7 rows, expected 8$"):
        Isolated("fragile:Fragile", "7 rows, expected 8")


def test_any_other_error_is_one_printable_line(fragile):
    with pytest.raises(UnreadableError, match=r"^two lines\?\[31m$"):
        fragile.call("fail")
    assert fragile.call("echo") == [], "the reader lives on"


@pytest.mark.parametrize(("method", "said"), [
    ("die", "its reader crashed"), ("compute", "over the limits of 1 s of computing"),
    ("allocate", "it takes more than 1.0 GiB of memory")])
def test_a_crash_and_the_limits_end_one_reader_and_no_other(method, said, monkeypatch):
    monkeypatch.setattr(isolation, "SECONDS", 1)
    monkeypatch.setattr(isolation, "MEMORY", 1 << 30)
    with Isolated("fragile:Fragile") as other, Isolated("fragile:Fragile") as fragile:
        started = time.monotonic()
        with pytest.raises(UnreadableError, match=said):
            fragile.call(method)
        assert time.monotonic() < started + 30
        assert other.call("echo", 1) == [1]


def test_who_has_much_to_hold_may_take_more(monkeypatch):
    monkeypatch.setattr(isolation, "MEMORY", 1 << 30)
    with Isolated("fragile:Fragile", size=1 << 30) as fragile:
        assert fragile.call("allocate") == 1 << 30


@pytest.mark.parametrize(("size", "said"), [(10, "20 bytes of 10"), (30, "20 bytes of 30")])
def test_an_answer_of_another_size_is_no_answer(fragile, size, said):
    with pytest.raises(UnreadableError, match=said):
        fragile.read("zeros", 20, size=size)


def test_an_answer_beyond_what_was_asked_for_is_not_received(fragile):
    with pytest.raises(UnreadableError, match="its reader crashed"):
        fragile.read("zeros", 1 << 20, size=10)
