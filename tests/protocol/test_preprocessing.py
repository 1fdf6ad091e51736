"""Declared preprocessing: names and values in one order, shapes checked."""

import numpy as np
import pytest

from edgeloop_protocol.errors import ManifestError
from edgeloop_protocol.manifest import Preprocessing
from edgeloop_protocol.preprocessing import features

WINDOWS = Preprocessing(
    kind="window_statistics",
    rows=4,
    channels=("ax", "ay"),
    statistics=("mean", "std", "min", "max", "mean_abs_diff", "rms", "median", "range"),
)


def test_each_statistic_of_each_channel_stands_where_its_name_stands() -> None:
    example = np.array([[[0, 10], [2, 10], [4, 10], [6, 10]]], dtype=np.float32)
    values = dict(zip(WINDOWS.feature_names(), features(WINDOWS, example)[0], strict=True))
    assert values["ax_mean"] == 3
    assert values["ax_std"] == pytest.approx(np.sqrt(5))
    assert (values["ax_min"], values["ax_max"], values["ax_range"]) == (0, 6, 6)
    assert (values["ax_mean_abs_diff"], values["ax_median"]) == (2, 3)
    assert values["ax_rms"] == pytest.approx(np.sqrt(14))
    assert (values["ay_mean"], values["ay_std"], values["ay_range"]) == (10, 0, 0)


def test_a_batch_gives_what_each_example_gives_alone() -> None:
    batch = np.random.default_rng(3).normal(size=(5, 4, 2)).astype(np.float32)
    alone = np.concatenate([features(WINDOWS, batch[i : i + 1]) for i in range(5)])
    np.testing.assert_array_equal(features(WINDOWS, batch), alone)


@pytest.mark.parametrize("shape", [(1, 5, 2), (1, 4, 3), (4, 2)])
def test_a_wrong_window_is_named_with_the_mend(shape: tuple[int, ...]) -> None:
    with pytest.raises(ManifestError, match=r"wants \(4, 2\) \(rows, channels\): fix the source"):
        features(WINDOWS, np.zeros(shape, np.float32))


def test_without_preprocessing_the_example_is_the_vector() -> None:
    vectors = np.ones((3, 7))
    assert features(Preprocessing(), vectors).dtype == np.float32
    with pytest.raises(ManifestError, match="one vector each"):
        features(Preprocessing(), np.ones((3, 7, 1), np.float32))
