import pytest
import sentencepiece

from vla_trt_ros.config import share_dir
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.export import tokenizer
from vla_trt_ros.export.tokenizer import train_vocabulary
from vla_trt_ros.sim.prompts import PROMPTS

TEXTS = [text for texts in PROMPTS.values() for text in texts]


@pytest.fixture(scope='module')
def trained():
    return train_vocabulary(TEXTS, 768)


def load(model):
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def test_repeats_whatever_the_order(trained):
    assert train_vocabulary(reversed(TEXTS), 768) == trained


def test_size_and_special_pieces(trained):
    pieces = load(trained)
    assert 700 < pieces.get_piece_size() <= 768
    assert (pieces.pad_id(), pieces.eos_id(), pieces.bos_id(), pieces.unk_id()) == (0, 1, 2, 3)


@pytest.mark.parametrize('number', [-1, 0, 7, 42, 255])
def test_state_numbers_are_single_pieces(trained, number):
    tokens = load(trained).encode(f'Task: go, State: {number} {number};\nAction: ', out_type=str)
    assert tokens.count(f'\u2581{number}') == 2


def test_common_words_are_single_pieces(trained):
    tokens = load(trained).encode('Task: open the drawer, State: 1;\nAction: ', out_type=str)
    assert {'\u2581open', '\u2581the', '\u2581drawer'} <= set(tokens)


@pytest.mark.parametrize('text', ['打开抽屉', 'ouvre le tiroir à gauche', '🤖', 'tab\there'])
def test_every_text_survives(trained, text):
    pieces = load(trained)
    tokens = pieces.encode(text)
    assert pieces.unk_id() not in tokens
    assert pieces.decode(tokens) == text


def test_too_small():
    with pytest.raises(ConfigError, match='vocab_size 600 is too small; give more than'):
        train_vocabulary(TEXTS, 600)


def test_bundled_vocabulary_says_the_same(trained):
    bundled = load((share_dir() / 'bundles' / 'nano' / 'tokenizer.model').read_bytes())
    text = 'Task: reach the goal, State: 0 128;\nAction: '
    assert bundled.encode(text, out_type=str) == load(trained).encode(text, out_type=str)


@pytest.mark.parametrize('version', ['0.2.2', '0.1.99'])
def test_a_sentencepiece_that_would_end_the_process_is_refused(monkeypatch, version):
    monkeypatch.setattr(tokenizer.sentencepiece, '__version__', version)
    with pytest.raises(ConfigError, match=f'SentencePiece {version} cannot .* install 0.2.3'):
        train_vocabulary(TEXTS, 768)
