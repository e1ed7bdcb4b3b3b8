"""Moments as options of the command line."""

from __future__ import annotations

import datetime

import click

from hop_archive.model.times import MOMENT_HELP, moment_of


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def moment(value: str) -> datetime.datetime:
    """The type of an option that takes a moment; hand it to click as ``type=moment``.

    ``2026-11-24``, ``2026-11-24T06:00``, ``2026-11-24T06:00:00.5+01:00``, ``90s``, ``15m``, ``3h``, ``2d``, ``4w``.
    A date means its first moment. What names no offset is UTC, so that the same command means the same everywhere.

    Raises:
        click.BadParameter: The text means none.
    """
    try:
        return moment_of(value, _utc_now())
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{value!r} is no moment: wanted {MOMENT_HELP}.") from error
