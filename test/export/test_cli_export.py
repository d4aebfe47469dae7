import pytest

from vla_trt_ros.cli.main import main

WORDS = ['export', '--size', 'nano', '--random-weights', '0', '--robot', 'metaworld', '--out']


def test_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('vla_trt_ros.cli.export.find_spec', lambda name: None)
    assert main([*WORDS, str(tmp_path / 'b')]) == 1
    assert "export needs torch, which is not installed: pip install '.[export]'" in (
        capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []


def test_needs_a_seed(capsys):
    with pytest.raises(SystemExit):
        main(['export', '--out', 'somewhere'])
    assert '--random-weights' in capsys.readouterr().err
