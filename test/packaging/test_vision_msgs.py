"""Our definitions of vision_msgs are the real package's: fields, order, type hashes."""

import json
import sys
from pathlib import Path

import pytest
from installing import ROOT

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")
messages = pytest.importorskip('vision_msgs.msg')

pytestmark = [pytest.mark.packaging, pytest.mark.ros]

# RIHS01 hashes of the types of ros-perception/vision_msgs 4.1.1: with another one, a subscriber
# of the real package would not be matched.
HASHES = {
    'BoundingBox2D': '008eacbb0cf8f26e83795547bed013eec3675485ef386ec056d80eaaf1c1ce2f',
    'Classification': 'f74db28d0eaef3afb78f48bf2161cd709a1383a0309d3454383b25be11345143',
    'Detection2D': '0d12b69df5c593b3455b7346fac8205437a7d4bcb09b9e0e0b2dde787ded38ea',
    'Detection2DArray': '214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968',
    'LabelInfo': '3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783',
    'ObjectHypothesis': '51da43cec11c01957a64d1e05a24acd18aae7745ec30b74348ad5f6d634f7f90',
    'ObjectHypothesisWithPose': (
        '41c12344c0396c48b81df12467c192d99b2a0eb1463c5c37194e4223251c80bc'
    ),
    'Point2D': 'eab0e83f44ab4de92ceaf76dd7d0e7638f2bdd1d16ffbe16c7a136c48e407247',
    'Pose2D': 'b0b5d1d7b4c20dd4fcde3ed1d4b289a919290572007d67a97043814db25d3648',
    'VisionClass': '1e4a11f0fed50b5623cb8ff26ca0e37952a48a9c074d16f804b44e9164c2037a',
}
FIELDS = {
    'Detection2DArray': ['header', 'detections'],
    'Detection2D': ['header', 'results', 'bbox', 'id'],
    'ObjectHypothesisWithPose': ['hypothesis', 'pose'],
    'Classification': ['header', 'results'],
    'LabelInfo': ['header', 'class_map', 'threshold'],
}


def test_each_definition_has_its_hash():
    written = {path.stem for path in (ROOT / 'interfaces/vision_msgs/msg').glob('*.msg')}
    assert written == set(HASHES)


@pytest.mark.parametrize('name', HASHES)
def test_type_hash_is_the_real_package_s(name):
    path = Path(sys.prefix) / f'share/vision_msgs/msg/{name}.json'
    if not path.is_file():
        pytest.skip('vision_msgs comes from a distribution')
    told = {h['type_name']: h['hash_string'] for h in json.loads(path.read_text())['type_hashes']}
    assert told[f'vision_msgs/msg/{name}'] == f'RIHS01_{HASHES[name]}'


@pytest.mark.parametrize('name', FIELDS)
def test_fields_are_the_real_package_s(name):
    assert list(getattr(messages, name).get_fields_and_field_types()) == FIELDS[name]
