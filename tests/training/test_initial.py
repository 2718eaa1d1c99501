"""Where training starts: another model, a deeper copy of it, a BERT encoder."""

import json

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel

from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained, save_pretrained
from dlmctl.datasets.dataset import write_split
from dlmctl.diffusion.model import DiffusionLM, ModelConfig
from dlmctl.errors import ModelError
from dlmctl.text.tokenizer import WordTokenizer
from dlmctl.training.initial import initialise, start_from
from dlmctl.training.lm import LanguageModelConfig, LanguageModelTask, train_lm

OLD = WordTokenizer.from_corpus(["the hen sleeps in the barn .".split()], min_count=1)
NEW = WordTokenizer.from_corpus(["a hen or the owl wakes in a barn near START .".split()], min_count=1)
SIZES = {"hidden": 16, "layers": 2, "heads": 2, "dropout": 0.0, "max_length": 10, "time_channels": 8}


def model(tokenizer=OLD, *, seed=0, sizes=(), **changes):
    torch.manual_seed(seed)
    settings = {"vocab_size": len(tokenizer), "length": 10, "embed_dim": 4, "denoiser": {**SIZES, **dict(sizes)}}
    made = DiffusionLM(ModelConfig.model_validate({**settings, **changes})).eval()
    for parameter in made.parameters():  # no tensor is left at a value that another start would also have
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def outputs(made, x):
    times = torch.tensor([0.2, 0.9], dtype=torch.float64)
    return made.predict(x, times).x0


X = torch.randn(2, 10, 4, generator=torch.Generator().manual_seed(3))


def test_a_model_of_the_same_sizes_is_the_same_function(tmp_path):
    source = model(seed=1)
    save_pretrained(source, OLD, tmp_path / "source")
    made = model(seed=2)
    initialise(made, OLD, str(tmp_path / "source"))
    assert all(torch.equal(made.state_dict()[name], tensor) for name, tensor in source.state_dict().items())


@pytest.mark.parametrize("objective", ["cross_entropy", "paper"])
@pytest.mark.parametrize("layers", [4, 6])
def test_growing_in_depth_preserves_the_function(objective, layers):
    source = model(objective=objective, seed=1)
    deep = model(objective=objective, seed=2, sizes={"layers": layers})
    start_from(deep, OLD, Pretrained(source, OLD, None))
    torch.testing.assert_close(outputs(deep, X), outputs(source, X))
    # Every block can learn: the copies are not all zero, only what they add to the residual stream is.
    copies = layers // 2
    for number, block in enumerate(deep.denoiser.encoder.blocks):
        assert torch.equal(block.qkv.weight, source.denoiser.encoder.blocks[number // copies].qkv.weight)
        assert bool(block.mlp_out.weight.any()) == (number % copies == 0)


@pytest.mark.parametrize("objective", ["cross_entropy", "paper"])
def test_words_are_matched_by_spelling(objective):
    source, made = model(objective=objective, seed=1), model(NEW, objective=objective, seed=2)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    start_from(made, NEW, Pretrained(source, OLD, None))
    given, state = source.state_dict(), made.state_dict()
    tables = ["embedding.weight"]
    tables += ["rounding_bias"] if objective == "paper" else ["denoiser.output.2.weight", "denoiser.output.2.bias"]
    for table in tables:
        for word in ("hen", "the", "barn", "."):
            assert torch.equal(state[table][NEW.vocabulary[word]], given[table][OLD.vocabulary[word]])
        for word in ("owl", "wakes"):
            number = NEW.vocabulary[word]
            assert torch.equal(state[table][number], before[table][number])
        assert torch.equal(state[table][NEW.end_id], given[table][OLD.end_id])
    assert torch.equal(state["denoiser.encoder.positions.weight"], given["denoiser.encoder.positions.weight"])


def test_a_width_that_happens_to_be_the_vocabulary_is_not_taken_for_words():
    """An MLP as wide as the vocabulary has rows that stand for nothing."""
    sizes = {"feedforward": len(OLD)}
    source, made = model(seed=1, sizes=sizes), model(NEW, seed=2, sizes=sizes)
    start_from(made, NEW, Pretrained(source, OLD, None))
    name = "denoiser.encoder.blocks.0.mlp_in.weight"
    assert torch.equal(made.state_dict()[name], source.state_dict()[name])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"embed_dim": 8}, "embed_dim is 4 there and 8 in this configuration"),
        ({"objective": "paper"}, "objective is 'cross_entropy' there and 'paper'"),
        ({"sizes": {"layers": 3}}, r"has 2 blocks, and 3 is not a multiple of that. Set denoiser.layers = 4"),
        ({"sizes": {"hidden": 32}}, "denoiser.hidden is 16 there and 32 in this configuration"),
        ({"sizes": {"feedforward": 5}}, r"blocks.0.mlp_in.weight' has the shape \[64, 16\] there and \[5, 16\] here"),
        ({"sizes": {"max_length": 12}}, "denoiser.max_length is 10 there and 12"),
        ({"sizes": {"norm_first": False}}, "denoiser.norm_first is True there and False"),
    ],
)
def test_what_does_not_fit_is_said(changes, said):
    with pytest.raises(ModelError, match=said):
        start_from(model(**changes), OLD, Pretrained(model(), OLD, None))


def test_a_model_in_berts_order_cannot_grow():
    sizes = {"norm_first": False}
    deep = model(sizes={**sizes, "layers": 4})
    with pytest.raises(ModelError, match="only a model with norm_first can be made deeper"):
        start_from(deep, OLD, Pretrained(model(sizes=sizes), OLD, None))


# BERT.

BERT = BertConfig(
    vocab_size=30,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=20,
)
IN_BERTS_ORDER = {"norm_first": False, "feedforward": 24}


@pytest.fixture(params=[BertModel, BertForMaskedLM], ids=["BertModel", "BertForMaskedLM"])
def bert(request, tmp_path):
    torch.manual_seed(5)
    network = request.param(BERT).eval()
    for name, parameter in network.named_parameters():  # BERT starts with biases of zero, which would hide mistakes
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    network.save_pretrained(tmp_path / "bert")
    return network.base_model, tmp_path / "bert"


def blocks(made, hidden):
    for block in made.denoiser.encoder.blocks:
        hidden = block(hidden)
    return hidden


def test_the_blocks_become_the_encoder_of_bert(bert):
    network, folder = bert
    made = model(sizes=IN_BERTS_ORDER)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    initialise(made, OLD, str(folder))
    hidden = torch.randn(2, 7, 16)
    torch.testing.assert_close(blocks(made, hidden), network.encoder(hidden).last_hidden_state, rtol=1e-5, atol=1e-5)
    around = [name for name in before if ".blocks." not in name]
    assert around
    assert all(torch.equal(made.state_dict()[name], before[name]) for name in around)


def test_a_binary_file_is_read_where_there_is_no_other(bert):
    network, folder = bert
    torch.save({f"bert.{name}": tensor for name, tensor in network.state_dict().items()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    made = model(sizes=IN_BERTS_ORDER)
    initialise(made, OLD, str(folder))
    weight = made.denoiser.encoder.blocks[1].mlp_in.weight
    assert torch.equal(weight, network.encoder.layer[1].intermediate.dense.weight)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sizes": {}}, "a BERT can initialise only a transformer in BERT's own order. Set model.architecture"),
        ({"sizes": {**IN_BERTS_ORDER, "layers": 3}}, "num_hidden_layers is 2 there and 3 in this configuration"),
        ({"sizes": {**IN_BERTS_ORDER, "heads": 4}}, "num_attention_heads is 2 there and 4"),
        ({"sizes": {"norm_first": False}}, "intermediate_size is 24 there and 64"),
    ],
)
def test_a_bert_of_other_sizes_is_refused(bert, changes, said):
    with pytest.raises(ModelError, match=said):
        initialise(model(**changes), OLD, str(bert[1]))


def test_a_bert_with_other_activations_or_without_weights_is_refused(bert):
    _, folder = bert
    made, path = model(sizes=IN_BERTS_ORDER), folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "hidden_act": "relu"}))
    with pytest.raises(ModelError, match="hidden_act is 'relu' there and 'gelu'"):
        initialise(made, OLD, str(folder))
    path.write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="weights are missing"):
        initialise(made, OLD, str(folder))


def test_the_setting_starts_a_training_run(bert, tmp_path):
    network, folder = bert
    data = tmp_path / "data"
    data.mkdir()
    OLD.save(data)
    for split in ("train", "valid"):
        write_split(data, split, [OLD.encode(["the", "hen", "."])])
    settings = {"length": 10, "embed_dim": 4, "denoiser": {**SIZES, **IN_BERTS_ORDER}}
    task = LanguageModelTask(LanguageModelConfig(model=settings, init=str(folder), loop={"steps": 1}), data)
    weight = task.model.denoiser.encoder.blocks[0].mlp_out.weight
    assert torch.equal(weight, network.encoder.layer[0].output.dense.weight)


def test_frozen_embeddings_stay_while_the_rest_learns(tmp_path):
    source, data = model(seed=1), tmp_path / "data"
    save_pretrained(source, OLD, tmp_path / "source")
    data.mkdir()
    rows = [OLD.encode("the hen sleeps in the barn .".split())] * 8
    for split in ("train", "valid"):
        write_split(data, split, rows)
    OLD.save(data)
    settings = {"length": 10, "embed_dim": 4, "denoiser": SIZES}
    config = LanguageModelConfig(
        model=settings,
        init=str(tmp_path / "source"),
        freeze_embeddings=True,
        loop={"steps": 3, "lr": 0.1, "batch_positions": 40, "ema": 0.0},
    )
    state = from_pretrained(train_lm(config, data, tmp_path / "run")).model.state_dict()
    assert torch.equal(state["embedding.weight"], source.state_dict()["embedding.weight"])
    changed = [name for name, tensor in source.state_dict().items() if not torch.equal(state[name], tensor)]
    assert "denoiser.output.2.weight" in changed


def test_embeddings_to_keep_must_come_from_somewhere():
    with pytest.raises(ValueError, match="init"):
        LanguageModelConfig(freeze_embeddings=True, loop={"steps": 1})
