"""Seconds always; energy by codecarbon without a file, a word or a connection; and by what it was measured."""

import socket
import sys
import time
from types import SimpleNamespace

import pytest

from pcamjax.errors import InputError
from pcamjax.meter import Meter, _how


@pytest.fixture
def quiet(monkeypatch, tmp_path):
    """A working directory of its own, an environment that asks codecarbon for files, and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODECARBON_OUTPUT_METHODS", "csv")
    monkeypatch.setenv("CODECARBON_EMISSIONS_ENDPOINT", "http://127.0.0.1:1")
    asked = []

    def refuse(*arguments):
        asked.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return asked


def test_without_a_country_only_seconds_are_measured():
    meter = Meter()
    with meter.measure() as spent:
        time.sleep(0.02)
    cost = meter.inference_cost(spent, 4)
    assert 5 <= cost.pop("test_ms_per_image") < 50 and cost.pop("images") == 4
    assert cost == {"energy_kwh": None, "co2_kg": None, "method": None, "region": None}


def test_energy_and_co2_of_a_country(quiet, tmp_path, capfd):
    meter, joules = Meter("FRA"), {}
    for seconds in (0.1, 0.4):
        with meter.measure() as spent:
            time.sleep(seconds)
        assert seconds <= spent.seconds < seconds + 0.1
        assert 0.03 < spent.co2_kg / spent.kwh < 0.1, "not France's mix of electricity"
        joules[seconds] = 3.6e6 * spent.kwh
    assert 2 < joules[0.4] / joules[0.1] < 8, "stretches are not apart"
    assert meter.region == "FRA" and meter.method.startswith("codecarbon ")
    assert "CPU " in meter.method and "RAM estimated" in meter.method
    assert not quiet and not list(tmp_path.iterdir()) and capfd.readouterr() == ("", "")


def test_what_ends_with_an_error_is_not_measured_on(quiet):
    meter = Meter("FRA")
    with pytest.raises(KeyError), meter.measure():
        raise KeyError
    with meter.measure() as spent:
        pass
    assert spent.seconds < 0.1


def test_a_country_that_is_not_known_is_refused(quiet):
    with pytest.raises(InputError, match="config.carbon.country = 'FR': expected the ISO code of a country in three"):
        Meter("FR")


def test_without_codecarbon_nothing_fails(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    meter = Meter("FRA")
    assert capsys.readouterr().out == "energy: not measured, for codecarbon is not installed: pip install codecarbon\n"
    with meter.measure() as spent:
        pass
    assert meter.cost(spent.kwh, spent.co2_kg)["region"] is None


def test_an_estimate_is_called_one():
    part = lambda kind, **values: type(kind, (SimpleNamespace,), {})(**values)  # noqa: E731
    assert _how(part("CPU", _mode="intel_rapl", _tdp=80)) == "CPU measured by RAPL"
    assert _how(part("CPU", _mode="cpu_load", _tdp=80)) == "CPU estimated from its load and a rated power of 80 W"
    assert _how(part("CPU", _mode="constant", _tdp=85)) == "CPU estimated as half of a rated power of 85 W"
    assert _how(part("GPU")) == "GPU measured by its driver" and _how(part("RAM")) == "RAM estimated"
