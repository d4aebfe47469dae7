"""Every way a bundle can be wrong, on a bundle of a few bytes; and the real one in bundles/."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vla_trt_ros.bundle import ActionColumn, EngineEntry, Layout, open_bundle
from vla_trt_ros.config import load_robot, share_dir
from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import BundleError
from vla_trt_ros.export.bundle_writer import BundleWriter
from vla_trt_ros.policies.pi05.spec import NANO

LAYOUT = Layout(
    'metaworld',
    0.05,
    ('hand_x', 'gripper'),
    (ActionColumn('hand_x', 'delta'), ActionColumn('gripper', 'absolute')),
)
ENGINE = EngineEntry(
    'vision',
    'onnxruntime',
    'fp32',
    'vision.onnx',
    (TensorSpec('pixels', (2, 3, 4, 4), 'float32'),),
    (TensorSpec('image_tokens', (1, 2, 8), 'float32'),),
)


def write(out, text='weights of the vision tower'):
    with BundleWriter(out) as writer:
        (writer.folder / 'vision.onnx').write_text(text)
        for name in ('norm_stats.json', 'tokenizer.model', 'README.md'):
            (writer.folder / name).write_text(f'contents of {name}')
        writer.commit(
            name='tiny',
            family='pi05',
            config=NANO,
            layout=LAYOUT,
            normalization='quantiles',
            norm_stats='norm_stats.json',
            tokenizer='tokenizer.model',
            model_card='README.md',
            engines=[ENGINE],
            created_by='a test',
            notes={},
        )


@pytest.fixture
def bundle(tmp_path):
    write(tmp_path / 'tiny')
    return tmp_path / 'tiny'


def edit(bundle, change):
    path = bundle / 'manifest.json'
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_reads_what_was_written(bundle):
    opened = open_bundle(bundle)
    assert opened.name == 'tiny'
    assert opened.layout == LAYOUT
    assert opened.views == ('base', 'wrist')
    assert opened.engines('vision', 'onnxruntime', 'fp32') == (ENGINE,)
    assert opened.file('vision.onnx').read_text() == 'weights of the vision tower'
    assert sorted(opened.manifest.files) == [
        'norm_stats.json',
        'tokenizer.model',
        'vision.onnx',
    ]


def test_the_card_is_not_the_policy(bundle):
    before = open_bundle(bundle).sha256
    (bundle / 'README.md').write_text('measured better since')
    assert open_bundle(bundle).sha256 == before


def test_sha256_changes_with_any_file(bundle, tmp_path):
    write(tmp_path / 'other', text='weights of the vision towel')
    assert open_bundle(bundle).sha256 != open_bundle(tmp_path / 'other').sha256
    assert len(open_bundle(bundle).sha256) == 64


def test_missing_folder(tmp_path):
    with pytest.raises(BundleError, match=r'nowhere is no folder; give a bundle'):
        open_bundle(tmp_path / 'nowhere')


def test_missing_manifest(bundle):
    (bundle / 'manifest.json').unlink()
    with pytest.raises(BundleError, match=r'manifest.json cannot be read .* is no bundle'):
        open_bundle(bundle)


def test_manifest_is_not_json(bundle):
    (bundle / 'manifest.json').write_text('{"format_version": 1,')
    with pytest.raises(BundleError, match='is not JSON'):
        open_bundle(bundle)


def test_manifest_is_a_list(bundle):
    (bundle / 'manifest.json').write_text('[1]')
    with pytest.raises(BundleError, match='expected a mapping'):
        open_bundle(bundle)


def test_truncated_file(bundle):
    path = bundle / 'vision.onnx'
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(BundleError, match=r'vision.onnx is truncated: 20 of 27 bytes; copy'):
        open_bundle(bundle)


def test_file_grew(bundle):
    with (bundle / 'vision.onnx').open('a') as file:
        file.write('!')
    with pytest.raises(BundleError, match=r'is too long: 28 of 27 bytes'):
        open_bundle(bundle)


def test_altered_file(bundle):
    path = bundle / 'norm_stats.json'
    path.write_text(path.read_text().replace('c', 'k'))
    with pytest.raises(BundleError, match=r'norm_stats.json was altered: sha256 .*; copy'):
        open_bundle(bundle)


def test_missing_file(bundle):
    (bundle / 'tokenizer.model').unlink()
    with pytest.raises(BundleError, match=r'tokenizer.model cannot be read \(No such file'):
        open_bundle(bundle)


@pytest.mark.parametrize('version', [0, 2, '1', None])
def test_other_version(bundle, version):
    edit(bundle, lambda m: m.update(format_version=version))
    with pytest.raises(BundleError, match=r'format_version .* this release reads 1; export'):
        open_bundle(bundle)


def test_unknown_key(bundle):
    edit(bundle, lambda m: m.update(quantisation='int8'))
    with pytest.raises(BundleError, match="unknown key 'quantisation'"):
        open_bundle(bundle)


def test_unknown_key_deep_inside(bundle):
    edit(bundle, lambda m: m['layout']['actions'][0].update(kinds='delta'))
    with pytest.raises(
        BundleError, match=r"actions\[0\]: unknown key 'kinds'; did you mean 'kind'"
    ):
        open_bundle(bundle)


@pytest.mark.parametrize('name', ['../secrets', '/etc/passwd', 'a/../../b', 'a\\..\\b'])
def test_unsafe_path(bundle, name):
    edit(bundle, lambda m: m['files'].update({name: {'sha256': '0' * 64, 'bytes': 1}}))
    with pytest.raises(BundleError, match='lies outside the bundle'):
        open_bundle(bundle)


def test_link_out_of_the_bundle_is_caught_by_its_hash(bundle, tmp_path):
    (tmp_path / 'other').write_text('27 bytes from somewhere els')
    (bundle / 'vision.onnx').unlink()
    (bundle / 'vision.onnx').symlink_to(tmp_path / 'other')
    with pytest.raises(BundleError, match='was altered'):
        open_bundle(bundle)


def test_engine_file_that_is_not_listed(bundle):
    edit(bundle, lambda m: m['engines'][0].update(file='prefix.onnx'))
    with pytest.raises(BundleError, match=r"'prefix.onnx' is used but not listed in files"):
        open_bundle(bundle)


def test_engine_listed_twice(bundle):
    edit(bundle, lambda m: m['engines'].append(m['engines'][0]))
    with pytest.raises(BundleError, match='is listed twice'):
        open_bundle(bundle)


@pytest.mark.parametrize('views', [[], 'base', [1, 2], None])
def test_config_without_views(bundle, views):
    edit(bundle, lambda m: m['config'].update(views=views))
    with pytest.raises(BundleError, match=r'config.views must list camera names'):
        open_bundle(bundle)


def test_engine_that_the_bundle_lacks(bundle):
    with pytest.raises(
        BundleError,
        match=r"'tiny' holds no vision engine for tensorrt fp8, only onnxruntime fp32; choose",
    ):
        open_bundle(bundle).engines('vision', 'tensorrt', 'fp8')


def test_fits_its_robot(bundle):
    open_bundle(bundle).check_robot(load_robot('metaworld'))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'name': 'so101'}, "made for 'metaworld'; choose its bundle"),
        ({'control_rate': 25.0}, r'rows last 0.05 s, control_rate 25.0 Hz .* to 20\.'),
        ({'cameras': {}}, "camera 'base' is none of"),
        ({'joints': ()}, "joint 'hand_x' is none of"),
    ],
)
def test_made_for_another_robot(bundle, change, message):
    robot = load_robot('metaworld')
    joints, cameras = robot.joints, dict(robot.cameras)
    if 'joints' in change:
        change = {'joints': joints[1:], 'tip': ()}
    if 'cameras' in change:
        change = {'cameras': {'front': cameras['base']}}
    with pytest.raises(BundleError, match=f'(?s)does not fit robot .*{message}'):
        open_bundle(bundle).check_robot(replace(robot, **change))


def test_nano_is_whole_and_small():
    folder = share_dir() / 'bundles' / 'nano'
    opened = open_bundle(folder)
    opened.check_robot(load_robot('metaworld'))
    assert opened.name == 'nano'
    held = {(e.stage, e.precision, e.prompt_bucket, e.num_steps) for e in opened.manifest.engines}
    for bucket in NANO.prompt_buckets:
        assert {('denoise', 'fp32', bucket, n) for n in NANO.num_steps} < held
    on_disk = {p.name for p in Path(folder).iterdir()} - {'manifest.json'}
    assert on_disk == {*opened.manifest.files, opened.manifest.model_card}
    assert sum(f.bytes for f in opened.manifest.files.values()) < 20e6
