import pytest

from dlmctl.checkpoint import bundled
from dlmctl.checkpoint.bundled import bundled_names, bundled_path


@pytest.fixture(params=["checkout", "wheel"])
def home(request, tmp_path, monkeypatch):
    package = tmp_path / "dlmctl"
    package.mkdir()
    monkeypatch.setattr(bundled, "PACKAGE", package)
    root = tmp_path if request.param == "checkout" else package / "_bundled"
    models = root / ("data" if request.param == "checkout" else "models")
    annotators = root / ("data/annotators" if request.param == "checkout" else "annotators")
    (models / "tiny").mkdir(parents=True)
    (models / "tiny" / "config.json").write_text("{}")
    (models / "corpus").mkdir()
    (annotators / "upos").mkdir(parents=True)
    (root / "recipes").mkdir(parents=True)
    (root / "recipes" / "pos.yaml").write_text("")
    return models, annotators, root / "recipes"


def test_finds_what_is_there_in_a_checkout_and_in_a_wheel(home):
    models, annotators, recipes = home
    assert bundled_path("models", "tiny") == models / "tiny"
    assert bundled_path("annotators", "upos") == annotators / "upos"
    assert bundled_path("recipes", "pos") == recipes / "pos.yaml"
    assert bundled_names("annotators") == ["upos"]
    assert bundled_names("recipes") == ["pos"]


def test_a_model_is_a_folder_with_a_config(home):
    assert bundled_names("models") == ["tiny"]
    assert bundled_path("models", "corpus") is None


def test_a_name_is_not_a_path(home):
    assert bundled_path("models", "../data/tiny") is None
    assert bundled_path("models", ".") is None


def test_nothing_is_bundled_where_the_folders_are_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "PACKAGE", tmp_path / "dlmctl")
    assert bundled_names("models") == []
    assert bundled_path("recipes", "pos") is None
