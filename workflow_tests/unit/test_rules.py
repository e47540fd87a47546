"""What a rule hands on to its script, and what the profile of a cluster must say of it."""

import contextlib
import runpy
from types import SimpleNamespace

import pytest
import rule_texts
import yaml

from hemorrhage import jobs, modification_data

SCRIPTS = rule_texts.ROOT / "scripts"
FOLLOWERS = sorted(path.name for path in SCRIPTS.glob("*.py") if "ModificationData(" in path.read_text())


class Opened(Exception):
    """The data of a model were opened."""


def opened(script, monkeypatch, **params):
    """The settings with which a script, run by a rule with ``params``, opens what a recipe is followed with."""

    def spy(folder, **settings):
        raise Opened(settings)

    monkeypatch.setattr(modification_data, "ModificationData", spy)
    monkeypatch.setattr(jobs, "job", contextlib.nullcontext)
    monkeypatch.setattr(jobs, "use_threads", lambda snakemake: None)
    files = SimpleNamespace(base="m/base/hemorrhage.json", tokens="m/tokens/a.npz", modification="m/variants/a.json")
    given = SimpleNamespace(given={"seed": 1}, **params)
    snakemake = SimpleNamespace(input=files, params=given, resources={})
    with pytest.raises(Opened) as caught:
        runpy.run_path(str(SCRIPTS / script), {"snakemake": snakemake}, "__main__")
    return caught.value.args[0]


@pytest.mark.parametrize("script", FOLLOWERS)
def test_a_script_that_may_follow_a_recipe_has_the_trust_of_the_config(script, monkeypatch):
    assert opened(script, monkeypatch, trust=["pickles"])["trusted"] == ("pickles",)


@pytest.mark.parametrize("script", FOLLOWERS)
def test_a_rule_that_may_follow_a_recipe_hands_the_trust_of_its_model_on(script):
    rules = [text for text in rule_texts.texts().values() if f'"../scripts/{script}"' in text]
    assert rules
    for text in rules:
        assert "trust=lambda wildcards: STUDY.trusted(wildcards.model)" in text


def test_the_cluster_profile_says_of_every_rule_that_runs_a_model_whether_it_takes_a_gpu():
    profile = yaml.safe_load((rule_texts.ROOT / "profiles" / "slurm" / "profile.yaml").read_text())
    asking = sorted(name for name, text in rule_texts.texts().items() if "gpu=GPU" in text)
    assert sorted(profile["set-resources"]) == asking
    # One device for all: a variant is made by one rule and, once evicted, made again by the others.
    assert list(profile["set-resources"].values()) == [{"gpu": 0}] * len(asking)
