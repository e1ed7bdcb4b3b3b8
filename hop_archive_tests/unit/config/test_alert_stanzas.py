"""Alert stanzas: their URLs come from several places, and nothing shows them."""

from __future__ import annotations

import pytest

from hop_archive.config.load import Configuration, parse, select_alerts
from hop_archive.config.stanzas import AlertStanza
from hop_archive.errors import ConfigurationError, MissingSettingError

TOKEN = "s3cret-t0ken"


def alert(lines: str) -> AlertStanza:
    return parse(f"[alert.ops]\ntype = 'apprise'\n{lines}").alert("ops")


def urls(stanza: AlertStanza, **environ: str) -> list[str]:
    return [url.get_secret_value() for url in stanza.all_urls(environ)]


def test_urls_are_those_of_the_stanza_and_those_of_a_variable() -> None:
    stanza = alert("urls = ['slack://${TOKEN}/#a', 'json://localhost']\nurls_env = 'MORE'")
    found = urls(stanza, TOKEN=TOKEN, MORE="\n pover://a@b\n\txml://c ")
    assert found == [f"slack://{TOKEN}/#a", "json://localhost", "pover://a@b", "xml://c"]


def test_a_variable_that_is_missing_is_named() -> None:
    with pytest.raises(MissingSettingError, match="TOKEN is not set"):
        urls(alert("urls = ['slack://${TOKEN}/#a']"))
    with pytest.raises(MissingSettingError, match="urls_env: environment variable MORE is not set"):
        urls(alert("urls_env = 'MORE'"))


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        ("", "wanted urls, urls_env or secret_name: whom to tell"),
        (
            f"urls = ['mailto://me:{TOKEN}@h']",
            "urls[0]: secrets are not kept in TOML; name the variable that holds it, as ${NAME}",
        ),
        (
            f"urls = ['{TOKEN}']",
            "urls[0]: wanted a URL as Apprise has them: scheme://…, found something else (not shown",
        ),
        (
            f"urls = ['json://h']\nping_url = 'ftp://{TOKEN}'",
            "ping_url: wanted https://host/path, found something else (not shown",
        ),
        ("secret_name = 'x'", "secret_name wants a region beside it"),
        ("urls = ['json://h']\nregion = 'r'", "region and profile are of use only beside secret_name"),
        ("urls = ['json://h']\nsettle_minutes = -1", "settle_minutes: wanted at least 0"),
    ],
)
def test_what_is_wrong_is_said_and_shows_no_secret(lines: str, wrong: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        alert(lines)
    assert wrong in str(raised.value)
    assert TOKEN not in str(raised.value)


def test_what_comes_from_the_environment_is_not_shown_either() -> None:
    stanza = alert("urls = ['${URL}']\nping_url = '${PING}'")
    with pytest.raises(ConfigurationError) as raised:
        stanza.resolved({"URL": TOKEN, "PING": TOKEN})
    assert TOKEN not in str(raised.value)
    known = stanza.resolved({"URL": f"slack://{TOKEN}/b", "PING": f"https://hc/{TOKEN}"})
    assert TOKEN not in f"{known!r} {known.describe()} {known.model_dump()}"
    assert known.describe() == "slack"


def test_alert_stanzas_are_chosen_by_option_else_by_the_environment_else_none() -> None:
    known = Configuration(alerts={"a": alert("urls = ['json://h']"), "b": alert("urls = ['json://h']")})
    assert select_alerts(known, (), {}) == ()
    assert select_alerts(known, (), {"HOP_ARCHIVE_ALERT": " b,a, "}) == ("b", "a")
    assert select_alerts(known, ("a",), {"HOP_ARCHIVE_ALERT": "b"}) == ("a",)
    with pytest.raises(MissingSettingError, match='no alert stanza named "c"'):
        select_alerts(known, ("c",), {})
