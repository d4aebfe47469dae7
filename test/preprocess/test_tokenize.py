import numpy as np
import pytest
import sentencepiece

from vla_trt_ros.config import share_dir
from vla_trt_ros.errors import BadPrompt, BundleError
from vla_trt_ros.policies.pi05.spec import NANO
from vla_trt_ros.preprocess.tokenize import Tokenizer, clean, digitize, with_state
from vla_trt_ros.sim.prompts import PROMPTS

VOCABULARY = share_dir() / 'bundles' / 'nano' / 'tokenizer.model'
STATE = np.array([-1.0, 0.0, 0.5, 1.0], np.float32)


@pytest.fixture(scope='module')
def tokenizer():
    return Tokenizer(VOCABULARY, (32, 64), NANO.vocab_size)


@pytest.fixture(scope='module')
def pieces():
    return sentencepiece.SentencePieceProcessor(model_file=str(VOCABULARY))


def test_digitize_edges():
    state = np.array([-5, -1.0001, -1, -0.9999, -0.0001, 0, 0.0078125, 0.9921, 0.9922, 1, 5])
    assert digitize(state).tolist() == [-1, -1, 0, 0, 127, 128, 129, 254, 255, 255, 255]


def test_digitize_takes_every_bin_once():
    centres = (np.arange(256) + 0.5) / 128.0 - 1.0
    assert digitize(centres).tolist() == list(range(256))


def test_prompt_text_word_for_word():
    assert with_state('open the door', STATE) == (
        'Task: open the door, State: 0 128 192 255;\nAction: '
    )


@pytest.mark.parametrize(
    ('given', 'cleaned'),
    [
        ('  open_the\ndoor \n', 'open the door'),
        ('open  the door', 'open  the door'),  # inner spaces are the model's to see
        ('Open The Door!', 'Open The Door!'),
        ('抓住门把手', '抓住门把手'),
    ],
)
def test_cleaning(given, cleaned):
    assert clean(given) == cleaned


def test_begins_with_bos_and_decodes_to_the_prompt(tokenizer, pieces):
    tokens = tokenizer.encode('open the door', STATE).tokens
    assert tokens[0] == pieces.bos_id()
    assert pieces.decode(list(tokens)) == with_state('open the door', STATE)


def test_each_state_number_is_one_token(tokenizer):
    counts = {
        len(tokenizer.encode('reach the goal', np.full(4, value, np.float32)).tokens)
        for value in np.linspace(-1.2, 1.2, 40)
    }
    assert len(counts) == 1


def test_all_known_prompts_fit_the_networks_buckets():
    tokenizer = Tokenizer(VOCABULARY, NANO.prompt_buckets, NANO.vocab_size)
    known = [tokenizer.encode(p, STATE) for prompts in PROMPTS.values() for p in prompts]
    short = [prompt.bucket == NANO.prompt_buckets[0] for prompt in known]
    assert sum(short) > 0.9 * len(short)


def test_bucket_is_the_shortest_that_holds_the_prompt(tokenizer):
    base = len(tokenizer.encode('go', STATE).tokens)
    word = len(tokenizer.encode('go the', STATE).tokens) - base
    for count, bucket in ((32 - base, 32), (33 - base, 64), (64 - base, 64)):
        prompt = tokenizer.encode('go' + ' the' * (count // word), STATE)
        assert len(prompt.tokens) == base + count
        assert prompt.bucket == bucket


def test_too_long_names_tokens_and_the_largest_engine(tokenizer):
    with pytest.raises(
        BadPrompt, match=r"prompt 'open the door .*\.\.\.' makes \d\d+ tokens, .* takes 64; say it"
    ):
        tokenizer.encode('open the door ' * 40, STATE)


@pytest.mark.parametrize('empty', ['', '   ', '\n', '_', ' _\n_ '])
def test_empty(tokenizer, empty):
    with pytest.raises(BadPrompt, match='prompt is empty'):
        tokenizer.encode(empty, STATE)


@pytest.mark.parametrize('wrong', [None, 3, b'open the door', ['open', 'the', 'door']])
def test_not_text(tokenizer, wrong):
    with pytest.raises(BadPrompt, match='not text'):
        tokenizer.encode(wrong, STATE)


def test_half_a_character(tokenizer):
    with pytest.raises(BadPrompt, match='not valid text'):
        tokenizer.encode('open \ud83d', STATE)


@pytest.mark.parametrize('prompt', ['抓住门', 'öffne die Tür', '🤖 go', 'a\tb\x00c'])
def test_any_text_encodes_by_bytes(tokenizer, pieces, prompt):
    tokens = tokenizer.encode(prompt, STATE).tokens
    assert pieces.unk_id() not in tokens
    assert pieces.decode(list(tokens)) == with_state(prompt, STATE)


def test_without_state_the_newline_is_a_token_of_its_own(tokenizer, pieces):
    tokens = tokenizer.encode('open the door').tokens
    assert tokens[0] == pieces.bos_id()
    assert pieces.decode(list(tokens)) == 'open the door\n'
    assert tokens[-1:] == tuple(pieces.encode('\n'))


def test_missing_vocabulary(tmp_path):
    with pytest.raises(BundleError, match='is no SentencePiece vocabulary'):
        Tokenizer(tmp_path / 'nowhere.model', (32,), 768)


def test_damaged_vocabulary(tmp_path):
    (tmp_path / 'x.model').write_bytes(VOCABULARY.read_bytes()[:100])
    with pytest.raises(BundleError, match='is no SentencePiece vocabulary'):
        Tokenizer(tmp_path / 'x.model', (32,), 768)


def test_vocabulary_of_another_model():
    with pytest.raises(BundleError, match=r'has \d+ pieces, the network embeds 700'):
        Tokenizer(VOCABULARY, (32,), 700)


def test_digitize_is_numpy_s():
    edges = np.linspace(-1.0, 1.0, 257)[:-1]
    rng = np.random.default_rng(0)
    near = np.concatenate([edges, np.nextafter(edges, -9), np.nextafter(edges, 9)])
    for state in (
        rng.uniform(-1.5, 1.5, 5000).astype(np.float32),
        near,
        near.astype(np.float32),
        np.array([np.inf, -np.inf, 0.0, -0.0], np.float32),
    ):
        np.testing.assert_array_equal(digitize(state), np.digitize(state, edges) - 1)
