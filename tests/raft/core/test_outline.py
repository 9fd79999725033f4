"""Terms and sizes of entries that nobody holds."""

import random

import pytest

from noti.raft.core.messages import Entry, EntryKind
from noti.raft.core.outline import MARK_BYTES, Outline
from noti.raft.core.records import new_entry


def entry(index: int, term: int = 1, size: int = 0) -> Entry:
    return new_entry(index, term, EntryKind.COMMAND, bytes(size))


def outline_of(*terms: int) -> Outline:
    outline = Outline()
    for index, term in enumerate(terms, start=1):
        outline.append(entry(index, term))
    return outline


@pytest.mark.parametrize("seed", range(30))
def test_outline_answers_about_terms_what_a_list_of_them_would(seed: int) -> None:
    rng = random.Random(seed)
    outline, terms, base = Outline(), [0], 0
    for _ in range(200):
        match rng.randrange(6):
            case 0 if base < outline.last_index:
                index = rng.randint(base + 1, outline.last_index)
                outline.truncate_from(index)
                del terms[index:]
            case 1:
                base = rng.randint(base, min(outline.last_index, base + 3))
                outline.rebase(base)
            case _:
                term = terms[-1] + rng.choice([0, 0, 0, 1, 2])
                outline.append(entry(outline.last_index + 1, term))
                terms.append(term)
        assert outline.base_index == base
        assert (outline.last_index, outline.last_term) == (len(terms) - 1, terms[-1])
        for index in range(-1, len(terms) + 2):
            known = terms[index] if base <= index < len(terms) else None
            assert outline.term_at(index) == known
            for term in range(terms[-1] + 2):
                highest = min(index, outline.last_index)
                while highest > base and terms[highest] > term:
                    highest -= 1
                assert outline.last_index_with_term_at_most(index, term) == highest


def test_copy_changes_for_itself() -> None:
    outline = outline_of(1, 2)
    copied = outline.copy()
    copied.append(entry(3, 9))
    copied.truncate_from(2)
    assert (outline.last_index, outline.last_term) == (2, 2)
    assert (copied.last_index, copied.last_term) == (1, 1)


def test_last_bytes_begin_where_sizes_put_them_within_a_mark() -> None:
    outline = Outline()
    for index in range(1, 101):
        outline.append(entry(index, size=100_000))
    assert outline.base_of_last(100 * 100_000) == 0
    for wanted in (0, 1_000_000, 5_000_000):
        base = outline.base_of_last(wanted)
        after = (100 - base) * 100_000
        assert wanted - MARK_BYTES - 100_000 <= after <= wanted


def test_sizes_are_right_within_a_mark_after_truncation_and_rebasing() -> None:
    outline = Outline()
    for index in range(1, 101):
        outline.append(entry(index, size=100_000))
    outline.rebase(50)
    outline.truncate_from(81)
    assert abs(outline.size_bytes - 80 * 100_000) <= MARK_BYTES + 100_000
    for index in range(81, 101):
        outline.append(entry(index, size=100_000))
    assert 67 <= outline.base_of_last(3_000_000) <= 75
    assert outline.base_of_last(10**9) == 50
