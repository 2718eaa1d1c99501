"""``dlmctl train``: lm, control, scorer, acceptability, preferences, tagger, parser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlmctl.cli import complete
from dlmctl.cli.render import say

app = typer.Typer(no_args_is_help=True)

# Labels that are shown with how often a judge is right on their texts, the worst first.
MOST_LABELS = 6

Data = Annotated[Path, typer.Option(help="A data set made by `dlmctl data prepare`.")]
Out = Annotated[Path, typer.Option(help="Folder for the run: metrics, checkpoint, result.")]
Config = Annotated[
    str,
    typer.Option(help="A YAML file or the name of a bundled configuration.", autocompletion=complete.configurations),
]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting.")]
ReadModel = Annotated[
    str, typer.Option(help="The masked model whose texts were judged.", autocompletion=complete.models)
]
Verdicts = Annotated[
    str, typer.Option(help="Field of the data with the verdicts: 1 for accepted, 0 for rejected, or in between.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out from its last checkpoint.")]


@app.command()
def lm(data: Data, out: Out, config: Config = "e2e", settings: Settings = None, resume: Resume = False) -> None:
    """Train a diffusion language model."""
    from dlmctl.training.lm import read_lm_config, train_lm

    folder = train_lm(read_lm_config(config, settings or []), data, out, resume=resume)
    say(f"model saved in {folder}")


@app.command()
def control(
    name: Annotated[str, typer.Argument(help="A trainable control, e.g. pos.", autocompletion=complete.controls)],
    data: Data,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the run: metrics, checkpoint. Not needed if nothing is trained.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="The model that the control will steer.", autocompletion=complete.models)
    ] = "e2e",
    label: Annotated[str | None, typer.Option(help="Field of the data with the labels.")] = None,
    weights: Annotated[str | None, typer.Option("--name", help="Name of the weights, to keep several sets.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="Tagger or parser that labels the data: a folder, stanza:en or spacy:MODEL.")
    ] = None,
    sentences: Annotated[
        int | None,
        typer.Option(min=1, help="Masked models: the most sentences to count, spread over the data."),
    ] = None,
    add: Annotated[
        bool,
        typer.Option(
            "--add", help="`pos`, `syntax_tree` over words: add to the counts that the model has, not replace them."
        ),
    ] = False,
    config: Config = "control",
    settings: Settings = None,
    resume: Resume = False,
) -> None:
    """Train a control's classifier and save it with the model; for masked models, count evidence where possible."""
    from dlmctl.checkpoint.pretrained import from_pretrained
    from dlmctl.control.catalogue import in_yaml
    from dlmctl.control.classifier import labels_of
    from dlmctl.control.registry import find_control
    from dlmctl.training.classifier import train_control
    from dlmctl.training.config import LoopConfig, read_config

    kind = find_control(name)
    labels_of(kind)
    loop = read_config(config, LoopConfig, settings or [])
    pretrained = from_pretrained(model)
    folder = train_control(
        kind,
        pretrained,
        loop,
        data,
        out,
        label=label,
        name=weights,
        judge=judge,
        sentences=sentences,
        add=add,
        resume=resume,
    )
    say(f"{name} for this model saved in {folder}")
    labels = _say_judge_accuracy(folder)
    if label is not None:
        params = {"label": labels[0] if labels else "..."} | ({} if weights is None else {"name": weights})
        say(f"in a recipe: {name}: {in_yaml(params)}")


def _say_judge_accuracy(folder: Path) -> list[str]:
    """Print how often the judge of a trained classifier is right, by label, from the card in its folder.

    Returns:
        The labels, those with most texts first; none if the control has no judge.
    """
    from dlmctl.checkpoint.control_weights import CARD
    from dlmctl.errors import first_few
    from dlmctl.processes import is_main
    from dlmctl.text.files import read_json

    # Only the first process has written the card.
    figures = read_json(folder / CARD).get("validation") or {} if is_main() else {}
    texts: dict[str, int] = figures.get("judge_texts", {})
    if "judge_accuracy" in figures:
        recall = sorted(figures["judge_recall"].items(), key=lambda pair: pair[1])
        by_label = first_few([f"{label!r} {share:.0%} of {texts[label]}" for label, share in recall], MOST_LABELS)
        overall = f"{figures['judge_accuracy']:.0%} of {sum(texts.values())} held-out texts with a label"
        say(f"its judge is right on {overall}: {by_label}")
    return sorted(texts, key=lambda label: -texts[label])


@app.command()
def scorer(
    data: Data, out: Out, config: Config = "scorer-e2e", settings: Settings = None, resume: Resume = False
) -> None:
    """Train the autoregressive scorer that measures lm-scores."""
    from dlmctl.training.config import read_config
    from dlmctl.training.scorer import ScorerConfig, train_scorer

    train_scorer(read_config(config, ScorerConfig, settings or []), data, out, resume=resume)
    say(f"scorer saved in {out / 'scorer'}")


@app.command()
def acceptability(
    data: Data,
    out: Out,
    model: ReadModel = "everyday",
    label: Verdicts = "accepted",
    config: Config = "acceptability",
    settings: Settings = None,
    resume: Resume = False,
) -> None:
    """Train a model of readers' verdicts that tells sound texts from others, and save it with the language model."""
    from dlmctl.checkpoint.pretrained import from_pretrained
    from dlmctl.training.acceptability import AcceptabilityConfig, train_acceptability
    from dlmctl.training.config import read_config

    training_config = read_config(config, AcceptabilityConfig, settings or [])
    folder = train_acceptability(training_config, from_pretrained(model), data, out, label=label, resume=resume)
    say(f"acceptability for this model saved in {folder}")


@app.command()
def preferences(
    data: Data,
    text: Annotated[Path, typer.Option(help="A data set of ordinary text, such as the model's training data.")],
    out: Out,
    model: ReadModel = "everyday",
    label: Verdicts = "accepted",
    config: Config = "preferences",
    settings: Settings = None,
    resume: Resume = False,
) -> None:
    """Tune a masked model on readers' verdicts on its texts, so that it writes more of what they accept."""
    from dlmctl.checkpoint.pretrained import from_pretrained
    from dlmctl.training.config import read_config
    from dlmctl.training.preferences import PreferencesConfig, train_preferences

    training_config = read_config(config, PreferencesConfig, settings or [])
    folder = train_preferences(training_config, from_pretrained(model), data, text, out, label=label, resume=resume)
    say(f"model saved in {folder}")


@app.command()
def tagger(
    train: Annotated[Path, typer.Option(help="CoNLL-U file with the training sentences.")],
    dev: Annotated[Path, typer.Option(help="CoNLL-U file to measure accuracy on.")],
    out: Annotated[Path, typer.Option(help="Folder for the tagger.")],
    silver: Annotated[Path | None, typer.Option(help="CoNLL-U file of other sentences, by a better tagger.")] = None,
    gold_passes: Annotated[
        int, typer.Option(min=1, max=1000, help="How many times the sentences of --train count beside --silver.")
    ] = 1,
    l1: Annotated[float, typer.Option(help="Penalty on the size of weights; a larger one makes a smaller file.")] = 0.2,
    l2: Annotated[float, typer.Option(help="Penalty on the squares of weights.")] = 0.05,
) -> None:
    """Train the UPOS tagger that checks POS controls and tags their training text."""
    from dlmctl.text.terminal import spinning
    from dlmctl.training.tagger import train_tagger

    with spinning("training the tagger"):
        accuracy = train_tagger(train, dev, out, silver=silver, gold_passes=gold_passes, l1=l1, l2=l2)
    say(f"tagger saved in {out}; accuracy on {dev.name}: {accuracy:.4f}")


@app.command()
def parser(
    train: Annotated[Path, typer.Option(help="Bracketed trees to train on.")],
    dev: Annotated[Path, typer.Option(help="Bracketed trees to measure F1 on.")],
    conllu: Annotated[Path, typer.Option(help="CoNLL-U file that the bundled tagger was trained on.")],
    out: Out,
    silver: Annotated[Path | None, typer.Option(help="Trees of other sentences by a better parser.")] = None,
    config: Config = "parser",
    settings: Settings = None,
    resume: Resume = False,
) -> None:
    """Train the constituency parser that checks syntax controls and parses their training text."""
    from dlmctl.training.config import read_config
    from dlmctl.training.parser import ParserTrainingConfig, train_parser

    training_config = read_config(config, ParserTrainingConfig, settings or [])
    f1 = train_parser(training_config, train, dev, conllu, out, silver=silver, resume=resume)
    say(f"parser saved in {out / 'parser'}; F1 on {dev.name}: {f1:.4f}")
