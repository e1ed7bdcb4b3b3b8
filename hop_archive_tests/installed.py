"""What an installation with some extras has: worked out by what pins the image's versions, docker/pin.py."""

from __future__ import annotations

from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from packaging.requirements import Requirement

import hop_archive

_PIN = Path(hop_archive.__file__).parents[1] / "docker" / "pin.py"


@cache
def installed_with(*extras: str) -> frozenset[str]:
    """Canonical names of all packages that the package brings with these extras, directly or not."""
    return frozenset(_pin().closure(wanted_with(*extras)))


def wanted_with(*extras: str) -> list[Requirement]:
    """What pyproject.toml wants with these extras, those included that they name."""
    wanted: list[Requirement] = _pin().wanted(*extras)
    return wanted


@cache
def _pin() -> ModuleType:
    spec = spec_from_file_location("pin", _PIN)
    assert spec is not None
    assert spec.loader is not None
    pin = module_from_spec(spec)
    spec.loader.exec_module(pin)
    return pin
