"""What a stretch of work takes: seconds, and energy and CO2 where codecarbon is installed and a country is named."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pcamjax.errors import InputError

# Whatever a .codecarbon.config or the environment says: no file is written, no address is asked, no lock is taken.
OFFLINE = {"output_methods": [], "emissions_endpoint": None, "electricitymaps_api_token": None, "cloud_provider": None,
           "cloud_region": None, "country_2letter_iso_code": None, "region": None, "allow_multiple_runs": True,
           "log_level": "critical", "tracking_mode": "machine"}
COUNTERS = {"intel_rapl": "RAPL", "windows_emi": "Windows' energy meter", "intel_power_gadget": "Intel Power Gadget"}


@dataclass
class Spent:
    """Seconds, kWh and kg of CO2 equivalents; NaN where energy is not measured."""

    seconds: float = math.nan
    kwh: float = math.nan
    co2_kg: float = math.nan


class Meter:
    """Measures stretches of work, the energy of the whole machine among it if a country is named.

    Attributes:
      region: the country whose mix of electricity makes CO2 of energy; None where energy is not measured.
      method: what measures and what is only estimated; None where energy is not measured.
    """

    def __init__(self, country: str = ""):
        """Looks for the machine's counters of energy once, which takes codecarbon seconds.

        Args:
          country: its ISO code of three letters; "" measures no energy.
        Raises:
          InputError: codecarbon knows no such country.
        """
        self.region = self.method = self._new_tracker = None
        if not country:
            return
        try:
            import codecarbon
            from codecarbon.input import DataSource
        except ImportError:
            print("energy: not measured, for codecarbon is not installed: pip install codecarbon")
            return
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        if country not in DataSource().get_global_energy_mix_data():  # it would take the world's mean without a word
            raise InputError(f"config.carbon.country = {country!r}: expected the ISO code of a country in three "
                             "letters, as FRA, or \"\" to measure no energy")
        self._new_tracker = lambda: codecarbon.OfflineEmissionsTracker(country_iso_code=country, **OFFLINE)
        tracker = self._new_tracker()
        tracker.start()
        tracker.stop()
        parts = [_how(part) for part in tracker._hardware]
        self.region, self.method = country, f"codecarbon {codecarbon.__version__}, {', '.join(parts)}"

    @contextlib.contextmanager
    def measure(self) -> Iterator[Spent]:
        """Gives what will hold, when the block has ended, what it took."""
        spent, tracker = Spent(), self._new_tracker and self._new_tracker()
        if tracker:
            tracker.start()
        started = time.perf_counter()
        try:
            yield spent
        finally:
            spent.seconds = time.perf_counter() - started
            if tracker:
                tracker.stop()
        if made := getattr(tracker, "final_emissions_data", None):  # codecarbon keeps its own failures to itself
            spent.kwh, spent.co2_kg = made.energy_consumed, made.emissions

    def cost(self, kwh: float, co2_kg: float) -> dict[str, Any]:
        """Energy and CO2 with how and where they were measured, as JSON values."""
        return {"energy_kwh": none_if_nan(kwh), "co2_kg": none_if_nan(co2_kg), "method": self.method,
                "region": self.region}

    def inference_cost(self, spent: Spent, images: int) -> dict[str, Any]:
        """What it took to score so many images, as `evaluation/<split>.json` holds it."""
        return {"test_ms_per_image": 1000 * spent.seconds / images, "images": images,
                **self.cost(spent.kwh, spent.co2_kg)}


def none_if_nan(value: float) -> float | None:
    """The value; None for NaN."""
    return None if math.isnan(value) else value


def _how(part: Any) -> str:
    """How codecarbon comes to the power of a part of the machine: in containers it falls back on estimates in silence.

    It has no public name for this.
    """
    kind, mode = type(part).__name__, getattr(part, "_mode", None)
    if kind == "GPU":
        return "GPU measured by its driver"
    if kind == "CPU" and mode in COUNTERS:
        return f"CPU measured by {COUNTERS[mode]}"
    if kind == "CPU" and mode == "cpu_load":
        return f"CPU estimated from its load and a rated power of {part._tdp:g} W"
    if kind == "CPU":
        return f"CPU estimated as half of a rated power of {part._tdp:g} W"
    return "RAM estimated" if kind == "RAM" else f"{kind} by the operating system"
