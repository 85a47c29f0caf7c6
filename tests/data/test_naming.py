"""Names of results: below the given folders, and no two the same whatever the pictures are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowmo.data import class_labels, output_stems, relative_names, safe_name
from flowmo.errors import TokenFileError

PARTS = st.sampled_from(["a", "A", "a.png", "a.jpg", "a.png-2", "a.side-by-side.jpg", "contact-sheet.gif", "..a", ".a"])
NAMES = st.lists(st.lists(PARTS, min_size=1, max_size=2).map(lambda parts: Path(*parts)), max_size=12)
SUFFIXES = (".png", ".side-by-side.png")


@given(NAMES)
def test_no_two_results_meet(names: list[Path]) -> None:
    stems = output_stems(names, SUFFIXES, ["contact-sheet.png"])
    results = [f"{stem.as_posix()}{suffix}".casefold() for stem in stems for suffix in SUFFIXES]
    assert len(set(results)) == len(results) == 2 * len(names)
    assert "contact-sheet.png" not in results
    assert all(stem.parent == name.parent for stem, name in zip(stems, names, strict=True))


@given(st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "", "a", "\\", "\x00"])).map("/".join))
def test_untrusted_names_stay_below(text: str) -> None:
    name = safe_name(text)
    assert not name.is_absolute()
    assert name.parts
    assert ".." not in name.parts
    assert "\x00" not in str(name)


def test_names_that_no_file_system_takes() -> None:
    texts = ("\ud800", "\udcff", "ok", "x/\udd00y\udc7f", "b/" * 3000 + "c", "b/" * 3001 + "c")
    names = [safe_name(text) for text in texts]
    assert [str(name) for name in names[:4]] == ["_", "\udcff", "ok", "x/_y_"]  # the second is a byte of a real name
    stems = output_stems(names, SUFFIXES)
    assert len({os.fsencode(stem) for stem in stems}) == len(names)
    assert stems[:4] == names[:4]
    assert all(len(os.fsencode(stem)) < 900 for stem in stems)
    assert [stem.name for stem in stems[4:]] == ["c", "c-2"]
    long = output_stems([Path("ü" * 300, "ä" * 300), Path("a.jpg")], SUFFIXES)
    assert max(len(os.fsencode(part)) for part in long[0].parts) <= 255 - len(SUFFIXES[1])
    assert long[1] == Path("a")


def test_no_result_is_called_like_a_folder_of_another() -> None:
    assert output_stems([Path("a"), Path("A.png/b"), Path("a.png/c/d")], [".png"])[0] == Path("a-2")


def test_names_as_seen_from_the_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("in/x/a.png", "b.png"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    inside, outside = tmp_path / "in" / "x" / "a.png", Path("..", tmp_path.name, "b.png")
    assert relative_names(["in"], [Path("in/x/a.png")]) == [Path("x/a.png")]
    assert relative_names([str(tmp_path / "in")], [inside]) == [Path("x/a.png")]
    assert relative_names(["in/x/a.png", "in"], [Path("in/x/a.png")]) == [Path("a.png")]
    assert relative_names(["in/*/*.png"], [Path("in/x/a.png")]) == [Path("x/a.png")]
    assert relative_names([".", str(outside)], [Path("in/x/a.png"), outside]) == [Path("in/x/a.png"), Path("b.png")]


def test_class_folders_are_labels() -> None:
    labels, classes = class_labels([Path("cat/a"), Path("ant/b"), Path("cat/deep/c")])
    assert (labels, classes) == ([1, 0, 1], ["ant", "cat"])
    with pytest.raises(TokenFileError, match="loose"):
        class_labels([Path("cat/a"), Path("loose.png")])
