"""Encoders with the files, keys and names of published ones, and with files that are not what they should be."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

import dlmctl
from controls import Contains, Infill
from dlmctl.checkpoint.resolve import PICKLED
from dlmctl.checkpoint.vendors.trained_folder import save_encoder
from dlmctl.control.base import Control, ControlParams
from dlmctl.control.check import Check
from dlmctl.errors import ModelError
from tests.checkpoint.tiny_encoders import write_encoder

JAPANESE = "[PAD] [UNK] [CLS] [SEP] [MASK] 吾 吾輩 輩 は 猫 で ある 。 東京 大学 ##大学 東 学 る あ".split()
FRENCH = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "▁le", "▁chat", "▁", "s", "."]


def change(folder, name, **settings):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def store(folder, changed):
    """Write the weights of a folder anew; ``changed`` receives and returns them by name."""
    path = folder / "model.safetensors"
    save_file(changed({name: tensor.clone() for name, tensor in load_file(path).items()}), path)


@torch.no_grad()
def logits(folder):
    model = dlmctl.load(folder).model
    return model.logits(torch.tensor([[5, 6, 7, 8, 9]]))[..., 6:]


def write_japanese(folder, tokens, **settings):
    write_encoder(folder, "bert", vocab_size=len(tokens))
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", "utf-8")
    change(folder, "tokenizer_config.json", do_lower_case=False, word_tokenizer_type="mecab", **settings)
    return dlmctl.load(folder)


def test_words_of_a_japanese_bert_are_what_spaces_separate(tmp_path):
    model = write_japanese(tmp_path / "ja", JAPANESE, subword_tokenizer_type="wordpiece")
    ids = model.tokenizer.encode_text("吾輩 は 東京大学 で ある。")
    assert " ".join(map(model.tokenizer.token, ids)) == "[CLS] 吾輩 は 東京 ##大学 で ある 。 [SEP]"
    control = Contains(["大学"]) & Infill("吾輩 は ___{1,3} で ある 。")
    for sample in model.generate(control, samples=4, sampler={"temperature": 1.0}):
        assert sample.passed
        assert sample.text.startswith("吾輩 は ")


def test_characters_of_a_japanese_bert_are_tokens(tmp_path):
    letters = [token for token in JAPANESE if len(token) == 1 or token[0] == "["]
    model = write_japanese(tmp_path / "ja", letters, subword_tokenizer_type="character")
    ids = model.tokenizer.encode_text("吾輩は猫である。")
    assert "".join(map(model.tokenizer.token, ids)) == "[CLS]吾輩は猫である。[SEP]"


def test_reserved_tokens_are_never_written(tmp_path):
    core = Tokenizer(models.Unigram([(piece, -1.0) for piece in [*FRENCH, "<mask>"]], unk_id=3))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    core.post_processor = processors.RobertaProcessing(("</s>", 6), ("<s>", 5))
    write_encoder(tmp_path / "fr", "camembert", vocab_size=len(FRENCH) + 1, pad_token_id=1)
    core.save(str(tmp_path / "fr" / "tokenizer.json"))
    model = dlmctl.load(tmp_path / "fr")
    written = [model.tokenizer.token(index) for index in range(len(model.tokenizer)) if index not in model.model.never]
    assert written == ["▁le", "▁chat", "▁", "s", "."]
    assert model.tokenizer.encode_text("le chat.")[0] == 5


def test_a_text_stands_between_the_tokens_that_the_tokenizer_adds(tmp_path):
    folder = write_encoder(tmp_path / "bert", "bert")
    core = Tokenizer.from_file(str(folder / "tokenizer.json"))
    core.post_processor = processors.BertProcessing(
        ("[unused1]", core.token_to_id("[unused1]")), ("[SEP]", core.token_to_id("[SEP]"))
    )
    core.save(str(folder / "tokenizer.json"))
    tokenizer = dlmctl.load(folder).tokenizer
    assert (tokenizer.token(tokenizer.start_id), tokenizer.token(tokenizer.end_id)) == ("[SEP]", "[unused1]")


def test_roberta_without_its_padding_id_has_that_of_transformers(tmp_path):
    folder = write_encoder(tmp_path / "roberta", "roberta", pad_token_id=1, max_position_embeddings=66)
    settings = json.loads((folder / "config.json").read_text())
    del settings["pad_token_id"]
    (folder / "config.json").write_text(json.dumps(settings))
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        wanted = transformers.RobertaForMaskedLM.from_pretrained(folder).eval()(ids).logits
    assert torch.allclose(logits(folder)[0, :, :90], wanted[0, :, 6:96], atol=1e-4)


@pytest.mark.parametrize("kinds", [["float16"], ["float16", "float32"], ["bfloat16", "float32"]])
def test_weights_in_half_precision_or_in_two_precisions(tmp_path, kinds):
    folder = write_encoder(tmp_path / "bert", "bert")
    wanted = logits(folder)
    store(folder, lambda state: {
        name: tensor.to(getattr(torch, kinds[at % len(kinds)])) for at, (name, tensor) in enumerate(state.items())
    })  # fmt: skip
    assert torch.allclose(logits(folder), wanted, rtol=0.05, atol=0.5)
    for precision in ("fp32", "bf16"):
        assert dlmctl.load(folder).generate(samples=1, sampler={"precision": precision})[0].words


def test_tied_weights_under_the_other_name_or_with_other_values(tmp_path):
    folder = write_encoder(tmp_path / "bert", "bert")
    table, bias = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.bias"
    wanted = logits(folder)
    store(folder, lambda state: {"cls.predictions.decoder.weight": state.pop(table), **state})
    assert torch.equal(logits(folder), wanted)
    store(folder, lambda state: {**state, bias: torch.full_like(state["cls.predictions.bias"], 2.0)})
    with torch.no_grad():
        reference = transformers.BertForMaskedLM.from_pretrained(folder).eval()
        again = reference(torch.tensor([[5, 6, 7, 8, 9]])).logits[..., 6:19]
    assert not torch.allclose(wanted, again, atol=0.1)
    assert torch.allclose(logits(folder), again, atol=1e-4)
    model = dlmctl.load(folder)
    save_encoder(model.model, model.tokenizer, tmp_path / "saved", [0, 1])
    assert torch.equal(logits(tmp_path / "saved"), logits(folder))


def saved_by_torch(folder, **changed):
    """The folder with its weights in a file of torch."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**{name: torch.nn.Parameter(tensor) for name, tensor in state.items()}, **changed}, folder / PICKLED)
    return folder


@pytest.mark.filterwarnings("error:.*requires_grad")
def test_parameters_that_torch_saved_are_read_without_a_warning(tmp_path):
    folder = write_encoder(tmp_path / "bert", "bert")
    wanted = logits(folder)
    assert torch.equal(logits(saved_by_torch(folder)), wanted)


def test_a_small_file_of_torch_holds_no_huge_tensor(tmp_path):
    huge = {"bert.embeddings.word_embeddings.weight": torch.ones(1).expand(10**6, 10**6)}
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: the tensor 'bert\.emb.*repeats its values"):
        dlmctl.load(saved_by_torch(write_encoder(tmp_path / "bert", "bert"), **huge))


def test_a_tensor_without_a_place_is_named_as_in_its_file(tmp_path):
    folder = saved_by_torch(write_encoder(tmp_path / "bert", "bert"), extra=torch.ones(2))
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: the tensor 'extra' has no place"):
        dlmctl.load(folder)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("albert", {"num_hidden_groups": 128, "inner_group_num": 128}, "inner_group_num"),
        ("bert", {"pad_token_id": 30_000}, "pad_token_id is 30000, and the vocabulary ends at 20"),
        ("roberta", {"max_position_embeddings": 303}, "max_position_embeddings leaves no positions"),
        ("modernbert", {"layer_types": ["full_attention"]}, "layer_types names 1 layers, not 3"),
        ("bert", {"hidden_size": 1_048_576}, r"has the shape \[21, 32\], not \[21, 1048576\]"),
    ],
)
def test_sizes_that_no_encoder_has(tmp_path, kind, settings, message, capfd):
    folder = write_encoder(tmp_path / kind, kind)
    change(folder, "config.json", **settings)
    capfd.readouterr()
    with pytest.raises(ModelError, match=message):
        dlmctl.load(folder)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"mask_token": "[SEP]"}, "MASK and END are the same token"),
        ({"mask_token": "[PAD]"}, "MASK and PAD are the same token"),
        ({"mask_token": "<mask>"}, r"the mask_token '<mask>' is not among its tokens\. .* another kind of model"),
    ],
)
def test_special_tokens_that_cannot_be(tmp_path, named, message):
    folder = write_encoder(tmp_path / "bert", "bert")
    change(folder, "tokenizer_config.json", **named)
    with pytest.raises(ModelError, match=message):
        dlmctl.load(folder)


def test_a_vocabulary_that_is_none(tmp_path):
    folder = write_encoder(tmp_path / "bert", "bert")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer.*save_pretrained"):
        dlmctl.load(folder)
    for content, message in (("", r"'\[CLS\]' is not among"), ("bö 7", r"not UTF-8")):
        (folder / "vocab.txt").write_text(content, "latin-1")
        with pytest.raises(ModelError, match=message):
            dlmctl.load(folder)


class ThirdWord(Control):
    """Reads the third word of a text; nothing bounds the number of words above."""

    name = "third_word"
    Params = ControlParams

    def word_range(self, params):
        return 3, 10**6

    def check_many(self, params, texts):
        return [Check(1.0, True, text[2]) for text in texts]


def test_a_word_at_a_place_needs_no_bound_on_the_number_of_words(tmp_path):
    model = dlmctl.load(write_encoder(tmp_path / "bert", "bert", max_position_embeddings=5000))
    samples = model.generate(Contains(["boat"]) & ThirdWord(), samples=4, sampler={"temperature": 1.0})
    assert all(len(sample.words) >= 3 and sample.passed for sample in samples)
