"""`rollout show --watch`: what is drawn of one moment, and what is told of many."""

from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from edgeloop.errors import ApiError
from edgeloop_controller.cli import rollout_watch
from edgeloop_controller.cli.rollout_watch import drawn, watch_rollout


def member(device: str, wave: int, phase: str, at: float | None = 0.0, **more: Any) -> Any:
    blank = {"settled_at": None, "before_digest": None, "cause": ""}
    return {"device_id": device, "wave": wave, "phase": phase, "offered_at": at, **blank, **more}


def rollout(status: str = "running", verdict: str = "wave 2 of 3 soaks", **more: Any) -> Any:
    devices = [
        member("d0", 1, "committed", settled_at=10.0),
        member("d1", 2, "failed", settled_at=30.0, cause="nan or inf"),
        member("d2", 2, "offered", 20.0),
        member("d[3]", 2, "ineligible", None),
    ]
    return {
        "id": 7,
        "name": "watch",
        "version": "2",
        "selector": "site=[lab]",
        "status": status,
        "verdict": verdict,
        "wave": 2,
        "waves": ["1", "25%", "100%"],
        "devices": devices,
        "members": {"offered": 1, "committed": 1, "failed": 1, "withdrawn": 0},
        "verdicts": [
            {"gate": "failures", "halted": False, "sentence": "1 of 3 rolled back; [at most] 1 may"}
        ],
        **more,
    }


def text_of(document: Any, problem: str = "") -> str:
    written = StringIO()
    Console(file=written, width=100).print(drawn(document, 60.0, problem))
    return written.getvalue()


def test_a_moment_shows_waves_gates_and_devices() -> None:
    shown = text_of(rollout())
    assert "rollout 7 of watch@2 to site=[lab]: running" in shown
    assert "▶ wave 2" in shown
    assert "1 failed, 1 offered" in shown
    assert "holds  1 of 3 rolled back; [at most] 1 may" in shown
    rows = [line for line in shown.splitlines() if line.startswith(("d0", "d1", "d2"))]
    assert [row.split()[0] for row in rows] == ["d2", "d1", "d0"]
    assert "nan or inf" in rows[1]
    assert "30 s" in rows[1]


def test_many_devices_are_counted() -> None:
    devices = [member(f"d{n}", 1, "offered", float(n)) for n in range(30)]
    assert "and 18 more" in text_of(rollout(devices=devices, verdicts=[]))
    assert "no device was offered it yet" in text_of(rollout(devices=[]))


def test_a_controller_that_is_away_is_said() -> None:
    shown = text_of(rollout(), "no controller answers")
    assert "no controller answers; this is the last that was seen" in shown


def test_what_is_no_terminal_gets_a_line_a_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rollout_watch.time, "sleep", lambda _: None)
    away = ApiError(None, "unreachable", "no controller answers", "")
    answers: Iterator[Any] = iter(
        [rollout(), rollout(), away, rollout("done", "all run it"), AssertionError("one too many")]
    )

    def look() -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    watch_rollout(look, 1.0, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == [
        "running: wave 2 of 3 soaks (1 offered, 1 committed, 1 failed)",
        "done: all run it (1 offered, 1 committed, 1 failed)",
    ]


def test_a_refusal_ends_it() -> None:
    def look() -> Any:
        raise ApiError(404, "not_found", "no rollout 9", "")

    with pytest.raises(ApiError, match="no rollout 9"):
        watch_rollout(look, 1.0, as_json=False)
