"""`[kafka]`: what is wrong is named before anything is read, and no secret is ever printed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.decisions.desk import desk_bundle
from tests.decisions.streamed import make_service

import obligor
from obligor.cli.projects import write_template
from obligor.decisions.inlet import Letter
from obligor.errors import BadInput, Problem
from obligor.events.messages import Message
from obligor.stores.kafka.beside import KafkaBeside, dead_letter
from obligor.stores.kafka.client import made
from obligor.stores.kafka.sender import Sender
from obligor.stores.kafka.settings import KafkaSettings, plain

RIGHT: dict[str, Any] = {"brokers": "b:1", "topics": [{"name": "in"}], "dead_letters": "dead"}


def read(**changes: Any) -> KafkaSettings:
    return msgspec.convert({**RIGHT, **changes}, KafkaSettings)


def test_right_settings_are_right() -> None:
    read().check()
    read(topics=[], dead_letters=None, outbox={"topic": "out"}).check()


@pytest.mark.parametrize(
    ("changes", "path", "said"),
    [
        ({"options": {"enable.auto.commit": True}}, "$.kafka.options.enable.auto.commit", "the log holds the offsets"),
        ({"options": {"group.id": "x"}}, "$.kafka.options.group.id", "kafka.group"),
        ({"options": {"acks": "1"}}, "$.kafka.options.acks", "always all"),
        ({"topics": [{"name": "in"}, {"name": "in"}]}, "$.kafka.topics[1].name", "twice"),
        ({"dead_letters": None}, "$.kafka.dead_letters", "missing"),
        ({"dead_letters": "in"}, "$.kafka.dead_letters", "feed itself"),
        ({"outbox": {"topic": "in"}}, "$.kafka.outbox.topic", "feed itself"),
        ({"topics": [{"name": "in", "format": "avro"}]}, "$.kafka.registry", "missing"),
        ({"topics": [{"name": "in", "type": "repayment", "mapping": "m.toml"}]}, "$.kafka.topics[0].type", "one of"),
        ({"topics": []}, "$.kafka", "got none"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], path: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        read(**changes).check()
    assert [problem.path for problem in caught.value.problems] == [path]
    assert said in caught.value.problems[0].message


def test_a_secret_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(options={"sasl.password": {"env": "A_PASSWORD"}, "session.timeout.ms": 6_000})
    with pytest.raises(BadInput, match="A_PASSWORD, which is not set"):
        settings.client()
    monkeypatch.setenv("A_PASSWORD", "hunter2")
    assert settings.client(acks="all") == {
        "sasl.password": "hunter2", "session.timeout.ms": 6_000, "bootstrap.servers": "b:1", "acks": "all"
    }  # fmt: skip
    assert plain(True, "$") is True


SECRET = "hunter2-and-more"


@pytest.mark.parametrize(
    "options",
    [
        {"sasl.password": SECRET, "sasl.mechanisms": SECRET, "security.protocol": "SASL_SSL"},
        {"sasl.password": SECRET, "security.protocol": SECRET},
        {"ssl.key.pem": SECRET, "security.protocol": "SSL"},
        {"sasl.pasword": SECRET},
    ],
)
def test_no_secret_is_printed(options: dict[str, Any], caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    caplog.set_level(logging.DEBUG)
    settings = read(options=options, registry="http://r", registry_user="u", registry_password=SECRET)
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    with pytest.raises(BadInput) as caught:
        Sender(settings)
    assert SECRET not in f"{caught.value!r} {caught.value} {caplog.text} {capfd.readouterr()}"
    assert caught.value.problems[0].path == "$.kafka.options"


def test_without_taking_values_out_an_error_would_hold_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: librdkafka itself repeats what it was given."""
    monkeypatch.setattr(KafkaSettings, "secrets", lambda settings: [])
    with pytest.raises(BadInput, match=SECRET):
        Sender(read(options={"security.protocol": SECRET}))
    assert made(read(), lambda: 5) == 5


def test_a_dead_letter_is_the_message_with_why_and_where() -> None:
    message = Message("in", 3, 7, b"k", b"\xff", [("from", b"till"), ("none", None)])
    assert dead_letter("dead", Letter(message, [Problem("$.amount", "expected more")])) == (
        "dead",
        b"k",
        b"\xff",
        [
            ("from", b"till"),
            ("none", None),
            ("obligor-reasons", b'[{"path":"$.amount","message":"expected more"}]'),
            ("obligor-topic", b"in"),
            ("obligor-partition", b"3"),
            ("obligor-offset", b"7"),
        ],
    )


def test_a_project_s_settings_make_what_works_beside_its_service(tmp_path: Path) -> None:
    write_template(tmp_path / "lender")
    project = obligor.open(tmp_path / "lender")
    service = make_service(tmp_path, desk_bundle(tmp_path / "bundles"))
    assert project.beside(service) == []
    table = (
        '[kafka]\nbrokers = "127.0.0.1:1"\ndead_letters = "dead"\n[[kafka.topics]]\nname = "in"\ntype = "repayment"\n'
    )
    file = tmp_path / "lender" / "obligor.toml"
    file.write_text(file.read_text() + table + '[kafka.outbox]\ntopic = "out"\n')
    (beside,) = obligor.open(tmp_path / "lender").beside(service)
    assert isinstance(beside, KafkaBeside)
    service.log.close()
    service._state.close()
