"""MLflow: what a URI names, which files are published, whose webhook it is, when to look again."""

import base64
import hashlib
import hmac
import itertools
import json
from typing import Any

import pytest

from edgeloop_controller.core import mlflow_webhook as webhook
from edgeloop_controller.core.mlflow_files import ModelFiles, choose_files
from edgeloop_controller.core.mlflow_follow import (
    WAIT_S_MAX,
    Standing,
    after_failure,
    after_success,
    has_moved,
    is_due,
    news,
    wait_s,
)
from edgeloop_controller.core.mlflow_versions import (
    ModelUri,
    RegisteredVersion,
    parse_model_uri,
    published_name,
    registered_version,
)
from edgeloop_controller.errors import PackagingError, RefusedInputError, SignatureError

NOW = 1_795_900_000.0
DELIVERY = "7129586d-297d-41f9-a808-65430167508d"
SECRET = b"a secret of MLflow"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("models:/watch@champion", ModelUri("watch", alias="champion")),
        ("models:/watch/3", ModelUri("watch", version="3")),
        ("models:/a@b@c", ModelUri("a@b", alias="c")),
        ("models:/two words/12", ModelUri("two words", version="12")),
    ],
)
def test_a_uri_names_a_version_or_an_alias(text: str, found: ModelUri) -> None:
    assert parse_model_uri(text) == found
    assert str(found) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("watch@champion", "no model of MLflow's registry"),
        ("models:/", "no model of MLflow's registry"),
        ("models:/m-1085b0e58d42", "neither a version nor an alias"),
        ("models:/watch/Production", "'Production' moves by itself"),
        ("models:/watch/latest", "'latest' moves by itself"),
        ("models:/watch/", "is empty"),
        ("models:/watch/3/x", "names no version"),
        ("models:/watch/٣", "names no version"),
        ("models:/watch@", "cannot be an alias"),
        ("models:/@champion", "names no model"),
        ("models://host/3", "names no"),
        ("models:/a\nb/3", "names no model"),
        ("models:/\ud800/3", "names no model"),
    ],
)
def test_what_moves_by_itself_is_refused(text: str, why: str) -> None:
    with pytest.raises(RefusedInputError, match=why) as refused:
        parse_model_uri(text)
    assert "models:/NAME@ALIAS" in refused.value.hint


def test_a_version_is_named_by_its_tag_or_its_number() -> None:
    found = RegisteredVersion("watch", "3")
    assert published_name(found, None) == ("watch", "3")
    assert published_name(found, "wrist") == ("wrist", "3")
    tagged = RegisteredVersion("watch", "3", tags={"edgeloop.version": "2.1"})
    assert published_name(tagged, None) == ("watch", "2.1")
    with pytest.raises(RefusedInputError, match="model 'two words'") as refused:
        published_name(RegisteredVersion("two words", "3"), None)
    assert "--name" in refused.value.hint
    with pytest.raises(RefusedInputError, match=r"version '\.\./3'"):
        published_name(RegisteredVersion("w", "3", tags={"edgeloop.version": "../3"}), None)


def test_the_registrys_document_is_read() -> None:
    document = {
        "model_version": {
            "name": "watch",
            "version": "3",
            "run_id": "4d6b",
            "status": "READY",
            "tags": [{"key": "edgeloop.version", "value": "2.1"}],
            "aliases": ["champion"],
        }
    }
    found = registered_version(document)
    assert found == RegisteredVersion("watch", "3", "4d6b", "READY", {"edgeloop.version": "2.1"})


@pytest.mark.parametrize(
    "document", [None, [], {}, {"model_version": {"name": "w", "version": 3}}, {"model_version": 1}]
)
def test_another_servers_document_is_not(document: Any) -> None:
    with pytest.raises(ValueError, match="model_version"):
        registered_version(document)


ONNX = {"data": "model.onnx", "onnx_version": "1.23.2", "code": None}
PYFUNC = {"loader_module": "mlflow.pyfunc.model", "python_model": "python_model.pkl"}


@pytest.mark.parametrize(
    ("flavours", "files"),
    [
        ({"onnx": ONNX, "python_function": {"data": "model.onnx"}}, ModelFiles("model.onnx")),
        (
            {
                "onnx": ONNX
                | {
                    "extra_files": [
                        {"path": "extra_files/model.toml"},
                        {"path": "extra_files/baseline.parquet"},
                        {"path": "extra_files/notes.txt"},
                    ]
                }
            },
            ModelFiles("model.onnx", "extra_files/model.toml", "extra_files/baseline.parquet"),
        ),
        (
            {"python_function": PYFUNC | {"artifacts": {"m": {"path": "artifacts/wake.tflite"}}}},
            ModelFiles("artifacts/wake.tflite"),
        ),
    ],
)
def test_files_are_chosen(flavours: Any, files: ModelFiles) -> None:
    assert choose_files({"flavors": flavours}) == files


@pytest.mark.parametrize(
    ("mlmodel", "why"),
    [
        ({"flavors": {"sklearn": {"pickled_model": "model.pkl"}, "python_function": PYFUNC}}, "sk"),
        ({"flavors": {"python_function": PYFUNC}}, "python_function"),
        ({"flavors": {}}, "no flavour"),
        ({"flavors": ["onnx"]}, "no flavour"),
        ("text", "no flavour"),
        (None, "no flavour"),
        (
            {
                "flavors": {
                    "python_function": {
                        "artifacts": {"a": {"path": "a.onnx"}, "b": {"path": "b.onnx"}}
                    }
                }
            },
            "2 models: a.onnx, b.onnx",
        ),
    ],
)
def test_what_has_to_be_unpickled_is_refused(mlmodel: Any, why: str) -> None:
    with pytest.raises(PackagingError, match=why) as refused:
        choose_files(mlmodel)
    assert "log" in refused.value.hint


@pytest.mark.parametrize(
    "path",
    ["../model.onnx", "/etc/passwd", "a/../../b.onnx", "", None, 7, "a\\b", "a\nb", "x" * 501],
)
def test_a_path_stays_in_the_models_directory(path: Any) -> None:
    with pytest.raises(PackagingError, match="no path in its directory"):
        choose_files({"flavors": {"onnx": {"data": path}}})


def signed(body: bytes, secret: bytes = SECRET, at: float = NOW) -> dict[str, str]:
    """As mlflow/webhooks/delivery.py does it, written down apart from what verifies."""
    content = f"{DELIVERY}.{int(at)}.".encode() + body
    signature = base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()
    return {
        "x-mlflow-signature": f"v1,{signature}",
        "x-mlflow-delivery-id": DELIVERY,
        "x-mlflow-timestamp": str(int(at)),
    }


def test_a_webhook_is_mlflows_under_any_of_the_secrets() -> None:
    assert webhook.verify(signed(b"{}"), b"{}", [b"another one", SECRET], NOW) == DELIVERY


@pytest.mark.parametrize(
    ("headers", "body", "why"),
    [
        (signed(b"{}"), b"{ }", "not of a secret"),
        (signed(b"{}", b"guessed"), b"{}", "not of a secret"),
        (signed(b"{}") | {"x-mlflow-delivery-id": DELIVERY[::-1]}, b"{}", "not of a secret"),
        (signed(b"{}") | {"x-mlflow-timestamp": str(int(NOW) + 1)}, b"{}", "not of a secret"),
        (signed(b"{}") | {"x-mlflow-signature": "v1,é"}, b"{}", "not of a secret"),
        (signed(b"{}") | {"x-mlflow-signature": ""}, b"{}", "has no x-mlflow-signature"),
        ({}, b"{}", "has no x-mlflow-signature"),
        (signed(b"{}") | {"x-mlflow-timestamp": "-5"}, b"{}", "x-mlflow-timestamp"),
        (signed(b"{}") | {"x-mlflow-delivery-id": "a.b.c.d.e"}, b"{}", "x-mlflow-delivery-id"),
        (signed(b"{}", at=NOW - webhook.SKEW_S_MAX - 1), b"{}", "signed 301 s ago"),
        (signed(b"{}", at=NOW + webhook.SKEW_S_MAX + 1), b"{}", "signed -301 s ago"),
    ],
)
def test_a_webhook_that_is_forged_or_old_is_refused(headers: Any, body: bytes, why: str) -> None:
    with pytest.raises(SignatureError, match=why):
        webhook.verify(headers, body, [SECRET], NOW)


def test_a_delivery_is_new_once_while_its_signature_holds() -> None:
    deliveries = webhook.Deliveries()
    assert deliveries.is_new("a", NOW)
    # Signed by a clock that is ahead, it can be sent again for twice the skew.
    assert not deliveries.is_new("a", NOW + 2 * webhook.SKEW_S_MAX)
    assert deliveries.is_new("a", NOW + 2 * webhook.SKEW_S_MAX + 1)


def test_deliveries_are_bounded() -> None:
    deliveries = webhook.Deliveries()
    for number in range(webhook.DELIVERIES_REMEMBERED_MAX + 1):
        assert deliveries.is_new(str(number), NOW)
    assert deliveries.is_new("0", NOW)  # the oldest went
    assert not deliveries.is_new(str(webhook.DELIVERIES_REMEMBERED_MAX), NOW)


MOVED = {
    "entity": "model_version_alias",
    "action": "created",
    "data": {"name": "watch", "alias": "champion", "version": "2"},
}


def test_a_webhook_says_which_alias_moved() -> None:
    assert webhook.moved_alias(json.dumps(MOVED).encode()) == webhook.Moved("watch", "champion")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 60_000,
        json.dumps(MOVED | {"entity": "prompt_alias"}).encode(),
        json.dumps(MOVED | {"data": {"name": 1, "alias": "champion"}}).encode(),
        json.dumps(MOVED | {"data": None}).encode(),
    ],
)
def test_other_webhooks_say_nothing(body: bytes) -> None:
    assert webhook.moved_alias(body) is None


def test_waits_double_up_to_an_hour() -> None:
    assert [wait_s(n, 300.0) for n in (1, 2, 3)] == [10.0, 20.0, 40.0]
    assert wait_s(1, 2.0) == 2.0
    assert wait_s(1000, 300.0) == WAIT_S_MAX
    assert wait_s(1000, 86_400.0) == 86_400.0


def test_a_failure_is_news_once_and_so_is_its_end() -> None:
    new = Standing()
    assert is_due(new, NOW)
    fails = after_failure(new, "away", NOW, 300.0)
    still = after_failure(fails, "away", NOW + 10, 300.0)
    other = after_failure(still, "refuses", NOW + 30, 300.0)
    works = after_success("3", NOW + 70, 300.0)
    steps = [new, fails, still, other, works]
    said = [news(before, after) for before, after in itertools.pairwise(steps)]
    assert said == ["failed", None, "failed", "recovered"]
    assert (still.failures, still.failing_since, still.next_look_at) == (2, NOW, NOW + 30)
    assert not is_due(works, NOW + 369)
    assert is_due(works, NOW + 370)


def test_what_the_registry_says_is_compared_with_what_was_acted_on() -> None:
    assert has_moved("3", None)
    assert has_moved("2", "3")
    assert not has_moved("3", "3")
