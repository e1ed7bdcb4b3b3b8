"""Values in the shape of real alerts: a maker for each ordinary kind is given the dice and the time, and returns the bytes.

Every value is invented; the observatories, people and events do not exist.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import random
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

Maker: TypeAlias = Callable[[random.Random, int], bytes]

UUID_BYTES = 16
_MILLISECONDS_A_DAY = 86_400_000


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an ordinary sample is made: its ``_format`` header (``None`` for no headers at all) and its value."""

    format: bytes | None
    make: Maker
    keyed: bool = False


ORDINARY: dict[str, Recipe] = {}
"""Each ordinary kind, in the order in which samples show them first."""


def alert_value(kind: str, *, seed: str, timestamp_ms: int) -> bytes:
    """Return the value of an alert of an ordinary kind; the same arguments give the same bytes.

    Raises:
        KeyError: The kind is none of ``ORDINARY``.
    """
    return ORDINARY[kind].make(dice(seed), timestamp_ms)


def dice(seed: str) -> random.Random:
    """Return a generator of numbers that the seed says."""
    return random.Random(seed)  # noqa: S311 - reproducible on purpose; nothing here is secret


def uuid4(rng: random.Random) -> bytes:
    """Return a UUID of version 4."""
    return uuid.UUID(bytes=rng.randbytes(UUID_BYTES), version=4).bytes


def _value(kind: str, format: bytes | None, *, keyed: bool = False) -> Callable[[Maker], Maker]:  # noqa: A002
    """Make a function the maker of an ordinary kind."""

    def listed(make: Maker) -> Maker:
        ORDINARY[kind] = Recipe(format, make, keyed)
        return make

    return listed


def _iso(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _sky(rng: random.Random) -> tuple[float, float]:
    return round(rng.uniform(0, 360), 4), round(rng.uniform(-90, 90), 4)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


def _letters(rng: random.Random) -> str:
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=4))


_VOEVENT = """\
<?xml version="1.0" encoding="UTF-8"?>
<voe:VOEvent xmlns:voe="http://www.ivoa.net/xml/VOEvent/v2.0"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xsi:schemaLocation="http://www.ivoa.net/xml/VOEvent/v2.0 http://www.ivoa.net/xml/VOEvent/VOEvent-v2.0.xsd"
    version="2.0" role="{role}" ivorn="ivo://bursts.example.org/monitor#GRB_Position_{trigger}_{sequence}">
  <Who>
    <AuthorIVORN>ivo://bursts.example.org/monitor</AuthorIVORN>
    <Author>
      <shortName>Sample Burst Monitor</shortName>
      <contactName>Renée Müller</contactName>
      <contactEmail>monitor@bursts.example.org</contactEmail>
    </Author>
    <Date>{date}</Date>
    <Description>An invented gamma-ray burst, localized on board</Description>
  </Who>
  <What>
    <Param name="Trigger_ID" value="{trigger}" ucd="meta.id"/>
    <Param name="Sequence" value="{sequence}" ucd="meta.id.part"/>
    <Param name="Signal_to_Noise" value="{snr}" unit="sigma" ucd="stat.snr"/>
    <Param name="Integration" value="{integration}" unit="s" ucd="time.interval"/>
    <Group name="Detectors">
{detectors}
    </Group>
    <Description>Background-subtracted counts by detector, 50-300 keV</Description>
  </What>
  <WhereWhen>
    <ObsDataLocation>
      <ObservatoryLocation id="GEOLUN"/>
      <ObservationLocation>
        <AstroCoordSystem id="UTC-FK5-GEO"/>
        <AstroCoords coord_system_id="UTC-FK5-GEO">
          <Time unit="s">
            <TimeInstant><ISOTime>{date}</ISOTime></TimeInstant>
          </Time>
          <Position2D unit="deg">
            <Name1>RA</Name1>
            <Name2>Dec</Name2>
            <Value2><C1>{ra}</C1><C2>{dec}</C2></Value2>
            <Error2Radius>{error}</Error2Radius>
          </Position2D>
        </AstroCoords>
      </ObservationLocation>
    </ObsDataLocation>
  </WhereWhen>
  <How>
    <Description>Twelve scintillators looking all ways</Description>
  </How>
  <Why importance="{importance}">
    <Inference probability="{probability}"><Concept>process.variation.burst;em.gamma</Concept></Inference>
  </Why>
</voe:VOEvent>
"""


@_value("voevent", b"voevent")
def _voevent(rng: random.Random, timestamp_ms: int) -> bytes:
    ra, dec = _sky(rng)
    return _VOEVENT.format(
        role=rng.choice(("observation", "observation", "prediction", "test")),
        trigger=rng.getrandbits(40),
        sequence=rng.randrange(1, 60),
        date=_iso(timestamp_ms)[:-6],
        snr=round(rng.uniform(4.5, 80), 2),
        integration=rng.choice((0.016, 0.064, 0.256, 1.024, 4.096)),
        detectors="\n".join(
            f'      <Param name="Detector_{number:02}" value="{rng.randrange(40, 9000)}" unit="cts" ucd="phot.count"/>'
            for number in range(rng.randrange(3, 13))
        ),
        ra=ra,
        dec=dec,
        error=round(rng.uniform(0.05, 15), 3),
        importance=round(rng.random(), 2),
        probability=round(rng.random(), 2),
    ).encode()


@_value("gcn-json", b"json")
def _gcn_json(rng: random.Random, timestamp_ms: int) -> bytes:
    ra, dec = _sky(rng)
    return _json(
        {
            "$schema": "https://schemas.example.org/notices/burst/alert.schema.json",
            "mission": "Sample Burst Monitor",
            "messenger": "EM",
            "id": [f"{rng.getrandbits(40)}"],
            "record_number": rng.randrange(1, 6),
            "alert_datetime": _iso(timestamp_ms),
            "trigger_time": _iso(timestamp_ms - rng.randrange(500, 90_000)),
            "rate_snr": round(rng.uniform(4.5, 80), 2),
            "rate_energy_range": [rng.choice((8, 15, 40)), rng.choice((150, 230, 350))],
            "ra": ra,
            "dec": dec,
            "ra_dec_error": round(rng.uniform(0.02, 12), 3),
            "detector_status": {f"NaI-{n}": rng.choice(("on", "off", "triggered")) for n in range(12)},
            "additional_info": rng.choice((None, "Earth limb within 10° of the position")),
        }
    )


@_value("gcn-text", b"gcntextnotice")
def _gcn_text(rng: random.Random, timestamp_ms: int) -> bytes:
    when = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    ra, dec = _sky(rng)
    lines = {
        "TITLE": "GCN/SAMPLE NOTICE",
        "NOTICE_DATE": f"{when:%a %d %b %y %H:%M:%S} UT",
        "NOTICE_TYPE": "Sample Burst Monitor Ground Position",
        "RECORD_NUM": str(rng.randrange(1, 90)),
        "TRIGGER_NUM": str(rng.getrandbits(40)),
        "GRB_RA": f"{ra:.3f}d (J2000)",
        "GRB_DEC": f"{dec:+.3f}d (J2000)",
        "GRB_ERROR": f"{rng.uniform(0.1, 12):.2f} [deg radius, statistical only]",
        "GRB_TIME": f"{when:%H:%M:%S.%f} UT",
        "DATA_SIGNIF": f"{rng.uniform(4.5, 80):.2f} [sigma]",
        "COMMENTS": "An invented burst. Do not point a telescope at it.",
    }
    return "".join(f"{name + ':':<18}{text}\n" for name, text in lines.items()).encode()


@_value("gcn-binary", b"blob")
def _gcn_binary(rng: random.Random, timestamp_ms: int) -> bytes:
    """Forty big-endian int32: type, serial, hop, times, trigger, position, zeros, and a line feed at the end."""
    days, rest_ms = divmod(timestamp_ms, _MILLISECONDS_A_DAY)
    # Truncated Julian days count from 1968-05-24, 587 days before the Unix epoch; times are in 1/100 s.
    truncated_julian_day, centiseconds = days + 587, rest_ms // 10
    ra, dec = _sky(rng)
    head = (rng.randrange(30, 190), rng.getrandbits(31), 0, centiseconds, rng.getrandbits(31))
    where = (truncated_julian_day, centiseconds, int(ra * 10_000), int(dec * 10_000))
    rates = tuple(rng.randrange(-5_000, 100_000) for _ in range(12))
    zeros = (0,) * (39 - len(head) - len(where) - len(rates))
    return struct.pack(">40i", *head, *where, *rates, *zeros, 10)


_SUPEREVENT_CLASSES = ("BNS", "NSBH", "BBH", "Terrestrial")


@_value("lvk", b"json")
def _lvk(rng: random.Random, timestamp_ms: int) -> bytes:
    alert_type = rng.choice(("EARLYWARNING", "PRELIMINARY", "PRELIMINARY", "INITIAL", "UPDATE", "RETRACTION"))
    superevent = f"S{datetime.fromtimestamp(timestamp_ms / 1000, UTC):%y%m%d}{_letters(rng)}"
    event: dict[str, Any] | None = None
    if alert_type != "RETRACTION":
        weights = [rng.random() ** 4 for _ in _SUPEREVENT_CLASSES]
        event = {
            "significant": rng.random() < 0.5,
            "time": _iso(timestamp_ms - rng.randrange(5_000, 400_000)),
            "far": 10 ** rng.uniform(-16, -5),
            "instruments": sorted(rng.sample(("H1", "L1", "V1", "K1"), rng.randrange(1, 4))),
            "group": "CBC",
            "pipeline": rng.choice(("sample-search-a", "sample-search-b")),
            "properties": {name: rng.choice((0.0, 1.0)) for name in ("HasNS", "HasRemnant", "HasMassGap")},
            "classification": {
                name: weight / sum(weights) for name, weight in zip(_SUPEREVENT_CLASSES, weights, strict=True)
            },
            "duration": None,
            "central_frequency": None,
            # No FITS file, though it begins like one: no reader of the archive looks inside.
            "skymap": base64.b64encode(
                b"SIMPLE  =                    T" + rng.randbytes(rng.randrange(4_000, 40_000))
            ).decode(),
        }
    return _json(
        {
            "alert_type": alert_type,
            "time_created": _iso(timestamp_ms),
            "superevent_id": superevent,
            "urls": {"gracedb": f"https://superevents.example.org/{superevent}/view/"},
            "event": event,
            "external_coinc": None,
        }
    )


@_value("external", b"external")
def _external(rng: random.Random, timestamp_ms: int) -> bytes:  # noqa: ARG001 (makers are called alike)
    return _json({"url": f"https://offload.example.org/msg/{uuid.UUID(bytes=uuid4(rng))}"})


def _record(name: str, **fields: Any) -> dict[str, Any]:
    listed = [{"name": field, "type": kind} for field, kind in fields.items()]
    return {"type": "record", "name": name, "namespace": "survey.sample", "fields": listed}


@functools.cache
def _alert_schema() -> Any:
    """A schema like ZTF's: unions of null and one other type, records within records, bytes."""
    import fastavro

    point = {"jd": "double", "fid": "int"}
    place = {"ra": ["null", "double"], "dec": ["null", "double"], "magpsf": ["null", "float"]}
    previous = _record("prv_candidate", **point, **place)
    measured = {"ra": "double", "dec": "double", "magpsf": "float", "sigmapsf": "float"}
    judged = {"rb": ["null", "float"], "ssnamenr": ["null", "string"]}
    observed = {"pid": "long", "programid": "int", "isdiffpos": "string"}
    candidate = _record("candidate", **point, **observed, **measured, **judged)
    cutout = _record("cutout", fileName="string", stampData="bytes")
    alert = _record(
        "alert",
        **dict.fromkeys(("schemavsn", "publisher", "objectId"), "string"),
        candid="long",
        candidate=candidate,
        prv_candidates=["null", {"type": "array", "items": previous}],
        cutoutScience=["null", cutout],
        cutoutTemplate=["null", "cutout"],
        cutoutDifference=["null", "cutout"],
    )
    return fastavro.parse_schema(alert)


@_value("avro", b"avro", keyed=True)
def _ztf_alert(rng: random.Random, timestamp_ms: int) -> bytes:
    import fastavro  # here, because Dagster's processes import this module, and seldom need it

    candid = rng.getrandbits(62)
    julian_date = timestamp_ms / _MILLISECONDS_A_DAY + 2_440_587.5
    cutouts: dict[str, Any] = {}
    for which in ("Science", "Template", "Difference"):
        cutouts[f"cutout{which}"] = None
        if rng.random() >= 0.05:
            # Begins like gzip, as real stamps are gzipped FITS; it is noise.
            stamp = b"\x1f\x8b\x08" + rng.randbytes(rng.randrange(2_000, 12_000))
            cutouts[f"cutout{which}"] = {"fileName": f"candid{candid}.fits.gz", "stampData": stamp}
    name = f"SMP{rng.randrange(18, 30)}{_letters(rng)}"
    ra, dec = _sky(rng)
    candidate = {
        "jd": julian_date,
        "fid": rng.randrange(1, 4),
        "pid": -(candid // 1_000_000),
        "programid": 1,
        "isdiffpos": rng.choice("tf"),
        "ra": ra,
        "dec": dec,
        "magpsf": rng.uniform(14, 21),
        "sigmapsf": rng.uniform(0.01, 0.3),
        "rb": rng.choice((None, float("nan"), rng.random())),
        "ssnamenr": rng.choice((None, "null", "2004 SM1")),
    }
    earlier: list[dict[str, Any]] | None = None
    if (nights := rng.randrange(-2, 30)) >= 0:
        earlier = []
        for night in range(nights):
            detected = rng.random() < 0.5
            ra_then, dec_then = _sky(rng) if detected else (None, None)
            magnitude = rng.uniform(14, 21) if detected else None
            visit = {"jd": julian_date - night, "fid": rng.randrange(1, 4), "ra": ra_then, "dec": dec_then}
            earlier.append({**visit, "magpsf": magnitude})
    alert = {
        "schemavsn": "1.0",
        "publisher": "Sample survey",
        "objectId": name,
        "candid": candid,
        "candidate": candidate,
        "prv_candidates": earlier,
        **cutouts,
    }
    file = io.BytesIO()
    fastavro.writer(file, _alert_schema(), [alert], sync_marker=rng.randbytes(UUID_BYTES))
    return file.getvalue()


_SENTENCES = (
    "We observed the field of the candidate counterpart with the Sample 1.5 m telescope.",
    "No new source is found within the localization down to the limiting magnitude.",
    "The light curve fades as a power law, t^-α with α ≈ 1.2, from 3 h on.",
    "Magnitudes are in the AB system and not corrected for Galactic extinction.",
    "Further observations are planned; spectroscopy is encouraged.",
    "We thank the staff of the observatory, who do not exist.",
)


@_value("circular", b"circular")
def _circular(rng: random.Random, timestamp_ms: int) -> bytes:
    when = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    return _json(
        {
            "header": {
                "title": "GCN CIRCULAR",
                "number": str(rng.randrange(30_000, 99_999)),
                "subject": f"GRB {when:%y%m%d}{rng.choice('ABCD')}: Sample telescope upper limits",
                "date": f"{when:%y/%m/%d %H:%M:%S} GMT",
                "from": "Renée Müller at Sample Observatory <renee@observatory.example.org>",
            },
            "body": "\n".join(rng.choices(_SENTENCES, k=rng.randrange(3, 60)))
            + f"\n[{rng.getrandbits(40)}]\n",
        }
    )


@_value("icecube", b"json", keyed=True)
def _icecube(rng: random.Random, timestamp_ms: int) -> bytes:
    ra, dec = _sky(rng)
    return _json(
        {
            "$schema": "https://schemas.example.org/notices/neutrino/track.schema.json",
            "type": "track",
            "id": [f"{rng.randrange(130_000, 150_000)}_{rng.getrandbits(28)}"],
            "alert_type": rng.choice(("initial", "update")),
            "alert_datetime": _iso(timestamp_ms),
            "trigger_time": _iso(timestamp_ms - rng.randrange(20_000, 60_000)),
            "notice_type": rng.choice(("Gold", "Bronze")),
            "ra": ra,
            "dec": dec,
            "ra_dec_error": round(rng.uniform(0.2, 3), 3),
            "containment_probability": rng.choice((0.5, 0.9)),
            "nu_energy": round(rng.lognormvariate(5, 1), 2),
            "p_astro": round(rng.uniform(0.3, 0.99), 4),
            "far": round(rng.uniform(0.01, 4), 4),
        }
    )


@_value("snews", b"json")
def _snews(rng: random.Random, timestamp_ms: int) -> bytes:
    first = timestamp_ms - rng.randrange(1_000, 60_000)
    return _json(
        {
            "_tier": rng.choice(("coincidence", "timing", "significance")),
            "detector_name": rng.choice(("Sample-Xenon", "Sample-Water", "Sample-Argon", "Sample-Ice")),
            "machine_time": _iso(timestamp_ms),
            "neutrino_time": _iso(first),
            "p_val": rng.random(),
            "p_values": [rng.random() for _ in range(rng.randrange(1, 20))],
            "timing_series": [_iso(first + rng.randrange(10_000)) for _ in range(rng.randrange(1, 60))],
            "schema_version": "1.3.0",
        }
    )


@_value("blob", b"blob")
def _blob(rng: random.Random, timestamp_ms: int) -> bytes:
    """Bytes that begin like a pickle and are none; pickles do travel as blobs."""
    return b"\x80\x04\x95" + rng.randbytes(rng.randrange(200, 16_000)) + timestamp_ms.to_bytes(8, "big")


@_value("heartbeat", None)
def _heartbeat(rng: random.Random, timestamp_ms: int) -> bytes:
    return _json({"timestamp": timestamp_ms * 1000 + rng.randrange(1000), "count": rng.getrandbits(40)})
