import pytest

from dlmctl.errors import UserError
from dlmctl.training.config import LoopConfig, read_config, shipped_configs
from dlmctl.training.lm import LanguageModelConfig, read_lm_config
from dlmctl.training.masked import MaskedTrainingConfig
from dlmctl.training.scorer import ScorerConfig


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def fault(source, kind=LanguageModelConfig, overrides=()):
    with pytest.raises(UserError) as caught:
        read_config(source, kind, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(source)


@pytest.mark.parametrize(
    "setting",
    [
        "lr=.inf",
        "lr=1e308",
        "batch_positions=1000000000000",
        "accumulate=99999999999",
        "clip=.inf",
        "weight_decay=1e300",
    ],
)
def test_what_no_training_can_do_is_refused(setting):
    assert f"loop.{setting.partition('=')[0]}: input should be" in fault("e2e", overrides=[f"loop.{setting}"])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("e2e", LanguageModelConfig),
        ("paper-e2e", LanguageModelConfig),
        ("paper-roc", LanguageModelConfig),
        ("scorer-e2e", ScorerConfig),
        ("control", LoopConfig),
    ],
)
def test_shipped_configurations_are_valid(name, kind):
    assert name in shipped_configs()
    read_config(name, kind)


def test_the_papers_settings():
    e2e, roc = (read_config(f"paper-{name}", LanguageModelConfig).model for name in ("e2e", "roc"))
    for model, width in ((e2e, 16), (roc, 128)):
        assert (model.embed_dim, model.objective, model.schedule, model.schedule_steps) == (
            width,
            "paper",
            "sqrt",
            2000,
        )
        assert (model.denoiser.hidden, model.denoiser.layers, model.denoiser.norm_first) == (768, 12, False)


def test_settings_lie_over_the_file(file):
    path = file("loop: {steps: 5}\nmodel: {length: 16}\n")
    config = read_config(
        path, LanguageModelConfig, ["loop.steps=7", "model.denoiser.hidden=32", "model.denoiser.heads=4"]
    )
    assert (config.loop.steps, config.model.length, config.model.denoiser.hidden) == (7, 16, 32)


def test_a_folder_of_the_same_name_does_not_hide_a_shipped_configuration(tmp_path, monkeypatch):
    (tmp_path / "e2e").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_config("e2e", LanguageModelConfig) == read_config("e2e", LanguageModelConfig, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1: loop is required."),
        ("- 1\n", ":1: a configuration is a mapping of settings."),
        ("loop: {steps: 5\n", ":2: not valid YAML"),
        ("loop: {steps: 5}\nmodle: {}\n", ":2: unknown key 'modle'. Did you mean 'model'?"),
        ("loop:\n  steps: 5\n  learning_rate: 1\n", ":3: unknown key 'learning_rate'."),
        ("loop: {steps: 5}\nmodel:\n  denoiser:\n    hiden: 5\n", ":4: unknown key 'hiden'. Did you mean 'hidden'?"),
        ("loop: {steps: 5}\nmodel: {denoiser: {hidden: 5, heads: 2}}\n", ":2: model.denoiser: heads (2) must divide"),
        ("loop: {steps: 5}\nmodel: {length: 900}\n", ":2: model: length is 900, but the denoiser has max_length 512"),
        (
            "loop: {steps: 5}\nmodel: {schedule: linear, schedule_steps: 9}\n",
            ":2: model: the schedule linear needs more",
        ),
        ("loop: {steps: 5}\nmodel: {vocab_size: 900}\n", ":2: unknown key 'vocab_size'"),
        ("loop: {steps: -5}\n", ":1: loop.steps: input should be greater than 0, not -5."),
        ("loop: {steps: many}\n", ":1: loop.steps: input should be a valid integer"),
        ("loop: {steps: 5, seed: 9999999999}\n", ":1: loop.seed: input should be less than"),
        (b"\x80\x81\xff", ": cannot be read"),
    ],
)
def test_faults_name_file_and_line(file, text, said):
    assert fault(file(text)).startswith(said)


def test_faults_of_the_command_line_are_not_blamed_on_the_file(file):
    path = file("loop: {steps: 5}\n")
    assert fault(path, overrides=["loop.steps=-5"]).startswith("command line: loop.steps: input should be greater")
    assert fault(path, overrides=["loop.stepz=5"]).startswith(
        "command line: unknown key 'stepz'. Did you mean 'steps'?"
    )
    assert fault(path, overrides=["steps=5"]) == "command line: unknown key 'steps'. Did you mean 'loop.steps'?"
    with pytest.raises(UserError, match=r"unknown key 'loop'\. Did you mean 'steps', without"):
        read_config("control-small", LoopConfig, ["loop.steps=5"])
    assert fault(path, overrides=["loop"]).startswith("--set: 'loop' is not key=value.")
    assert fault(path, overrides=["loop.steps.more=5"]).startswith(
        "--set loop.steps.more: 'steps' is a value, not settings"
    )
    assert fault(path, overrides=["loop.steps=[1"]).startswith("--set loop.steps: '[1' is not a YAML value.")


def test_an_unknown_name_gets_the_nearest():
    assert fault("e2").endswith("no such configuration 'e2'. Did you mean 'e2e'?")


@pytest.mark.parametrize("name", ["everyday", "everyday-small"])
def test_shipped_masked_configurations_are_valid(name):
    config = read_lm_config(name)
    assert (config.model.family, config.loop.bucket, config.loop.decay_share) == ("masked", 1, 0.6)


def test_the_family_decides_what_may_be_said(file):
    path = file("loop: {steps: 5}\n")
    assert isinstance(read_lm_config(path), LanguageModelConfig)
    assert isinstance(read_lm_config(path, ["model.family=gaussian"]), LanguageModelConfig)
    assert isinstance(read_lm_config(path, ["model.family=masked"]), MaskedTrainingConfig)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: {family: maskd}\n", ":2: model.family: there is no family 'maskd'. Did you mean 'masked'?"),
        ("model: {family: [1]}\n", ":2: model.family: there is no family '[1]'."),
        ("model: {family: masked, embed_dim: 8}\n", ":2: unknown key 'embed_dim'. "),
        ("model: {family: masked, length: 65}\n", ":2: model: length is 65, but the denoiser has max_length 64"),
        ("model: {family: masked, denoiser: {heads: 7}}\n", ":2: model.denoiser: heads (7) must divide hidden (384)"),
        ("model: {family: masked}\ntagged: 2\n", ":3: tagged: input should be less than or equal to 1, not 2."),
        ("model: {family: masked}\nfreeze_embeddings: true\n", ":3: unknown key 'freeze_embeddings'."),
        ("model: 7\n", ":2: model: should be a mapping"),
    ],
)
def test_faults_of_masked_configurations_name_file_and_line(file, text, said):
    path = file(f"loop: {{steps: 5}}\n{text}")
    with pytest.raises(UserError) as caught:
        read_lm_config(path)
    assert str(caught.value).removeprefix(path).startswith(said)
