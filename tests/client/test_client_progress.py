"""A followed rollout as a bar in a terminal, as lines elsewhere; in a notebook: see tests/e2e."""

import sys
from typing import Any

import pytest

from edgeloop import progress
from edgeloop.documents.rollouts import MemberCounts, MemberDocument, RolloutDetail

NOBODY = dict.fromkeys(MemberCounts.model_fields, 0)


def detail(status: str, wave: int, **phases: str) -> RolloutDetail:
    members = [
        MemberDocument(
            device_id=name,
            wave=wave,
            phase=phase,
            offered_at=None,
            settled_at=None,
            before_digest=None,
            cause="",
        )
        for name, phase in phases.items()
    ]
    counts = {phase: list(phases.values()).count(phase) for phase in NOBODY}
    return RolloutDetail(
        id=1,
        name="watch",
        version="2",
        manifest_digest="f",
        slot="main",
        selector="all",
        waves=["1", "100%"],
        status=status,
        wave=wave,
        verdict="so far [so good]",
        started_at=0.0,
        wave_started_at=None,
        ended_at=None,
        training_run_id=None,
        members=MemberCounts(**counts),
        terms={},
        approvals=[],
        devices=members,
    )


def test_what_is_done_counts_waves_and_settled_devices() -> None:
    assert progress.share_done(detail("running", 1)) == 0.0
    assert progress.share_done(detail("running", 1, a="offered")) == 0.0
    assert progress.share_done(detail("running", 2, a="committed", b="offered")) == 0.75
    assert progress.share_done(detail("done", 2, a="committed")) == 1.0


def test_a_terminal_gets_a_bar(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with progress.progress(show=True) as shown:
        shown.update(detail("running", 1, a="offered"), "")
        shown.update(detail("done", 2, a="committed"), "")
    said = capsys.readouterr().out
    assert "100%" in said
    assert "so far [so good]" in " ".join(said.split()), "a controller's words are no markup"


def test_nothing_is_shown_when_nothing_is_asked_for(capsys: Any) -> None:
    with progress.progress(show=False) as shown:
        shown.update(detail("done", 2), "")
    assert capsys.readouterr().out == ""
