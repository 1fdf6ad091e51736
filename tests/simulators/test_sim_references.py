"""References and overlap: exact, whatever the order of adding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop_simulators.errors import DatasetError
from edgeloop_simulators.references import Reference, RowRanges, parse_reference

ranges = st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(1, 15)).map(
    lambda r: Reference(r[0], r[1], r[1] + r[2])
)


@given(st.lists(ranges, max_size=30), ranges)
def test_overlaps_says_whether_a_row_is_shared(added: list[Reference], asked: Reference) -> None:
    rows = {(r.recording, row) for r in added for row in range(r.start, r.end)}
    shared = any((asked.recording, row) in rows for row in range(asked.start, asked.end))
    assert RowRanges(map(str, added)).overlaps(str(asked)) == shared


@given(ranges)
def test_a_reference_is_read_as_it_was_written(reference: Reference) -> None:
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize("text", ["", "r1:5-5", "r1:9-3", "1:0-5", "r1:0-5 ", "r-1:0-5"])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(DatasetError, match="is not r<recording>"):
        parse_reference(text)
