import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tightrope.errors import UnsupportedError
from tightrope.workshop.vocabulary import characters, engine, prune, used

SENTENCES = [
    "the cat sat on the mat and the other cat sang",
    "rain came down on the station while the train stood still",
    "there is nothing like a nation of notions",
    "sand and stone and standing stones in the garden",
]
TEXT = st.text(alphabet="abcdehinorst é7", max_size=40)


def trained(kind):
    """A small tokenizer of each kind, with special tokens in front, a mask behind, and padding baked in."""
    special = ["<pad>", "<unk>", "<s>", "</s>"]
    if kind == "WordPiece":
        built = Tokenizer(models.WordPiece(unk_token="<unk>"))
        built.normalizer = normalizers.BertNormalizer()
        built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=special, show_progress=False)
    elif kind == "Unigram":
        built = Tokenizer(models.Unigram())
        built.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    else:
        built = Tokenizer(models.BPE())
        built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        built.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=360, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    built.train_from_iterator(SENTENCES * 3, trainer)
    built.add_special_tokens(["<mask>"])
    built.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    built.enable_padding(pad_id=0, pad_token="<pad>")
    return built.to_str().encode()


KINDS = {kind: trained(kind) for kind in ("WordPiece", "Unigram", "BPE")}


def moved(vocabulary, ids):
    """Ids of the pruned tokenizer as those of the original."""
    return [int(vocabulary.rows[number]) for number in ids]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(corpus=st.lists(TEXT, min_size=1, max_size=4), letters=st.booleans())
def test_a_corpus_is_cut_as_before_whatever_it_holds(kind, corpus, letters):
    before = KINDS[kind]
    vocabulary = prune(before, used(before, corpus) | (characters(before, corpus) if letters else set()))
    for text in corpus:
        after = engine(vocabulary.tokenizer).encode(text).ids
        assert moved(vocabulary, after) == engine(before).encode(text).ids


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(corpus=st.lists(TEXT, min_size=1, max_size=3), other=TEXT)
def test_other_text_is_cut_as_before_if_all_that_decided_it_is_kept(kind, corpus, other):
    before = KINDS[kind]
    vocabulary = prune(before, used(before, corpus) | characters(before, corpus))
    if used(before, [other]) <= set(vocabulary.rows.tolist()):
        after = engine(vocabulary.tokenizer).encode(other).ids
        assert moved(vocabulary, after) == engine(before).encode(other).ids


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_numbers_pieces_is_renumbered(kind):
    before = KINDS[kind]
    vocabulary = prune(before, used(before, ["the cat"]))
    data, old, new = json.loads(vocabulary.tokenizer), engine(before), engine(vocabulary.tokenizer)
    assert len(vocabulary.rows) == new.get_vocab_size() < old.get_vocab_size()
    assert [new.id_to_token(number) for number in range(len(vocabulary.rows))] == [
        old.id_to_token(int(row)) for row in vocabulary.rows
    ]
    for token in data["added_tokens"]:
        assert new.token_to_id(token["content"]) == token["id"]
    assert vocabulary.rows[new.token_to_id("<mask>")] == old.token_to_id("<mask>")
    assert data["padding"]["pad_id"] == new.token_to_id("<pad>")
    assert new.encode("the cat", "the").ids[0] == new.token_to_id("<s>")
    assert moved(vocabulary, new.encode("the cat", "the").ids) == old.encode("the cat", "the").ids


@pytest.mark.parametrize("kind", KINDS)
def test_pruning_to_everything_changes_no_piece(kind):
    before = KINDS[kind]
    size = engine(before).get_vocab_size()
    vocabulary = prune(before, range(size))
    assert vocabulary.rows.tolist() == list(range(size))
    assert json.loads(vocabulary.tokenizer)["model"] == json.loads(before)["model"]


def test_the_pieces_taken_before_a_word_turned_unknown_are_kept():
    pieces = ["[UNK]", "a", "ab", "##bX", "##b", "X"]
    before = json.dumps(json.loads(Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)})).to_str())).encode()
    assert engine(before).encode("abX").tokens == ["[UNK]"]
    # Without "ab" the word could be cut into "a" and "##bX", and would no longer be unknown.
    vocabulary = prune(before, used(before, ["abX"]) | {1, 3})
    assert 2 in vocabulary.rows
    assert engine(vocabulary.tokenizer).encode("abX").tokens == ["[UNK]"]


def test_older_processors_are_renumbered_too():
    data = json.loads(KINDS["BPE"])
    roberta = {"type": "RobertaProcessing", "sep": ["</s>", 3], "cls": ["<s>", 2]}
    data["post_processor"] = {
        "type": "Sequence",
        "processors": [roberta | {"trim_offsets": True, "add_prefix_space": False}],
    }
    before = json.dumps(data).encode()
    vocabulary = prune(before, used(before, ["the cat"]))
    ids = engine(vocabulary.tokenizer).encode("the cat").ids
    assert moved(vocabulary, ids) == engine(before).encode("the cat").ids


def test_an_unknown_word_is_spelt_if_its_letters_are_kept():
    before = KINDS["WordPiece"]
    corpus = ["the cat sat"]
    spelt = prune(before, used(before, corpus) | characters(before, corpus))
    lost = prune(before, used(before, corpus))
    assert "<unk>" not in engine(spelt.tokenizer).encode("station").tokens
    assert "<unk>" in engine(lost.tokenizer).encode("station").tokens


@pytest.mark.parametrize("model", [{"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}, {"vocab": {}}])
def test_other_kinds_are_refused(model):
    data = json.loads(KINDS["BPE"]) | {"model": model}
    with pytest.raises(UnsupportedError, match="cannot be pruned"):
        prune(json.dumps(data).encode(), {0})


def test_marked_bpe_is_refused():
    data = json.loads(KINDS["BPE"])
    data["model"]["end_of_word_suffix"] = "</w>"
    with pytest.raises(UnsupportedError, match="the end of words"):
        prune(json.dumps(data).encode(), {0})
