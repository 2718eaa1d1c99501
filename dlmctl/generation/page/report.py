"""``--report`` and ``dlmctl report``: one HTML file with all that is to be seen of some results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from dlmctl import __version__
from dlmctl.errors import UserError
from dlmctl.generation.output import check_file, replacing, require_new
from dlmctl.generation.page.figures import Distribution
from dlmctl.generation.page.marked import text_html
from dlmctl.generation.page.source import Results, Row, Verdict, of_run
from dlmctl.generation.page.steps import steps_html
from dlmctl.generation.results import Generation
from dlmctl.recipe.recipe import Recipe
from dlmctl.text.tokenizer import END

# Texts that a page holds, and texts whose steps it has; the figures are those of all.
MOST_TEXTS, MOST_TRACES = 1000, 24
# Characters of anything that came with a row.
MOST_CELL = 60
# What a recipe says of how texts are drawn rather than of what they are to be; its description is the page's own.
SETTINGS = ("preset", "sampler", "guidance", "batch_size", "device")


@dataclass
class Figures:
    """What all texts of a run come to, row by row; ``missing`` of them could not be drawn."""

    rows: int = 0
    passed: int = 0
    missing: int = 0
    read: bool = False
    passes: dict[str, int] = field(default_factory=dict)
    scores: dict[str, Distribution] = field(default_factory=dict)
    lengths: Distribution = field(default_factory=lambda: Distribution("words a text"))
    fluency: Distribution = field(default_factory=lambda: Distribution("lm-score, nats a token"))

    def add(self, row: Row) -> None:
        self.rows += 1
        self.passed += row.passed
        self.read |= row.acceptability is not None
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
        what = "the control" if len(self.scores) == 1 else "every control"
        if self.passed == self.rows:
            return f"{'The text satisfies' if self.rows == 1 else f'All {texts} satisfy'} {what}"
        return f"{self.passed:,} of {texts} {'satisfies' if self.passed == 1 else 'satisfy'} {what}"

    def drawn(self) -> Iterator[dict[str, Any]]:
        """Each distribution with what is said above it."""
        for name, scores in self.scores.items():
            passed = self.passes[name]
            yield _figure(scores, f"{passed:,} of {scores.counts.total():,} pass, mean {scores.said(scores.mean)}")
        for one in (self.lengths, self.fluency):
            if one.counts:
                yield _figure(one, f"mean {one.mean:,.3g}")


def write_report(results: Results, path: Path) -> int:
    """Write the page; it appears whole or not at all.

    Returns:
        How many texts there are.

    Raises:
        DataError: the results are not what they should be, or there are none.
        UserError: the file cannot be written.
    """
    page, rows = report_html(results)
    with replacing(path) as partial:
        partial.write_text(page, "utf-8")
    return rows


def report(result: Generation, path: str | Path, recipe: Recipe | None = None) -> None:
    """A page of a run to look at, as ``dlmctl generate --report`` makes it; one that is there is replaced.

    Args:
        path: of the file, such as ``run.html``.
        recipe: what was asked, to stand on the page.

    Raises:
        UserError: the result is empty, or the file cannot be written.
    """
    check_page(Path(path), force=True)
    write_report(of_run(result, None if recipe is None else recipe.model_dump()), Path(path))


def check_page(path: Path, *, force: bool = False) -> None:
    """Find out before anything is drawn whether the page can be written.

    Raises:
        UserError: as ``check_file``, or it is there already and ``force`` is not given.
    """
    check_file(path, (".html", ".htm"))
    require_new(path, force=force)


def report_html(results: Results) -> tuple[str, int]:
    """The page, and how many texts the results have. Raises as ``write_report``."""
    figures, texts, traces = Figures(), list[dict[str, Any]](), dict[int, Any]()
    for row in results.rows():
        figures.add(row)
        if len(texts) < MOST_TEXTS:
            trace = row.steps() if len(traces) < MOST_TRACES else None
            texts.append(_entry(row) | ({} if trace is None else _steps(row, trace.to_dict(), trace)))
            if trace is not None:
                traces[row.index] = trace.to_dict()
    if not figures.rows:
        raise UserError("holds no text.", where=results.name)
    more = figures.rows > len(texts)
    page = _template().render(
        version=__version__,
        language="en",
        headline=figures.headline,
        lede=(results.recipe or {}).get("description"),
        facts=list(_facts(results, figures)),
        figures=list(figures.drawn()),
        recipe=_yaml(results.recipe, lambda name: name not in (*SETTINGS, "description")),
        settings=_yaml(results.recipe, SETTINGS.__contains__),
        fluent=bool(figures.fluency.counts),
        read=figures.read,
        environments=[_line(one) for one in results.environments],
        note=f"the first {len(texts):,} of {figures.rows:,}" if more else "",
        texts=texts,
        failed=sum(not one["passed"] for one in texts),
        traces={str(number): trace for number, trace in traces.items()},
    )
    return page, figures.rows


@cache
def _template() -> Any:
    loader = PackageLoader("dlmctl.generation.page")
    return Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template("report.html")


def _facts(results: Results, figures: Figures) -> Iterator[tuple[str, str]]:
    """What stands above the headline."""
    recipe = results.recipe or {}
    yield "dlmctl", str(recipe.get("model") or "")
    if recipe.get("seed") is not None:
        yield "seed", str(recipe["seed"])
    if figures.missing:
        yield "could not be drawn", f"{figures.missing:,}"
    if results.seconds:
        yield "drawn in", f"{results.seconds:,.1f} s ({figures.rows / results.seconds:,.1f} a second)"


def _yaml(recipe: Mapping[str, Any] | None, shown: Callable[[str], bool]) -> str:
    """Some of a recipe's settings as YAML, without what is not set."""
    said = {name: value for name, value in (recipe or {}).items() if shown(name) and _set(value)}
    if isinstance(said.get("until"), Mapping):
        said["until"] = {name: value for name, value in said["until"].items() if _set(value)}
    return yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=44, default_flow_style=None) if said else ""


def _set(value: Any) -> bool:
    """Whether a setting says something. The seed 0 does, which is equal to False."""
    return value is not False and value not in (None, [], {})


def _line(environment: Mapping[str, Any]) -> str:
    """An environment in one line."""
    left_out = ("processor_features", "kernels")
    return ", ".join(f"{name} {value}" for name, value in environment.items() if name not in left_out)


def _figure(one: Distribution, said: str) -> dict[str, Any]:
    return {"name": one.name, "said": said, "svg": Markup(one.svg())}


def _entry(row: Row) -> dict[str, Any]:
    """A text as the template shows it."""
    marks = {name: check.seen for name, check in row.checks.items()}
    told = [_told(name, check) for name, check in row.checks.items()]
    if row.lm_score is not None:
        told.append({"name": "lm-score", "value": f"{row.lm_score:.2f}"})
    if row.worst_word is not None and row.worst_nats is not None:
        word = "the end" if row.worst_word == END else f"“{row.worst_word}”"
        told.append({"name": f"least likely {word}", "value": f"{row.worst_nats:.1f}"})
    if row.acceptability is not None:
        told.append({"name": "acceptability", "value": f"{row.acceptability:.2f}"})
    if row.rounds > 1:
        told.append({"name": "rounds", "value": str(row.rounds)})
    if row.row is not None:
        told.append({"name": "row", "value": str(row.row)})
    told += [{"name": name, "value": _cut(value)} for name, value in row.columns.items() if value not in (None, "")]
    if row.problem:
        told.append({"name": row.problem, "faulty": True})
    html = Markup(text_html(row.text, row.words, marks))
    return {"number": row.index, "text": row.text, "html": html, "passed": row.passed, "told": told}


def _told(name: str, check: Verdict) -> dict[str, Any]:
    """A verdict in short: the score where it is not simply met or not, and the reason of one that is not met."""
    if check.passed:
        return {"name": name, "value": "✓" if check.score == 1 else f"{check.score:.0%}", "title": check.why}
    return {"name": name, "value": f"{check.score:.0%}", "why": check.why, "faulty": True}


def _cut(value: Any) -> str:
    said = str(value)
    return said if len(said) <= MOST_CELL else f"{said[: MOST_CELL - 3]}..."


def _steps(row: Row, saved: Mapping[str, Any], trace: Any) -> dict[str, Any]:
    return {"steps": Markup(steps_html(trace.frames, saved["energies"])), "count": len(trace) - 1}
