"""Credentials of AWS from a server that speaks for it: where RDS says a database is, and what is said when AWS refuses."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import KafkaError
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from hop_archive.config.aws import account
from hop_archive.config.load import parse
from hop_archive.config.open import open_source
from hop_archive.config.stanzas import PostgresStanza
from hop_archive.errors import (
    ConfigurationError,
    ForbiddenError,
    HopArchiveError,
    MissingSettingError,
    UnavailableError,
)
from hop_archive.source.kafka.client import ClientErrors, NewLoginError
from hop_archive.source.kafka.source import KafkaSource
from hop_archive_tests.aws import (
    REGION,
    answering,
    client,
    forget,
    json_refusal,
    keys,
    make_instance,
    make_secret,
    moto,
    moto_endpoint,
    no_aws,
    xml_refusal,
)

__all__ = ["keys", "moto", "moto_endpoint", "no_aws"]
from hop_archive_tests.unit.config.test_aws import config, database, kafka


def dsn(stanza: PostgresStanza) -> dict[str, str | int]:
    return {
        name: value for name, value in conninfo_to_dict(stanza.dsn({}).get_secret_value()).items() if value
    }


def test_the_same_from_a_server_that_the_environment_names(moto: str) -> None:
    make_secret("kafka-secret", '{"username": "ann", "password": "hunter2"}')
    open_source("x", kafka(), {}).close()
    login = kafka().login({})
    assert login is not None
    assert login.username == "ann"


def test_rds_says_where_a_database_is(moto: str) -> None:
    made = make_instance("the-db", Port=5544)
    make_secret("db-secret", "hunter/2\n")
    assert dsn(database('secret_name = "db-secret"')) == {
        "host": made["Endpoint"]["Address"],
        "port": "5544",
        "dbname": "archive",
        "user": "master",
        "password": "hunter/2",
        "sslmode": "require",
    }


def test_the_stanza_beats_what_rds_says_part_by_part(moto: str) -> None:
    make_instance("the-db", Port=5544)
    make_secret("db-secret", "hunter2")
    found = dsn(
        database('secret_name = "db-secret"\nhost = "localhost"\nuser = "reader"\nsslmode = "disable"')
    )
    assert (found["host"], found["port"]) == ("localhost", "5544")
    assert (found["user"], found["dbname"], found["sslmode"]) == ("reader", "archive", "disable")
    assert dsn(database('secret_name = "db-secret"\nport = 1\nname = "n"'))["port"] == "1"


def test_the_user_of_a_secret_beats_the_master_user(moto: str) -> None:
    make_instance("the-db")
    make_secret("db-secret", '{"username": "archiver", "password": "hunter2"}')
    assert dsn(database('secret_name = "db-secret"'))["user"] == "archiver"


def test_the_password_that_rds_keeps_itself_is_found(moto: str) -> None:
    made = make_instance("the-db", ManageMasterUserPassword=True)
    arn = made["MasterUserSecret"]["SecretArn"]
    try:
        client("secretsmanager").put_secret_value(
            SecretId=arn, SecretString='{"username":"master","password":"kept"}'
        )
    except client("secretsmanager").exceptions.ResourceNotFoundException:
        make_secret(arn, '{"username":"master","password":"kept"}')
    found = dsn(database())
    assert (found["user"], found["password"]) == ("master", "kept")


def test_a_database_elsewhere_may_keep_its_password_in_a_secret(moto: str) -> None:
    make_secret("db-secret", '{"username": "u@x", "password": "hunter2"}')
    for address in (
        'host = "h"\nname = "d"\nuser = "u@x"',
        'url = "postgresql://h/d"',
        'url = "postgresql://u%40x@h/d"',
    ):
        text = f'[database.x]\ntype = "postgres"\nregion = "{REGION}"\nsecret_name = "db-secret"\n{address}'
        stanza = parse(text).database("x")
        assert isinstance(stanza, PostgresStanza)
        found = dsn(stanza)
        assert (found["user"], found["password"], found["dbname"]) == ("u@x", "hunter2", "d")


def test_an_instance_without_a_password_or_a_name_says_what_the_stanza_lacks(moto: str) -> None:
    make_instance("the-db")
    with pytest.raises(
        MissingSettingError, match=r"RDS keeps none for the-db\. Name the secret with secret_name"
    ):
        database().dsn({})
    with pytest.raises(MissingSettingError, match="password_env: environment variable PW is not set"):
        database('password_env = "PW"').dsn({})
    assert (
        conninfo_to_dict(database('password_env = "PW"').dsn({"PW": "p"}).get_secret_value())["password"]
        == "p"
    )
    client("rds").create_db_instance(
        DBInstanceIdentifier="nameless", DBInstanceClass="db.t4g.micro", Engine="postgres",
        MasterUsername="m", MasterUserPassword="not-what-is-asked-for", AllocatedStorage=20,
    )  # fmt: skip
    stanza = database().model_copy(update={"instance_id": "nameless", "password_env": "PW"})
    with pytest.raises(MissingSettingError, match="nameless names no database"):
        stanza.dsn({"PW": "p"})


def test_a_secret_may_hold_the_urls_of_who_is_told(moto: str) -> None:
    make_secret("alert-secret", "slack://a/b/c\njson://h\n")
    text = (
        f'[alert.x]\ntype = "apprise"\nurls_env = "URLS"\nsecret_name = "alert-secret"\nregion = "{REGION}"\n'
    )
    stanza = parse(text).alert("x")
    assert [url.get_secret_value() for url in stanza.all_urls({})] == ["slack://a/b/c", "json://h"]
    assert [url.get_secret_value() for url in stanza.all_urls({"URLS": "xml://h"})] == ["xml://h"]


def test_a_secret_that_was_changed_is_noticed_after_a_while(moto: str) -> None:
    make_secret("kafka-secret", 'username="u" password="old"')
    assert "old" in str(_password())
    client("secretsmanager").put_secret_value(
        SecretId="kafka-secret", SecretString='username="u" password="new"'
    )
    assert _password() == "old"
    forget()
    assert _password() == "new"


def test_what_is_remembered_of_a_secret_is_forgotten_when_its_login_is_refused(moto: str) -> None:
    make_secret("kafka-secret", 'username="u" password="old"')
    source = open_source("x", kafka(), {})
    assert isinstance(source, KafkaSource)
    client("secretsmanager").put_secret_value(
        SecretId="kafka-secret", SecretString='username="u" password="new"'
    )
    assert _password() == "old"
    refused = KafkaError(KafkaError.SASL_AUTHENTICATION_FAILED, "no")
    with pytest.raises(NewLoginError):
        raise source._connection.failure("trying", refused, ClientErrors())
    assert source._connection.access.secrets == {"sasl.password": SecretStr("new")}
    assert isinstance(source._connection.failure("trying", refused, ClientErrors(login=1)), ForbiddenError)


def _password() -> str:
    login = kafka().login({})
    assert login is not None
    return login.password.get_secret_value()


ASKED_OF: dict[str, Callable[[], object]] = {
    "secretsmanager": lambda: kafka().login({}),
    "rds": lambda: database().dsn({}),
}


NAMES = {
    "secretsmanager": 'hop_archive.toml: [source.x] secret_name: secret "kafka-secret" in region us-west-2: ',
    "rds": 'hop_archive.toml: [database.x] instance_id: RDS instance "the-db" in region us-west-2: ',
}


REFUSALS: list[tuple[str, int, type[HopArchiveError], str]] = [
    (
        "ResourceNotFoundException",
        400,
        MissingSettingError,
        "there is none in the account of the default AWS chain",
    ),
    ("DBInstanceNotFound", 404, MissingSettingError, "there is none in the account of the default AWS chain"),
    ("ExpiredTokenException", 400, ForbiddenError, "have expired"),
    ("ExpiredToken", 403, ForbiddenError, "have expired"),
    ("RequestTimeTooSkewed", 403, ForbiddenError, "this machine's clock"),
    ("UnrecognizedClientException", 400, ForbiddenError, "AWS does not accept the keys"),
    ("InvalidClientTokenId", 403, ForbiddenError, "AWS does not accept the keys"),
    ("AccessDeniedException", 400, ForbiddenError, "as AWS says it"),
    ("AccessDenied", 403, ForbiddenError, "as AWS says it"),
    ("SomethingNew", 403, ForbiddenError, "SomethingNew"),
    ("ThrottlingException", 400, UnavailableError, "AWS cannot now"),
    ("Throttling", 400, UnavailableError, "AWS cannot now"),
    ("InternalServiceError", 500, UnavailableError, "AWS cannot now"),
    ("InvalidRequestException", 400, ConfigurationError, "InvalidRequestException: as AWS says it"),
]


@pytest.mark.parametrize("service", ["secretsmanager", "rds"])
@pytest.mark.parametrize(("code", "status", "wanted", "found"), REFUSALS)
def test_each_refusal_is_one_message_with_name_region_stanza_and_remedy(
    keys: None,
    monkeypatch: pytest.MonkeyPatch,
    service: str,
    code: str,
    status: int,
    wanted: type[HopArchiveError],
    found: str,
) -> None:
    refusal = json_refusal if service == "secretsmanager" else xml_refusal
    with answering(lambda _: refusal(code, status=status)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(HopArchiveError) as caught:
            ASKED_OF[service]()
    assert type(caught.value) is wanted
    message = str(caught.value)
    assert message.startswith(NAMES[service])
    assert found in message
    assert code in message
    assert caught.value.remedy
    assert "\n" not in message
    assert caught.value.exit_code == (3 if wanted is UnavailableError else 2)
    assert "the-secret-access-key" not in message


def test_a_denied_call_says_which_permission_is_wanting(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for service, action in (("secretsmanager", "GetSecretValue"), ("rds", "DescribeDBInstances")):
        refusal = json_refusal if service == "secretsmanager" else xml_refusal
        with answering(lambda _, refuse=refusal: refuse("AccessDeniedException")) as server:  # type: ignore[misc]
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            with pytest.raises(ForbiddenError, match=f"Allow {service}:{action} on it"):
                ASKED_OF[service]()


def test_a_secret_that_is_not_there_and_one_with_no_value_are_told_alike(moto: str) -> None:
    with pytest.raises(MissingSettingError, match="or it has no value yet") as absent:
        kafka().login({})
    client("secretsmanager").create_secret(Name="kafka-secret")
    with pytest.raises(MissingSettingError) as empty:
        kafka().login({})
    assert str(absent.value) == str(empty.value)
    assert absent.value.facts["region"] == REGION


def test_a_secret_of_another_region_is_not_there_and_the_message_has_the_region(moto: str) -> None:
    client("secretsmanager", "eu-north-1").create_secret(Name="kafka-secret", SecretString="x")
    with pytest.raises(
        MissingSettingError, match=r"in region us-west-2: .* its region \(it may be in another one\)"
    ):
        kafka().login({})


def test_a_binary_secret_is_refused(moto: str) -> None:
    client("secretsmanager").create_secret(Name="kafka-secret", SecretBinary=b"\x00hunter2")
    with pytest.raises(ConfigurationError, match="it is binary") as caught:
        kafka().login({})
    assert "hunter2" not in str(caught.value)


def test_what_a_credential_process_writes_to_its_error_output_is_not_shown(
    no_aws: None, tmp_path: Path
) -> None:
    config(
        tmp_path, f"[default]\ncredential_process = {sys.executable} -c \"import sys; sys.exit('hunter2')\"\n"
    )
    with pytest.raises(
        ForbiddenError, match="custom-process of the default AWS chain gave no AWS credentials"
    ) as caught:
        kafka().login({})
    seen: list[BaseException | None] = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert "hunter2" not in repr(seen)


def refusing() -> str:
    return "http://127.0.0.1:1"


def silent() -> str:
    """A server that takes connections and says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    _LISTENERS.append(listener)
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


_LISTENERS: list[socket.socket] = []


@pytest.mark.timeout(90)  # and not for ever
@pytest.mark.parametrize("address", [refusing, silent])
def test_where_nothing_answers_it_says_so_soon(
    keys: None, monkeypatch: pytest.MonkeyPatch, address: Callable[[], str]
) -> None:
    assert (account._CONNECT_S + account._READ_S) * account._ATTEMPTS <= 10
    monkeypatch.setattr(account, "_READ_S", 0.3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address())
    with pytest.raises(UnavailableError, match="AWS does not answer"):
        kafka().login({})
    while _LISTENERS:
        _LISTENERS.pop().close()


@pytest.mark.timeout(90)  # and not for ever
def test_a_laptop_without_credentials_does_not_wait_for_a_metadata_service(
    no_aws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", silent())
    with pytest.raises(ForbiddenError, match="no AWS credentials were found"):
        kafka().login({})
    while _LISTENERS:
        _LISTENERS.pop().close()
