"""The controls inside the samplers of others: token logits in, token logits out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control
from dlmctl.control.state import ControlState
from dlmctl.diffusion.absorbing import Absorbing, with_certain
from dlmctl.diffusion.masked_base import MaskedFamily, MaskedModel
from dlmctl.diffusion.noise import Draw
from dlmctl.diffusion.tokens import TokenConfig
from dlmctl.diffusion.walks import WALKS, WalkSettings
from dlmctl.errors import UserError
from dlmctl.models.numerics import widened
from dlmctl.recipe.python_settings import settings_from
from dlmctl.recipe.settings import Guidance, SamplerSettings
from dlmctl.sampling.draw import prepared_for
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.steering import LEAST, Steered
from dlmctl.text.checkpoint_tokenizer import CheckpointTokenizer

# The folder of a model that was loaded elsewhere: nothing lies in it, wherever the program runs.
NOWHERE = Path(os.devnull, "LogitsControl")
# Positions of a text, START among them, above which nothing is laid out.
MOST_POSITIONS = 65_536


class LogitsControl:
    """A control for diffusion models that run in code of others.

    For ``generate`` of transformers it is a logits processor (DiffusionGemma): it is called with the tokens so far and
    the logits of the whole canvas. For Dream's ``diffusion_generate`` its ``hook`` is the
    ``generation_logits_hook_func``. Either way exact controls hold in the text that comes out, however many tokens are
    written in a step; the energies of the others guide. What must have the latent of a model, or classifiers trained
    beside it, is for models that dlmctl runs itself. Of controls under ``any`` all rows of a call get the same one.

    Args:
        control: what the text must satisfy, e.g. ``Contains("pub")``; its first set of parameters is row 0's.
        tokenizer: of the model, a fast one of transformers.
        mask_id: the id of MASK; that of the tokenizer if not given, and none for models without.
        embeddings: the input embeddings ``[V, H]`` of the model, for energies that read them.
        guidance: settings of guidance, as in a recipe.
        seed: of what a control draws by chance, such as a length.

    Raises:
        UserError: the control or the guidance is none, or the tokenizer is not a fast one with an end of text.
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
        found = tokenizer.mask_token_id if mask_id is None else mask_id
        # Where there is no MASK, an id that no token has.
        no_mask = 1 + max(tokenizer.get_vocab().values())
        self.tokenizer = CheckpointTokenizer(tokenizer, no_mask if found is None else found)
        self.control, self.embeddings, self.seed = control, embeddings, seed
        self.guidance = settings_from(guidance, Guidance(), "guidance")
        self._steered: Steered | None = None
        # Of the run that it is in: the prompt, where the text begins, how many steps there are, the last step, and
        # whether the canvas is the text's.
        self._prompt: Tensor | None = None
        self._before = self._steps = self._step = 0
        self._inside = True

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_step: int | Tensor) -> Tensor:
        """As a logits processor of a diffusion model: ``scores [B, C, V]`` of a canvas, ``cur_step`` counting down.

        The text stands in the first canvas behind ``input_ids``; canvases behind that one are left as they are. Where a
        prompt is an earlier one with its whole answer, and the answer has no end, that is such a canvas too: take a new
        object to control what goes on there.

        Raises:
            UserError: the control cannot be satisfied, or the scores are those of a model that writes token by token.
        """
        if scores.dim() != 3:
            what = "the scores are of one position; this control is for models that write all of a text at once."
            raise UserError(what, where="LogitsControl")
        step = int(cur_step)
        # Steps count down, so a canvas begins where they do not.
        if self._prompt is None or step >= self._step:
            self._inside = not (step == self._steps and self._goes_on(input_ids, scores.shape[1]))
            if self._inside:
                self._begin(scores)
                self._prompt, self._steps = input_ids.clone(), step
        self._step = step
        return self._steer(scores, None, step / self._steps) if self._inside else scores

    def _goes_on(self, input_ids: Tensor, canvas: int) -> bool:
        """Whether a canvas comes behind another one of the text that was begun. Where every text has ended there is no
        other one, so the prompt is a new one that holds the answers."""
        if self._prompt is None or input_ids.shape[0] != self._prompt.shape[0]:
            return False
        before = self._prompt.shape[1]
        more = input_ids.shape[1] - before
        if more <= 0 or more % canvas or not torch.equal(input_ids[:, :before], self._prompt):
            return False
        stops = torch.tensor(sorted(self.tokenizer.stop_ids), device=input_ids.device)
        return not bool(torch.isin(input_ids[:, before:], stops).any(1).all())

    def hook(self, step: int | None, x: Tensor, logits: Tensor) -> Tensor:
        """As ``generation_logits_hook_func`` of Dream: ``x [B, S]``, MASK where tokens will be, ``logits [B, S, V]``.

        The text stands from the first place on that is MASK in any row at step 0: prompts are filled up at their left
        ends, and a text to be filled in begins with its first gap.

        Raises:
            UserError: the control cannot be satisfied, or nothing is masked at step 0.
        """
        is_open = x == self.tokenizer.mask_id
        if not step or self._steered is None:
            places = is_open.any(0).nonzero().flatten()
            if not len(places):
                raise UserError("no token is MASK, so there is nothing to write.", where="LogitsControl.hook")
            self._before = int(places[0])
            self._begin(logits[:, self._before :])
        share = float(is_open[:, self._before :].float().mean())
        moved = self._steer(logits[:, self._before :], x[:, self._before :], share)
        return torch.cat([logits[:, : self._before], moved.to(logits)], 1)

    def _begin(self, scores: Tensor) -> None:
        """Lay the texts of a batch out and prepare the control for them."""
        rows, places, entries = scores.shape
        size = len(self.tokenizer)
        if entries < size or places >= MOST_POSITIONS:
            what = f"the logits are {places} x {entries}; the tokenizer has {size} ids."
            raise UserError(what, where="LogitsControl", remedy="Give the tokenizer of the model.")
        model = _Standing(self.tokenizer, places + 1, self.embeddings, scores.device)
        pretrained = Pretrained(model, self.tokenizer, NOWHERE)
        settings = SamplerSettings(new_tokens=places)
        try:
            plan = Plan(pretrained, self.control.for_model(pretrained), settings, self.guidance, rows)
            layouts, prepared = prepared_for(plan, [Draw(self.seed, row) for row in range(rows)])
        except UserError as error:
            if not (error.where or "").startswith(str(NOWHERE)):
                raise
            raise type(error)(error.what, where="LogitsControl", remedy=error.remedy) from None
        family = Absorbing(model, self.tokenizer, WALKS["entropy"], WalkSettings(model.mask_id), ())
        steered = Steered if self.embeddings is not None else _WithoutEmbeddings
        self._steered = steered(family, model.embeddings, self.tokenizer, prepared, self.guidance, settings, layouts)

    def _steer(self, scores: Tensor, canvas: Tensor | None, t: float) -> Tensor:
        """``scores [B, C, V]`` as the control wants them; certain where ``canvas [B, C]`` has a token already."""
        assert self._steered is not None
        size, start = len(self.tokenizer), self.tokenizer.start_id
        logits = torch.nn.functional.pad(widened(scores[..., :size]), (0, 0, 1, 0))
        x = torch.full(logits.shape[:2], self.tokenizer.mask_id, device=logits.device)
        x[:, 0] = start
        if canvas is not None:
            x[:, 1:] = canvas
        logits = with_certain(logits, x, self.tokenizer.mask_id)
        times = torch.full((len(x),), t, dtype=torch.float64, device=x.device)
        # Several tokens may be written at once: any choice of those that are left has to do.
        settled = torch.zeros(len(x), dtype=torch.float64)
        with torch.no_grad():
            found = self._steered.guided(logits, t, times, settled)[:, 1:]
        return torch.nn.functional.pad(found, (0, scores.shape[-1] - size), value=-torch.inf)


class _Standing(MaskedModel):
    """What a control may ask of a model that is run elsewhere."""

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
        def refused() -> Tensor:
            remedy = "Give LogitsControl(..., embeddings=model.get_input_embeddings().weight)."
            raise UserError("this control reads the embeddings of the model.", where="LogitsControl", remedy=remedy)

        return ControlState(
            probabilities,
            torch.zeros(len(probabilities), device=probabilities.device),
            vocabulary=self.vocabulary,
            embeddings=self.embeddings,
            x0=refused,
            word_log_probs=probabilities.clamp(min=LEAST).log,
            mask=self.mask,
        )
