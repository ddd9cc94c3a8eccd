"""The snapshot contract: what is written is read back; what was changed, damaged or made by a stranger is refused by name."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import snapshot
from app.snapshot import Row, SnapshotError

ROWS: list[Row] = [{"text": "a heron"}, {"text": "zwei Gänse\u2028"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    snapshot.write(tmp_path / "snapshot", "text", {"text.jsonl": ROWS}, {"why": "a test"})
    return tmp_path / "snapshot"


def edit_manifest(folder: Path, **values: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


class TestWrite:
    def test_is_read_back_as_it_was_given(self, folder: Path) -> None:
        manifest = snapshot.read_manifest(folder)
        assert list(snapshot.read_rows(folder, "text.jsonl")) == ROWS
        assert (manifest.kind, manifest.files["text.jsonl"].rows, manifest.filters) == ("text", 2, {"why": "a test"})

    def test_identity_is_of_the_rows_alone(self, folder: Path, tmp_path: Path) -> None:
        again = snapshot.write(tmp_path / "again", "text", {"text.jsonl": ROWS}, {"why": "another"})
        other = snapshot.write(tmp_path / "other", "text", {"text.jsonl": ROWS[:1]})
        assert again.sha256 == snapshot.read_manifest(folder).sha256 != other.sha256

    def test_is_never_overwritten(self, folder: Path) -> None:
        with pytest.raises(FileExistsError, match="never overwritten"):
            snapshot.write(folder, "text", {"text.jsonl": []})

    @pytest.mark.parametrize(("kind", "name"), [("images", "text.jsonl"), ("text", "images.jsonl")])
    def test_refuses_unknown_kinds_and_files(self, tmp_path: Path, kind: str, name: str) -> None:
        with pytest.raises(SnapshotError, match="images"):
            snapshot.write(tmp_path / "snapshot", kind, {name: []})

    def test_leaves_nothing_behind_when_rows_fail(self, tmp_path: Path) -> None:
        def rows() -> Iterator[Row]:
            yield {"text": "one"}
            raise RuntimeError("the database is away")

        with pytest.raises(RuntimeError, match="away"):
            snapshot.write(tmp_path / "snapshot", "text", {"text.jsonl": rows()})
        assert list(tmp_path.iterdir()) == []


class TestReadManifest:
    def test_refuses_a_file_that_the_manifest_does_not_name(self, folder: Path) -> None:
        (folder / "rankings.jsonl").write_text("{}\n")
        with pytest.raises(SnapshotError, match=r"rankings.jsonl lies in the snapshot, but the manifest"):
            snapshot.read_manifest(folder)

    def test_refuses_a_folder_without_one(self, tmp_path: Path) -> None:
        with pytest.raises(SnapshotError, match="is not a snapshot"):
            snapshot.read_manifest(tmp_path)

    def test_refuses_another_format_by_name(self, folder: Path) -> None:
        edit_manifest(folder, format=2)
        with pytest.raises(SnapshotError, match="has snapshot format 2; this version reads format 1"):
            snapshot.read_manifest(folder)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "kind": "text", "files": 7, "filters": {}}'])
    def test_refuses_what_it_cannot_understand(self, folder: Path, text: str) -> None:
        (folder / "manifest.json").write_text(text)
        with pytest.raises(SnapshotError, match="cannot be read"):
            snapshot.read_manifest(folder)

    def test_refuses_a_file_that_was_changed_or_is_gone(self, folder: Path) -> None:
        path = folder / "text.jsonl"
        path.write_text(path.read_text().replace("heron", "stork"))
        with pytest.raises(SnapshotError, match="was changed after the snapshot"):
            snapshot.read_manifest(folder)
        path.unlink()
        with pytest.raises(SnapshotError, match="is missing"):
            snapshot.read_manifest(folder)

    def test_refuses_a_file_outside_of_the_contract(self, folder: Path) -> None:
        entry = json.loads((folder / "manifest.json").read_text())["files"]["text.jsonl"]
        edit_manifest(folder, files={"../../etc/passwd": entry})
        with pytest.raises(SnapshotError, match="unknown file"):
            snapshot.read_manifest(folder)


class TestReadRows:
    def test_names_the_line_that_is_no_object(self, folder: Path) -> None:
        (folder / "text.jsonl").write_text('{"text": "one"}\n["two"]\n')
        with pytest.raises(SnapshotError, match=r"text\.jsonl, line 2: expected a JSON object, found list"):
            list(snapshot.read_rows(folder, "text.jsonl"))

    def test_names_the_line_that_is_no_json(self, folder: Path) -> None:
        (folder / "text.jsonl").write_text("{\n")
        with pytest.raises(SnapshotError, match=r"line 1: not JSON"):
            list(snapshot.read_rows(folder, "text.jsonl"))

    def test_a_file_the_snapshot_lacks_has_no_rows(self, folder: Path) -> None:
        assert list(snapshot.read_rows(folder, "rankings.jsonl")) == []


class TestFolderSha256:
    def test_changes_with_names_and_contents_but_not_with_the_sidecar(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("1")
        before = snapshot.folder_sha256(tmp_path)
        (tmp_path / "preferable.json").write_text("{}")
        assert snapshot.folder_sha256(tmp_path) == before
        (tmp_path / "a").rename(tmp_path / "b")
        assert snapshot.folder_sha256(tmp_path) != before
