"""TLS to the broker on a device: what the doctor says of each failure; and none stops a model."""

import time

import pytest

from edgeloop_agent.cli import main
from edgeloop_agent.config import AgentConfig
from edgeloop_agent.exit_codes import ExitCode
from edgeloop_agent.shell import doctor_links, doctor_tls
from edgeloop_agent.shell.certificate_dates import valid_between
from edgeloop_agent.shell.finding import Verdict
from edgeloop_protocol.clock import SystemClock
from edgeloop_simulators.twins.clock import SimulatedClock

DAY_S = 86_400.0


def config(port, **tls):
    return AgentConfig.model_validate(
        {
            "device_id": "dev1",
            "state_dir": "/tmp/state",
            "controller_url": "http://127.0.0.1:1",
            "broker": {"port": port, "tls": tls},
            "slots": {"main": {"source": {"kind": "socket", "path": "/run/a.sock"}}},
        }
    )


def findings(port, clock=None, **tls):
    found = list(doctor_links.broker(config(port, **tls), clock or SystemClock()))
    for one in found:
        assert bool(one.mend) == (one.verdict is not Verdict.FINE)
    return found


def worst(port, clock=None, **tls):
    found = findings(port, clock, **tls)
    return max(found, key=lambda one: one.verdict)


@pytest.fixture
def issued(make_authority, tls_mosquitto):
    """A broker that wants certificates of its clients, and what to give the doctor for it."""
    authority = make_authority()
    broker = tls_mosquitto(authority.issue("broker"), clients=authority)
    certificate, key = authority.issue("device")
    return (
        authority,
        broker.port,
        {
            "ca_path": authority.certificate,
            "certificate_path": certificate,
            "key_path": key,
        },
    )


def test_all_is_fine(issued):
    _, port, tls = issued
    assert [(one.name, one.verdict) for one in findings(port, **tls)] == [
        ("broker tls", Verdict.FINE),
        ("broker", Verdict.FINE),
    ]


def test_each_failure_is_named_with_its_mend(issued, make_authority, mosquitto):
    authority, port, tls = issued
    other = make_authority("other")
    unknown = worst(port, **{**tls, "ca_path": other.certificate})
    assert (unknown.name, unknown.verdict) == ("broker tls", Verdict.FAILED)
    assert "tls.ca_path" in unknown.mend
    plain = worst(mosquitto.port, **tls)
    assert "plain port" in plain.mend
    missing = worst(port, **{**tls, "key_path": "/nowhere/it.key"})
    assert "/nowhere/it.key does not exist" in missing.words
    certificate, key = authority.issue("old", days=-1)
    expired = worst(port, **{**tls, "certificate_path": certificate, "key_path": key})
    assert f"{certificate} has expired on " in expired.words
    tls["key_path"].chmod(0o644)
    assert worst(port, **tls).mend == f"chmod 600 {tls['key_path']}"


def test_the_name_is_not_that_of_the_certificate(make_authority, tls_mosquitto):
    authority = make_authority()
    broker = tls_mosquitto(authority.issue("broker", names="DNS:elsewhere"))
    found = worst(broker.port, ca_path=authority.certificate)
    assert "for another name" in found.words


def test_a_clock_is_told_from_a_certificate(issued):
    _, port, tls = issued
    late = worst(port, SimulatedClock(wall_s=time.time() + 360 * DAY_S), **tls)
    assert (late.verdict, "expires on" in late.words) == (Verdict.WARNING, True)
    early = worst(port, SimulatedClock(wall_s=0.0), **tls)
    assert "the clock here stands at 1970-01-01" in early.words
    assert "set the clock" in early.mend


def test_beside_an_agent_that_runs_only_hands_are_shaken(issued, monkeypatch):
    """A broker may take the certificate's name for the client id: a connection would end its."""
    _, port, tls = issued
    monkeypatch.setattr(doctor_links, "is_locked", lambda _: True)
    monkeypatch.setattr(doctor_links, "PahoBroker", None)
    (found,) = findings(port, **tls)
    assert found.verdict is Verdict.FINE
    assert "the broker's certificate is valid" in found.words
    assert worst(port, **{**tls, "ca_path": tls["certificate_path"]}).verdict is Verdict.FAILED
    assert "no broker answers" in worst(1, **tls).words


def test_tls_that_is_spoken_to_plainly(issued, tmp_path):
    _, port, _ = issued
    plain = config(port).model_copy(update={"broker": config(port).broker.model_copy()})
    plain = plain.model_copy(
        update={"broker": plain.broker.model_copy(update={"tls": None, "port": port})}
    )
    (found,) = doctor_links.broker(plain, SystemClock())
    assert found.verdict is Verdict.FAILED
    assert "where it speaks TLS on that port, set [broker] tls" in found.mend


def test_dates_of_a_file(make_authority):
    certificate, _ = make_authority().issue("device", days=9000)
    begins, ends = valid_between(certificate.read_text())
    assert abs(begins - time.time()) < 120
    assert ends - begins == pytest.approx(9000 * DAY_S), "beyond 2049 too"
    far, _ = make_authority("far").issue("device", days=60)
    begins, ends = valid_between(far.read_text())
    assert ends - begins == pytest.approx(60 * DAY_S)


@pytest.mark.parametrize("text", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END "])
def test_dates_of_what_is_no_certificate(text):
    with pytest.raises(ValueError, match="no certificate"):
        valid_between(text)


def test_dates_of_a_certificate_that_ends_early(make_authority, tmp_path):
    text = make_authority().certificate.read_text().splitlines()
    cut = "\n".join([*text[:2], text[-1]]) + "\n"
    with pytest.raises(ValueError, match="ends early"):
        valid_between(cut)
    path = tmp_path / "cut.pem"
    path.write_text(cut)
    (found,) = doctor_tls._dates(path, time.time())
    assert found.verdict is Verdict.WARNING


def test_an_expired_certificate_or_a_missing_one_stops_no_model(
    agent, controller, artifact_server, make_package, make_authority, wait_until, capsys
):
    """The agent starts, its model answers, and the log says what to mend."""
    package = make_package("1")
    artifact_server.publish(package)
    agent.start()
    controller.offer(package)
    wait_until(lambda: controller.runs(package))
    assert agent.stop() == 0
    plain = agent.config_path.read_text()
    certificate, key = make_authority().issue("device", days=-1)
    for shown, said in (
        (certificate, "plain port"),
        ("/nowhere/device.pem", "/nowhere/device.pem does not exist"),
    ):
        tls = f'tls = {{ certificate_path = "{shown}", key_path = "{key}" }}\n'
        agent.config_path.write_text(plain.replace("[broker]\n", f"[broker]\n{tls}"))
        agent.log_path.unlink(missing_ok=True)
        answered = agent.answers_path.stat().st_size
        agent.start()
        wait_until(lambda before=answered: agent.answers_path.stat().st_size > before + 1000)
        wait_until(lambda words=said: words in agent.log_path.read_text())
        assert agent.stop() == 0
    code = main(["doctor", "--config", str(agent.config_path)])
    assert code == ExitCode.DOCTOR_FAILED
    assert "failed   broker tls: [broker] tls.certificate_path: /nowhere" in capsys.readouterr().out
