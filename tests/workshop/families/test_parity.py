"""Every family against transformers on torch: BERT with the real MiniLM, the others at real width and depth with
random weights, as encoders and as cross-encoders, in right-padded batches."""

import json

import numpy as np
import pytest

from tightrope.device.senses.text import Tokenizer
from tightrope.workshop.load import load
from tightrope.workshop.texts import default_texts

MOST = 1e-5
TEXTS = default_texts(["en"], "seen")[:100]
PAIRS = list(zip(TEXTS[:12], TEXTS[12:24], strict=True))

FAMILIES = {
    "bert": (
        "Bert",
        {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    ),
    "distilbert": ("DistilBert", {}),
    "roberta": ("Roberta", {"type_vocab_size": 1, "max_position_embeddings": 514}),
    "xlm-roberta": ("XLMRoberta", {"type_vocab_size": 1, "max_position_embeddings": 514}),
    "camembert": ("Camembert", {"type_vocab_size": 1, "max_position_embeddings": 514, "num_hidden_layers": 6}),
}


def word_pieces():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    engine = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    engine.normalizer, engine.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    engine.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=900, special_tokens=special))
    engine.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return engine


def byte_pairs():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    engine = Tokenizer(models.BPE(unk_token="<unk>"))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special, alphabet = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=special, initial_alphabet=alphabet)
    engine.train_from_iterator(TEXTS, trainer)
    engine.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return engine


def unigrams():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    engine = Tokenizer(models.Unigram())
    engine.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=700, special_tokens=special, unk_token="<unk>", show_progress=False)
    engine.train_from_iterator(TEXTS, trainer)
    engine.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return engine


TOKENIZERS = {"bert": word_pieces, "distilbert": word_pieces, "roberta": byte_pairs}


def made(name, folder, labels):
    """A random model of a family, saved as transformers does, and the very same model on torch."""
    import torch
    import transformers

    prefix, settings = FAMILIES[name]
    engine = TOKENIZERS.get(name, unigrams)()
    padding = engine.token_to_id("[PAD]") if name in ("bert", "distilbert") else 1
    config = getattr(transformers, f"{prefix}Config")(
        vocab_size=engine.get_vocab_size(), pad_token_id=padding, num_labels=labels, initializer_range=0.05, **settings
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{prefix}ForSequenceClassification")(config).eval()
    model.save_pretrained(folder)
    engine.save(str(folder / "tokenizer.json"))
    return model, padding


def torch_feeds(model, inputs, padding):
    import torch

    encoded = Tokenizer(model.senses.tokenizer, model.senses.max_length).encode(inputs)
    ids, mask = encoded.ids.padded()
    ids[mask == 0] = padding
    return torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(encoded.types.padded()[0])


def mean_of(hidden, mask):
    kept = mask[..., None].float()
    return ((hidden * kept).sum(1) / kept.sum(1)).numpy()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.torch
@pytest.mark.engine
@pytest.mark.network
def test_the_real_minilm_answers_like_torch(minilm, answers, tmp_path, close):
    import torch
    import transformers
    from safetensors.numpy import save_file

    save_file(dict(minilm.weights), tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(dict(minilm.config)), encoding="utf-8")
    model = transformers.AutoModel.from_pretrained(tmp_path).eval()
    ids, mask, _ = torch_feeds(minilm, TEXTS, 0)
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert len(TEXTS) == 100
    assert close(answers(minilm, TEXTS), unit(mean_of(hidden, mask))) <= MOST


@pytest.mark.torch
@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_answers_like_torch_with_random_weights(name, answers, tmp_path, close):
    import torch

    model, padding = made(name, tmp_path, labels=3)
    scorer = load(str(tmp_path))
    assert (scorer.task.name, scorer.task.width, scorer.task.activation) == ("scoring", 3, "identity")
    ids, mask, types = torch_feeds(scorer, PAIRS, padding)
    extra = {"token_type_ids": types} if name == "bert" else {}
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, **extra).logits.numpy()
    assert close(answers(scorer, PAIRS), logits) <= MOST

    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": None}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    embedder, texts = load(str(tmp_path)), TEXTS[:12]
    ids, mask, _ = torch_feeds(embedder, texts, padding)
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert close(answers(embedder, texts), unit(mean_of(hidden, mask))) <= MOST
