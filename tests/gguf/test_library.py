"""Find every model on a machine by its name, also in the folders of other programs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
from counted import n_calls

from pjlocal.errors import ModelError
from pjlocal.gguf.library import find_all, quantization_of
from pjlocal.gguf.locate import find, find_model, lasting_name
from pjlocal.gguf.ollama import model_file, shown_name

HUB = ".cache/huggingface/hub"
Put = Callable[..., Path]


@pytest.fixture(autouse=True)
def _no_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the checkout's own models folder."""
    monkeypatch.setattr("pjlocal.gguf.places.__file__", "/nowhere/pjlocal/gguf/places.py")


def downloaded(home: Path, repo: str, file: str, content: bytes = b"GGUF", revision: str = "1" * 40) -> Path:
    """A file as huggingface_hub keeps it: a link with its name to a blob that is called after its checksum."""
    folder = home / HUB / f"models--{repo.replace('/', '--')}"
    blob = folder / "blobs" / f"{hash((repo, file, content)) & 2**64 - 1:064x}"
    link = folder / "snapshots" / revision / file
    for path in (blob, link, folder / "refs" / "main"):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.symlink_to(os.path.relpath(blob, link.parent))
    (folder / "refs" / "main").write_text(revision)
    return link


def in_ollama(
    home: Path, name: str, digest: str, content: bytes | None = b"GGUF", folder: str = ".ollama/models"
) -> None:
    """A model as Ollama keeps it: a manifest that names a blob."""
    manifest = home / folder / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    layers = [{"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:" + "0" * 64}]
    layers.append({"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"})
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    if content is not None:
        blob = home / folder / "blobs" / f"sha256-{digest}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)


def names() -> list[str]:
    return [model.name for model in find_all()]


def test_models_are_found_in_every_folder_that_programs_keep_them_in(home: Path, put: Put) -> None:
    Path("models/deeper").mkdir(parents=True)
    Path("models/deeper/here.gguf").touch()
    put(".local/share/pjlocal/models/own.gguf")
    downloaded(home, "org/repo-GGUF", "hub-Q4_K_M.gguf")
    put(".cache/llama.cpp/org_repo_cached.gguf")
    put(".lmstudio/models/publisher/name-GGUF/studio-Q8_0.gguf")
    put(".cache/lm-studio/models/publisher/older/old.gguf")
    in_ollama(home, "registry.ollama.ai/library/llama3.2/3b", "a" * 64)
    in_ollama(home, "hf.co/org/other-GGUF/Q4_K_M", "b" * 64)
    found = {model.name: (model.owner, model.repo, model.quantization) for model in find_all()}
    assert found == {
        "here.gguf": ("pjlocal", None, None),
        "own.gguf": ("pjlocal", None, None),
        "hub-Q4_K_M.gguf": ("Hugging Face", "org/repo-GGUF", "Q4_K_M"),
        "org_repo_cached.gguf": ("llama.cpp", None, None),
        "studio-Q8_0.gguf": ("LM Studio", "publisher/name-GGUF", "Q8_0"),
        "old.gguf": ("LM Studio", "publisher/older", None),
        "llama3.2:3b": ("Ollama", None, None),
        "hf.co/org/other-GGUF:Q4_K_M": ("Ollama", "org/other-GGUF", "Q4_K_M"),
    }
    for name in found:
        assert find_model(name).is_file(), name


@pytest.mark.parametrize(
    ("variable", "folder", "below"),
    [
        ("HF_HOME", "hf", "hf/hub/models--o--r/snapshots/1/moved.gguf"),
        ("HF_HUB_CACHE", "hub", "hub/models--o--r/snapshots/1/moved.gguf"),
        ("XDG_CACHE_HOME", "cache", "cache/huggingface/hub/models--o--r/snapshots/1/moved.gguf"),
        ("LLAMA_CACHE", "llama", "llama/moved.gguf"),
    ],
)
def test_the_variables_that_move_those_folders_are_honoured(
    put: Put, home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, folder: str, below: str
) -> None:
    put(below)
    assert names() == []
    monkeypatch.setenv(variable, str(home / folder))
    assert names() == ["moved.gguf"]


def test_ollamas_folder_is_where_its_variable_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_ollama(home, "registry.ollama.ai/library/qwen/latest", "c" * 64, folder="elsewhere")
    monkeypatch.setenv("OLLAMA_MODELS", str(home / "elsewhere"))
    assert names() == ["qwen:latest"]
    manifest = find_model("qwen")
    assert manifest == find_model("qwen:latest") and lasting_name("qwen") == shown_name(manifest) == "qwen:latest"
    assert model_file(manifest) == home / "elsewhere" / "blobs" / f"sha256-{'c' * 64}"
    assert shown_name(model_file(manifest)) == "qwen:latest", "also by the file's own path"


def test_a_model_of_an_ollama_folder_elsewhere_keeps_its_path(home: Path) -> None:
    in_ollama(home, "registry.ollama.ai/library/qwen/latest", "c" * 64, folder="backup")
    manifest = home / "backup/manifests/registry.ollama.ai/library/qwen/latest"
    assert lasting_name(str(manifest)) == str(manifest)


def test_a_file_is_listed_once_however_many_names_lead_to_it(home: Path, put: Put) -> None:
    own = put(".local/share/pjlocal/models/own.gguf")
    (own.parent / "link.gguf").symlink_to(own)
    os.link(own, own.parent / "hard.gguf")
    (own.parent / "again").symlink_to(own.parent)
    in_ollama(home, "registry.ollama.ai/library/two/latest", "d" * 64)
    in_ollama(home, "registry.ollama.ai/library/two/7b", "d" * 64)
    found = find_all()
    assert [(model.name, set(model.aliases)) for model in found] == [
        ("hard.gguf", {"link.gguf", "own.gguf"}),
        ("two:7b", set()),  # with Ollama, names for the same weights may differ in other layers
        ("two:latest", set()),
    ]
    for model in found:
        for name in model.names:
            assert model_file(find_model(name)).samefile(model.path)
            assert find(name).name == (name if model.owner == "Ollama" else find(name).path.name)


@pytest.mark.parametrize("wanted", ["anna/pirate", "Anna/Pirate:latest", "hf.co/org/repo", "box:5000/team/model"])
def test_ollamas_names_with_a_slash_need_no_tag(home: Path, wanted: str) -> None:
    for i, name in enumerate(("registry.ollama.ai/anna/pirate", "hf.co/org/repo", "box:5000/team/model")):
        in_ollama(home, f"{name}/latest", f"{i}" * 64)
    assert find(wanted).name == wanted.lower().removesuffix(":latest") + ":latest"
    assert lasting_name(wanted) == find(wanted).name


def test_a_link_of_another_program_is_not_mistaken_for_the_file(home: Path, put: Put) -> None:
    real = put(".lmstudio/models/a/b/real.gguf")
    link = home / ".local/share/pjlocal/models/link.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    assert (find("real").path, find("rea").path, find("link").path) == (real, real, link)


def test_a_model_of_another_program_is_that_programs_also_below_models(
    home: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(".lmstudio/models/maker/name/studio.gguf")
    monkeypatch.chdir(home / ".lmstudio")  # so that models/ is LM Studio's
    assert [(model.owner, model.repo) for model in find_all()] == [("LM Studio", "maker/name")]
    monkeypatch.chdir(home)
    monkeypatch.setenv("HF_HOME", str(home / "models/hf"))
    put("models/own.gguf")
    put("models/hf/hub/models--org--repo/snapshots/1/hub.gguf")
    assert {model.name: model.owner for model in find_all()} == {
        "own.gguf": "pjlocal",
        "hub.gguf": "Hugging Face",
        "studio.gguf": "LM Studio",
    }
    assert find_model("org/repo") == home / "models/hf/hub/models--org--repo/snapshots/1/hub.gguf"


def test_models_are_found_if_the_current_folder_cannot_be_searched(put: Put) -> None:
    """A name that is too long stands for missing permissions, which do not stop root."""
    put(".local/share/pjlocal/models/own.gguf")
    Path("models").symlink_to("x" * 300)
    assert names() == ["own.gguf"] and find_model("own").name == "own.gguf"


def test_a_split_model_is_one_and_says_what_is_missing(put: Put) -> None:
    for i in (1, 2, 3):
        put(f".lmstudio/models/a/b/big-Q4_K_M-0000{i}-of-00003.gguf", b"x" * i)
    for i in (1, 3):
        put(f".lmstudio/models/a/c/torn-0000{i}-of-00003.gguf")
    whole, torn = find_all()
    assert (whole.name, whole.size, len(whole.parts), whole.trouble, whole.quantization) == (
        "big-Q4_K_M-00001-of-00003.gguf", 6, 3, None, "Q4_K_M",
    )  # fmt: skip
    assert torn.trouble == "1 of 3 parts missing (the first is 00002)"


def test_a_link_to_the_first_part_of_a_split_model_is_the_whole_model(home: Path, put: Put) -> None:
    parts = [put(f"far/big-0000{i}-of-00003.gguf", b"x" * i) for i in (1, 2, 3)]
    link = put(".local/share/pjlocal/models/other.gguf").with_name(parts[0].name)
    link.symlink_to(parts[0])
    model = find("big-00001")
    assert (model.path, model.parts, model.size, model.trouble) == (link, (link,), 6, None)
    parts[2].unlink()
    assert "parts missing" in str(find("big-00001").trouble)


def test_broken_links_are_marked(home: Path) -> None:
    downloaded(home, "o/r", "gone.gguf").resolve().unlink()
    in_ollama(home, "registry.ollama.ai/library/gone/latest", "e" * 64, content=None)
    assert {model.name: model.trouble for model in find_all()} == {
        "gone.gguf": "its link is broken",
        "gone:latest": "its file is missing: ollama pull it again",
    }


def test_invalid_manifests_are_ignored(home: Path, put: Put) -> None:
    folder = ".ollama/models/manifests/registry.ollama.ai/library"
    texts = [b"", b"{", b"[]", b'{"layers": 1}', b'{"layers": [1]}', b"[" * 100_000, b'{"layers": [{"mediaType": 0}]}']
    evil = '{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "../../../etc/passwd"}]}'
    for i, text in enumerate([*texts, evil.encode()]):
        put(f"{folder}/odd/{i}", text)
    in_ollama(home, "registry.ollama.ai/library/good/latest", "f" * 64)
    assert names() == ["good:latest"]


def test_the_current_snapshot_goes_before_older_ones(home: Path) -> None:
    old = downloaded(home, "o/r", "model.gguf", b"old", revision="f" * 40)
    new = downloaded(home, "o/r", "model.gguf", b"new!", revision="0" * 40)
    assert [model.name for model in find_all()] == ["model.gguf", str(old)]
    assert find_model("model") == find_model("o/r") == new


def test_other_files_are_not_models(home: Path, put: Put) -> None:
    downloaded(home, "o/r", "mmproj-model-f16.gguf")
    put(f"{HUB}/datasets--o--d/snapshots/1/data.gguf")
    put(f"{HUB}/models--o--r/blobs/blob.gguf")
    put(".lmstudio/models/.hidden/x.gguf")
    assert names() == []


def test_an_adapter_does_not_stand_in_the_way_of_a_model_that_begins_the_same(put: Put, tiny) -> None:
    model = put(".lmstudio/models/a/b/pirate-7b.gguf", tiny("llama").read_bytes())
    tiny_models.write_lora(model.with_name("pirate-lora.gguf"))
    assert find_model("pirate") == model
    assert find_model("pirate-l").name == "pirate-lora.gguf", "of which it is said what it is where it is opened"


def test_the_beginning_of_a_name_is_enough_where_it_is_the_only_one(put: Put) -> None:
    for file in ("Qwen3-8B-Q4_K_M.gguf", "Qwen3-4B-Q4_K_M.gguf", "Llama-3.2-3B.gguf"):
        put(f".lmstudio/models/a/b/{file}")
    assert find_model("llama").name == "Llama-3.2-3B.gguf"
    assert find_model("qwen3-8").name == find_model("Qwen3-8B-Q4_K_M").name == "Qwen3-8B-Q4_K_M.gguf"
    with pytest.raises(
        ModelError, match=r"several models begin with 'qwen3': Qwen3-4B-Q4_K_M.gguf, Qwen3-8B-Q4_K_M.gguf\. Name one"
    ):
        find_model("qwen3")
    with pytest.raises(ModelError, match=r"no model 'Qwem3-8B-Q4_K_M'.*did you mean Qwen3-8B-Q4_K_M.gguf or"):
        find_model("Qwem3-8B-Q4_K_M")


def test_an_exact_name_is_preferred_to_longer_ones(put: Put) -> None:
    for file in ("tiny.gguf", "tiny-chat.gguf"):
        put(f".cache/llama.cpp/{file}")
    assert find_model("tiny").name == "tiny.gguf"


def test_a_repository_means_what_was_downloaded_from_it(home: Path) -> None:
    for quantization in ("Q8_0", "Q4_K_M", "Q5_K_M"):
        downloaded(home, "org/Name-GGUF", f"name-{quantization}.gguf")
    downloaded(home, "org/one", "one-Q8_0.gguf")
    assert find_model("org/Name-GGUF").name == "name-Q4_K_M.gguf"  # as pull would choose
    assert find_model("org/name-gguf:q8_0").name == "name-Q8_0.gguf"
    assert find_model("org/one").name == "one-Q8_0.gguf"
    with pytest.raises(ModelError, match=r"which has Q8_0 of org/one: pjlocal models pull org/one:Q4_K_M"):
        find_model("org/one:Q4_K_M")
    with pytest.raises(ModelError, match="To download a repository: pjlocal models pull org/none"):
        find_model("org/none")
    with pytest.raises(ModelError, match=r"^no such model file: \./org/none$"):
        find_model("./org/none")


def test_a_repository_is_found_by_its_name_although_another_file_links_to_its_model(home: Path, put: Put) -> None:
    file = downloaded(home, "org/one", "one-Q8_0.gguf")
    own = put(".local/share/pjlocal/models/own.gguf").parent
    (own / "link.gguf").symlink_to(file)
    os.link(file.resolve(), own / "one-Q8_0.gguf")
    assert find_model("org/one") == find_model("org/one:Q8_0") == file
    file.with_name("another-name.gguf").symlink_to(file.resolve())
    assert find_model("org/one").samefile(file)


def test_a_path_goes_before_a_repository(home: Path) -> None:
    downloaded(home, "org/one", "one-Q8_0.gguf")
    Path("org").mkdir()
    Path("org/one").touch()
    assert find_model("org/one") == Path("org/one")


@pytest.mark.parametrize(
    ("file", "quantization"),
    [
        ("Llama-3.2-3B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-1.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("big-IQ3_XXS-00001-of-00004.gguf", "IQ3_XXS"),
        ("model-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("gemma-3-4b-it-qat-q4_0.gguf", "Q4_0"),
        ("model-f16.gguf", "F16"),
        ("model.BF16.gguf", "BF16"),
        ("Q4_K_M/model-00001-of-00002.gguf", "Q4_K_M"),
        ("Q4_K_M/model-Q8_0.gguf", "Q8_0"),
        ("plain.gguf", None),
    ],
)
def test_quantizations_are_read_from_names(file: str, quantization: str | None) -> None:
    assert quantization_of(file) == quantization


def test_twice_as_many_files_take_twice_the_work(put: Put) -> None:
    """So that a thousand are found in a fraction of a second."""
    works = []
    for number in range(200):
        put(f".lmstudio/models/org{number % 50}/repo{number}/model-{number}-Q4_K_M.gguf")
        if number in (99, 199):
            works.append(n_calls(find_all))
    assert len(find_all()) == 200
    assert works[1] < 2.2 * works[0]
