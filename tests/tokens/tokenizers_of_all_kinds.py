"""Tokenizers of the three kinds that models have, built from a few sentences, and tiny masked models over them."""

# ruff: noqa: RUF001 (signs of many kinds stand here on purpose)

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import chain, combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.models.llama import LlamaConfig
from dlmctl.text.tokenizer import HuggingFaceTokenizer

TEXTS = [
    "The Quiet Fox is a cheap café by the riverside. It's open till 10.50, isn't it?",
    "In the old town you can find the Stone Oven, a pub near the river.",
    "The soup costs £4 and the bread 1,000 crowns; the cook doesn't say why!",
    "“Fresh fish” says Anna, at 9 p.m. – and her kids agree... 🎉 ☕",
    "A quiet place, an old bridge and two grey cats: that was all.",
]
KINDS = ("bytes", "word pieces", "sentence pieces")
END, START, PAD, UNK = "</s>", "<s>", "<pad>", "<unk>"
SPECIAL = [UNK, START, END, PAD]


def _bytes(size: int) -> Tokenizer:
    """As GPT-2, LLaDA and Dream."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(TEXTS, trainer)
    return inner


def _word_pieces(size: int) -> Tokenizer:
    """As BERT, cased, of the most frequent pieces; their own trainer breaks ties anew in each process."""
    split, clean = pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(lowercase=False)
    counts: Counter[str] = Counter()
    for word, _ in chain.from_iterable(split.pre_tokenize_str(clean.normalize_str(text)) for text in TEXTS):
        spans = combinations(range(len(word) + 1), 2)
        counts.update(("##" if start else "") + word[start:end] for start, end in spans)
    letters = sorted(piece for piece in counts if len(piece.removeprefix("##")) == 1)
    longer = sorted(counts.keys() - {*letters}, key=lambda piece: (-counts[piece], piece))
    pieces = [*SPECIAL, *letters, *longer][:size]
    inner = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token=UNK))
    inner.normalizer, inner.pre_tokenizer = clean, split
    inner.decoder = decoders.WordPiece(prefix="##")
    return inner


def _sentence_pieces(size: int) -> Tokenizer:
    """As Llama and Gemma: spaces are ▁, and what has no piece is bytes."""
    learned = Tokenizer(models.BPE(unk_token=UNK))
    learned.pre_tokenizer = pre_tokenizers.Metaspace()
    learned.train_from_iterator(TEXTS[:3], trainers.BpeTrainer(vocab_size=size, show_progress=False))
    pieces = sorted(learned.get_vocab(), key=learned.get_vocab().__getitem__)
    scored = [(piece, 0.0) for piece in [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]]
    scored += [(piece, -1.0 - 0.01 * at) for at, piece in enumerate(pieces)]
    inner = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return inner


@cache
def tokenizer_of(kind: str, size: int = 420) -> HuggingFaceTokenizer:
    """A tokenizer of one of ``KINDS`` with about so many tokens."""
    makers = {"bytes": _bytes, "word pieces": _word_pieces, "sentence pieces": _sentence_pieces}
    inner = makers[kind](size)
    roles = {"bos_token": START, "eos_token": END, "pad_token": PAD, "unk_token": UNK}
    with TemporaryDirectory() as folder:
        PreTrainedTokenizerFast(tokenizer_object=inner, **roles).save_pretrained(folder)
        return HuggingFaceTokenizer(folder)


@cache
def model_of(kind: str, length: int = 40) -> Pretrained:
    """A masked model of random weights over the tokens of a kind."""
    tokenizer = tokenizer_of(kind)
    torch.manual_seed(0)
    sizes = LlamaConfig(hidden=16, layers=1, heads=2, inner=24, max_length=length)
    lengths = [0, 0, 0, *[1] * (length - 5)]
    settings = {"vocab_size": len(tokenizer), "length": length, "denoiser": sizes, "sentence_lengths": lengths}
    model = MaskedLM(MaskedConfig.model_validate(settings)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(8.0)
    return Pretrained(model, tokenizer, Path("a model in no folder"))
