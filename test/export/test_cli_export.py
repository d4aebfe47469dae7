import numpy as np
import pytest

from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.cli.main import main
from vla_trt_ros.config import load_platform, share_dir
from vla_trt_ros.datatypes import CameraFrame, Observation
from vla_trt_ros.policies.registry import load_policy_from

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


@pytest.mark.slow
def test_committed_nano_is_what_the_exporter_makes(tmp_path, capsys):
    pytest.importorskip('torch', reason='workshop only: pip install .[export]')
    assert main([*WORDS, str(tmp_path / 'nano')]) == 0
    told = capsys.readouterr()
    assert '13 graphs' in told.out
    assert '[13/13]' in told.err
    fresh, committed = (
        open_bundle(path) for path in (tmp_path / 'nano', share_dir() / 'bundles' / 'nano')
    )
    assert fresh.config == committed.config
    pixels = (np.arange(112 * 112 * 3) // 150 % 256).astype(np.uint8)
    frame = CameraFrame(1, 1, '', 'rgb8', 112, 112, 336, pixels)
    observation = Observation({'base': frame}, np.float32([0.1, 0.6, 0.2, 1]), 'open the door')
    rows = []
    for bundle in (fresh, committed):
        policy = load_policy_from(bundle, load_platform('cpu'))
        noise = np.sin(np.arange(320, dtype=np.float32)).reshape(10, 32)
        rows.append(policy.infer(observation, num_steps=10, noise=noise).actions)
        policy.close()
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-4)
