"""A run replaces a former run and nothing else; its sockets lie in it and go with it."""

from pathlib import Path

import pytest

from edgeloop_simulators.errors import RecordError
from edgeloop_simulators.output import output_directory, socket_directory


@pytest.mark.parametrize("foreign", ["thesis.txt", "run/notes.txt", "summary.json", "report.html"])
def test_a_directory_without_the_mark_of_a_run_is_not_touched(tmp_path: Path, foreign: str) -> None:
    """Nothing in it is ours, whatever it is called."""
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with (
        pytest.raises(RecordError, match="not empty and no run of edgeloop-sim: give another"),
        output_directory(tmp_path),
    ):
        pass
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / foreign).read_text() == "mine"


def test_an_earlier_run_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with output_directory(out) as directory:
        (directory / "answers.jsonl").write_text("old")
    (out / "summary.json").write_text("old")
    (out / "notes.txt").write_text("mine")
    with output_directory(out) as directory:
        assert list(directory.iterdir()) == []
    assert not (out / "summary.json").exists()
    assert (out / "notes.txt").read_text() == "mine"


def test_a_run_that_is_under_way_is_not_replaced(tmp_path: Path) -> None:
    with output_directory(tmp_path) as directory:
        (directory / "answers.jsonl").write_text("new")
        with (
            pytest.raises(RecordError, match="another run is under way"),
            output_directory(tmp_path),
        ):
            pass
        assert (directory / "answers.jsonl").read_text() == "new"


def test_a_link_in_the_place_of_a_run_is_not_followed(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    with output_directory(out) as directory:
        directory.rmdir()
    elsewhere.mkdir()
    (elsewhere / "thesis.txt").write_text("mine")
    (out / "run").symlink_to(elsewhere)
    with pytest.raises(RecordError, match="cannot take a run"), output_directory(out):
        pass
    assert (elsewhere / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("out", ["file", "file/out"])
def test_a_file_is_no_directory_for_a_run(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="give another --out"), output_directory(tmp_path / out):
        pass


def test_an_error_of_the_run_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), output_directory(tmp_path) as directory:
        (directory / "nothing").read_text()


def test_sockets_lie_in_the_run_and_go_with_it(tmp_path: Path) -> None:
    with socket_directory(tmp_path, 10) as sockets:
        assert sockets.parent == tmp_path
        (sockets / "0.sock").touch()
    assert list(tmp_path.iterdir()) == []


def test_sockets_of_a_run_with_a_long_path_lie_elsewhere(tmp_path: Path) -> None:
    run = tmp_path / ("x" * 90)
    run.mkdir()
    with socket_directory(run, 10) as sockets:
        assert sockets.is_dir()
        assert run not in sockets.parents
    assert not sockets.exists()
