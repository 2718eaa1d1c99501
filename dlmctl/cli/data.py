"""``dlmctl data``: prepare."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dlmctl.datasets.prepare import PrepareReport

app = typer.Typer(no_args_is_help=True)


class FormatName(str, Enum):
    e2e_csv = "e2e-csv"
    e2e = "e2e"
    roc_csv = "roc-csv"
    roc_jsonl = "roc-jsonl"
    roc_infill = "roc-infill"
    text = "text"
    prose = "prose"
    jsonl = "jsonl"
    csv = "csv"
    tsv = "tsv"
    conllu = "conllu"
    parquet = "parquet"


class PackingName(str, Enum):
    pad = "pad"
    block = "block"


class SplittingName(str, Enum):
    e2e = "e2e"
    penn = "penn"


Splitting = Annotated[
    SplittingName | None,
    typer.Option(help="How to split texts into words: e2e or penn (don't is do n't); by default as in the vocabulary."),
]
Tags = Annotated[bool, typer.Option("--tags", help="Tag each word's part of speech with the bundled tagger, as upos.")]
Vocabulary = Annotated[
    str | None, typer.Option(help="Use the vocabulary of this model or prepared data set.", metavar="MODEL")
]
MinCount = Annotated[
    int | None, typer.Option(help="Words that occur less often become UNK; by default 11. For a new vocabulary.")
]
AddWords = Annotated[
    int | None,
    typer.Option(help="Add the words of the training file that occur at least so often to --vocabulary.", metavar="N"),
]
TokenizerName = Annotated[
    str | None, typer.Option(help="Use a Hugging Face tokenizer: a folder or a hub name.", metavar="NAME")
]
Packing = Annotated[
    PackingName, typer.Option(help="pad: one text per row; block: texts joined and cut into full rows.")
]
TextField = Annotated[str, typer.Option(help="Field or column that holds the text, in JSON lines and tables.")]


@app.callback()
def data() -> None:
    """Prepare data sets for training."""


@app.command()
def prepare(
    train: Annotated[Path, typer.Argument(help="The training file, or a folder of files.")],
    out: Annotated[Path, typer.Option(help="Folder for the data set.")],
    valid: Annotated[Path | None, typer.Option(help="The validation file; by default rows are held out.")] = None,
    format: Annotated[
        FormatName | None, typer.Option(help="Format of the files; by default detected from names and first lines.")
    ] = None,
    text_field: TextField = "text",
    min_count: MinCount = None,
    length: Annotated[int, typer.Option(help="Positions per row, START and END included.")] = 64,
    packing: Packing = PackingName.pad,
    valid_share: Annotated[float, typer.Option(help="Share of rows to hold out if there is no --valid.")] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Random seed for the rows held out.")] = 0,
    unique: Annotated[bool, typer.Option("--unique", help="Keep only the first of several equal texts.")] = False,
    vocabulary: Vocabulary = None,
    add_words: AddWords = None,
    tokenizer: TokenizerName = None,
    splitting: Splitting = None,
    tags: Tags = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the data set in --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Turn text files into a data set for training.

    Reads E2E (the released CSV, or attribute : value | ...||text), ROCStories (CSV or JSON lines), JSON lines, CSV and
    TSV with a text column, CoNLL-U (its tags are kept), Parquet, plain text (one text per line) and, with --format
    prose, running text, which is split into sentences; all except Parquet also as .gz, .bz2 or .xz. Reads all files of
    a folder. Reports what was left out, and why.
    """
    from dlmctl.annotators.tagging import upos_tagger
    from dlmctl.datasets.existing_tokenizer import find_tokenizer
    from dlmctl.datasets.prepare import prepare as run
    from dlmctl.text.terminal import spinning

    with spinning("preparing the data set"):
        report = run(
            train,
            valid,
            out,
            format=format.value if format else None,
            text_field=text_field,
            min_count=min_count,
            length=length,
            packing=packing.value,
            valid_share=valid_share,
            seed=seed,
            unique=unique,
            tokenizer=find_tokenizer(vocabulary, tokenizer),
            add_words=add_words,
            splitting=splitting.value if splitting else None,
            tagger=upos_tagger() if tags else None,
            overwrite=overwrite,
        )
    if json:
        import json as encoder

        typer.echo(encoder.dumps(report.as_dict(), ensure_ascii=False, indent=2))
    else:
        _print(report, out)


def _print(report: PrepareReport, out: Path) -> None:
    """Print a table, or tab-separated lines in a pipe; then what was left out, notes, and the folder."""
    from dlmctl.cli.render import print_table

    columns = [_column(report, name) for name in report.splits]
    rows = [(label, *(column[label] for column in columns)) for label in columns[0]]
    print_table(["", *report.splits], rows)
    for name, split in report.splits.items():
        for reason, count in split.dropped.items():
            places = "; ".join(split.examples[reason]) + ("; ..." if count > len(split.examples[reason]) else "")
            typer.echo(f"left out of {name} as {reason}: {count} ({places})")
    for note in report.notes:
        typer.echo(f"note: {note}.")
    typer.echo(f"{report.vocabulary} vocabulary entries; data set in {out}")


def _column(report: PrepareReport, name: str) -> dict[str, str]:
    split = report.splits[name]
    stats, unit = split.lengths, report.unit
    lengths = f"{stats['mean']:.1f} on average, {stats['min']:.0f} to {stats['max']:.0f}, 95% within {stats['p95']:.0f}"
    return {
        "source": f"{split.source} ({split.format})",
        "rows": f"{split.rows}",
        "texts": f"{split.texts}",
        "left out": f"{sum(split.dropped.values())}",
        f"{unit}s": f"{split.words}",
        f"unknown {unit}s": f"{split.unknown_share:.2%}",
        f"{unit}s per text": lengths,
    }
