import os
from pathlib import Path

import pytest

from renyi_lab._utils.whole_file import whole_file, without_links, writable

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links of POSIX")


def test_a_link_stays_a_link_and_the_file_behind_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/file")
    with whole_file(writable(tmp_path / "link", "file")) as partial:
        assert partial.parent == tmp_path / "folder"
        partial.write_text("new")
    assert os.readlink(tmp_path / "link") == "folder/file"
    assert [(path.name, path.read_text()) for path in (tmp_path / "folder").iterdir()] == [("file", "new")]


def written(path: Path) -> None:
    with whole_file(path) as partial:
        partial.write_text("new")


@pytest.mark.parametrize(
    "name", ["loop", "loop/file", "loop/folder/file", "first", "to/first", "a\0b", "a" * 300, "\ud800"]
)
def test_names_that_lead_to_no_file_are_refused_by_every_python(name: str, tmp_path: Path) -> None:
    for link, target in {"loop": "loop", "first": "second", "second": "first", "to": "."}.items():
        (tmp_path / link).symlink_to(target)
    for function in (without_links, lambda path: writable(path, "file"), written):
        with pytest.raises(OSError, match=r"not a file name that this system knows \(.*\): .*choose another one"):
            function(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "loop", "second", "to"]
    assert all(path.is_symlink() for path in tmp_path.iterdir())
