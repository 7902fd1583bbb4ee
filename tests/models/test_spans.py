"""Whatever slices are asked for and however they are joined into requests, each byte goes where it belongs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cross_lora_core.models.spans import spans_of

LENGTH = 100
RANGES = st.lists(
    st.tuples(st.integers(0, LENGTH), st.integers(0, LENGTH)).map(lambda pair: tuple(sorted(pair)))
)
UNITS, GAPS = st.integers(1, 40), st.integers(0, 30)


def gathered(data: bytes, wanted: list[tuple[int, int]], unit: int, gap: int, piece: int) -> bytes:
    result = bytearray(sum(stop - start for start, stop in wanted))
    for span in spans_of(wanted, unit=unit, gap=gap, length=len(data)):
        for position in range(span.start, span.stop, piece):
            content = data[position : min(position + piece, span.stop)]
            for start, stop, target in span.parts_in(position, len(content)):
                result[target : target + stop - start] = content[start - position : stop - position]
    return bytes(result)


@given(RANGES, UNITS, GAPS, st.integers(1, 50))
def test_every_byte_goes_where_it_belongs(wanted, unit, gap, piece):
    data = bytes(range(LENGTH))
    expected = b"".join(data[start:stop] for start, stop in wanted)
    assert gathered(data, wanted, unit, gap, piece) == expected


@given(RANGES, UNITS, GAPS)
def test_spans_begin_and_end_at_whole_units(wanted, unit, gap):
    for span in spans_of(wanted, unit=unit, gap=gap, length=LENGTH):
        assert span.start % unit == 0
        assert span.stop % unit == 0 or span.stop == LENGTH
        assert 0 <= span.start < span.stop <= LENGTH


def test_near_neighbours_share_a_request_and_far_ones_do_not():
    spans = spans_of([(0, 10), (12, 20), (60, 70), (5, 6)], unit=1, gap=5, length=LENGTH)
    assert [(span.start, span.stop) for span in spans] == [(0, 20), (60, 70), (5, 6)]
