from __future__ import annotations

import pickle
import string
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr, ValidationError
from sqlalchemy import make_url

from hop_archive.config.load import Configuration, Kind, StanzaSelection, load, parse, select
from hop_archive.config.stanzas import (
    FileLogStanza,
    KafkaSourceStanza,
    MockSourceStanza,
    PostgresStanza,
    S3Stanza,
    Stanza,
)
from hop_archive.errors import ConfigurationError, MissingSettingError
from hop_archive.model.topics import LayoutPolicy, TopicPolicy, is_pattern

LOCAL = {
    "HOP_ARCHIVE_LOCAL_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
    "HOP_ARCHIVE_LOCAL_DATABASE_URL": "postgresql://hop:hunter2@127.0.0.1:5433/archive?connect_timeout=5",
    "HOP_ARCHIVE_LOCAL_S3_ENDPOINT": "http://127.0.0.1:8333",
    "HOP_ARCHIVE_LOCAL_BUCKET": "hop-archive",
    "HOP_ARCHIVE_LOCAL_S3_ACCESS_KEY": "who",
    "HOP_ARCHIVE_LOCAL_S3_SECRET_KEY": "hunter2",
}
NAME_CHARACTERS = string.ascii_letters + string.digits + "._-"
topic_names = st.text(NAME_CHARACTERS, min_size=1, max_size=40)


@pytest.fixture(autouse=True)
def _an_empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def s3(text: str) -> str:
    return f'[store.x]\ntype = "s3"\nbucket = "abc"\n{text}'


def kafka(text: str) -> str:
    return f'[source.x]\ntype = "kafka"\nbootstrap_servers = "h:1"\n{text}'


def postgres(text: str) -> str:
    return f'[database.x]\ntype = "postgres"\n{text}'


def mock(text: str) -> str:
    return f'[source.x]\ntype = "mock"\n{text}'


VARIABLES = 'username_env = "A"\npassword_env = "B"'


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    return str(caught.value).splitlines()


def database(text: str) -> PostgresStanza:
    stanza = parse(postgres(text)).database("x")
    assert isinstance(stanza, PostgresStanza)
    return stanza


# What a file can get wrong, and what is said about it.
WRONG = {
    s3('put_concurrency = "lots"'): '[store.x] put_concurrency: wanted a whole number, found "lots"',
    s3('put_concurrency = "64"'): '[store.x] put_concurrency: wanted a whole number, found "64"',
    s3("put_concurrency = true"): "[store.x] put_concurrency: wanted a whole number, found true",
    s3("put_concurrency = 0"): "[store.x] put_concurrency: wanted at least 1, found 0",
    s3("put_concurrency = 1025"): "[store.x] put_concurrency: wanted at most 1024, found 1025",
    s3("segment_mebibytes = 513"): "[store.x] segment_mebibytes: wanted at most 512, found 513",
    s3("backup_grace_minutes = 1e300"): "[store.x] backup_grace_minutes: wanted at most 525600, found 1e+300",
    s3("put_concurency = 5"): "[store.x] put_concurency: unknown key; nearest known: put_concurrency",
    s3('prefix = "/a"'): "[store.x] prefix: wanted a prefix with no '/' at either end, found \"/a\"",
    s3('backup_bucket = "abc"'): "[store.x]: wanted a backup_bucket that is not the bucket itself",
    s3('access_key_env = "A"'): "[store.x]: wanted access_key_env and secret_key_env, or neither",
    s3('endpoint = "h:1"'): '[store.x] endpoint: wanted http://host:port or https://host:port, found "h:1"',
    s3('layout = "segments"'): "[store.x] layout: wanted 'message' or 'segment', found \"segments\"",
    s3('layouts = { "a*" = "b" }'): "[store.x] layouts[\"a*\"]: wanted 'message' or 'segment', found \"b\"",
    s3('layouts = { a.b = "segment" }'): (
        "[store.x] layouts[\"a\"]: wanted 'message' or 'segment', found a table"
        " (a key that holds a dot has to be quoted)"
    ),
    s3('cleaning_allowed = "yes"'): '[store.x] cleaning_allowed: wanted true or false, found "yes"',
    s3("region = 2026-01-01"): '[store.x] region: wanted text, found "2026-01-01"',
    s3('region = "${1}"'): (
        "[store.x] region: wanted each '${' to begin ${NAME} or ${NAME:-default}, found \"${1}\""
    ),
    '[store.x]\ntype = "s3"': "[store.x] bucket: wanted, and not there",
    '[store.x]\ntype = "s4"': '[store.x] type: wanted "s3" or "mock", found "s4"',
    '[store.x]\nlayout = "message"': '[store.x] type: wanted "s3" or "mock", found nothing',
    '[store]\ntype = "s3"': '[store] type: wanted a table [store.NAME], found "s3"',
    "store = 3": "store: wanted tables [store.NAME], found 3",
    '[source.x]\ntyp = "kafka"\nbootstrap_servers = "k:1"': "[source.x] typ: unknown key; nearest known: type",
    '[source.x]\ntpye = "kfaka"': "[source.x] tpye: unknown key; nearest known: type",
    '[store.x]\ntypes = "mock"': "[store.x] types: unknown key; nearest known: type",
    '[sources.x]\ntype = "mock"': "[sources]: unknown table; nearest known: source",
    "[zzz]": "[zzz]: unknown table; known: source, database, store, log, alert",
    kafka("passwd_env = 'A'"): "[source.x] passwd_env: unknown key; nearest known: password_env",
    kafka("fetch_mebibytes = 0"): "[source.x] fetch_mebibytes: wanted at least 1, found 0",
    kafka("fetch_mebibytes = 2049"): "[source.x] fetch_mebibytes: wanted at most 2048, found 2049",
    kafka('topics = "a"'): '[source.x] topics: wanted a list, found "a"',
    kafka("topics = [1]"): "[source.x] topics[0]: wanted text, found 1",
    kafka('security = "ssl"'): (
        "[source.x] security: wanted 'plaintext', 'tls', 'sasl-plain', 'sasl-scram-sha-256',"
        " 'sasl-scram-sha-512', 'sasl-oauthbearer' or 'sasl-msk-iam', found \"ssl\""
    ),
    kafka('security = "sasl-plain"'): (
        '[source.x]: security "sasl-plain" wants secret_name, or username_env and password_env'
    ),
    kafka('username_env = "A"'): "[source.x]: wanted username_env and password_env, or neither",
    kafka('username_env = "A"\npassword_env = "B"'): (
        '[source.x]: security "tls" sends no username or password; wanted a "sasl-..." one'
    ),
    kafka('secret_name = "s"\nregion = "r"'): (
        '[source.x]: security "tls" sends no username or password; wanted a "sasl-..." one'
    ),
    kafka('security = "sasl-plain"\nsecret_name = "s"'): "[source.x]: secret_name wants a region beside it",
    kafka(
        'region = "r"'
    ): "[source.x]: region and profile are of use only beside secret_name or sasl-msk-iam",
    kafka('security = "sasl-plain"\nusername_env = "A"\npassword_env = "B"\nusername = "u"'): (
        "[source.x]: username chooses among a secret's users; wanted secret_name or hop_auth beside it"
    ),
    kafka('security = "sasl-msk-iam"'): "[source.x]: sasl-msk-iam wants a region beside it",
    kafka('security = "sasl-msk-iam"\nregion = "r"\nusername_env = "A"\npassword_env = "B"'): (
        '[source.x]: security "sasl-msk-iam" sends no username or password; wanted a "sasl-..." one that does'
    ),
    kafka('security = "tls"\nhop_auth = "a"\ntls = true'): (
        "[source.x]: hop_auth says how to log in, and as whom; wanted no security and no tls beside it"
    ),
    kafka(
        'ssl_key = "k"'
    ): "[source.x]: wanted ssl_certificate and ssl_key, or neither (they may be one file)",
    kafka("tls = false"): '[source.x]: tls = false is for "sasl-..."; wanted security = "plaintext"',
    kafka('security = "plaintext"\nssl_ca = "c"'): (
        "[source.x]: ssl_ca and ssl_certificate are of use only with TLS"
    ),
    kafka('token_endpoint = "https://h/t"'): (
        '[source.x]: wanted security = "sasl-oauthbearer" and a token_endpoint, or neither'
    ),
    kafka('token_endpoint = "https://me:hunter2@h/t"'): (
        "[source.x] token_endpoint: wanted https://host/path, without a name or a password, found something"
        " else (not shown: it may be a secret)"
    ),
    kafka('token_scope = "s"'): "[source.x]: token_scope and token_ca are of use only beside token_endpoint",
    kafka(f'security = "sasl-plain"\ntls = false\n{VARIABLES}'): (
        "[source.x]: the login would travel unencrypted to h:1; wanted TLS, or cleartext_allowed = true"
    ),
    kafka(f'security = "sasl-oauthbearer"\ntoken_endpoint = "http://h/t"\n{VARIABLES}'): (
        "[source.x]: the client's secret would travel unencrypted to http://h/t; wanted TLS, or"
        " cleartext_allowed = true"
    ),
    s3('profile = "p"\naccess_key_env = "A"\nsecret_key_env = "B"'): (
        "[store.x]: wanted a profile, or access_key_env and secret_key_env"
    ),
    postgres('instance_id = "i"'): "[database.x]: instance_id wants a region beside it",
    postgres('url = "postgresql://h/d"\nprofile = "p"'): (
        "[database.x]: region and profile are of use only beside secret_name or instance_id"
    ),
    postgres('url = "postgresql://h/d"\nsslmode = "require"'): (
        "[database.x]: wanted url or its parts, found url and sslmode"
    ),
    mock("rate = -1"): "[source.x] rate: wanted at least 0, found -1",
    mock("samples = 10_000_001"): "[source.x] samples: wanted at most 10000000, found 10000001",
    mock("rate = nan"): "[source.x] rate: wanted a finite number, found NaN",
    mock("qqq = 1"): (
        "[source.x] qqq: unknown key; known:"
        " topics, veto, private, test_topics, writable, production, directory, type, samples, rate"
    ),
    postgres("port = 1"): "[database.x]: wanted url, or host, name and user, or instance_id",
    postgres(
        'url = "postgresql://h/d"\nuser = "u"'
    ): "[database.x]: wanted url or its parts, found url and user",
    postgres("schema = 3"): "[database.x] schema: wanted text, found 3",
    '[log.x]\ntype = "file"\npath = ""': '[log.x] path: wanted text that is not empty, found ""',
    '[log.x]\ntype = "console"\nlevels = { a = "loud" }': (
        "[log.x] levels[\"a\"]: wanted 'debug', 'info', 'warning', 'error' or 'critical', found \"loud\""
    ),
}


@pytest.mark.parametrize(("text", "problem"), WRONG.items(), ids=list(WRONG.values()))
def test_what_is_wrong_is_said_with_file_stanza_key_wanted_and_found(text: str, problem: str) -> None:
    assert problems(text) == [f"hop_archive.toml: {problem}"]


def test_all_problems_of_a_file_are_told_at_once() -> None:
    text = s3('put_concurrency = "lots"\nput_concurency = 5\n') + mock("samples = -1") + "\n[zzz]"
    assert len(problems(text)) == 4


SECRETS_IN_TOML = {
    kafka('password = "hunter2"'): "password_env",
    kafka('sasl_password = "hunter2"'): "password_env",
    kafka('secret_key = "hunter2"'): "password_env",
    s3('secret_key = "hunter2"'): "secret_key_env",
    s3('secret_access_key = "hunter2"'): "secret_key_env",
    s3('access_key = "hunter2"'): "access_key_env",
    mock('password = "hunter2"'): "remove the key",
    postgres('url = "postgresql://h/d"\npassword = "hunter2"'): "password_env",
    postgres('url = "postgresql://u:hunter2@h/d"'): "password_env",
    postgres('url = "postgresql://u:${A:-hunter2}@h/d"'): "password_env",
    postgres('url = "${A:-postgresql://u:hunter2@h/d}"'): "password_env",
    postgres('url = "postgresql://u:hunter2${A}@h/d"'): "password_env",
    postgres('url = "postgresql://h/d?user=u&password=hunter2"'): "password_env",
}


@pytest.mark.parametrize(("text", "remedy"), SECRETS_IN_TOML.items())
def test_a_secret_in_toml_is_refused_unshown_with_where_it_belongs(text: str, remedy: str) -> None:
    (problem,) = problems(text)
    assert "secrets are not kept in TOML" in problem
    assert remedy in problem
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    "text",
    [
        kafka('security = "sasl-plain"\nusername_env = "A"\npassword_env = "hunter2"'),
        kafka('security = "sasl-plain"\nusername_env = "A"\npassword_env = "${hunter2}"'),
        postgres('url = "u:hunter2@h/d"'),
        postgres('url = "postgresql://u:hun/ter2@h/d"'),
        postgres('url = ["hunter2"]'),
    ],
)
def test_what_may_be_a_misplaced_secret_is_not_shown(text: str) -> None:
    (problem,) = problems(text)
    assert "not shown" in problem
    assert "ter2" not in problem


@pytest.mark.parametrize("url", ["postgresql://u:${PW}@h/d", "postgresql://${USER:-u}:${PW}@${HOST:-h}/d"])
def test_a_url_may_take_its_password_from_a_variable(url: str) -> None:
    dsn = database(f'url = "{url}"').dsn({"PW": "hunter2"})
    assert dsn.get_secret_value() == "postgresql://u:hunter2@h/d"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a = 1\nb = = 2\n", "(at line 2, column 5)"),
        ("a = [1,\n  2,\n", "(at line 3, column 1)"),
        ('a = "x', "(at line 1, column 7)"),
    ],
)
def test_text_that_is_not_toml_is_told_with_line_and_column(text: str, place: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("hop_archive.toml: not TOML: ")
    assert place in problem


def test_a_file_in_another_encoding_is_a_configuration_error(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes("# caf\N{LATIN SMALL LETTER E WITH ACUTE}".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="wanted UTF-8, found another encoding at byte 5"):
        load(path, {})


def test_a_directory_in_the_place_of_the_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        load(tmp_path, {})


def test_a_named_file_that_is_missing_is_an_error_that_says_who_named_it(tmp_path: Path) -> None:
    with pytest.raises(MissingSettingError, match=r"that was given is not there: .*absent\.toml"):
        load(tmp_path / "absent.toml", {})
    with pytest.raises(MissingSettingError, match="that HOP_ARCHIVE_TOML names is not there"):
        load(None, {"HOP_ARCHIVE_TOML": str(tmp_path / "absent.toml")})


def test_the_given_file_beats_the_variable_which_beats_the_working_directory(tmp_path: Path) -> None:
    for name in ("given", "named", "hop_archive"):
        (tmp_path / f"{name}.toml").write_text(f'[source.{name}]\ntype = "mock"')
    environ = {"HOP_ARCHIVE_TOML": "named.toml"}
    assert "given" in load(Path("given.toml"), environ).sources
    assert "named" not in load(Path("given.toml"), environ).sources
    assert "named" in load(None, environ).sources
    assert "hop_archive" not in load(None, environ).sources
    assert "hop_archive" in load(None, {}).sources
    assert "hop_archive" in load(None, {"HOP_ARCHIVE_TOML": ""}).sources


def test_a_stanza_of_the_user_replaces_the_shipped_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[source.mock-hop]\ntype = "mock"\nsamples = 3')
    shipped, mine = load(environ={}), load(path, {})
    assert shipped.source("mock-hop").writable
    assert not mine.source("mock-hop").writable
    assert mine.source("mock-hop").label == f"{path}: [source.mock-hop]"
    assert mine.source("mock-hop").stanza_name == "mock-hop"
    assert mine.sources.keys() == shipped.sources.keys()
    assert mine.stores == shipped.stores


@pytest.mark.parametrize("kind", ["source", "database", "store", "log"])
def test_each_kind_of_stanza_is_overlaid(kind: str) -> None:
    type_ = "console" if kind == "log" else "mock"
    old, new = (parse(f'[{kind}.x]\ntype = "{type_}"', origin) for origin in ("old.toml", "new.toml"))
    assert getattr(old.overlaid(new), kind)("x").label == f"new.toml: [{kind}.x]"


def test_the_shipped_stanzas_are_those_of_the_design() -> None:
    shipped = load(environ={})
    assert set(shipped.sources) == {"hop-prod", "hop-dev", "hop-user", "hop-local", "mock-hop"}
    assert set(shipped.databases) == {"aws-prod-db", "aws-dev-db", "local-db", "mock-db"}
    assert set(shipped.stores) == {
        "s3-prod",
        "s3-dev",
        "local-store",
        "local-segments",
        "mock-store",
        "mock-segments",
    }
    assert set(shipped.logs) == {"default", "debug", "json"}


def test_nothing_of_production_may_be_written_to_cleaned_or_deleted_as_shipped() -> None:
    shipped = load(environ={})
    assert shipped.source("hop-prod").production
    assert not shipped.source("hop-prod").writable
    for stanza in (shipped.database("aws-prod-db"), shipped.store("s3-prod")):
        assert not stanza.cleaning_allowed
        assert not stanza.deleting_allowed


def test_the_local_stanzas_resolve_with_what_the_local_stack_exports() -> None:
    shipped = load(environ={})
    source = shipped.source("hop-local").resolved(LOCAL)
    store = shipped.store("local-segments").resolved(LOCAL)
    data = shipped.database("local-db").resolved(LOCAL)
    assert isinstance(source, KafkaSourceStanza)
    assert isinstance(store, S3Stanza)
    assert isinstance(data, PostgresStanza)
    assert (source.bootstrap_servers, source.login(LOCAL)) == ("127.0.0.1:9092", None)
    assert (store.endpoint, store.bucket, store.layout) == ("http://127.0.0.1:8333", "hop-archive", "segment")
    keys = store.access_keys(LOCAL)
    assert keys is not None
    assert (keys.access_key, keys.secret_key.get_secret_value()) == ("who", "hunter2")
    assert data.dsn(LOCAL).get_secret_value() == LOCAL["HOP_ARCHIVE_LOCAL_DATABASE_URL"]


def test_the_mocks_resolve_with_no_environment_at_all() -> None:
    shipped = load(environ={})
    for stanza in (shipped.source("mock-hop"), shipped.database("mock-db"), shipped.store("mock-store")):
        assert stanza.resolved({}).describe() == "a mock in memory"
        assert stanza.resolved({"HOP_ARCHIVE_MOCK_DIR": "d"}).describe() == "a mock in the directory d"


@pytest.mark.parametrize(("kind", "place"), [("prod", "hopprod"), ("dev", "hopdevel")])
def test_the_aws_stanzas_need_no_variable_at_all(kind: str, place: str) -> None:
    shipped = load(environ={})
    source, data = shipped.source(f"hop-{kind}").resolved({}), shipped.database(f"aws-{kind}-db").resolved({})
    store = shipped.store(f"s3-{kind}").resolved({})
    assert isinstance(source, KafkaSourceStanza)
    assert isinstance(data, PostgresStanza)
    assert isinstance(store, S3Stanza)
    assert store.describe() == f"s3://{place}-scimma-archive-ingest at AWS"
    assert store.backup_bucket == f"{place}-scimma-archive-ingest-backup"
    assert data.describe() == f"RDS instance {place}-archive-ingest-db in us-west-2"
    assert data.secret_name.casefold() == f"{place}-archive-ingest-db-password"
    assert source.secret_name.casefold() == f"{place}-archive-ingest-hop-{kind}-credentials"
    assert source.group_id == "hop_archive", "not that of the older archiver, whose offsets would move"
    assert [stanza.secret_variables() for stanza in (source, data, store)] == [(), (), ()]


def test_each_part_of_an_aws_stanza_may_be_another() -> None:
    shipped = load(environ={})
    environ = {"HOP_ARCHIVE_PROD_BUCKET": "abc", "HOP_ARCHIVE_PROD_DATABASE_HOST": "localhost"}
    store = shipped.store("s3-prod").resolved(environ)
    assert isinstance(store, S3Stanza)
    assert store.describe() == "s3://abc at AWS"
    assert store.access_keys(environ) is None
    described = shipped.database("aws-prod-db").resolved(environ).describe()
    assert described == "RDS instance hopprod-archive-ingest-db in us-west-2 by way of localhost"


def test_where_host_name_user_and_password_are_given_aws_is_not_asked() -> None:
    shipped = load(environ={}).database("aws-prod-db")
    assert isinstance(shipped, PostgresStanza)
    given = {"HOST": "db.example.org", "NAME": "archive", "USER": "me", "PASSWORD": "hunter2"}
    dsn = shipped.dsn({f"HOP_ARCHIVE_PROD_DATABASE_{name}": value for name, value in given.items()})
    assert dsn.get_secret_value() == "postgresql://me:hunter2@db.example.org:5432/archive?sslmode=require"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ('sslmode = "disable"', {"sslmode": "disable"}),
        (
            'sslmode = "verify-full"\nsslrootcert = "/a b.pem"',
            {"sslmode": "verify-full", "sslrootcert": "/a b.pem"},
        ),
    ],
)
def test_tls_is_as_the_stanza_says(text: str, options: dict[str, str]) -> None:
    dsn = database(f'host = "h"\nname = "d"\nuser = "u"\n{text}').dsn({}).get_secret_value()
    assert conninfo_to_dict(dsn) == {"host": "h", "port": "5432", "dbname": "d", "user": "u", **options}
    assert make_url(dsn).query == options


@pytest.mark.parametrize("environ", [{}, dict.fromkeys(LOCAL, "")])
def test_a_missing_variable_is_told_with_stanza_key_and_remedy(environ: Mapping[str, str]) -> None:
    state = "empty" if environ else "not set"
    with pytest.raises(MissingSettingError) as caught:
        load(environ={}).store("local-store").resolved(environ)
    first, second = str(caught.value).splitlines()
    where = "stanzas.toml (shipped): [store.local-store]"
    assert first == f"{where} endpoint: environment variable HOP_ARCHIVE_LOCAL_S3_ENDPOINT is {state}."
    assert second.startswith(f"{where} bucket: environment variable HOP_ARCHIVE_LOCAL_BUCKET is {state}.")
    assert second.endswith('eval "$(hop-archive local env --dir DIR)".')
    assert caught.value.facts["variables"] == ["HOP_ARCHIVE_LOCAL_S3_ENDPOINT", "HOP_ARCHIVE_LOCAL_BUCKET"]


def test_a_missing_secret_is_told_with_stanza_key_and_variable() -> None:
    source = load(environ={}).source("hop-prod")
    assert isinstance(source, KafkaSourceStanza)
    with pytest.raises(
        MissingSettingError
    ) as caught:  # one variable of the two is a slip: no secret fills it in
        source.login({"HOP_ARCHIVE_PROD_USERNAME": "me"})
    assert str(caught.value) == (
        "stanzas.toml (shipped): [source.hop-prod] password_env: environment variable"
        " HOP_ARCHIVE_PROD_PASSWORD is not set. Set HOP_ARCHIVE_PROD_PASSWORD in the environment."
    )


def test_an_empty_secret_is_a_missing_one() -> None:
    stanza = database('url = "postgresql://u@h/d"\npassword_env = "PW"')
    with pytest.raises(MissingSettingError, match="password_env: environment variable PW is empty"):
        stanza.dsn({"PW": ""})


def test_a_missing_url_is_told_with_its_variable() -> None:
    with pytest.raises(MissingSettingError, match="url: environment variable HOP_ARCHIVE_LOCAL_DATABASE_URL"):
        load(environ={}).database("local-db").resolved({})


def test_a_login_has_the_name_and_the_hidden_password() -> None:
    source = load(environ={}).source("hop-prod")
    assert isinstance(source, KafkaSourceStanza)
    login = source.login({"HOP_ARCHIVE_PROD_USERNAME": "me", "HOP_ARCHIVE_PROD_PASSWORD": "hunter2"})
    assert login is not None
    assert (login.username, login.password.get_secret_value()) == ("me", "hunter2")
    assert "hunter2" not in repr(login)


def test_a_resolved_value_is_checked_again_and_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(environ={}).source("hop-local").resolved({"HOP_ARCHIVE_LOCAL_BOOTSTRAP_SERVERS": "hunter2"})
    assert str(caught.value) == (
        "stanzas.toml (shipped): [source.hop-local] bootstrap_servers: wanted host:port[,host:port...],"
        " found something else in the environment (not shown)"
    )


def test_a_database_url_from_a_variable_is_checked_and_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(environ={}).database("local-db").resolved(
            {"HOP_ARCHIVE_LOCAL_DATABASE_URL": "mysql://u:hunter2@h"}
        )
    assert "wanted postgresql://user@host:port/name" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_password_among_the_options_of_a_url_is_refused_wherever_it_comes_from() -> None:
    with pytest.raises(ConfigurationError, match="wanted postgresql://") as caught:
        database('url = "${URL}"').dsn({"URL": "postgresql://u@h/d?connect_timeout=3&password=hunter2"})
    assert "hunter2" not in str(caught.value)


def test_what_a_variable_holds_is_no_variable_again_but_a_value_to_check() -> None:
    with pytest.raises(ConfigurationError, match="wanted a bucket's name"):
        load(environ={}).store("s3-prod").resolved({"HOP_ARCHIVE_PROD_BUCKET": "${OTHER}", "OTHER": "abc"})


def test_a_value_is_not_expanded_twice() -> None:
    stanza = parse(s3('region = "${A}"')).store("x")
    resolved = stanza.resolved({"A": "${B}", "B": "no"})
    assert isinstance(resolved, S3Stanza)
    assert resolved.region == "${B}"
    assert resolved.resolved({"B": "no"}) is resolved


def test_resolving_reaches_lists_and_keeps_everything_else() -> None:
    stanza = parse(kafka('topics = ["${A}.*", "b"]\nveto = []\nwritable = true')).source("x")
    resolved = stanza.resolved({"A": "igwn"})
    assert resolved.policy().archived("igwn.gwalert")
    assert not resolved.policy().archived("gcn.circulars")
    assert resolved.writable
    assert (resolved.label, resolved.stanza_name) == (stanza.label, "x")
    with pytest.raises(MissingSettingError, match=r"\[source\.x\] topics: environment variable A is not set"):
        stanza.resolved({})
    with pytest.raises(ConfigurationError, match=r"topics\[0\]: wanted a topic name or glob"):
        stanza.resolved({"A": "(igwn)"})


def all_stanzas(configuration: Configuration) -> list[Stanza]:
    kinds = (configuration.sources, configuration.databases, configuration.stores, configuration.logs)
    return [stanza for kind in kinds for stanza in kind.values()]


@pytest.mark.parametrize("stanza", all_stanzas(load(environ={})), ids=lambda stanza: stanza.stanza_name)
def test_no_stanza_shows_a_secret_resolved_or_not(stanza: Stanza) -> None:
    resolved = stanza.resolved(LOCAL)
    shown = [
        repr(resolved),
        str(resolved),
        resolved.describe(),
        resolved.model_dump_json(),
        stanza.describe(),
    ]
    assert not [text for text in shown if "hunter2" in text]
    assert pickle.loads(pickle.dumps(resolved)) == resolved


def test_a_stanza_is_frozen() -> None:
    stanza = MockSourceStanza(samples=1)
    with pytest.raises(ValidationError):
        stanza.samples = 2


passwords = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1)


@given(passwords, st.booleans())
def test_libpq_and_sqlalchemy_read_any_password_and_no_description_shows_it(
    password: str, by_url: bool
) -> None:
    url = 'url = "postgresql://me@h:5/d?connect_timeout=3"'
    parts = 'host = "h"\nport = 5\nname = "d"\nuser = "me"'
    stanza = database((url if by_url else parts) + '\npassword_env = "PW"')
    dsn = stanza.dsn({"PW": password})
    libpq, sqlalchemy = conninfo_to_dict(dsn.get_secret_value()), make_url(dsn.get_secret_value())
    assert libpq["password"] == sqlalchemy.password == password
    assert (libpq["host"], libpq["port"], libpq["dbname"], libpq["user"]) == ("h", "5", "d", "me")
    assert stanza.describe() == "postgresql://me@h:5/d"
    assert repr(dsn) == repr(SecretStr("x"))


def test_the_password_variable_beats_the_password_of_the_url() -> None:
    stanza = database('url = "${URL}"\npassword_env = "PW"')
    assert (
        stanza.dsn({"URL": "postgres://u:old@h/d", "PW": "new"}).get_secret_value()
        == "postgresql://u:new@h/d"
    )


@pytest.mark.parametrize(("host", "wanted"), [("/run/pg", "/run/pg"), ("::1", "::1"), ("h", "h")])
def test_a_host_may_be_a_socket_directory_or_an_address(host: str, wanted: str) -> None:
    dsn = database(f'host = "{host}"\nname = "a/b"\nuser = "a@b"').dsn({}).get_secret_value()
    assert conninfo_to_dict(dsn) == {"host": wanted, "port": "5432", "dbname": "a/b", "user": "a@b"}


def test_a_stanza_that_is_not_there_is_told_with_the_nearest_and_the_known() -> None:
    with pytest.raises(MissingSettingError) as caught:
        load(environ={}).source("hop-prd")
    assert str(caught.value) == (
        'There is no source stanza named "hop-prd". Nearest: hop-prod, hop-dev, hop-user.'
        " Known: hop-dev, hop-local, hop-prod, hop-user, mock-hop."
        " Name one of these, or write a [source.hop-prd] into hop_archive.toml."
    )
    assert caught.value.facts["wanted"] == "hop-prd"


@pytest.mark.parametrize("kind", ["source", "database", "store", "log"])
def test_each_kind_says_which_kind_is_missing(kind: str) -> None:
    with pytest.raises(MissingSettingError, match=f"no {kind} stanza named"):
        getattr(load(environ={}), kind)("zzz")
    with pytest.raises(MissingSettingError, match=f"no {kind} stanza named"):
        select(load(environ={}), environ={f"HOP_ARCHIVE_{kind.upper()}": "zzz"})


def test_with_nothing_named_the_mocks_are_selected() -> None:
    chosen = select(load(environ={}), environ={"HOP_ARCHIVE_SOURCE": ""})
    assert (chosen.source, chosen.database, chosen.store, chosen.log) == (
        "mock-hop",
        "mock-db",
        "mock-store",
        "default",
    )
    assert chosen.is_default


def test_an_option_beats_the_environment_and_each_is_chosen_on_its_own() -> None:
    environ = {"HOP_ARCHIVE_SOURCE": "hop-dev", "HOP_ARCHIVE_DATABASE": "local-db", "HOP_ARCHIVE_LOG": "json"}
    chosen = select(load(environ={}), source="hop-prod", environ=environ)
    assert (chosen.source, chosen.source_from) == ("hop-prod", "option")
    assert (chosen.database, chosen.database_from) == ("local-db", "environment")
    assert (chosen.store, chosen.store_from) == ("mock-store", "default")
    assert (chosen.log, chosen.log_from) == ("json", "environment")


@pytest.mark.parametrize("kind", ["source", "database", "store"])
def test_one_named_stanza_is_no_longer_the_default(kind: str) -> None:
    name = {"source": "mock-hop", "database": "mock-db", "store": "mock-store"}[kind]
    assert not select(load(environ={}), environ={f"HOP_ARCHIVE_{kind.upper()}": name}).is_default


def test_a_log_alone_leaves_the_mocks_the_default() -> None:
    assert select(load(environ={}), log="json", environ={}).is_default


@given(topic_names)
def test_a_literal_name_means_that_topic_and_no_other(name: str) -> None:
    policy = TopicPolicy((name,))
    assert policy.archived(name)
    assert not any(policy.archived(other) for other in (name + "x", "x" + name, name[1:], name + "\n"))


@given(topic_names, topic_names, st.sampled_from(NAME_CHARACTERS.replace(".", "") + "\n/"))
def test_a_dot_never_matches_another_character(before: str, after: str, other: str) -> None:
    dotted, fake = f"{before}.{after}", f"{before}{other}{after}"
    for pattern, around in (
        (dotted, "{}"),
        (f"*{dotted}", "x{}"),
        (f"{dotted}*", "{}x"),
        (f"?{dotted}", "x{}"),
    ):
        policy = TopicPolicy((pattern,))
        assert policy.archived(around.format(dotted))
        assert not policy.archived(around.format(fake))


GLOBS = [
    ("*", "a", True),
    ("sys.*", "sys.heartbeat", True),
    ("sys.*", "sys.", True),
    ("sys.*", "sys", False),
    ("sys.*", "sysX", False),
    ("sys.*", "a.sys.b", False),
    ("SYS.*", "sys.a", False),
    ("a?c", "a.c", True),
    ("a?c", "ac", False),
    ("a[bd]c", "adc", True),
    ("a[!bd]c", "adc", False),
    ("a[0-9]", "a7", True),
    ("a[.]b", "a.b", True),
    ("a[.]b", "axb", False),
]


@pytest.mark.parametrize(("pattern", "name", "matched"), GLOBS)
def test_globs(pattern: str, name: str, matched: bool) -> None:
    assert TopicPolicy((pattern,)).archived(name) is matched
    assert TopicPolicy(private_topics=(pattern,)).private(name) is matched
    assert TopicPolicy(test_topics=(pattern,)).test(name) is matched
    assert TopicPolicy(veto=(pattern,)).vetoed(name) is matched
    assert TopicPolicy(veto=(pattern,)).archived(name) is not matched


REGEXES = ["^a", "a$", "a|b", "(a)", "a+", r"a\.b", "[a", "a]", "[]", "[!]", "", "a b", "a\n", "{a,b}", "a/b"]


@pytest.mark.parametrize("pattern", REGEXES)
def test_a_regular_expression_is_no_pattern_anywhere(pattern: str) -> None:
    assert not is_pattern(pattern)
    with pytest.raises(ConfigurationError, match="Wanted a topic name or glob"):
        TopicPolicy((pattern,))
    with pytest.raises(ConfigurationError, match="Wanted a topic name or glob"):
        LayoutPolicy("message", ((pattern, "segment"),))
    quoted = pattern.replace("\\", "\\\\").replace("\n", "\\n")
    for key in ("topics", "veto", "private", "test_topics"):
        (problem,) = problems(kafka(f'{key} = ["{quoted}"]'))
        assert f"[source.x] {key}[0]: wanted a topic name or glob" in problem
    (problem,) = problems(s3(f'layouts = {{ "{quoted}" = "segment" }}'))
    assert "[store.x] layouts[" in problem
    (problem,) = problems(s3(f'compressions = {{ "{quoted}" = "zstd" }}'))
    assert "[store.x] compressions[" in problem


@pytest.mark.parametrize(
    ("name", "archived"),
    [
        ("igwn.gwalert", True),
        ("gcn.circulars", True),
        ("sys.heartbeat", False),
        ("sys.heartbeat-cit", False),
        ("gcn.heartbeat", False),
        ("__consumer_offsets", False),
        ("_schemas", True),
    ],
)
def test_heartbeats_and_kafkas_own_topics_are_vetoed_by_default(name: str, archived: bool) -> None:
    for stanza in load(environ={}).sources.values():
        assert stanza.policy().archived(name) is archived


def test_each_list_of_a_stanza_reaches_its_place_in_the_policy() -> None:
    policy = parse(mock('topics=["a"]\nveto=["b"]\nprivate=["c"]\ntest_topics=["d"]')).source("x").policy()
    assert policy == TopicPolicy(("a",), ("b",), ("c",), ("d",))


def test_the_first_pattern_in_the_files_order_decides_the_layout() -> None:
    text = s3(
        'layout = "segment"\n[store.x.layouts]\n"ztf.small" = "message"\n"ztf.*" = "segment"\n"*a" = "message"'
    )
    policy = parse(text).store("x").layout_policy()
    names = ("ztf.small", "ztf.a", "a", "other")
    assert [policy.layout_for(name) for name in names] == ["message", "segment", "message", "segment"]


def test_segments_are_compressed_where_the_stanza_says_so_and_nowhere_else() -> None:
    assert not parse(s3('layout = "segment"')).store("x").layout_policy().compresses("a")
    text = s3('compression = "zstd"\n[store.x.compressions]\n"ztf.*" = "none"\n"*a" = "zstd"')
    policy = parse(text).store("x").layout_policy()
    assert [policy.compresses(name) for name in ("ztf.a", "a", "other")] == [False, True, True]
    text = s3('[store.x.compressions]\n"ztf.*" = "zstd"')
    policy = parse(text).store("x").layout_policy()
    assert [policy.compresses(name) for name in ("ztf.a", "other")] == [True, False]
    shipped = load(environ={}).stores
    assert {name for name, stanza in shipped.items() if stanza.layout_policy().compresses("a")} == {
        "local-segments",
        "mock-segments",
    }


def test_a_file_log_names_its_file() -> None:
    stanza = parse('[log.x]\ntype = "file"\npath = "${DIR}/a.log"').log("x").resolved({"DIR": "d"})
    assert isinstance(stanza, FileLogStanza)
    assert (stanza.path, stanza.describe()) == ("d/a.log", "the file d/a.log")


# What is used together


def selected(**named: str) -> StanzaSelection:
    return select(load(environ={}), **named, environ={})


ALL_THREE: tuple[Kind, ...] = ("source", "database", "store")


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"source": "hop-local"},
        {"source": "hop-local", "database": "local-db", "store": "mock-store"},
        {"source": "mock-hop", "database": "local-db", "store": "local-store"},
    ],
)
def test_all_parts_named_or_only_a_source_is_well(named: dict[str, str]) -> None:
    selected(**named).refuse_unnamed(*ALL_THREE)


@pytest.mark.parametrize(
    ("named", "option"),
    [
        ({"source": "hop-local", "database": "local-db"}, "-S mock-store"),
        ({"database": "local-db", "store": "local-store"}, "-H mock-hop"),
        ({"source": "hop-local", "store": "local-store"}, "-D mock-db"),
        ({"store": "local-store"}, "-H mock-hop"),
    ],
)
def test_a_mock_that_nobody_named_is_refused_beside_what_lasts(named: dict[str, str], option: str) -> None:
    with pytest.raises(MissingSettingError, match=option):
        selected(**named).refuse_unnamed(*ALL_THREE)


def test_what_is_not_used_need_not_be_named() -> None:
    selected(database="local-db").refuse_unnamed("database")
    selected(database="local-db", store="local-store").refuse_unnamed("database", "store")


def test_a_name_of_another_kind_is_told_and_so_is_the_variable_that_holds_it() -> None:
    with pytest.raises(MissingSettingError, match=r"local-db is a database stanza \(-D\)"):
        selected(source="local-db")
    with pytest.raises(MissingSettingError, match="HOP_ARCHIVE_STORE names it"):
        select(load(environ={}), environ={"HOP_ARCHIVE_STORE": "nowhere"})


def test_a_store_says_how_large_segments_are_and_when_small_objects_become_some() -> None:
    policy = parse(s3("segment_mebibytes = 8\ncompact_after_days = 1.5")).store("x").layout_policy()
    assert (policy.segment_bytes, policy.compact_after_days) == (8 * 2**20, 1.5)
    assert parse(s3("")).store("x").layout_policy().compact_after_days is None
    with pytest.raises(ConfigurationError, match="compact_after_days"):
        parse(s3("compact_after_days = -1"))
