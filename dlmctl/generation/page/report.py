"""``--report`` and ``dlmctl report``: results as a single HTML file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from dlmctl import __version__
from dlmctl.errors import UserError
from dlmctl.generation.output import atomic_write, check_file, require_new
from dlmctl.generation.page.figures import Distribution
from dlmctl.generation.page.marked import text_html
from dlmctl.generation.page.source import Results, Row, Verdict, results_of_run
from dlmctl.generation.page.steps import steps_html
from dlmctl.generation.results import Generation, Sample
from dlmctl.recipe.recipe import Recipe
from dlmctl.text.plain_values import name_of
from dlmctl.text.tokenizer import END

# Most texts of a page, and most texts with their steps; the figures cover all texts.
MAX_TEXTS, MAX_TRACES = 1000, 24
# Most characters of a cell from the user's table.
MAX_CELL = 60
# Keys of a recipe about how texts are drawn, shown apart from what they should be.
SAMPLING_SETTINGS = ("preset", "sampler", "guidance", "batch_size", "device")


@dataclass
class Figures:
    """Figures over all texts of a run, updated row by row; ``missing`` texts could not be drawn."""

    rows: int = 0
    passed: int = 0
    missing: int = 0
    has_acceptability: bool = False
    passes: dict[str, int] = field(default_factory=dict)
    scores: dict[str, Distribution] = field(default_factory=dict)
    lengths: Distribution = field(default_factory=lambda: Distribution("words per text"))
    fluency: Distribution = field(default_factory=lambda: Distribution("lm-score, nats per token"))

    def add(self, row: Row) -> None:
        self.rows += 1
        self.passed += row.passed
        self.has_acceptability |= row.acceptability is not None
        if row.unmet:
            self.missing += 1
        else:
            self.lengths.add(len(row.words))
        if row.lm_score is not None:
            self.fluency.add(row.lm_score)
        for name, check in row.checks.items():
            self.scores.setdefault(name, Distribution(name, share=True)).add(check.score)
            self.passes[name] = self.passes.get(name, 0) + check.passed

    @property
    def headline(self) -> str:
        texts = "1 text" if self.rows == 1 else f"{self.rows:,} texts"
        if not self.scores:
            return texts
        controls = "the control" if len(self.scores) == 1 else "every control"
        if self.passed == self.rows:
            return f"{'The text satisfies' if self.rows == 1 else f'All {texts} satisfy'} {controls}"
        return f"{self.passed:,} of {texts} {'satisfies' if self.passed == 1 else 'satisfy'} {controls}"

    def histograms(self) -> Iterator[dict[str, Any]]:
        """The histogram of each distribution with its caption."""
        for name, scores in self.scores.items():
            passed = self.passes[name]
            yield _histogram(
                scores, f"{passed:,} of {scores.counts.total():,} pass, mean {scores.formatted(scores.mean)}"
            )
        for distribution in (self.lengths, self.fluency):
            if distribution.counts:
                yield _histogram(distribution, f"mean {distribution.mean:,.3g}")


def write_report(results: Results, path: Path) -> int:
    """Write the page; the write is atomic.

    Returns:
        The number of texts.

    Raises:
        DataError: the results are malformed, or there are none.
        UserError: the file cannot be written.
    """
    page, rows = report_html(results)
    with atomic_write(path) as partial:
        partial.write_text(page, "utf-8")
    return rows


def report(
    result: Generation | Sequence[Sample], path: str | Path, recipe: Recipe | Mapping[str, Any] | None = None
) -> None:
    """Write an HTML page of a run, as ``dlmctl generate --report`` does; an existing file is replaced.

    Args:
        result: what ``generate`` or ``run`` returned, or samples of several runs in one list.
        path: the file, such as ``run.html``.
        recipe: the recipe of the run, to be shown on the page.

    Raises:
        UserError: the result is empty or none, or the file cannot be written.
    """
    check_page(Path(path), force=True)
    write_report(results_of_run(_as_generation(result), _settings_of(recipe)), Path(path))


def _as_generation(result: Any) -> Generation:
    if isinstance(result, Generation):
        return result
    if not isinstance(result, Sequence) or not all(isinstance(sample, Sample) for sample in result):
        remedy = "Give what `generate` or `run` returned, or a list of its samples."
        raise UserError(f"{type(result).__name__!r} is not a result.", where="result", remedy=remedy)
    # Samples of several runs may have the same number, by which the page finds their steps.
    return Generation([replace(sample, index=number) for number, sample in enumerate(result)], 0.0)


def _settings_of(recipe: Any) -> dict[str, Any] | None:
    if recipe is not None and not isinstance(recipe, Recipe | Mapping):
        what = f"{type(recipe).__name__!r} is not a recipe."
        raise UserError(what, where="recipe", remedy="Give a dlmctl.Recipe or a dict of its settings.")
    settings = Recipe(**recipe) if isinstance(recipe, Mapping) else recipe
    return None if settings is None else settings.model_dump(mode="json", fallback=name_of)


def check_page(path: Path, *, force: bool = False) -> None:
    """Check before anything is drawn that the page can be written.

    Raises:
        UserError: as ``check_file``, or the file exists and ``force`` is not set.
    """
    check_file(path, (".html", ".htm"))
    require_new(path, force=force)


def report_html(results: Results) -> tuple[str, int]:
    """The page, and the number of texts in the results. Raises as ``write_report``."""
    figures, texts, traces = Figures(), list[dict[str, Any]](), dict[int, Any]()
    for row in results.rows():
        figures.add(row)
        if len(texts) < MAX_TEXTS:
            trace = row.steps() if len(traces) < MAX_TRACES else None
            texts.append(_text_entry(row))
            if trace is not None:
                traces[row.index] = saved = trace.to_dict()
                texts[-1] |= _steps_entry(saved, trace)
    if not figures.rows:
        raise UserError("holds no text.", where=results.name)
    is_truncated = figures.rows > len(texts)
    page = _template().render(
        version=__version__,
        language="en",
        headline=figures.headline,
        lede=(results.recipe or {}).get("description"),
        facts=list(_facts(results, figures)),
        figures=list(figures.histograms()),
        recipe=_yaml(results.recipe, lambda name: name not in (*SAMPLING_SETTINGS, "description")),
        settings=_yaml(results.recipe, SAMPLING_SETTINGS.__contains__),
        has_fluency=bool(figures.fluency.counts),
        has_acceptability=figures.has_acceptability,
        environments=[_environment_line(environment) for environment in results.environments],
        note=f"the first {len(texts):,} of {figures.rows:,}" if is_truncated else "",
        texts=texts,
        failed=sum(not text["passed"] for text in texts),
        traces={str(number): trace for number, trace in traces.items()},
    )
    return page, figures.rows


@cache
def _template() -> Any:
    loader = PackageLoader("dlmctl.generation.page")
    return Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template("report.html")


def _facts(results: Results, figures: Figures) -> Iterator[tuple[str, str]]:
    """The facts above the headline."""
    recipe = results.recipe or {}
    yield "dlmctl", str(recipe.get("model") or "")
    if recipe.get("seed") is not None:
        yield "seed", str(recipe["seed"])
    if figures.missing:
        yield "could not be drawn", f"{figures.missing:,}"
    if results.seconds:
        yield "drawn in", f"{results.seconds:,.1f} s ({figures.rows / results.seconds:,.1f} a second)"


def _yaml(recipe: Mapping[str, Any] | None, is_shown: Callable[[str], bool]) -> str:
    """The settings of a recipe that ``is_shown`` selects, as YAML, without unset ones."""
    settings = {name: value for name, value in (recipe or {}).items() if is_shown(name) and _is_set(value)}
    if isinstance(settings.get("until"), Mapping):
        settings["until"] = {name: value for name, value in settings["until"].items() if _is_set(value)}
    return (
        yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=44, default_flow_style=None)
        if settings
        else ""
    )


def _is_set(value: Any) -> bool:
    """Whether a setting is set. The seed 0 is, although it equals False."""
    return value is not False and value not in (None, [], {})


def _environment_line(environment: Mapping[str, Any]) -> str:
    """An environment as a line of text."""
    left_out = ("processor_features", "kernels")
    return ", ".join(f"{name} {value}" for name, value in environment.items() if name not in left_out)


def _histogram(distribution: Distribution, caption: str) -> dict[str, Any]:
    return {"name": distribution.name, "caption": caption, "svg": Markup(distribution.svg())}


def _text_entry(row: Row) -> dict[str, Any]:
    """The template's entry for a text."""
    marks = {name: check.seen for name, check in row.checks.items()}
    details = [_verdict_entry(name, check) for name, check in row.checks.items()]
    if row.lm_score is not None:
        details.append({"name": "lm-score", "value": f"{row.lm_score:.2f}"})
    if row.worst_word is not None and row.worst_nats is not None:
        word = "the end" if row.worst_word == END else f"“{row.worst_word}”"
        details.append({"name": f"least likely {word}", "value": f"{row.worst_nats:.1f}"})
    if row.acceptability is not None:
        details.append({"name": "acceptability", "value": f"{row.acceptability:.2f}"})
    if row.rounds > 1:
        details.append({"name": "rounds", "value": str(row.rounds)})
    if row.row is not None:
        details.append({"name": "row", "value": str(row.row)})
    cells = {"label": row.label, "source": row.source, "prompt": row.prompt, **row.columns}
    details += [{"name": name, "value": _shortened(value)} for name, value in cells.items() if value not in (None, "")]
    if row.problem:
        details.append({"name": row.problem, "faulty": True})
    html = Markup(text_html(row.text, row.words, marks))
    return {"number": row.index, "text": row.text, "html": html, "passed": row.passed, "details": details}


def _verdict_entry(name: str, check: Verdict) -> dict[str, Any]:
    """The template's entry for a verdict: a check mark or the score, and the reason if it fails."""
    if check.passed:
        return {"name": name, "value": "✓" if check.score == 1 else f"{check.score:.0%}", "title": check.why}
    return {"name": name, "value": f"{check.score:.0%}", "why": check.why, "faulty": True}


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 3]}..."


def _steps_entry(saved: Mapping[str, Any], trace: Any) -> dict[str, Any]:
    return {"steps": Markup(steps_html(trace.frames, saved["energies"])), "count": len(trace) - 1}
