"""Credentials of AWS: what a secret may say, and what of it is used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws
from pydantic import SecretStr

from hop_archive.config.aws.account import KEPT_S, Memory
from hop_archive.config.aws.refusals import Subject
from hop_archive.config.aws.secrets import Secret, database_login, kafka_login
from hop_archive.config.load import load, parse
from hop_archive.config.open import open_source
from hop_archive.config.stanzas import KafkaSourceStanza, PostgresStanza
from hop_archive.errors import (
    ConfigurationError,
    ForbiddenError,
    MissingSettingError,
    UnavailableError,
)
from hop_archive_tests.aws import (
    REGION,
    keys,
    make_secret,
    moto,
    moto_endpoint,
    no_aws,
)

__all__ = ["keys", "moto", "moto_endpoint", "no_aws"]

SUBJECT = Subject("[source.x] secret_name", 'secret "s"', "secretsmanager:GetSecretValue", REGION)


def secret(text: str) -> Secret:
    return Secret(SecretStr(text), SUBJECT)


def kafka(text: str = "") -> KafkaSourceStanza:
    stanza = parse(
        f'[source.x]\ntype = "kafka"\nbootstrap_servers = "h:1"\nsecurity = "sasl-plain"\nregion = "{REGION}"\n'
        f'secret_name = "kafka-secret"\n{text}'
    ).source("x")
    assert isinstance(stanza, KafkaSourceStanza)
    return stanza


def database(text: str = "") -> PostgresStanza:
    stanza = parse(
        f'[database.x]\ntype = "postgres"\nregion = "{REGION}"\ninstance_id = "the-db"\n{text}'
    ).database("x")
    assert isinstance(stanza, PostgresStanza)
    return stanza


# --- what a secret may say

JAAS = 'username="ann" password="a=1" user_ann="other" user_bob="b 2"'


@pytest.mark.parametrize(
    ("text", "username", "login"),
    [
        ('{"username": "ann", "password": "hunter2"}', "", ("ann", "hunter2")),
        ('{"username": "ann", "password": "hunter2"}', "ann", ("ann", "hunter2")),
        ('username="ann" password="hunter2"', "", ("ann", "hunter2")),
        ("username=ann password=hunter2\n", "", ("ann", "hunter2")),
        ('password="p\\"\n username="ann";', "", ("ann", "p\\")),
        (JAAS, "", ("ann", "a=1")),
        (JAAS, "bob", ("bob", "b 2")),
        ('user_bob="hunter2"', "", ("bob", "hunter2")),
        ('user_bob="1" user_ann="2"', "ann", ("ann", "2")),
    ],
)
def test_a_kafka_secret_has_one_of_the_forms_in_use(text: str, username: str, login: tuple[str, str]) -> None:
    found = kafka_login(secret(text), username)
    assert (found.username, found.password.get_secret_value()) == login


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        "ann:hunter2",
        '{"username": "ann", "password": "hunter2"',
        '{"user": "ann", "password": "hunter2"}',
        '{"username": "ann", "password": 2}',
        '["ann", "hunter2"]',
        'username="ann" password="hunter2',
        'username="ann"',
        'password="hunter2"',
        'username="ann" password="hunter2" and more',
        "{}",
    ],
)
def test_a_kafka_secret_of_another_form_is_refused_unshown(text: str) -> None:
    with pytest.raises(ConfigurationError, match="does not hold a username and a password") as caught:
        kafka_login(secret(text))
    assert 'secret "s" in region us-west-2' in str(caught.value)
    assert "hunter2" not in repr((caught.value, caught.value.facts))
    assert caught.value.__context__ is None


def test_of_several_users_one_has_to_be_named() -> None:
    with pytest.raises(ConfigurationError, match=r"several users, ann, bob\. Choose one: username = "):
        kafka_login(secret('user_bob="1" user_ann="2"'))
    with pytest.raises(ConfigurationError, match="no password of eve; it has ann, bob"):
        kafka_login(secret(JAAS), "eve")


@pytest.mark.parametrize(
    ("text", "username", "login"),
    [
        ("hunter2", "", ("", "hunter2")),
        ("hunter2\n", "me", ("me", "hunter2")),
        (" { hunter 2 }", "", ("", " { hunter 2 }")),
        ('{"password": "hunter2"}', "", ("", "hunter2")),
        ('{"username": "ann", "password": "hunter2", "port": 5}', "", ("ann", "hunter2")),
        ('{"username": "ann", "password": "hunter2"}', "ann", ("ann", "hunter2")),
        ("{hunter2", "", ("", "{hunter2")),
    ],
)
def test_a_database_secret_is_a_password_or_json(text: str, username: str, login: tuple[str, str]) -> None:
    found = database_login(secret(text), username)
    assert (found.username, found.password.get_secret_value()) == login


@pytest.mark.parametrize(
    "text", ["\n", "{}", '{"password": ""}', '{"passwort": "hunter2"}', '{"password": 2}']
)
def test_a_database_secret_without_a_password_is_refused_unshown(text: str) -> None:
    with pytest.raises(ConfigurationError, match="does not hold a password") as caught:
        database_login(secret(text))
    assert "hunter2" not in str(caught.value)


def test_the_password_of_another_user_is_not_used() -> None:
    with pytest.raises(ConfigurationError, match="holds the password of ann, and bob is wanted"):
        database_login(secret('{"username": "ann", "password": "hunter2"}'), "bob")


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters='"'), min_size=1))
def test_any_password_without_a_quote_survives_the_older_form(password: str) -> None:
    found = kafka_login(secret(f'username="u" password="{password}"'))
    assert found.password.get_secret_value() == password


# --- where they are kept


@mock_aws
def test_a_source_takes_its_login_from_secrets_manager(keys: None) -> None:
    make_secret("kafka-secret", JAAS)
    login = kafka().login({})
    assert login is not None
    assert (login.username, login.password.get_secret_value()) == ("ann", "a=1")
    assert "a=1" not in repr(login)
    other = kafka('username = "bob"').login({})
    assert other is not None
    assert other.username == "bob"


def test_variables_beat_the_secret_where_they_are_set(no_aws: None) -> None:
    stanza = kafka('username_env = "U"\npassword_env = "P"')
    login = stanza.login({"U": "me", "P": "mine"})
    assert login is not None
    assert (login.username, login.password.get_secret_value()) == ("me", "mine")
    with pytest.raises(MissingSettingError, match="password_env: environment variable P is not set"):
        stanza.login({"U": "me"})
    with pytest.raises(
        ForbiddenError, match=r"no AWS credentials were found.* Or set U and P in the environment\.$"
    ):
        stanza.login({})


def test_what_aws_said_is_remembered_for_a_minute_and_failures_are_not() -> None:
    now, asked = [0.0], []

    def make() -> int:
        asked.append(now[0])
        if len(asked) == 1:
            raise UnavailableError("not yet")
        return len(asked)

    memory: Memory[int] = Memory(lambda: now[0])
    with pytest.raises(UnavailableError):
        memory.get("k", make)
    assert [memory.get("k", make), memory.get("k", make)] == [2, 2]
    now[0] = KEPT_S
    assert memory.get("k", make) == 3
    memory.clear()
    assert memory.get("k", make) == 4


# --- refusals


def test_a_profile_that_is_not_there_is_named(no_aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingSettingError, match="AWS profile observatory is not in the AWS configuration"):
        kafka('profile = "observatory"').login({})
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    with pytest.raises(MissingSettingError, match="AWS profile nowhere"):
        database().dsn({})


def test_half_of_a_pair_of_keys_is_told(no_aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    with pytest.raises(ForbiddenError, match="AWS_SECRET_ACCESS_KEY"):
        kafka().login({})


def test_a_sign_on_that_has_ended_says_how_to_renew_it(no_aws: None, tmp_path: Path) -> None:
    config(
        tmp_path,
        "[profile sso]\nsso_session = s\nsso_account_id = 111122223333\nsso_role_name = r\n"
        "[sso-session s]\nsso_region = us-west-2\nsso_start_url = https://example.org/start\n",
    )
    with pytest.raises(ForbiddenError, match="aws sso login"):
        kafka('profile = "sso"').login({})


def config(home: Path, text: str) -> None:
    (home / ".aws").mkdir(exist_ok=True)
    (home / ".aws" / "config").write_text(text)


@pytest.mark.parametrize("region", ["us-wset-2", "us west 2"])
def test_a_region_that_there_is_not_is_a_mistake_of_the_stanza(keys: None, region: str) -> None:
    with pytest.raises(ConfigurationError, match=f'"{region}" is no region') as caught:
        kafka().model_copy(update={"region": region}).login({})
    assert caught.value.exit_code == 2


def test_an_endpoint_that_is_no_url_is_a_mistake_of_the_settings(
    keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:5000")
    with pytest.raises(ConfigurationError, match="localhost:5000"):
        kafka().login({})


@pytest.mark.timeout(90)  # and not for ever
def test_production_refuses_to_be_written_to_before_any_secret_is_asked_for(no_aws: None) -> None:
    shipped = load(environ={}).source("hop-prod")
    assert not shipped.writable
    assert not [name for name in os.environ if name.startswith("HOP_ARCHIVE_PROD")]
    login = {"HOP_ARCHIVE_PROD_USERNAME": "u", "HOP_ARCHIVE_PROD_PASSWORD": "p"}
    source = open_source("hop-prod", shipped, login)
    with pytest.raises(ForbiddenError):
        source.publish([])
    with pytest.raises(ForbiddenError):
        source.create_topic("t")
