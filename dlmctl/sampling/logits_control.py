"""Controls inside the samplers of other libraries: token logits in, token logits out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control
from dlmctl.control.prepared import PreparedAll
from dlmctl.control.state import ControlState
from dlmctl.diffusion.absorbing import Absorbing, with_fixed_words
from dlmctl.diffusion.layout import Layouts
from dlmctl.diffusion.masked_base import MaskedFamily, MaskedModel
from dlmctl.diffusion.noise import Draw, SampleNoise
from dlmctl.diffusion.own_modes import own_modes
from dlmctl.diffusion.tokens import TokenConfig
from dlmctl.diffusion.walks import WALKS, WalkSettings
from dlmctl.errors import UnsatisfiableError, UserError
from dlmctl.models.numerics import at_least_float32, times_on
from dlmctl.recipe.python_settings import settings_from
from dlmctl.recipe.settings import Guidance, SamplerSettings
from dlmctl.sampling.draw import prepared_for
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.steering import MIN_PROBABILITY, Steered
from dlmctl.sampling.token_layout import mean_log_probs
from dlmctl.text.checkpoint_tokenizer import CheckpointTokenizer

# A folder that cannot exist, as a model that was loaded elsewhere has none.
NO_FOLDER = Path(os.devnull, "LogitsControl")
# The most positions of a text, START included, that are laid out.
MAX_POSITIONS = 65_536


class LogitsControl:
    """A control for diffusion models that run in other libraries.

    For ``generate`` of transformers it is a logits processor (DiffusionGemma): it is called with the tokens so far and
    the logits of the whole canvas. For Dream's ``diffusion_generate``, its ``hook`` is the
    ``generation_logits_hook_func``. Either way, exact controls hold in the final text, however many tokens are written
    in a step; the energies of other controls guide. Controls that need the latent of a model, or classifiers trained
    with it, are for models that dlmctl runs itself. For controls under ``any``, all rows of a call get the same branch.

    Args:
        control: what the text must satisfy, e.g. ``Contains("pub")``; its first set of parameters is for row 0.
        tokenizer: the model's, a fast tokenizer of transformers.
        mask_id: the id of MASK; by default the tokenizer's, and none for models without MASK.
        embeddings: the input embeddings ``[V, H]`` of the model, for energies that read them.
        guidance: settings of guidance, as in a recipe.
        seed: seeds the random choices of a control, such as a length, and the texts that exact controls draw.

    Raises:
        UserError: the control or the guidance is invalid, or the tokenizer is not a fast one with an end of text.
    """

    def __init__(
        self,
        control: Control[Any],
        tokenizer: Any,
        *,
        mask_id: int | None = None,
        embeddings: Tensor | None = None,
        guidance: Guidance | Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(control, Control):
            raise UserError(f"{control!r} is not a control.", where="control", remedy='E.g. Contains("pub").')
        if getattr(tokenizer, "backend_tokenizer", None) is None or getattr(tokenizer, "eos_token_id", None) is None:
            raise UserError("must be a fast tokenizer of transformers that has an eos_token.", where="tokenizer")
        mask_id = tokenizer.mask_token_id if mask_id is None else mask_id
        # Without MASK, an id that no token has.
        unused_id = 1 + max(tokenizer.get_vocab().values())
        self.tokenizer = CheckpointTokenizer(tokenizer, unused_id if mask_id is None else mask_id)
        self.control, self.embeddings, self.seed = control, embeddings, seed
        self.guidance = settings_from(guidance, Guidance(), "guidance")
        self._steered: Steered | None = None
        self._noise: SampleNoise | None = None
        # The state of the current run: its prompt, where the text begins, the number of steps, the last step, and
        # whether the canvas is the controlled one.
        self._prompt: Tensor | None = None
        self._text_start = self._steps = self._step = 0
        self._is_controlled = True

    @own_modes()
    def __call__(self, input_ids: Tensor, scores: Tensor, cur_step: int | Tensor) -> Tensor:
        """As a logits processor of a diffusion model: ``scores [B, C, V]`` of a canvas, ``cur_step`` counting down.

        The text is in the first canvas after ``input_ids``; later canvases are left unchanged. A prompt that consists
        of an earlier prompt and its whole answer, without an end of text, counts as a later canvas too: use a new
        object to control the continuation.

        Raises:
            UserError: the control cannot be satisfied, or the scores are those of a model that writes token by token.
        """
        if scores.dim() != 3:
            what = "the scores are of one position; this control is for models that write all of a text at once."
            raise UserError(what, where="LogitsControl")
        step = int(cur_step)
        # Steps count down within a canvas, so a new canvas begins when they do not.
        if self._prompt is None or step >= self._step:
            self._is_controlled = not (step == self._steps and self._is_later_canvas(input_ids, scores.shape[1]))
            if self._is_controlled:
                self._begin(scores)
                self._prompt, self._steps = input_ids.clone(), step
        self._step = step
        return self._steer(scores, None, step / self._steps) if self._is_controlled else scores

    def _is_later_canvas(self, input_ids: Tensor, canvas_size: int) -> bool:
        """Whether a canvas follows another one of the same text. If every text has ended, there is no later canvas, so
        the prompt is a new one that contains the answers."""
        if self._prompt is None or input_ids.shape[0] != self._prompt.shape[0]:
            return False
        prompt_length = self._prompt.shape[1]
        added = input_ids.shape[1] - prompt_length
        if added <= 0 or added % canvas_size or not torch.equal(input_ids[:, :prompt_length], self._prompt):
            return False
        stop_ids = torch.tensor(sorted(self.tokenizer.stop_ids), device=input_ids.device)
        return not bool(torch.isin(input_ids[:, prompt_length:], stop_ids).any(1).all())

    @own_modes()
    def hook(self, step: int | None, x: Tensor, logits: Tensor) -> Tensor:
        """As ``generation_logits_hook_func`` of Dream: ``x [B, S]``, MASK where tokens will be, ``logits [B, S, V]``.

        The text begins at the first place that is MASK in any row at step 0: prompts are padded on the left, and a text
        to be filled in begins with its first gap. If nothing is written in it yet and the control limits its size, its
        number of tokens is settled then.

        Raises:
            UserError: the control cannot be satisfied, or nothing is masked at step 0.
        """
        is_open = x == self.tokenizer.mask_id
        if not step or self._steered is None:
            places = is_open.any(0).nonzero().flatten()
            if not len(places):
                raise UserError("no token is MASK, so there is nothing to write.", where="LogitsControl.hook")
            self._text_start = int(places[0])
            is_free = bool(is_open[:, self._text_start :].all())
            self._begin(logits[:, self._text_start :], settles_tokens=is_free)
        open_share = float(is_open[:, self._text_start :].float().mean())
        steered = self._steer(logits[:, self._text_start :], x[:, self._text_start :], open_share)
        return torch.cat([logits[:, : self._text_start], steered.to(logits)], 1)

    def _begin(self, scores: Tensor, *, settles_tokens: bool = False) -> None:
        """Lay out the texts of a batch and prepare the control for them.

        Args:
            settles_tokens: whether the number of tokens is settled where the control limits the size of the text, as
                for models that dlmctl runs: an end that is written early often leaves too much or too little room.
        """
        rows, places, entries = scores.shape
        size = len(self.tokenizer)
        if entries < size or places >= MAX_POSITIONS:
            what = f"the logits are {places} x {entries}; the tokenizer has {size} ids."
            raise UserError(what, where="LogitsControl", remedy="Pass the tokenizer of the model.")
        model = _ExternalModel(self.tokenizer, places + 1, self.embeddings, scores.device)
        if settles_tokens:
            model.settle_tokens(scores[..., :size])
        settings = SamplerSettings(new_tokens=places)
        draws = [Draw(self.seed, row) for row in range(rows)]
        self._noise = SampleNoise(draws)
        try:
            layouts, prepared = self._prepared(model, settings, draws)
        except UnsatisfiableError:
            if not model.settles_tokens:
                raise
            model.settles_tokens = False  # there may be a text that leaves no place for its end
            layouts, prepared = self._prepared(model, settings, draws)
        family = Absorbing(model, self.tokenizer, WALKS["entropy"], WalkSettings(model.mask_id), ())
        steered_class = Steered if self.embeddings is not None else _WithoutEmbeddings
        self._steered = steered_class(
            family, model.embeddings, self.tokenizer, prepared, self.guidance, settings, layouts
        )

    def _prepared(
        self, model: _ExternalModel, settings: SamplerSettings, draws: Sequence[Draw]
    ) -> tuple[Layouts, PreparedAll | None]:
        """The layouts of a batch, and the control for them."""
        pretrained = Pretrained(model, self.tokenizer, NO_FOLDER)
        try:
            plan = Plan(pretrained, self.control.for_model(pretrained), settings, self.guidance, len(draws))
            return prepared_for(plan, draws, model.config.length)
        except UserError as error:
            if not (error.where or "").startswith(str(NO_FOLDER)):
                raise
            raise type(error)(error.what, where="LogitsControl", remedy=error.remedy) from None

    def _steer(self, scores: Tensor, canvas: Tensor | None, t: float) -> Tensor:
        """``scores [B, C, V]``, steered by the control; certain where ``canvas [B, C]`` already has a token."""
        assert self._steered is not None
        assert self._noise is not None
        size, start = len(self.tokenizer), self.tokenizer.start_id
        logits = torch.nn.functional.pad(at_least_float32(scores[..., :size]), (0, 0, 1, 0))
        x = torch.full(logits.shape[:2], self.tokenizer.mask_id, device=logits.device)
        x[:, 0] = start
        if canvas is not None:
            x[:, 1:] = canvas
        logits = with_fixed_words(logits, x, self.tokenizer.mask_id)
        times = times_on(x.device, torch.full((len(x),), t, dtype=torch.float64))
        constraint_t = torch.zeros(len(x), dtype=torch.float64)
        with torch.no_grad():
            unconstrained = self._steered.unconstrained(logits, t, times, constraint_t)
            # Several tokens may be written at once, so every choice among the remaining ones must satisfy the control:
            # those along the likeliest text, or where a token stays once it is written, along a drawn text. Otherwise
            # what the control asks for would be written first, and always at its likeliest place.
            if canvas is None:
                guided = self._steered.exact.constrain(unconstrained, constraint_t)
            else:
                guided = self._steered.exact.draw(unconstrained, unconstrained, self._noise.uniform(1, x)[0])
        return torch.nn.functional.pad(guided[:, 1:], (0, scores.shape[-1] - size), value=-torch.inf)


class _ExternalModel(MaskedModel):
    """The attributes that controls need of a model that runs elsewhere."""

    family: ClassVar[MaskedFamily] = "tokens"
    config: TokenConfig

    def __init__(
        self, tokenizer: CheckpointTokenizer, length: int, embeddings: Tensor | None, device: torch.device
    ) -> None:
        super().__init__()
        table = torch.zeros(len(tokenizer), 1) if embeddings is None else embeddings[: len(tokenizer)]
        self.table = table.detach().to(device)
        self.config = TokenConfig(
            kind="a model run elsewhere",
            vocab_size=len(tokenizer),
            length=length,
            embed_dim=self.table.shape[1],
            mask_id=tokenizer.mask_id,
            predicts="same",
            sampler="entropy",
        )

    def settle_tokens(self, scores: Tensor) -> None:
        """Settle the numbers of tokens of texts by the ``scores [B, C, V]`` of their masked places."""
        self.settles_tokens = True
        self.marginals = mean_log_probs(at_least_float32(scores).flatten(0, 1))

    @property
    def mask_id(self) -> int:
        """The id of MASK."""
        return self.config.mask_id

    @property
    def embeddings(self) -> Tensor:
        """The embedding of every token ``[V, H]``."""
        return self.table


class _WithoutEmbeddings(Steered):
    """Guidance by energies of token probabilities alone."""

    def _state_of_words(self, probabilities: Tensor) -> ControlState:
        def refuse() -> Tensor:
            remedy = "Pass LogitsControl(..., embeddings=model.get_input_embeddings().weight)."
            raise UserError("this control reads the embeddings of the model.", where="LogitsControl", remedy=remedy)

        return ControlState(
            probabilities,
            torch.zeros(len(probabilities), device=probabilities.device),
            vocabulary=self.vocabulary,
            embeddings=self.embeddings,
            x0=refuse,
            word_log_probs=probabilities.clamp(min=MIN_PROBABILITY).log,
            mask=self.mask,
        )
