"""Alerts over the wire: a webhook and a mail server of this machine take them, through Apprise."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from email import message_from_string, policy
from pathlib import Path

import pytest
from pydantic import SecretStr

from hop_archive.config.apprise import open_services, ping
from hop_archive.config.load import load
from hop_archive.config.open import open_source
from hop_archive.devkit.sampling import fill
from hop_archive.errors import ConfigurationError
from hop_archive.model.notification import Notification
from hop_archive_tests.cli_helpers import M, invoke, mocks, place
from hop_archive_tests.listening import mail_server, webhook

__all__ = ["place"]

TOKEN = "s3cret-t0ken"
RED = Notification(
    "an archive: 1 problem", "RED: lag\n- gcn.notices: 7 messages wait. <é>\nWhat to do: look.", is_red=True
)


class Heard(logging.Handler):
    """What reaches the root logger, and so the log: ``caplog`` listens at loggers as well that pass nothing on to it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()}")
        if record.levelno >= logging.WARNING:
            self.warnings.append(self.lines[-1])


@pytest.fixture
def heard() -> Iterator[Heard]:
    root, handler = logging.getLogger(), Heard()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


def test_a_webhook_takes_an_alert_and_what_refuses_is_told_by_its_status_alone(heard: Heard) -> None:
    with webhook() as hook:
        (service,) = open_services("ops", [SecretStr(hook.url(TOKEN))])
        assert service.name == "ops 1 (json)"
        assert service.send(RED) == ""
        hook.status = 403
        refused = service.send(RED)
    gone = service.send(RED)
    assert (hook.bodies[0]["title"], hook.bodies[0]["message"], hook.bodies[0]["type"]) == (
        RED.title,
        RED.body,
        "failure",
    )
    assert len(hook.bodies) == 1
    assert refused == "it answered with HTTP 403"
    assert gone == "it cannot be reached, or refuses"
    assert TOKEN not in f"{heard.lines}{refused}{gone}{service.name}{service!r}"
    assert heard.warnings == []


def test_a_mail_says_what_is_wrong() -> None:
    with mail_server() as (port, mails):
        url = f"mailto://127.0.0.1:{port}?from=archive@example.org&to=night@example.org"
        (service,) = open_services("ops", [SecretStr(url)])
        assert service.send(RED) == ""
    (mail,) = (message_from_string(text, policy=policy.default) for text in mails)
    assert mail["Subject"] == RED.title
    assert mail["To"] == "night@example.org"
    body = mail.get_body()
    assert body is not None
    assert "gcn.notices: 7 messages wait." in body.get_content()


@pytest.mark.parametrize(
    "url",
    [f"slak://{TOKEN}/b/c", f"no-scheme-{TOKEN}", "slack://", f"pagerduty://{TOKEN}"],
    ids=lambda url: url[:9],
)
def test_a_url_that_apprise_does_not_take_is_named_by_its_number_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        open_services("ops", [SecretStr("json://localhost"), SecretStr(url)], "my.toml: [alert.ops]")
    assert "my.toml: [alert.ops]: URL number 2 (" in str(raised.value)
    assert TOKEN not in str(raised.value)


def test_a_ping_tells_whether_it_was_heard() -> None:
    with webhook() as hook:
        url = SecretStr(f"http://127.0.0.1:{hook.port}/{TOKEN}")
        assert ping(url) == ""
        assert hook.asked == [f"/{TOKEN}"]
        hook.status = 404
        assert ping(url) == "it answered with HTTP 404"
    assert TOKEN not in ping(url)


def stanza(where: Path, lines: str) -> None:
    with (where / "hop_archive.toml").open("a") as file:
        file.write(f"\n[alert.ops]\ntype = 'apprise'\n{lines}\n")


def test_a_test_message_reaches_all_services_of_a_stanza_and_who_does_not_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mocks(place)
    stanza(place, "urls = ['json://127.0.0.1:9/${TOKEN}']\nurls_env = 'MORE'\nui = 'https://ui.example.org'")
    monkeypatch.setenv("TOKEN", TOKEN)
    with webhook() as hook:
        monkeypatch.setenv("MORE", f"\n{hook.url(TOKEN)}\n")
        found = invoke("alert", "test")
    assert found.exit_code == 3
    assert found.stdout.splitlines() == [
        "ops 1 (json): not told: it cannot be reached, or refuses",
        "ops 2 (json): told",
    ]
    assert hook.titles == ["hop_archive: a test"]
    assert "https://ui.example.org" in hook.text
    assert TOKEN not in found.output


def test_a_stanza_that_is_not_there_and_one_without_its_variable_are_named(place: Path) -> None:
    mocks(place)
    assert "There is no alert stanza." in invoke("alert", "test").output
    stanza(place, "urls_env = 'NOT_THERE'")
    assert 'There is no alert stanza named "obs". Nearest: ops.' in invoke("alert", "test", "obs").output
    found = invoke("alert", "test", "ops")
    assert (found.exit_code, "environment variable NOT_THERE is not set" in found.output) == (2, True)


def test_a_run_tells_its_losses_and_its_end_once_and_a_watch_tells_what_it_sees(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mocks(place)
    monkeypatch.setenv("HOP_ARCHIVE_STATE_DIR", str(place / "state"))
    monkeypatch.setenv("URLS", "json://127.0.0.1:9")
    with webhook() as hook:
        stanza(place, f"urls_env = 'URLS'\nmost_messages = 1\nping_url = 'http://127.0.0.1:{hook.port}/well'")
        monkeypatch.setenv("URLS", hook.url(TOKEN))
        chosen = load(place / "hop_archive.toml").source("m")
        fill(open_source("m", chosen), chosen)
        watched = invoke("watch", *M, "--alert", "ops")
        assert watched.exit_code == 1
        assert "lag gcn.notices: " in watched.stdout
        assert invoke("watch", *M, "--alert", "ops").exit_code == 1
        assert len(hook.bodies) == 1
        assert hook.asked == []
        assert invoke("run", *M, "--until-caught-up", "--alert", "ops").exit_code == 0
        assert invoke("watch", *M, "--alert", "ops").exit_code == 0
        assert "/well" in hook.asked
        assert len(hook.bodies) in (1, 2)  # the run may have looked before it archived
        silent = invoke("watch", *M, "--silent-minutes", "0.0000001", "--json")
    assert (silent.exit_code, '"sort": "silence"' in silent.stdout) == (1, True)
    assert TOKEN not in (
        watched.output + silent.output + "".join(p.read_text() for p in (place / "state").iterdir())
    )


def test_a_run_that_ends_with_an_error_says_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mocks(place)
    monkeypatch.setenv("HOP_ARCHIVE_STATE_DIR", str(place / "state"))
    with webhook() as hook:
        stanza(place, f"urls = ['json://127.0.0.1:{hook.port}']")
        for _ in range(2):
            assert invoke("run", *M, "--alert", "ops", "-T", "no.such").exit_code == 2
    assert len(hook.bodies) == 1
    assert "it ended with an error: Source m has no topic named no.such." in hook.text


def test_a_watch_of_a_database_that_cannot_be_asked_ends_with_three(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOP_ARCHIVE_STATE_DIR", str(place / "state"))
    (place / "hop_archive.toml").write_text(
        "[database.d]\ntype = 'postgres'\nurl = 'postgresql://me@127.0.0.1:9/none'\n"
    )
    found = invoke("watch", "-D", "d")
    assert found.exit_code == 3
    assert found.stdout.startswith("database d: it cannot be asked: ")


def test_a_dagster_that_is_not_there_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mocks(place, archived=True)
    monkeypatch.setenv("HOP_ARCHIVE_STATE_DIR", str(place / "state"))
    found = invoke("watch", "-D", "m", "--dagster", "http://127.0.0.1:9")
    assert (found.exit_code, found.stdout.startswith("Dagster: its web page cannot be asked")) == (1, True)


@pytest.mark.parametrize(
    ("url", "most", "modes"),
    [
        ("discord://1234567890/abcdefghij", 2_000, {"split"}),
        ("discord://1234567890/abcdefghij?overflow=truncate", 2_000, {"truncate"}),
        ("clickatell://apikey/15557654321", 160, {"truncate"}),
    ],
    ids=["several", "as the URL says", "cut"],
)
def test_a_message_that_is_too_long_for_a_service_comes_in_several_or_is_cut(
    url: str, most: int, modes: set[str]
) -> None:
    (service,) = open_services("ops", [SecretStr(url)])
    long = "\n".join(f"- topic.{n}: 7 messages wait." for n in range(500))
    assert {target.overflow_mode.value for target in service._apprise} == modes
    for target in service._apprise:
        sent = target._apply_overflow(long, title="an archive")
        assert max(len(part["body"]) for part in sent) <= most


@pytest.mark.parametrize("url", ["https://me:s3cret-t0ken@dagster.example.org", "file:///etc/passwd"])
def test_an_address_of_dagster_with_a_password_is_refused_and_not_shown(place: Path, url: str) -> None:
    mocks(place, archived=True)
    found = invoke("watch", "-D", "m", "--dagster", url)
    assert found.exit_code == 2
    assert TOKEN not in f"{found.stdout}{found.stderr}"


def test_a_watch_that_cannot_keep_what_it_saw_tells_at_once_what_has_to_last_otherwise(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with webhook() as hook:
        (place / "hop_archive.toml").write_text(
            "[database.d]\ntype = 'postgres'\nurl = 'postgresql://me@127.0.0.1:9/none'\n"
            "[alert.ops]\ntype = 'apprise'\nurls_env = 'HOOK'\n"
        )
        (place / "state").write_text("a file, and no folder")
        monkeypatch.setenv("HOOK", hook.url(TOKEN))
        monkeypatch.setenv("HOP_ARCHIVE_STATE_DIR", str(place / "state"))
        found = invoke("watch", "-D", "d", "--alert", "ops")
        assert found.exit_code == 3, found.stderr
    assert "RED: database" in hook.text
