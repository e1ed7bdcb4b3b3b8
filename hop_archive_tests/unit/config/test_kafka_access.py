"""What a Kafka stanza means to librdkafka, and hop-client's file of credentials in all its forms."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from hop_archive.config import hop_auth
from hop_archive.config.hop_auth import Credential
from hop_archive.config.kafka import access
from hop_archive.config.load import load, parse
from hop_archive.config.stanzas import KafkaSourceStanza
from hop_archive.errors import ConfigurationError, ForbiddenError, HopArchiveError, MissingSettingError
from hop_archive.model.credentials import Login

FILE = "secret-of-nobody"  # no message may show it
ME = f'username = "me"\npassword = "{FILE}"\n'


def stanza(text: str, servers: str = "h:9092") -> KafkaSourceStanza:
    source = parse(f'[source.x]\ntype = "kafka"\nbootstrap_servers = "{servers}"\n{text}').source("x")
    assert isinstance(source, KafkaSourceStanza)
    return source


@pytest.fixture
def auth(tmp_path: Path) -> Path:
    return tmp_path / "auth.toml"


def written(file: Path, text: str, mode: int = 0o600) -> Path:
    file.write_text(text)
    file.chmod(mode)
    return file


def chosen(file: Path, server: str = "kafka.example.org:9092", username: str = "") -> Credential:
    return hop_auth.credential(file, server, username, where="[source.x] hop_auth")


def refusal(file: Path, server: str = "kafka.example.org:9092", username: str = "") -> HopArchiveError:
    with pytest.raises(HopArchiveError) as caught:
        chosen(file, server, username)
    held = (caught.value, caught.value.__cause__, caught.value.__context__)
    assert FILE not in " ".join(
        f"{error} {error!r} {getattr(error, 'facts', '')} {vars(error) if error else ''}" for error in held
    )
    return caught.value


# --- hop-client's file


@pytest.mark.parametrize("table", ["[auth]", "[[auth]]"])
def test_a_single_table_and_a_list_are_read(auth: Path, table: str) -> None:
    written(auth, f"{table}\n{ME}")
    login = Login("me", SecretStr(FILE))
    assert chosen(auth) == Credential(login, "", "SCRAM-SHA-512", True, "", "", "")
    assert FILE not in repr(chosen(auth))


def test_what_an_entry_says_is_taken(auth: Path) -> None:
    written(
        auth,
        f'[[auth]]\n{ME}hostname = "kafka.example.org"\nprotocol = "SASL_SSL"\nssl_ca_location = "/ca.pem"\n',
    )
    found = chosen(auth)
    assert (found.hostname, found.tls, found.ssl_ca) == ("kafka.example.org", True, "/ca.pem")


@pytest.mark.parametrize(
    ("said", "mechanism"),
    [
        ("", "SCRAM-SHA-512"),
        ('mechanism = "PLAIN"', "PLAIN"),
        ('mechanism = "SCRAM-SHA-256"', "SCRAM-SHA-256"),
        ('mechanism = "SCRAM_SHA_512"', "SCRAM-SHA-512"),
        ('mechanism = "OAUTHBEARER"\ntoken_endpoint = "https://h/t"', "OAUTHBEARER"),
        ('token_endpoint = "https://h/t"', "OAUTHBEARER"),
        ('token_command = "get-token"', "OAUTHBEARER"),
        ('mechanism = "SCRAM_SHA_256"\ntoken_endpoint = "https://h/t"', "SCRAM-SHA-256"),
        ('mechanism = "PLAIN"\ntoken_endpoint = ""', "PLAIN"),
    ],
)
def test_mechanisms_have_the_names_that_hop_client_takes(auth: Path, said: str, mechanism: str) -> None:
    assert chosen(written(auth, f"[[auth]]\n{ME}{said}\n")).mechanism == mechanism


@pytest.mark.parametrize(
    ("hostname", "server", "fits"),
    [
        ("kafka.example.org", "kafka.example.org:9092", True),
        ("kafka.example.org:9092", "kafka.example.org:9092", True),
        ("kafka.example.org:9093", "kafka.example.org:9093", True),
        ("kafka.example.org", "kafka.example.org:9093", False),
        ("kafka.example.org:9093", "kafka.example.org:9092", False),
        ("example.org", "kafka.example.org:9092", False),
        ("", "kafka.example.org:9093", True),
        ("[::1]", "[::1]:9092", True),
        ("[::1]:9093", "[::1]:9093", True),
        ("a:b:c", "kafka.example.org:9092", False),
    ],
)
def test_an_entry_is_for_its_host_and_port(auth: Path, hostname: str, server: str, fits: bool) -> None:
    written(auth, f"[[auth]]\n{ME}hostname = {json.dumps(hostname)}\n")
    if fits:
        assert chosen(auth, server).hostname == hostname
    else:
        error = refusal(auth, server)
        assert isinstance(error, MissingSettingError)
        assert f"has no credential of {server}; it has me for {hostname}." in str(error)


def test_an_entry_for_the_host_beats_one_for_any(auth: Path) -> None:
    anywhere = '[[auth]]\nusername = "anyone"\npassword = "1"\n'
    written(auth, f'{anywhere}[[auth]]\n{ME}hostname = "kafka.example.org"\n')
    assert chosen(auth).login.username == "me"
    assert chosen(auth, "other.example.org:9092").login.username == "anyone"
    assert chosen(auth, username="anyone").login.username == "anyone"


def test_of_several_that_fit_one_is_chosen_by_name(auth: Path) -> None:
    written(auth, f'[[auth]]\n{ME}[[auth]]\nusername = "you"\npassword = "1"\n')
    assert "several credentials of kafka.example.org:9092: me for any host; you for any host" in str(
        refusal(auth)
    )
    assert chosen(auth, username="you").login.username == "you"
    assert "no credential of eve at kafka.example.org:9092" in str(refusal(auth, username="eve"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o4600])
def test_a_file_that_others_may_read_is_refused(auth: Path, mode: int) -> None:
    error = refusal(written(auth, f"[[auth]]\n{ME}", mode))
    assert isinstance(error, ForbiddenError)
    assert f"mode {mode:o}" in str(error)
    assert f"chmod 600 {auth}" in error.remedy


def test_a_file_that_is_not_there_or_cannot_be_read_is_told(
    auth: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refusal(auth)
    assert isinstance(error, MissingSettingError)
    assert str(error).startswith(f"[source.x] hop_auth: there is no file {auth}.")
    assert "hop auth add" in error.remedy
    auth.mkdir()
    assert f"{auth} is a directory. Name the file in it: {auth / 'auth.toml'}." in str(refusal(auth))


def test_what_older_versions_kept_in_config_toml_is_found_beside_it(auth: Path) -> None:
    older = written(auth.with_name("config.toml"), f"[auth]\n{ME}")
    assert chosen(auth).login.username == "me"
    older.chmod(0o644)
    assert isinstance(refusal(auth), ForbiddenError)
    written(older, "[config]\nfetch_external = true\n", 0o644)
    assert f"there is no file {auth}" in str(refusal(auth))
    written(auth, '[auth]\nusername = "new"\npassword = "1"\n')
    written(older, f"[auth]\n{ME}")
    assert chosen(auth).login.username == "new"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'[[auth]]\npassword = "{FILE}\n', "it is not TOML"),
        (f'{FILE} = "x\n', "it is not TOML"),
        ("[other]\n", "it has no table [[auth]]"),
        (f'auth = "{FILE}"', "wanted tables [[auth]]"),
        (f'auth = ["{FILE}"]', "wanted tables [[auth]]"),
        (f'[[auth]]\npassword = "{FILE}"\n', "credential 1 has no username"),
        ('[[auth]]\nusername = "b"\n', "b for any host: there is no password"),
        ('[[auth]]\nusername = "b"\ntoken_endpoint = "https://t"\n', "b for any host: there is no password"),
        (
            f'[[auth]]\n{ME}[[auth]]\nusername = 1\npassword = "{FILE}"',
            "credential 2: wanted text in username",
        ),
        (
            f'[[auth]]\n{ME}mechanism = "GSSAPI"\n',
            'me for any host: wanted a mechanism "PLAIN" or "SCRAM-SHA-256"',
        ),
        (
            f'[[auth]]\n{ME}mechanism = "OAUTHBEARER"\n',
            "me for any host: OAUTHBEARER wants a token_endpoint or",
        ),
        ("", "it has no table [[auth]]"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_without_its_text(auth: Path, text: str, said: str) -> None:
    error = refusal(written(auth, text))
    assert type(error) is ConfigurationError
    assert f"{auth}: {said}" in str(error)


def test_a_file_with_no_entry_left_says_so(auth: Path) -> None:
    assert "it has none." in str(refusal(written(auth, "auth = []\n")))


def test_an_entry_of_no_use_stops_itself_alone(auth: Path) -> None:
    odd = '[[auth]]\nusername = "odd"\npassword = ""\nmechanism = "GSSAPI"\n'
    written(auth, f'{odd}[[auth]]\n{ME}hostname = "kafka.example.org"\n')
    assert chosen(auth).login.username == "me"


# --- what it means to librdkafka


def test_hop_client_s_entry_becomes_settings(auth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = written(auth.with_name("ca.pem"), "CA")
    text = f'[[auth]]\n{ME}hostname = "h"\nssl_ca_location = "{ca}"\n'
    written(
        auth,
        f'{text}[[auth]]\n{ME}hostname = "o"\ntoken_endpoint = "https://t/t"\nssl_ca_location = "{ca}"\n',
    )
    monkeypatch.setenv("HOME", str(auth.parent))
    found = access(stanza('hop_auth = "~/auth.toml"'), {})
    assert found.settings == {
        "security.protocol": "sasl_ssl",
        "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.username": "me",
        "ssl.ca.location": str(ca),
        "https.ca.location": str(ca),
    }
    assert found.secrets == {"sasl.password": SecretStr(FILE)}
    assert FILE not in repr(found)
    other = access(stanza('hop_auth = "~/auth.toml"\ntoken_scope = "s"', "o:9092"), {})
    assert other.settings == {
        "security.protocol": "sasl_ssl",
        "sasl.mechanisms": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": "me",
        "sasl.oauthbearer.scope": "s",
        "sasl.oauthbearer.token.endpoint.url": "https://t/t",
        "ssl.ca.location": str(ca),
        "https.ca.location": str(ca),
    }
    assert other.secrets == {"sasl.oauthbearer.client.secret": SecretStr(FILE)}


def test_an_authority_that_is_not_there_is_told_with_the_file_and_key_that_name_it(auth: Path) -> None:
    written(auth, f'[[auth]]\n{ME}ssl_ca_location = "/nowhere/ca.pem"\n')
    text = f'hop_auth = "{auth}"'
    with pytest.raises(MissingSettingError) as refused:
        access(stanza(text), {})
    assert str(refused.value).startswith(
        f"hop_archive.toml: [source.x] hop_auth: {auth}: ssl_ca_location of me for any host: there is no file /nowhere/ca.pem."
    )
    with pytest.raises(MissingSettingError, match=r": \[source.x\] ssl_ca: there is no file /other.pem"):
        access(stanza(f'{text}\nssl_ca = "/other.pem"'), {})


@pytest.mark.parametrize(
    "said",
    ['protocol = "SASL_PLAINTEXT"', 'token_endpoint = "http://tokens.example.org/"'],
    ids=["login", "secret"],
)
def test_hop_client_s_entry_without_tls_wants_to_be_said_twice(auth: Path, said: str) -> None:
    written(auth, f"[[auth]]\n{ME}{said}\n")
    text = f'hop_auth = "{auth}"'
    with pytest.raises(ForbiddenError, match=r"would travel unencrypted to .* cleartext_allowed = true"):
        access(stanza(text), {})
    assert access(stanza(f"{text}\ncleartext_allowed = true"), {})
    if "PLAINTEXT" in said:
        assert (
            access(stanza(text, "127.0.0.1:1,localhost:2,[::1]:3"), {}).settings["security.protocol"]
            == "sasl_plaintext"
        )
        with pytest.raises(ForbiddenError):
            access(stanza(text, "127.0.0.1:1,127.0.0.1.example.org:2"), {})


def test_a_login_without_tls_is_checked_again_when_the_servers_are_known() -> None:
    text = 'security = "sasl-plain"\ntls = false\nusername_env = "U"\npassword_env = "P"'
    login = {"U": "me", "P": "x"}
    source = stanza(text, "${WHERE}")
    assert access(source, {"WHERE": "localhost:1", **login}).settings["security.protocol"] == "sasl_plaintext"
    with pytest.raises(ConfigurationError, match="would travel unencrypted"):
        access(source, {"WHERE": "h:1", **login})
    allowed = stanza(f"{text}\ncleartext_allowed = true", "${WHERE}")
    assert access(allowed, {"WHERE": "h:1", **login}).settings["sasl.username"] == "me"


def test_certificates_are_files_and_another_content_is_another_access(tmp_path: Path) -> None:
    for name in ("ca.pem", "c.pem", "c.key"):
        (tmp_path / name).write_text(name)
    keys = {"ssl_ca": "ca.pem", "ssl_certificate": "c.pem", "ssl_key": "c.key"}
    text = "".join(f"{key} = {json.dumps(str(tmp_path / name))}\n" for key, name in keys.items())
    source = stanza(f'{text}ssl_key_password_env = "K"')
    assert source.secret_variables() == ("K",)
    found = access(source, {"K": FILE})
    assert found.settings == {
        "security.protocol": "ssl",
        "ssl.ca.location": str(tmp_path / "ca.pem"),
        "ssl.certificate.location": str(tmp_path / "c.pem"),
        "ssl.key.location": str(tmp_path / "c.key"),
    }
    assert found.secrets == {"ssl.key.password": SecretStr(FILE)}
    assert access(source, {"K": FILE}) == found
    (tmp_path / "c.pem").write_text("renewed")
    assert access(source, {"K": FILE}) != found
    (tmp_path / "c.key").unlink()
    with pytest.raises(MissingSettingError, match=r"\[source.x\] ssl_key: there is no file .*c\.key"):
        access(source, {"K": FILE})


def test_a_client_s_id_and_secret_are_a_login() -> None:
    source = stanza(
        'security = "sasl-oauthbearer"\ntoken_endpoint = "https://t/t"\nusername_env = "U"\npassword_env = "P"'
    )
    found = access(source, {"U": "client", "P": FILE})
    assert found.settings["sasl.oauthbearer.client.id"] == "client"
    assert found.secrets == {"sasl.oauthbearer.client.secret": SecretStr(FILE)}


def token_authorities(endpoint: str, text: str = "") -> str | None:
    text += f'\nsecurity = "sasl-oauthbearer"\ntoken_endpoint = "{endpoint}"\nusername_env = "U"\npassword_env = "P"'
    found = access(stanza(text), {"U": "client", "P": FILE})
    return found.settings.get("https.ca.location")


def test_a_token_endpoint_over_https_is_believed_by_the_authorities_of_this_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, directory, other = tmp_path / "ca.pem", tmp_path / "certs", tmp_path / "other.pem"
    directory.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setenv("SSL_CERT_DIR", str(directory))
    assert token_authorities("https://t/t") is None  # there is no file, and nothing in the directory
    (directory / "ca-bundle.crt").write_text("CA")
    assert token_authorities("https://t/t") is None  # OpenSSL finds in a directory what is named by its hash
    (directory / "0a1b2c3d.0").write_text("CA")
    assert token_authorities("https://t/t") == str(directory)
    file.write_text("CA")
    assert token_authorities("https://t/t") == str(file)
    assert token_authorities("http://127.0.0.1/t") is None
    other.write_text("CA")
    assert token_authorities("https://t/t", f'token_ca = "{other}"') == str(other)


def test_the_shipped_stanza_takes_the_file_where_hop_client_has_it(auth: Path) -> None:
    (auth.parent / "hop").mkdir()
    written(auth.parent / "hop" / "auth.toml", f'[[auth]]\n{ME}hostname = "kafka.scimma.org"\n')
    source = load(environ={}).source("hop-user")
    assert isinstance(source, KafkaSourceStanza)
    assert not source.writable
    found = access(source, {"XDG_CONFIG_HOME": str(auth.parent)})
    assert found.settings["sasl.username"] == "me"


# --- MSK


def test_a_token_for_msk_is_signed_with_the_credentials_that_there_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    source = stanza('security = "sasl-msk-iam"\nregion = "us-west-2"')
    found = access(source, {})
    assert found.settings == {"security.protocol": "sasl_ssl", "sasl.mechanisms": "OAUTHBEARER"}
    assert found.token is not None
    with pytest.raises(
        ForbiddenError, match="a token for MSK in region us-west-2: no AWS credentials were found"
    ):
        found.token()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", FILE)
    token = found.token()
    text = token.text.get_secret_value()
    url = urlsplit(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode())
    said = parse_qs(url.query)
    assert (url.hostname, said["Action"]) == ("kafka.us-west-2.amazonaws.com", ["kafka-cluster:Connect"])
    assert said["X-Amz-Credential"][0].startswith("AKIDEXAMPLE/")
    assert said["X-Amz-Expires"] == ["900"]
    assert text not in repr(token)
