"""Networks spread over devices: no block is divided, and the logits are the same. Tests hooks, without several
devices."""

from __future__ import annotations

import torch

from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.sampling.device_map import device_map, move_to_device, spread
from tests.checkpoint.tiny_vendors import write_dream, write_llada


def test_no_block_is_divided_and_the_order_is_kept(tmp_path):
    network = from_pretrained(write_llada(tmp_path / "m")).model.network
    size = sum(weight.nbytes for weight in network.parameters())
    places = device_map(network, {0: int(0.8 * size), 1: size})  # the first keeps room for its largest part
    blocks = [place for name, place in places.items() if name.startswith("model.layers.")]
    assert set(places.values()) >= {0, 1}
    assert all(name.count(".") <= 2 for name in places)  # whole blocks: model.layers.N
    assert blocks == sorted(blocks, key=str)


def test_logits_are_the_same_through_the_hooks(tmp_path):
    model = from_pretrained(write_dream(tmp_path / "m")).model
    ids = torch.arange(3, 11)[None]
    before = model.logits(ids)
    parts = ["model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head"]
    spread(model.network, dict.fromkeys(parts, "cpu"))
    assert torch.equal(model.logits(ids), before)
    move_to_device(model, torch.device("cpu"))  # leaves it in place
    assert torch.equal(model.logits(ids), before)
