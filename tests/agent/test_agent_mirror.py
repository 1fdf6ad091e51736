"""What the answering runner hands to a challenger, and how much of a processor that may take."""

import select
import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop_agent.runner.cpu_budget import BURST_S, CpuBudget
from edgeloop_agent.runner.mirror import MirrorReader, MirrorWriter


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield MirrorWriter(ours), MirrorReader(theirs), theirs


def read_all(reader):
    found = []
    while select.select([reader], [], [], 0)[0]:
        found += reader.read()
        if not reader.is_open:
            break
    return found


def test_examples_come_as_they_were_given(ends):
    writer, reader, _ = ends
    writer.give(np.float32([1, 2, 3]), b"walk", begins=True)
    writer.give(np.float64([4, 5]), "gemütlich".encode())
    first, second = read_all(reader)
    assert (first.number, first.begins, first.label) == (1, True, "walk")
    assert first.values.tolist() == [1, 2, 3]
    assert first.values.dtype == np.float32
    assert (second.number, second.begins, second.label) == (2, False, "gemütlich")
    assert second.values.tolist() == [4, 5]


def test_the_writer_never_waits_and_the_numbers_tell_what_was_skipped(ends):
    writer, reader, _ = ends
    vector = np.arange(1000, dtype=np.float32)
    for _ in range(2000):
        writer.give(vector, b"a")
    early = read_all(reader)
    assert 0 < len(early) < 2000
    writer.give(vector, b"b")  # the rest of a frame, and then this one
    writer.give(vector, b"c")
    late = read_all(reader)
    numbers = [one.number for one in (*early, *late)]
    assert numbers == sorted(set(numbers)), "each once, in order"
    assert numbers[-1] == 2002
    for one in (*early, *late):
        assert np.array_equal(one.values, vector), "no frame is mixed with another"


def test_one_larger_than_the_sockets_buffer_comes_in_parts(ends):
    writer, reader, _ = ends
    large = np.arange(1_000_000, dtype=np.float32)
    found = []
    for _ in range(50):
        writer.give(large, b"x")
        found += read_all(reader)
    assert found
    assert all(np.array_equal(one.values, large) for one in found)


def test_a_reader_that_is_gone_ends_the_mirroring_and_nothing_else(ends):
    writer, _, theirs = ends
    theirs.close()
    writer.give(np.float32([1]), b"a")
    writer.give(np.float32([1]), b"a")
    assert not writer.is_open


def test_a_writer_that_is_gone_is_noticed(ends):
    writer, reader, _ = ends
    writer.give(np.float32([1]), b"a")
    writer.close()
    assert len(read_all(reader)) == 1
    assert not reader.is_open


@pytest.mark.parametrize(
    "sent", [b"\xff" * 64, b"\x07\0\0\0" + b"\0" * 8 + b"\0\x04\0" + b"1234567"]
)
def test_what_is_no_frame_ends_the_reading(ends, sent):
    writer, reader, _ = ends
    writer._socket.send(sent)
    assert read_all(reader) == []
    assert not reader.is_open


@given(
    st.floats(0.01, 1.0),
    st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 2.0)), min_size=1, max_size=60),
)
def test_a_challenger_keeps_to_its_fraction_of_a_processor(fraction, examples):
    """Whatever each example costs, and however long nothing comes in between."""
    budget, cpu_s, now = CpuBudget(fraction, 0.0, 0.0), 0.0, 0.0
    largest = max(cost_s for cost_s, _ in examples)
    for cost_s, idle_s in examples:
        cpu_s, now = cpu_s + cost_s, now + max(cost_s, idle_s)
        now += budget.pause_s(cpu_s, now)
        assert cpu_s <= fraction * (now + BURST_S) + 1e-6
    assert budget.pause_s(cpu_s, now + 2 * (BURST_S + largest / fraction)) == 0
