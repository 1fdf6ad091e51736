"""Files that are no models: a pickle, an archive whose names lead out of it. Line of defence: a
version is a file of ONNX or TFLite, read by its own parser; nothing is unpickled and no archive is
unpacked."""

import io
import pickle
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from controller_bench import DRAFT, Controller, make_controller, tiny_model

from edgeloop_controller.config import ControllerConfig
from edgeloop_controller.errors import RefusedInputError
from edgeloop_controller.packaging import introspect
from edgeloop_controller.store.engine import Database


class Bomb:
    """What is unpickled runs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self._path,))


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    database = Database(f"sqlite:///{tmp_path / 'db.sqlite'}")
    yield make_controller(database, ControllerConfig(data_dir=tmp_path))
    database.close()


def publish(controller: Controller, model: bytes, draft: str = DRAFT) -> None:
    controller.parts.services.publishing.publish_files(model, "tiny", "1", draft, None)


def pickles(mark: Path) -> Iterator[bytes]:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.dumps(Bomb(mark), protocol)
    torch = io.BytesIO()  # as torch.save writes: a zip with a pickle in it
    with zipfile.ZipFile(torch, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb(mark)))
    yield torch.getvalue()


def test_a_pickle_is_no_model(controller: Controller, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    for content in pickles(mark):
        with pytest.raises(RefusedInputError):
            publish(controller, content)
    assert not mark.exists()


def test_without_the_line_it_runs(
    controller: Controller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that tries what a file may be, as loaders of models do."""
    mark = tmp_path / "it-ran"
    monkeypatch.setattr(introspect.onnx, "load_model_from_string", pickle.loads)
    with pytest.raises(Exception, match=r"."):
        publish(controller, pickle.dumps(Bomb(mark)))
    assert mark.exists()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_no_model(controller: Controller, tmp_path: Path, kind: str) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-slipped"
    content, model = io.BytesIO(), tiny_model()
    name = f"../{outside.name}"
    if kind == "zip":
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("model.onnx", model)
            archive.writestr(name, b"x")
    else:
        with tarfile.open(fileobj=content, mode="w") as archive_:
            for path in ("model.onnx", name):
                member = tarfile.TarInfo(path)
                member.size = len(model)
                archive_.addfile(member, io.BytesIO(model))
    with pytest.raises(RefusedInputError):
        publish(controller, content.getvalue())
    assert not outside.exists()


@pytest.mark.parametrize("name", ["../../etc/cron.d/x", "/etc/passwd", "..", "a/b", "a\\b", "a\0b"])
def test_no_name_leads_out(controller: Controller, name: str) -> None:
    with pytest.raises(RefusedInputError):
        controller.parts.services.publishing.publish_files(tiny_model(), name, "1", DRAFT, None)
    with pytest.raises(RefusedInputError):
        controller.parts.services.publishing.publish_files(tiny_model(), "tiny", name, DRAFT, None)
