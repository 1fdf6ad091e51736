"""Configuration: files, environment, and errors that name key, place and mend."""

from pathlib import Path

import pytest
from pydantic import Field

from edgeloop_protocol.config import Config, load_config
from edgeloop_protocol.errors import ConfigError


class Broker(Config):
    host: str = "127.0.0.1"
    port: int = 1883


class Settings(Config):
    device_id: str
    broker: Broker = Broker()
    labels: dict[str, str] = Field(default_factory=dict)


def _load(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> Settings:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return load_config(Settings, path, environment or {})


def test_file_and_environment_overlay(tmp_path: Path) -> None:
    settings = _load(
        tmp_path,
        'device_id = "d1"\n[broker]\nport = 1884\n',
        {
            "EDGELOOP_BROKER__HOST": "10.0.0.1",
            "EDGELOOP_BROKER__PORT": "1885",
            "EDGELOOP_LABELS__SITE": "plant-3",
            "EDGELOOP_URL": "the command line's own",
            "OTHER": "x",
        },
    )
    assert settings.broker == Broker(host="10.0.0.1", port=1885)
    assert settings.labels == {"site": "plant-3"}


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("", {}, "agent.toml: device_id: missing; add it"),
        ('device_id = "d"\nbrokr = 1', {}, "agent.toml: brokr: unknown key; known here: broker, "),
        (
            'device_id = "d"\n[broker]\nprot = 1',
            {},
            "broker.prot: unknown key; known here: host, port",
        ),
        (
            'device_id = "d"',
            {"EDGELOOP_BROKER__PORT": "many"},
            r"EDGELOOP_BROKER__PORT: broker.port: .*integer.* \(given 'many'\)",
        ),
        (
            'device_id = "d"',
            {"EDGELOOP_BROKRE__PORT": "1"},
            "EDGELOOP_BROKRE__PORT: brokre: unknown key; known here: broker, ",
        ),
        (
            'device_id = "d"',
            {"EDGELOOP_BROKER__PROT": "1"},
            "EDGELOOP_BROKER__PROT: broker.prot: unknown key; known here: host, port",
        ),
        ("device_id = ", {}, r"agent.toml is not TOML: .*document"),
        ('device_id = "d"\nbroker = 3', {"EDGELOOP_BROKER__PORT": "1"}, "not a table"),
    ],
)
def test_errors_say_where_and_how_to_mend(
    tmp_path: Path, text: str, environment: dict[str, str], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        _load(tmp_path, text, environment)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration file at .*agent.toml.*--config"):
        load_config(Settings, tmp_path / "agent.toml", {})
