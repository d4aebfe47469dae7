"""What a user types wrong is named, with its place and the way out."""

import enum
from dataclasses import dataclass, field
from typing import Literal

import pytest

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.strict_yaml import build, load_yaml


class Colour(enum.Enum):
    RED = 'red'


@dataclass(frozen=True)
class Wheel:
    radius: float
    spokes: int = 8


@dataclass(frozen=True)
class Bike:
    name: str
    wheels: tuple[Wheel, ...]
    kind: Literal['road', 'city'] = 'city'
    lights: dict[str, bool] = field(default_factory=dict)
    colour: Colour = Colour.RED
    owner: str | None = None

    def __post_init__(self) -> None:
        if len(self.wheels) != 2:
            raise ConfigError(f'{len(self.wheels)} wheels; a bike has 2.')


GOOD = {'name': 'a', 'wheels': [{'radius': 1}, {'radius': 0.5, 'spokes': 3}]}


def test_nested_values_and_defaults():
    bike = build(Bike, {**GOOD, 'lights': {'front': True}, 'colour': 'red', 'owner': 'me'}, 'b')
    assert bike == Bike(
        'a', (Wheel(1.0), Wheel(0.5, 3)), 'city', {'front': True}, Colour.RED, 'me'
    )


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'nmae': 'x'}, r"bike.yaml: unknown key 'nmae'; did you mean 'name'\?"),
        ({'zzz': 1}, "unknown key 'zzz'; known keys: name, wheels"),
        ({'name': 3}, 'bike.yaml: name: expected str, found 3'),
        ({'kind': 'race'}, "kind: 'race' is none of road, city"),
        ({'colour': 'blue'}, "colour: 'blue' is none of red"),
        ({'wheels': 2}, 'wheels: expected a list, found 2'),
        ({'wheels': [{'radius': 'big'}]}, r"wheels\[0\]: radius: expected float, found 'big'"),
        ({'wheels': [{'radius': float('nan')}]}, 'nan is not a finite number'),
        ({'wheels': [{'radius': 1, 'spokes': True}]}, 'spokes: expected int, found True'),
        ({'wheels': [{}]}, r"wheels\[0\]: 'radius' is missing"),
        ({'wheels': [{'radius': 1}]}, 'bike.yaml: 1 wheels; a bike has 2'),
        ({'lights': {'front': 1}}, 'lights.front: expected bool, found 1'),
        ({'lights': [1]}, 'lights: expected a mapping'),
    ],
)
def test_wrong_values_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        build(Bike, {**GOOD, **change}, 'bike.yaml')


def test_not_a_mapping():
    with pytest.raises(ConfigError, match='expected a mapping, found None'):
        build(Bike, None, 'bike.yaml')


def test_files(tmp_path):
    path = tmp_path / 'wheel.yaml'
    with pytest.raises(ConfigError, match='cannot be read'):
        load_yaml(Wheel, path)
    path.write_text('radius: [1', encoding='utf-8')
    with pytest.raises(ConfigError, match='is not YAML'):
        load_yaml(Wheel, path)
    path.write_bytes(b'\xff\xfe\x00')
    with pytest.raises(ConfigError, match='not UTF-8'):
        load_yaml(Wheel, path)
    path.write_text('radius: 2', encoding='utf-8')
    assert load_yaml(Wheel, path) == Wheel(2.0)
