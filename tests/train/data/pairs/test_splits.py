"""Held-out pairs, lists of pairs, and the fingerprint of the files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ispeed.engines.errors import UserError
from ispeed.train.data.raw_pair import PairFiles
from ispeed.train.data.splits import hold_out, manifest_hash, read_split, write_split


def _files(folder: Path, count: int = 30) -> list[PairFiles]:
    return [
        PairFiles(f"{index}", folder / f"{index}.raw", folder / f"{index}.png", group=f"scene{index // 3}")
        for index in range(count)
    ]


@pytest.mark.parametrize(("share", "held"), [(0.1, 1), (0.3, 3), (0.001, 1), (0.999, 9)])
def test_groups_are_held_out_whole(share: float, held: int, tmp_path: Path):
    files = _files(tmp_path)
    train, val = hold_out(files, share)
    assert len(val) == 3 * held
    assert {file.group for file in train}.isdisjoint(file.group for file in val)
    assert sorted(train + val, key=files.index) == files
    again = hold_out(files[::-1], share)
    assert [sorted(part, key=files.index) for part in again] == [train, val], "whatever the order"
    more = [*files, PairFiles("30", tmp_path / "30.raw", tmp_path / "30.png", val[0].group)]
    assert more[-1] in hold_out(more, share)[1], "a new pair of a scene is on its side"


def test_nothing_to_hold_out(tmp_path: Path):
    with pytest.raises(UserError, match="one scene only"):
        hold_out(_files(tmp_path, 3), 0.1)
    for share in (0, 1, -1, float("nan")):
        with pytest.raises(UserError, match="above 0 and below 1"):
            hold_out(_files(tmp_path), share)


def test_lists(tmp_path: Path):
    files = _files(tmp_path)
    path = tmp_path / "val.txt"
    write_split(path, files[5:2:-1])
    assert read_split(path, files) == files[5:2:-1]
    path.write_text("# held out\n\n  7  \n")
    assert read_split(path, files) == [files[7]]
    for text, words in (
        ("# none\n", "names nothing"),
        ("7\n99\n", "names 99, which is not there: .* like 0"),
        ("7\n7\n", "names 7 twice"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            read_split(path, files)
    path.write_bytes(b"\xff\xfe")
    for wrong in (path, tmp_path / "none.txt"):
        with pytest.raises(UserError, match="cannot be read"):
            read_split(wrong, files)
    with pytest.raises(UserError, match="cannot be written"):
        write_split(tmp_path / "none/val.txt", files)


@pytest.mark.parametrize("contents", [False, True])
def test_manifest(contents: bool, tmp_path: Path):
    files = _files(tmp_path, 4)
    for file in files:
        for path in file.paths:
            path.write_bytes(b"frame " + path.name.encode())
            os.utime(path, ns=(0, 1_000_000_000))
    seen = {manifest_hash(files, contents=contents)}
    assert manifest_hash(files[::-1], contents=contents) in seen, "whatever the order"
    assert all(len(digest) == 64 for digest in seen)

    def new() -> bool:
        before = len(seen)
        seen.add(manifest_hash(files, contents=contents))
        return len(seen) > before

    files[1].raw.write_bytes(b"other " + files[1].raw.name.encode())
    os.utime(files[1].raw, ns=(0, 2_000_000_000))
    assert new()
    os.utime(files[1].raw, ns=(0, 3_000_000_000))
    assert new() is not contents, "only the bytes count, or only the time"
    del files[0]
    assert new()
    files[0] = PairFiles("renamed", files[0].raw, files[0].target, files[0].group)
    assert new()
    files[0].target.unlink()
    with pytest.raises(UserError, match=r"1.png cannot be read"):
        manifest_hash(files, contents=contents)
