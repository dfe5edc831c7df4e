"""Frames, and the locked folders that they stand in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickserve import boxes, segments
from kickserve.boxes import Box
from kickserve.errors import ConfigurationError
from kickserve.journal import Journal
from kickserve.segments import decode, encode


def test_a_folder_on_a_disk_without_locks_is_a_configuration_error(folder, monkeypatch):
    def fail(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(boxes.fcntl, "flock", fail)
    with pytest.raises(ConfigurationError, match="No locks available"):
        Journal(folder, limit=1).open()


def test_a_box_that_goes_while_it_is_looked_into_has_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "is_dir", lambda _: True)  # it was there a moment ago
    assert boxes.files_in(tmp_path / "4711-0123abcd") == []


def test_a_box_that_another_takes_before_it_is_locked_is_given_up_for_a_new_one(folder, monkeypatch):
    folder.mkdir()
    lock, calls = boxes.fcntl.flock, []

    def robbed(descriptor, kind):
        if not calls:  # another process is quicker: locks the empty folder, and removes it
            calls.append(descriptor)
            Box.take(next(folder.iterdir())).release(remove=True)
        lock(descriptor, kind)

    monkeypatch.setattr(boxes.fcntl, "flock", robbed)
    box = Box.make(folder)
    assert box.stands()
    assert list(folder.iterdir()) == [box.path]
    box.release(remove=True)
    box.release(remove=True)
    assert not box.stands()
    assert Box.take(box.path) is None


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.data())
def test_frames_cut_at_any_byte_are_a_prefix_of_whole_payloads(payloads, data):
    frames = encode(payloads)
    cut = data.draw(st.integers(0, len(frames)))
    found, length = decode(frames[:cut])
    assert found == payloads[: len(found)]
    assert length == len(encode(found)) <= cut
    assert cut < len(frames) or found == payloads
    assert len(found) == len(payloads) or cut < len(encode(payloads[: len(found) + 1]))


@pytest.mark.parametrize("offset", [1, 10**6, 2**64 - 1])
def test_an_offset_that_cannot_be_drains_all_once_more(folder, offset):
    folder.mkdir()
    box = Box.make(folder)
    written = box.new_segment()
    written.write(encode([b"kept"]))
    written.close()
    written.advance(offset)
    (segment,) = box.segments()
    assert list(segments.read(segment.path, segment.start, segment.end)) == [b"kept"]
    assert list(segments.read(segment.path, 0, segment.end)) == [b"kept"]
    box.release(remove=False)


def test_a_box_that_cannot_be_read_at_first_can_be_claimed_later(folder, monkeypatch):
    folder.mkdir()
    box = Box.make(folder)
    written = box.new_segment()
    written.write(encode([b"kept"]))
    written.close()
    box.release(remove=False)

    def fail(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(segments.Segment, "left_in", fail)
        with pytest.raises(OSError, match="Input/output error"):
            boxes.claim(box.path)
    (segment,) = boxes.claim(box.path)
    assert segment.left == len(encode([b"kept"]))
    segment.box.release(remove=False)
