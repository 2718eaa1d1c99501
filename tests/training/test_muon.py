import torch
from torch import nn

from dlmctl.models.llama import FusedLinear, LlamaConfig, LlamaDenoiser
from dlmctl.training.config import LoopConfig
from dlmctl.training.loop import build_optimizers
from dlmctl.training.muon import Muon, orthogonalise


def trained(make, shapes, steps=4):
    """Matrices after some steps down a rough slope, with the optimiser that ``make`` makes of them."""
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    targets = [torch.randn(shape) for shape in shapes]
    optimizer = make(weights)
    for _ in range(steps):
        for weight, target in zip(weights, targets, strict=True):
            weight.grad = (weight.detach() - target) ** 3
        optimizer.step()
    return weights


def test_a_whole_matrix_moves_as_under_torchs_muon():
    shapes = [(6, 6), (4, 9), (9, 4)]
    ours = trained(lambda ws: Muon([(w, (len(w),)) for w in ws], lr=0.02, weight_decay=0.1), shapes)
    settings = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    theirs = trained(lambda ws: torch.optim.Muon(ws, **settings), shapes)
    # Both multiply in bfloat16, perhaps in another order.
    assert all(torch.allclose(a, b, atol=2e-3) for a, b in zip(ours, theirs, strict=True))


def test_the_parts_of_a_fused_matrix_move_as_matrices_of_their_own():
    torch.manual_seed(1)
    start, gradient = torch.randn(15, 5), torch.randn(15, 5)
    fused, apart = nn.Parameter(start.clone()), [nn.Parameter(part.clone()) for part in start.split((5, 2, 8))]
    fused.grad = gradient.clone()
    for part, own in zip(apart, gradient.split((5, 2, 8)), strict=True):
        part.grad = own.clone()
    Muon([(fused, (5, 2, 8))], lr=0.1, weight_decay=0.1).step()
    Muon([(part, (len(part),)) for part in apart], lr=0.1, weight_decay=0.1).step()
    assert torch.allclose(fused, torch.cat([*apart]), atol=1e-6)
    whole = nn.Parameter(start.clone())
    whole.grad = gradient.clone()
    Muon([(whole, (15,))], lr=0.1, weight_decay=0.1).step()
    assert not torch.allclose(fused, whole, atol=1e-2)


def test_singular_values_come_near_one():
    torch.manual_seed(2)
    for shape in ((12, 12), (7, 20), (20, 7)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(3, *shape)).float())
        assert values.min() > 0.3
        assert values.max() < 1.3


def test_it_takes_the_matrices_inside_llama_blocks_in_their_parts():
    sizes = LlamaConfig(hidden=8, layers=2, heads=2, inner=12, max_length=8)
    model = nn.ModuleDict({"denoiser": LlamaDenoiser(sizes, 9, tags=3)})
    adamw, muon = build_optimizers(model, LoopConfig(steps=1, optimizer="muon"))
    parts = {group["parts"]: len(group["params"]) for group in muon.param_groups}
    assert parts == {(8, 8, 8): 2, (12, 12): 2, (8,): 4}
    assert sum(isinstance(module, FusedLinear) for module in model.modules()) == 4
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rest = {names[id(parameter)].split(".")[-2] for group in adamw.param_groups for parameter in group["params"]}
    assert rest == {"embed_tokens", "tag_embed", "input_layernorm", "post_attention_layernorm", "norm"}
