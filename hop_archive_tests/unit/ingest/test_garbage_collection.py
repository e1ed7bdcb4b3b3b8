"""The collector is calm while somebody needs it to be, and as it was before afterwards."""

from __future__ import annotations

import gc

import pytest

from hop_archive.ingest.garbage_collection import fewer_collections


def test_the_usual_pace_is_back_when_the_last_block_ends_in_whatever_order_they_end() -> None:
    usual = gc.get_threshold()
    first, second = fewer_collections(), fewer_collections()
    first.__enter__()
    calm = gc.get_threshold()
    assert calm[0] > usual[0]
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold() == calm
    second.__exit__(None, None, None)
    assert gc.get_threshold() == usual


def test_the_usual_pace_is_back_after_an_error() -> None:
    usual = gc.get_threshold()
    with pytest.raises(KeyError), fewer_collections():
        raise KeyError
    assert gc.get_threshold() == usual
