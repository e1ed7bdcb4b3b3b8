"""Made-up messages of the kinds that travel over Hopskotch, for the demo, mocks and tests.

What belongs here: values in the shape of real alerts, and envelopes (keys, headers, timestamps) that are odd
in each way publishers have been seen to make them odd. Nothing here sends anything: a source does that.
Every value is invented; the observatories, people and events do not exist.

A *kind* names what a sample is: an ordinary kind says what its value is, an odd kind says what is odd about
its envelope, and an echo kind repeats an earlier sample, wholly or in part.
"""

from __future__ import annotations

import base64
import itertools
import json
import random
import struct
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

from hop_archive.errors import ConfigurationError

Headers: TypeAlias = tuple[tuple[str, bytes | None], ...]
_Maker: TypeAlias = Callable[[random.Random, int], bytes]
_Twist: TypeAlias = Callable[["Sample", random.Random], "Sample"]

ODD_SHARE = 0.04
"""Chance that a sample after the first cycle is of an odd or echo kind."""

_UUID_BYTES = 16
_V4_VARIANT = 1 << 63
_MILLISECONDS_A_DAY = 86_400_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One message to publish.

    Attributes:
        topic: Topic name.
        key: Message key; ``None`` is no key, which differs from an empty one.
        value: Message value; ``None`` is a tombstone, which differs from an empty value.
        headers: Pairs in order; names may repeat, values may be ``None``, empty or no text.
        timestamp_ms: Create time, or ``None`` to leave it to producer or broker.
        partition: Kafka partition, or ``None`` to leave it to the producer's partitioner.
        kind: One of ``KINDS``, or ``filler``.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int | None
    partition: int | None
    kind: str


@dataclass(frozen=True, slots=True)
class SampleTopic:
    """A topic and the kinds of samples that occur in it.

    Raises:
        ConfigurationError: No partition, no kind, an unknown kind, or an echo kind with nothing to echo.
    """

    name: str
    partitions: int
    kinds: tuple[str, ...]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.kinds) - set(KINDS))
        if self.partitions < 1 or not self.kinds or unknown:
            raise ConfigurationError(
                f"Sample topic {self.name}: wanted at least one partition and kinds out of {', '.join(KINDS)}; "
                f"found {self.partitions} partitions and kinds {', '.join(self.kinds) or '(none)'}.",
                remedy=f"Remove the unknown {', '.join(unknown)}." if unknown else "Add what is missing.",
            )
        for kind in ECHO_KINDS:
            if kind in self.kinds and kind != "cross-posted" and not _has_originals(self, kind):
                raise ConfigurationError(
                    f"Sample topic {self.name} has the kind {kind} but no kind that {kind} could repeat.",
                    remedy=f"Add one of {', '.join(sorted(_echoed_kinds(kind)))}.",
                )


def samples(
    count: int, *, seed: int = 0, now_ms: int, topics: Sequence[SampleTopic] | None = None
) -> Iterator[Sample]:
    """Yield ``count`` samples: each kind of each topic once, then mostly ordinary ones without end.

    The same arguments give the same samples, and a larger ``count`` only adds to the end. Another ``seed`` or
    ``now_ms`` gives other ``_id`` headers, so two streams do not collide. No two samples are equal
    except for those of a duplicate kind. Samples of one call are generated as they are asked for.

    Args:
        count: How many.
        seed: Which stream.
        now_ms: Create time of the first sample; each next one is a millisecond later. Samples lie in
            the future unless it is ``count`` ms ago; Kafka may refuse those more than an hour ahead.
        topics: Where they go; ``SAMPLE_TOPICS`` unless given.

    Raises:
        ConfigurationError: No topic, or a cross-posted kind with no other topic to post from.
    """
    chosen = SAMPLE_TOPICS if topics is None else tuple(topics)
    _check_topics(chosen)
    return _stream(count, _dice(f"{seed}:{now_ms}"), now_ms, chosen)


def filler(count: int, size_bytes: int, *, topic: str, seed: int = 0) -> Iterator[Sample]:
    """Yield ``count`` plain messages of ``size_bytes`` each, for load tests; cheap rather than lifelike.

    Each has a value of its own and a well-formed ``_id`` of its own; they differ between topics and seeds.
    The same arguments give the same samples: publishing them again publishes duplicates but for the
    timestamp. Values differ in their first 16 bytes only, so they compress well in a batch.

    Raises:
        ConfigurationError: ``size_bytes`` is below 16, too few to tell values apart.
    """
    if size_bytes < _UUID_BYTES:
        raise ConfigurationError(
            f"Filler for {topic}: wanted a size of at least {_UUID_BYTES} bytes, found {size_bytes}.",
            remedy="Ask for larger messages.",
        )
    return _filler(count, size_bytes, topic, _dice(f"{seed}:{topic}"))


def alert_value(kind: str, *, seed: str, timestamp_ms: int) -> bytes:
    """Return the value of an alert of an ordinary kind; the same arguments give the same bytes.

    Raises:
        KeyError: The kind is none of ``ORDINARY_KINDS``.
    """
    return _ORDINARY[kind].make(_dice(seed), timestamp_ms)


def _filler(count: int, size_bytes: int, topic: str, rng: random.Random) -> Iterator[Sample]:
    prefix = _uuid4(rng)[: _UUID_BYTES // 2]
    body = rng.randbytes(size_bytes - _UUID_BYTES)
    blob = ("_format", b"blob")
    for number in range(_V4_VARIANT, _V4_VARIANT + count):
        identity = prefix + number.to_bytes(8, "big")
        yield Sample(topic, None, identity + body, (("_id", identity), blob), None, None, "filler")


def _dice(seed: str) -> random.Random:
    return random.Random(seed)  # noqa: S311 - reproducible on purpose; nothing here is secret


def _uuid4(rng: random.Random) -> bytes:
    return uuid.UUID(bytes=rng.randbytes(_UUID_BYTES), version=4).bytes


# Values: a maker is given the dice and the sample's time, and returns the bytes as they are on the wire.


def _iso(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _sky(rng: random.Random) -> tuple[float, float]:
    return round(rng.uniform(0, 360), 4), round(rng.uniform(-90, 90), 4)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


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


def _voevent(rng: random.Random, timestamp_ms: int) -> bytes:
    ra, dec = _sky(rng)
    return _VOEVENT.format(
        role=rng.choice(("observation", "observation", "prediction", "test")),
        trigger=rng.getrandbits(40),
        sequence=rng.randrange(1, 60),
        date=_iso(timestamp_ms)[:-6],
        snr=round(rng.uniform(4.5, 80), 2),
        integration=rng.choice((0.016, 0.064, 0.256, 1.024, 4.096)),
        detectors="\n".join(_detector(rng, number) for number in range(rng.randrange(3, 13))),
        ra=ra,
        dec=dec,
        error=round(rng.uniform(0.05, 15), 3),
        importance=round(rng.random(), 2),
        probability=round(rng.random(), 2),
    ).encode()


def _detector(rng: random.Random, number: int) -> str:
    counts = rng.randrange(40, 9000)
    return f'      <Param name="Detector_{number:02}" value="{counts}" unit="cts" ucd="phot.count"/>'


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


_SUPEREVENT_CLASSES = ("BNS", "NSBH", "BBH", "Terrestrial")


def _lvk(rng: random.Random, timestamp_ms: int) -> bytes:
    alert_type = rng.choice(("EARLYWARNING", "PRELIMINARY", "PRELIMINARY", "INITIAL", "UPDATE", "RETRACTION"))
    superevent = f"S{datetime.fromtimestamp(timestamp_ms / 1000, UTC):%y%m%d}{_letters(rng)}"
    return _json(
        {
            "alert_type": alert_type,
            "time_created": _iso(timestamp_ms),
            "superevent_id": superevent,
            "urls": {"gracedb": f"https://superevents.example.org/{superevent}/view/"},
            "event": None if alert_type == "RETRACTION" else _lvk_event(rng, timestamp_ms),
            "external_coinc": None,
        }
    )


def _letters(rng: random.Random) -> str:
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=4))


def _lvk_event(rng: random.Random, timestamp_ms: int) -> dict[str, Any]:
    weights = [rng.random() ** 4 for _ in _SUPEREVENT_CLASSES]
    return {
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


_SENTENCES = (
    "We observed the field of the candidate counterpart with the Sample 1.5 m telescope.",
    "No new source is found within the localization down to the limiting magnitude.",
    "The light curve fades as a power law, t^-α with α ≈ 1.2, from 3 h on.",
    "Magnitudes are in the AB system and not corrected for Galactic extinction.",
    "Further observations are planned; spectroscopy is encouraged.",
    "We thank the staff of the observatory, who do not exist.",
)


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


def _blob(rng: random.Random, timestamp_ms: int) -> bytes:
    """Bytes that begin like a pickle and are none; pickles do travel as blobs."""
    return b"\x80\x04\x95" + rng.randbytes(rng.randrange(200, 16_000)) + timestamp_ms.to_bytes(8, "big")


def _external(rng: random.Random, timestamp_ms: int) -> bytes:
    return _json({"url": f"https://offload.example.org/msg/{uuid.UUID(bytes=_uuid4(rng))}"})


def _heartbeat(rng: random.Random, timestamp_ms: int) -> bytes:
    return _json({"timestamp": timestamp_ms * 1000 + rng.randrange(1000), "count": rng.getrandbits(40)})


# Avro's object container file, as far as one ZTF-like schema needs it: null codec, one block, one record,
# unions of null and one other type. https://avro.apache.org/docs/1.11.1/specification/


def _record(name: str, **fields: Any) -> dict[str, Any]:
    listed = [{"name": field, "type": kind} for field, kind in fields.items()]
    return {"type": "record", "name": name, "namespace": "survey.sample", "fields": listed}


_PREVIOUS = _record(
    "prv_candidate",
    jd="double",
    fid="int",
    ra=["null", "double"],
    dec=["null", "double"],
    magpsf=["null", "float"],
)
_CANDIDATE = _record(
    "candidate",
    jd="double",
    fid="int",
    pid="long",
    programid="int",
    isdiffpos="string",
    ra="double",
    dec="double",
    magpsf="float",
    sigmapsf="float",
    rb=["null", "float"],
    ssnamenr=["null", "string"],
)
_CUTOUT = _record("cutout", fileName="string", stampData="bytes")
_ALERT = _record(
    "alert",
    schemavsn="string",
    publisher="string",
    objectId="string",
    candid="long",
    candidate=_CANDIDATE,
    prv_candidates=["null", {"type": "array", "items": _PREVIOUS}],
    cutoutScience=["null", _CUTOUT],
    cutoutTemplate=["null", "cutout"],
    cutoutDifference=["null", "cutout"],
)


def _avro_long(number: int) -> bytes:
    zigzag = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while zigzag > 0x7F:
        encoded.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    encoded.append(zigzag)
    return bytes(encoded)


def _avro_bytes(content: bytes) -> bytes:
    return _avro_long(len(content)) + content


def _avro_string(text: str) -> bytes:
    return _avro_bytes(text.encode())


_AVRO_NAMED: dict[str, Callable[[Any], bytes]] = {
    "int": _avro_long,
    "long": _avro_long,
    "float": struct.Struct("<f").pack,
    "double": struct.Struct("<d").pack,
    "bytes": _avro_bytes,
    "string": _avro_string,
    "cutout": lambda datum: _avro(_CUTOUT, datum),
}


def _avro(schema: Any, datum: Any) -> bytes:
    if isinstance(schema, str):
        return _AVRO_NAMED[schema](datum)
    if isinstance(schema, list):
        return b"\x00" if datum is None else b"\x02" + _avro(schema[1], datum)
    if schema["type"] == "array":
        block = _avro_long(len(datum)) + b"".join(_avro(schema["items"], item) for item in datum)
        return block + b"\x00" if datum else b"\x00"
    return b"".join(_avro(field["type"], datum[field["name"]]) for field in schema["fields"])


_AVRO_HEADER = b"".join(
    (
        b"Obj\x01",
        _avro_long(2),
        _avro_string("avro.codec") + _avro_string("null"),
        _avro_string("avro.schema") + _avro_string(json.dumps(_ALERT)),
        b"\x00",
    )
)


def _avro_file(datum: dict[str, Any], sync_marker: bytes) -> bytes:
    record = _avro(_ALERT, datum)
    return _AVRO_HEADER + sync_marker + _avro_long(1) + _avro_bytes(record) + sync_marker


def _ztf_alert(rng: random.Random, timestamp_ms: int) -> bytes:
    candid = rng.getrandbits(62)
    julian_date = timestamp_ms / _MILLISECONDS_A_DAY + 2_440_587.5
    cutouts = {f"cutout{which}": _cutout(rng, candid) for which in ("Science", "Template", "Difference")}
    alert = {
        "schemavsn": "1.0",
        "publisher": "Sample survey",
        "objectId": f"SMP{rng.randrange(18, 30)}{_letters(rng)}",
        "candid": candid,
        "candidate": _candidate(rng, candid, julian_date),
        "prv_candidates": _previous(rng, julian_date),
        **cutouts,
    }
    return _avro_file(alert, rng.randbytes(_UUID_BYTES))


def _candidate(rng: random.Random, candid: int, julian_date: float) -> dict[str, Any]:
    ra, dec = _sky(rng)
    return {
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


def _previous(rng: random.Random, julian_date: float) -> list[dict[str, Any]] | None:
    nights = rng.randrange(-2, 30)
    if nights < 0:
        return None
    return [_earlier_visit(rng, julian_date - night) for night in range(nights)]


def _earlier_visit(rng: random.Random, julian_date: float) -> dict[str, Any]:
    detected = rng.random() < 0.5
    ra, dec = _sky(rng) if detected else (None, None)
    magnitude = rng.uniform(14, 21) if detected else None
    return {"jd": julian_date, "fid": rng.randrange(1, 4), "ra": ra, "dec": dec, "magpsf": magnitude}


def _cutout(rng: random.Random, candid: int) -> dict[str, Any] | None:
    if rng.random() < 0.05:
        return None
    # Begins like gzip, as real stamps are gzipped FITS; it is noise.
    stamp = b"\x1f\x8b\x08" + rng.randbytes(rng.randrange(2_000, 12_000))
    return {"fileName": f"candid{candid}.fits.gz", "stampData": stamp}


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How an ordinary sample is made: its ``_format`` header (``None`` for no headers at all) and its value."""

    format: bytes | None
    make: _Maker
    keyed: bool = False


_ORDINARY: dict[str, _Recipe] = {
    "voevent": _Recipe(b"voevent", _voevent),
    "gcn-json": _Recipe(b"json", _gcn_json),
    "gcn-text": _Recipe(b"gcntextnotice", _gcn_text),
    "gcn-binary": _Recipe(b"blob", _gcn_binary),
    "lvk": _Recipe(b"json", _lvk),
    "external": _Recipe(b"external", _external),
    "avro": _Recipe(b"avro", _ztf_alert, keyed=True),
    "circular": _Recipe(b"circular", _circular),
    "icecube": _Recipe(b"json", _icecube, keyed=True),
    "snews": _Recipe(b"json", _snews),
    "blob": _Recipe(b"blob", _blob),
    "heartbeat": _Recipe(None, _heartbeat),
}
# What odd samples carry: ordinary values of a few kilobytes.
_PLAIN_KINDS = ("voevent", "gcn-json", "gcn-text", "gcn-binary", "snews")
# Heartbeats are vetoed as a rule: what repeats one would then repeat nothing that is archived.
_REPEATED_KINDS = frozenset(_ORDINARY) - {"heartbeat"}


def _ordinary(topic: SampleTopic, kind: str, rng: random.Random, timestamp_ms: int) -> Sample:
    recipe = _ORDINARY[kind]
    return Sample(
        topic=topic.name,
        key=f"{kind}-{rng.randrange(1000)}".encode() if recipe.keyed else None,
        value=recipe.make(rng, timestamp_ms),
        headers=_ordinary_headers(recipe, rng),
        timestamp_ms=timestamp_ms,
        partition=None if recipe.keyed else rng.randrange(topic.partitions),
        kind=kind,
    )


def _ordinary_headers(recipe: _Recipe, rng: random.Random) -> Headers:
    """In the order in which hop-client appends them."""
    if recipe.format is None:
        return ()
    sender = rng.choice((b"sample-monitor", b"sample-survey", b"sample-observatory"))
    return (("_id", _uuid4(rng)), ("_sender", sender), ("_format", recipe.format))


# Twists: each makes an ordinary sample odd in one way.


def _set_id(sample: Sample, *identities: bytes | None) -> Sample:
    others = tuple(header for header in sample.headers if header[0] != "_id")
    return replace(sample, headers=tuple(("_id", identity) for identity in identities) + others)


def _add_headers(sample: Sample, *headers: tuple[str, bytes | None]) -> Sample:
    return replace(sample, headers=headers + sample.headers)


def _text_id(rng: random.Random) -> bytes:
    return str(uuid.UUID(bytes=_uuid4(rng))).encode()


def _describe(sample: Sample, rng: random.Random) -> Sample:
    """Annotated, with ``title`` after the reserved headers as one web publisher has it."""
    described = _add_headers(
        sample,
        ("file_name", f"alert-{rng.getrandbits(20)}.txt".encode()),
        ("originator", b"https://observatory.example.org/"),
    )
    return replace(
        described, headers=(*described.headers, ("title", "Möglicher Gegenstück-Kandidat".encode()))
    )


_ODDITIES: dict[str, _Twist] = {
    "tombstone": lambda sample, rng: replace(sample, key=b"withdrawn-%d" % rng.getrandbits(30), value=None),
    "empty-value": lambda sample, rng: replace(sample, value=b""),
    "empty-key": lambda sample, rng: replace(sample, key=b"", partition=None),
    "no-timestamp": lambda sample, rng: replace(sample, timestamp_ms=None),
    "no-headers": lambda sample, rng: replace(sample, headers=()),
    "no-id": lambda sample, rng: _set_id(sample),
    "text-id": lambda sample, rng: _set_id(sample, _text_id(rng)),
    "empty-id": lambda sample, rng: _set_id(sample, b""),
    "null-id": lambda sample, rng: _set_id(sample, None),
    "long-id": lambda sample, rng: _set_id(sample, rng.randbytes(rng.randrange(17, 40))),
    "several-ids": lambda sample, rng: _set_id(sample, _text_id(rng), _uuid4(rng), _uuid4(rng)),
    "repeated-names": lambda sample, rng: _add_headers(
        sample, ("title", b"first"), ("tag", b"b"), ("tag", b"a"), ("tag", b"b"), ("title", b"second")
    ),
    "null-header": lambda sample, rng: _add_headers(sample, ("title", None), ("note", None)),
    "empty-header": lambda sample, rng: _add_headers(sample, ("title", b""), ("note", b"")),
    "not-utf8-header": lambda sample, rng: _add_headers(
        sample, ("_sender", b"\xff\xfe\x80"), ("title", "größer".encode("latin-1")), ("größe", b"\x00\xc3")
    ),
    "odd-format": lambda sample, rng: _add_headers(
        replace(sample, headers=sample.headers[:-1]),
        ("_format", b"json"),
        ("_format", None),
        ("_format", b"hologram"),
    ),
    "described": _describe,
    "test": lambda sample, rng: _add_headers(sample, ("_test", b"true")),
}


# Echoes: each repeats an earlier sample, wholly or in part.


def _echoed_kinds(kind: str) -> frozenset[str]:
    return frozenset({"no-id"}) if kind == "duplicate-without-id" else _REPEATED_KINDS


def _has_originals(topic: SampleTopic, kind: str) -> bool:
    return not _echoed_kinds(kind).isdisjoint(topic.kinds)


def _repeat(original: Sample, topic: SampleTopic, rng: random.Random, timestamp_ms: int) -> Sample:
    return original


def _collide(original: Sample, topic: SampleTopic, rng: random.Random, timestamp_ms: int) -> Sample:
    return replace(_ordinary(topic, original.kind, rng, timestamp_ms), headers=original.headers)


def _cross_post(original: Sample, topic: SampleTopic, rng: random.Random, timestamp_ms: int) -> Sample:
    return replace(original, topic=topic.name, partition=rng.randrange(topic.partitions))


_ECHOES: dict[str, Callable[[Sample, SampleTopic, random.Random, int], Sample]] = {
    "duplicate": _repeat,
    "duplicate-without-id": _repeat,
    "colliding-id": _collide,
    "cross-posted": _cross_post,
}

ORDINARY_KINDS: tuple[str, ...] = tuple(_ORDINARY)
"""Kinds that say what the value is; their envelopes are well formed."""

ODD_KINDS: tuple[str, ...] = tuple(_ODDITIES)
"""Kinds that say what is odd about the envelope; each is archived as a message of its own."""

ECHO_KINDS: tuple[str, ...] = tuple(_ECHOES)
"""Kinds that repeat an earlier sample.

``duplicate`` and ``duplicate-without-id`` equal an earlier sample of their topic in all but ``kind``.
``colliding-id`` has the headers, ``_id`` included, of an earlier sample of its topic, and another value.
``cross-posted`` equals an earlier sample of another topic in all but topic, partition and ``kind``.
"""

KINDS: tuple[str, ...] = ORDINARY_KINDS + ODD_KINDS + ECHO_KINDS
"""All kinds, in the order in which the first cycle shows them."""

SAMPLE_TOPICS: tuple[SampleTopic, ...] = (
    SampleTopic(
        "gcn.notices", 2, ("voevent", "gcn-json", "gcn-text", "gcn-binary", "duplicate", "colliding-id")
    ),
    SampleTopic("lvk.superevents", 1, ("lvk", "external")),
    SampleTopic("ztf.alerts", 4, ("avro", "duplicate")),
    SampleTopic("igwn.circulars", 1, ("circular",)),
    SampleTopic("icecube.tracks", 1, ("icecube",)),
    SampleTopic("snews.alerts", 1, ("snews", "blob")),
    SampleTopic("hop.odd-headers", 2, (*ODD_KINDS, "duplicate-without-id", "cross-posted")),
    SampleTopic("sys.heartbeat", 1, ("heartbeat",)),
)
"""The demo's topics. ``sys.heartbeat`` is there to be vetoed; it holds nothing that another topic repeats."""

_Choice: TypeAlias = tuple[SampleTopic, str]


def _check_topics(topics: Sequence[SampleTopic]) -> None:
    if not topics:
        raise ConfigurationError("Samples: wanted at least one topic, found none.", remedy="Give topics.")
    for topic in topics:
        others = (other for other in topics if other.name != topic.name)
        if "cross-posted" in topic.kinds and not any(
            _has_originals(other, "cross-posted") for other in others
        ):
            raise ConfigurationError(
                f"Sample topic {topic.name} has the kind cross-posted, but no other topic has samples to post there.",
                remedy="Add another topic, or leave the kind out.",
            )


def _stream(count: int, rng: random.Random, now_ms: int, topics: Sequence[SampleTopic]) -> Iterator[Sample]:
    latest: dict[tuple[str, str], Sample] = {}
    choices = itertools.chain(_first_cycle(topics), _endless(topics, rng))
    for position, (topic, kind) in enumerate(itertools.islice(choices, count)):
        sample = _make(topic, kind, rng, now_ms + position, latest)
        if kind in _REPEATED_KINDS or kind == "no-id":
            latest[topic.name, kind] = sample
        yield sample


def _first_cycle(topics: Sequence[SampleTopic]) -> list[_Choice]:
    """Every kind of every topic once, echoes last so that there is something to echo."""
    return [(topic, kind) for kind in KINDS for topic in topics if kind in topic.kinds]


def _endless(topics: Sequence[SampleTopic], rng: random.Random) -> Iterator[_Choice]:
    everything = _first_cycle(topics)
    odd = [(topic, kind) for topic, kind in everything if kind not in _ORDINARY]
    by_topic = [[choice for choice in everything if choice[0] == topic] for topic in topics]
    ordinary = [
        kept for listed in by_topic if (kept := [choice for choice in listed if choice[1] in _ORDINARY])
    ]
    while True:
        is_odd = bool(odd) and (not ordinary or rng.random() < ODD_SHARE)
        # Topic first, kind second: a topic with many kinds is no busier than one with few.
        yield rng.choice(odd) if is_odd else rng.choice(rng.choice(ordinary))


def _make(
    topic: SampleTopic,
    kind: str,
    rng: random.Random,
    timestamp_ms: int,
    latest: dict[tuple[str, str], Sample],
) -> Sample:
    if kind in _ORDINARY:
        return _ordinary(topic, kind, rng, timestamp_ms)
    if kind in _ODDITIES:
        plain = _ordinary(topic, rng.choice(_PLAIN_KINDS), rng, timestamp_ms)
        return replace(_ODDITIES[kind](plain, rng), kind=kind)
    original = rng.choice(_originals(topic, kind, latest))
    return replace(_ECHOES[kind](original, topic, rng, timestamp_ms), kind=kind)


def _originals(topic: SampleTopic, kind: str, latest: dict[tuple[str, str], Sample]) -> list[Sample]:
    wants_other_topic = kind == "cross-posted"
    return [
        sample
        for (name, original_kind), sample in latest.items()
        if (name != topic.name) == wants_other_topic and original_kind in _echoed_kinds(kind)
    ]
