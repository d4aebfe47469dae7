import json
import re
import subprocess
import sys

import pytest

from vla_trt_ros.bundle import open_bundle
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


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (
            ['--backend', 'tensorrt'],
            "--backend 'tensorrt' is none of onnxruntime, cuda_graph; eng",
        ),
        (
            ['--backend', 'cuda_graph', '--precision', 'bf16,int8'],
            '--precision bf16,int8: cuda_graph computes fp32, bf16, fp8 alone',
        ),
        (
            ['--backend', 'cuda_graph', '--device', 'cuda'],
            '--device cuda: torch .* finds no NVIDIA',
        ),
    ],
)
def test_words_for_cuda_graph(tmp_path, capsys, words, message):
    torch = pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")
    if 'cuda' in words and torch.cuda.is_available():
        pytest.skip('there is a GPU')
    assert main([*WORDS, str(tmp_path / 'b'), *words]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_fp8_of_a_checkpoint_needs_frames(tmp_path, capsys):
    words = ['export', '--checkpoint', str(tmp_path), '--size', 'pi05', '--out', 'b']
    assert main([*words, '--backend', 'cuda_graph', '--precision', 'fp8']) == 1
    assert '--precision fp8 needs frames of the robot: give --calibrate' in capsys.readouterr().err


PROGRAM = """
import sys
from vla_trt_ros.cli.main import main
assert main(sys.argv[1:]) == 0
print(sorted({'onnx', 'onnxscript', 'onnxruntime'} & set(sys.modules)))
"""


def test_cuda_graph_alone_needs_no_onnx(tmp_path):
    pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")
    out = tmp_path / 'fast'
    words = [*WORDS, str(out), '--backend', 'cuda_graph', '--precision', 'bf16,fp8']
    words += ['--steps', '2', '--buckets', '24', '--frames', '16', '--json', str(tmp_path / 'j')]
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == '[]'
    bundle = open_bundle(out)
    assert not bundle.manifest.sources
    found = [(e.stage, e.backend, e.precision, e.file) for e in bundle.manifest.engines]
    files = {'bf16': 'fast.bf16.safetensors', 'fp8': 'fast.fp8.safetensors'}
    stages = ('vision', 'prefix', 'denoise')
    assert found == [(s, 'cuda_graph', p, f) for p, f in files.items() for s in stages]
    assert 'random weights: calibrated on made-up frames' in done.stderr
    assert '--backend cuda_graph --precision bf16,fp8' in (out / 'README.md').read_text()
    assert json.loads((tmp_path / 'j').read_text())['graph_s'] == {}
