"""The verb show: what is in a bundle, as a page and as JSON, and that it is whole."""

import hashlib
import json
import shutil

import pytest

from vla_trt_ros.cli.main import main
from vla_trt_ros.config import find_file
from vla_trt_ros.policies.pi05.spec import NANO


@pytest.fixture
def bundle(tmp_path):
    """A copy of nano that may be edited."""
    path = tmp_path / 'nano'
    shutil.copytree(find_file('bundles', 'nano', ''), path)
    return path


def edit(bundle, change):
    manifest = bundle / 'manifest.json'
    data = json.loads(manifest.read_text())
    change(data)
    manifest.write_text(json.dumps(data))


def add_file(bundle, data, name, content):
    (bundle / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    data['files'][name] = {'sha256': digest, 'bytes': len(content)}


def shown(capsys, *words):
    assert main(['show', *map(str, words)]) == 0
    return capsys.readouterr().out


def row(text, *start):
    (found,) = [w for w in map(str.split, text.splitlines()) if w[: len(start)] == [*start]]
    return found


def gemma_weights(config):
    """Counted by hand: three whole layers, keys and values of the fourth, the embedding."""
    p = config.prefix
    key_value = 2 * p.width * p.kv_heads * p.head_dim
    layer = 2 * p.width * p.heads * p.head_dim + key_value + 3 * p.width * p.mlp
    return (p.depth - 1) * layer + key_value + config.vocab_size * p.width


def test_the_page_of_nano(capsys):
    text = shown(capsys, 'nano')
    assert 'robot metaworld, rows of 50 ms, normalised by quantiles' in text
    assert 'gripper (absolute)' in text
    size = NANO.image_size
    assert f'views base, wrist of {size} x {size} pixels, horizon 10' in text
    steps = ['1', '2', '3', '5', '10']
    buckets = [str(tokens) for tokens in NANO.prompt_buckets]
    assert row(text, 'prefix', 'onnxruntime', 'fp32')[3:7] == ['any', '2', *buckets]
    denoise = row(text, 'denoise', 'onnxruntime', 'fp32')
    assert denoise[3:-1] == ['any', '10', *buckets, *steps]
    assert text.endswith('every hash is right\n')


def test_all_of_it_as_json(capsys, bundle):
    found = json.loads(shown(capsys, bundle, '--json', '-'))
    manifest = (bundle / 'manifest.json').read_bytes()
    assert found['sha256'] == hashlib.sha256(manifest).hexdigest()
    assert found['path'] == str(bundle)
    listed = [f for f in bundle.iterdir() if f.name not in ('manifest.json', 'README.md')]
    assert found['bytes'] == sum(f.stat().st_size for f in listed)
    assert found['config'] == json.loads(manifest)['config']
    denoise = next(e for e in found['engines'] if e['stage'] == 'denoise')
    assert denoise['prompt_buckets'] == list(NANO.prompt_buckets)
    assert denoise['num_steps'] == [1, 2, 3, 5, 10]
    assert len(denoise['files']) == 10
    assert found['parameters']['prefix'] == pytest.approx(gemma_weights(NANO), rel=2e-3)


def test_json_to_a_file_beside_the_page(capsys, tmp_path):
    path = tmp_path / 'nano.json'
    text = shown(capsys, 'nano', '--json', path)
    assert 'every hash is right' in text
    assert f'wrote {path}' in text
    assert json.loads(path.read_text())['name'] == 'nano'


def test_sources_and_engines_of_one_gpu_have_rows_of_their_own(capsys, bundle):
    def change(data):
        vision = next(e for e in data['engines'] if e['stage'] == 'vision')
        add_file(bundle, data, 'vision.fp8.sm_120.engine', bytes(3_000_000))
        add_file(bundle, data, 'vision.fp8.onnx', bytes(1_000_000))
        add_file(bundle, data, 'vision.fp8.weights', bytes(5_500_000))
        plan = {'backend': 'tensorrt', 'precision': 'fp8', 'target': 'sm_120'}
        data['engines'].append(vision | plan | {'file': 'vision.fp8.sm_120.engine'})
        source = {k: v for k, v in vision.items() if k not in ('backend', 'target')}
        graph = {'file': 'vision.fp8.onnx', 'weights': ['vision.fp8.weights']}
        data['sources'] = [source | {'precision': 'fp8'} | graph]

    edit(bundle, change)
    text = shown(capsys, bundle)
    assert row(text, 'vision', 'tensorrt') == ['vision', 'tensorrt', 'fp8', 'sm_120', '1', '3.0']
    assert row(text, 'vision', 'source', 'fp8') == ['vision', 'source', 'fp8', 'any', '1', '6.5']
    beside = text.partition('weights beside the graphs')[2]
    assert 'vision.fp8.weights' not in beside


def test_stages_are_listed_in_the_order_that_they_run(capsys, bundle):
    edit(bundle, lambda data: data['engines'].reverse())
    words = map(str.split, shown(capsys, bundle).splitlines())
    stages = [w[0] for w in words if w[1:3] == ['onnxruntime', 'fp32']]
    assert stages == ['vision', 'prefix', 'denoise']


def test_an_altered_file_is_named(capsys, bundle):
    path = bundle / 'vision.onnx'
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert main(['show', str(bundle)]) == 1
    said = capsys.readouterr().err
    assert f'vla-trt show: {path} was altered' in said


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['nope'], 'bundles/nope does not exist; known: nano'),
        (['./no/such/bundle'], 'no/such/bundle does not exist'),
    ],
)
def test_what_is_no_bundle_is_refused(words, message, capsys):
    assert main(['show', *words]) == 1
    assert message in capsys.readouterr().err


def test_a_network_of_unknown_sizes_is_refused(capsys, bundle):
    edit(bundle, lambda data: data['config'].pop('horizon'))
    assert main(['show', str(bundle)]) == 1
    assert "'horizon' is missing" in capsys.readouterr().err


def test_a_bundle_must_be_named(capsys):
    with pytest.raises(SystemExit) as end:
        main(['show'])
    assert end.value.code == 2
    assert 'BUNDLE' in capsys.readouterr().err.upper()
