import json

import pytest

from benchmarks import peers, report


class TestDataFile:
    def test_ends_the_program_without_an_error_where_no_folder_is_named(self, monkeypatch, capsys):
        monkeypatch.delenv(report.DATA, raising=False)
        with pytest.raises(SystemExit) as ended:
            report.data_file(None, "set", "rows.json")
        assert ended.value.code == 0
        assert "set/rows.json" in capsys.readouterr().out

    def test_is_looked_for_in_the_folder_that_the_environment_names(self, monkeypatch, tmp_path):
        (tmp_path / "rows.json").touch()
        monkeypatch.setenv(report.DATA, str(tmp_path))
        assert report.data_file(None, "rows.json") == tmp_path / "rows.json"

    def test_ends_the_program_where_the_file_is_not_there(self, tmp_path, capsys):
        with pytest.raises(SystemExit):
            report.data_file(tmp_path, "rows.json")
        assert "is not there" in capsys.readouterr().out


class TestPublish:
    def test_ends_in_one_line_of_json_and_keeps_it(self, tmp_path, capsys):
        report.publish({"ratio": 2.0}, str(tmp_path / "out.json"))
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"ratio": 2.0}
        assert json.loads((tmp_path / "out.json").read_text()) == {"ratio": 2.0}


class TestPeers:
    def test_lie_in_the_folder_that_the_environment_names(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PREFERABLE_BENCH_HOME", str(tmp_path))
        assert peers.TRL.python == tmp_path / "trl-1.16" / "bin" / "python"

    def test_are_made_once(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PREFERABLE_BENCH_HOME", str(tmp_path))
        (tmp_path / "trl-1.16").mkdir()
        (tmp_path / "trl-1.16" / "whole").touch()
        assert peers.make(peers.TRL) == peers.TRL.python
