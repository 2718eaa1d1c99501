import pytest
import torch

from dlmctl.diffusion.walks import (
    WALKS,
    StepNoise,
    Stride,
    WalkSettings,
    Written,
    ancestral,
    drawn,
    entropies,
    entropy,
    log_probabilities,
    low_confidence,
    random_order,
    remasking,
    strides,
    word_weights,
)
from tests.diffusion.tiny_masked import MASK, TEXTS, Enumerated, first_then_rest, one_by_one, tiny_masked

PLAIN = WalkSettings(MASK)
COUNTED = [name for name in WALKS if name not in ("ancestral", "remasking")]


def step_noise(rows: int, length: int, generator: torch.Generator) -> StepNoise:
    return StepNoise(*(torch.rand(rows, length, generator=generator, dtype=torch.float64) for _ in range(2)))


@pytest.fixture(scope="module")
def tiny():
    return Enumerated(tiny_masked())


def written(tiny, walk, steps: int, rows: int, settings: WalkSettings = PLAIN) -> torch.Tensor:
    """Texts ``[rows, 3]`` that a walk writes."""
    generator = torch.Generator().manual_seed(0)
    canvas, free = torch.full((rows, 3), MASK), torch.ones(rows, 3, dtype=torch.bool)
    for stride in strides(steps):
        canvas = walk(canvas, tiny.at(canvas), free, stride, step_noise(rows, 3, generator), settings).canvas
    return canvas


def frequencies(texts: torch.Tensor) -> torch.Tensor:
    numbers = ((texts - 4) * torch.tensor([9, 3, 1])).sum(1)
    return numbers.bincount(minlength=len(TEXTS)).double() / len(texts)


@pytest.mark.parametrize(
    ("walk", "steps", "groups"),
    [
        (random_order, 3, one_by_one()),
        (random_order, 2, first_then_rest(2)),
        (random_order, 1, [((0, 1, 2),)]),
        # Each place is written in the first of two strides or the second, independently.
        (ancestral, 2, first_then_rest(0, 1, 2, 3)),
    ],
)
def test_texts_have_the_distribution_of_the_model(tiny, walk, steps, groups):
    expected = tiny.drawn_in(groups)
    assert float(expected.sum()) == pytest.approx(1)
    rows = 60_000
    error = (frequencies(written(tiny, walk, steps, rows)) - expected).abs()
    assert (error < 5 * (expected * (1 - expected) / rows).sqrt() + 1e-4).all()


def test_the_test_can_tell_distributions_apart(tiny):
    difference = (tiny.drawn_in(one_by_one()) - tiny.drawn_in([((0, 1, 2),)])).abs()
    assert difference.max() > 0.02


def test_many_ancestral_strides_converge_to_the_any_order_model(tiny):
    error = (frequencies(written(tiny, ancestral, 40, 10_000)) - tiny.drawn_in(one_by_one())).abs()
    assert error.max() < 0.03


@pytest.mark.parametrize("name", WALKS)
@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_a_walk_ends_without_masks_and_keeps_what_is_pinned(name, steps):
    generator = torch.Generator().manual_seed(steps)
    canvas = torch.full((4, 7), MASK)
    free = torch.rand(4, 7, generator=generator) < torch.tensor([[1.0], [0.5], [0.2], [0.0]])
    canvas[~free] = 5
    start, settings = canvas, WalkSettings(MASK, remask=0.3)
    for stride in strides(steps):
        logits = torch.randn(4, 7, MASK, generator=generator)
        canvas = WALKS[name](canvas, logits, free, stride, step_noise(4, 7, generator), settings).canvas
    assert (canvas[~free] == start[~free]).all()
    assert (canvas < MASK).all()


@pytest.mark.parametrize("name", COUNTED)
def test_places_are_shared_out_over_the_steps(name):
    generator = torch.Generator().manual_seed(0)
    canvas, free = torch.full((2, 7), MASK), torch.ones(2, 7, dtype=torch.bool)
    free[1, 3:], canvas[1, 3:] = False, 4
    open_counts = []
    for stride in strides(3):
        open_counts.append((canvas == MASK).sum(1).tolist())
        canvas = WALKS[name](
            canvas, torch.randn(2, 7, MASK, generator=generator), free, stride, step_noise(2, 7, generator), PLAIN
        ).canvas
    # 7 = 3 + 2 + 2, as LLaDA divides them, and 3 = 1 + 1 + 1.
    assert open_counts == [[7, 3], [4, 2], [2, 1]]


@pytest.mark.parametrize("name", COUNTED)
def test_only_open_places_need_logits(name):
    generator = torch.Generator().manual_seed(1)
    canvas, free = torch.full((3, 6), MASK), torch.ones(3, 6, dtype=torch.bool)
    canvas[0, :3], canvas[1, 2:4], canvas[2, 5] = 4, 5, 6
    logits, noise = torch.randn(3, 6, MASK, generator=generator), step_noise(3, 6, generator)
    stride = Stride(0.5, 0.25, 2)
    whole = WALKS[name](canvas, logits, free, stride, noise, PLAIN).canvas
    places = (canvas == MASK).to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :5]
    rows = torch.arange(3)[:, None]
    gathered_noise = StepNoise(noise.words[rows, places], noise.places[rows, places])
    part = WALKS[name](canvas[rows, places], logits[rows, places], free[rows, places], stride, gathered_noise, PLAIN)
    assert torch.equal(canvas.scatter(1, places, part.canvas), whole)


def test_the_order_follows_the_logits():
    logits = torch.full((1, 3, MASK), -torch.inf)
    logits[0, 0, 4:] = torch.tensor([0.50, 0.50, 1e-9]).log()  # entropy .69, margin 0
    logits[0, 1, 4:] = torch.tensor([0.70, 0.15, 0.15]).log()  # entropy .82, margin .55
    logits[0, 2, 4:] = torch.tensor([0.34, 0.33, 0.33]).log()
    free, noise = torch.ones(1, 3, dtype=torch.bool), StepNoise(torch.full((1, 3), 0.1), torch.full((1, 3), 0.5))
    first = {
        name: WALKS[name](torch.full((1, 3), MASK), logits, free, Stride(1, 0.9, 3), noise, PLAIN).canvas != MASK
        for name in COUNTED
    }
    assert first["entropy"].tolist() == [[True, False, False]]
    for name in ("margin", "confidence", "low_confidence"):
        assert first[name].tolist() == [[False, True, False]]


def test_confidence_is_that_before_or_after_truncation():
    logits = torch.full((1, 2, MASK), -torch.inf)
    logits[0, 0, 4:] = torch.tensor([0.60, 0.39, 0.01]).log()
    logits[0, 1, 4:] = torch.tensor([0.55, 0.225, 0.225]).log()  # alone above a half of itself: certain after min-p
    settings, free = WalkSettings(MASK, min_p=0.5), torch.ones(1, 2, dtype=torch.bool)
    noise = StepNoise(torch.full((1, 2), 0.1), torch.full((1, 2), 0.5))
    before, after = (
        WALKS[name](torch.full((1, 2), MASK), logits, free, Stride(1, 0.5, 2), noise, settings).canvas
        for name in ("low_confidence", "confidence")
    )
    assert before.tolist() == [[4, MASK]]
    assert after.tolist() == [[MASK, 4]]


def test_remasking_by_nothing_is_mdlm(tiny):
    assert torch.equal(written(tiny, remasking, 4, 500), written(tiny, ancestral, 4, 500))


def test_remasking_masks_committed_words_by_its_share():
    generator = torch.Generator().manual_seed(0)
    canvas, free = torch.full((400, 10), 5), torch.ones(400, 10, dtype=torch.bool)
    free[:, 0] = False
    logits = torch.zeros(400, 10, MASK)
    settings = WalkSettings(MASK, remask=0.25)
    new = remasking(canvas, logits, free, Stride(0.5, 0.4, 5), step_noise(400, 10, generator), settings).canvas
    assert (new[:, 0] == 5).all()
    assert abs(float((new[:, 1:] == MASK).double().mean()) - 0.25) < 0.04
    last = remasking(canvas, logits, free, Stride(0.2, 0.0, 1), step_noise(400, 10, generator), settings).canvas
    assert torch.equal(last, canvas)


def test_remasking_keeps_the_expected_number_of_masks():
    generator = torch.Generator().manual_seed(0)
    canvas = torch.where(torch.rand(2000, 10, generator=generator) < 0.6, MASK, 5)
    settings = WalkSettings(MASK, remask=0.2)
    noise = step_noise(2000, 10, generator)
    new = remasking(canvas, torch.zeros(2000, 10, MASK), canvas >= 0, Stride(0.6, 0.5, 6), noise, settings).canvas
    assert abs(float((new == MASK).double().mean()) - 0.5) < 0.02


def test_words_are_drawn_by_their_weights():
    weights = torch.tensor([0.0, 3.0, 0.0, 1.0, 0.0]).double()
    uniform = (torch.arange(400) + 0.5) / 400
    assert drawn(weights.expand(400, 5), uniform).bincount(minlength=5).tolist() == [0, 300, 0, 100, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_words_of_weight_0_are_never_drawn(dtype):
    weights = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]], dtype=dtype)
    ends = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    assert drawn(weights.expand(2, 5), ends).tolist() == [1, 3]


def test_truncation():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).double().log()
    assert word_weights(logits, PLAIN).tolist() == pytest.approx([1, 0.6, 0.3, 0.1])
    assert word_weights(logits, WalkSettings(MASK, min_p=0.2)).tolist() == pytest.approx([1, 0.6, 0.3, 0])
    # The largest share allowed is 1 in float32; the likeliest word stays.
    assert word_weights(logits.float(), WalkSettings(MASK, min_p=1 - 2.0**-53)).tolist() == [1, 0, 0, 0]
    assert word_weights(logits, WalkSettings(MASK, temperature=0.5)).tolist() == pytest.approx([1, 0.36, 0.09, 0.01])
    assert word_weights(logits, WalkSettings(MASK, temperature=0.0)).tolist() == [1, 0, 0, 0]


def test_entropies_of_weights():
    weights = torch.tensor([[1.0, 1.0, 1.0, 1.0], [2.0, 0.0, 0.0, 0.0]])
    logs = weights.log().clamp(min=-80)
    assert entropies(weights, logs).tolist() == pytest.approx([torch.tensor(4.0).log().item(), 0.0])


def test_what_a_step_wrote_is_scored():
    logits = torch.zeros(2, 3, MASK)
    logits[0, 1, 5] = 3.0
    right = logits[0, 1].log_softmax(0)[5].item()
    even = -torch.tensor(float(MASK)).log().item()
    places, words = torch.tensor([[1, 2], [2, 1]]), torch.tensor([[5, 4], [6, 6]])
    step = Written(torch.empty(2, 3), places, words, torch.tensor([[False, True], [False, False]]))
    found = log_probabilities(step, logits)
    assert found.flatten().tolist() == pytest.approx([right, 0, even, even])


@pytest.mark.parametrize("name", WALKS)
@pytest.mark.parametrize("left", [1, 2, 5])
def test_a_walk_says_what_it_wrote(name, left):
    generator = torch.Generator().manual_seed(left)
    canvas, free = torch.full((3, 5), MASK), torch.ones(3, 5, dtype=torch.bool)
    canvas[1, :3], canvas[2], free[0, 0] = 4, 5, False
    logits, noise = torch.randn(3, 5, MASK, generator=generator), step_noise(3, 5, generator)
    new, places, words, kept = WALKS[name](
        canvas, logits, free, Stride(0.5, 0.0 if left == 1 else 0.4, left), noise, PLAIN
    )
    assert torch.equal(canvas.scatter(1, places, torch.where(kept, canvas.gather(1, places), words)), new)
    assert int((~kept).sum()) == int((new != canvas).sum()) > 0
    assert (words < MASK).all()


@torch.no_grad()
@pytest.mark.parametrize("walk", [entropy, low_confidence, random_order, ancestral])
def test_a_text_does_not_depend_on_its_batch(walk):
    # Uncertain enough that probabilities differ by more than rounding.
    model, counts, steps = tiny_masked(scale=6.0).double(), [3, 9, 5], 9
    generators = [torch.Generator().manual_seed(7 + row) for row in range(3)]
    uniforms = [torch.rand(steps, 2, count, generator=g).double() for count, g in zip(counts, generators, strict=True)]

    def texts(rows: list[int]) -> list[list[int]]:
        length = max(counts[row] for row in rows)
        is_text = torch.arange(length) < torch.tensor([counts[row] for row in rows])[:, None]
        # START is fixed: with masks only, all places would be equivalent, and rounding would choose among them.
        free = is_text & (torch.arange(length) > 0)
        noise = torch.zeros(steps, 2, len(rows), length, dtype=torch.float64)
        for at, row in enumerate(rows):
            noise[:, :, at, : counts[row]] = uniforms[row]
        canvas = torch.where(free, MASK, torch.where(is_text, 0, 3))
        for step, stride in enumerate(strides(steps)):
            logits = model.logits(canvas, attention_mask=is_text)
            canvas = walk(canvas, logits, free, stride, StepNoise(*noise[step]), WalkSettings(MASK, min_p=0.01)).canvas
        return [canvas[at, : counts[row]].tolist() for at, row in enumerate(rows)]

    assert texts([0, 1, 2]) == [texts([row])[0] for row in range(3)]


def test_a_walk_needs_a_step():
    assert strides(2) == [Stride(1.0, 0.5, 2), Stride(0.5, 0.0, 1)]
    with pytest.raises(ValueError, match="at least one"):
        strides(0)
