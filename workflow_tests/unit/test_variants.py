"""The grid: every list is expanded, slugs are stable names, sweeps walk one axis, and mistakes are refused readably.

The methods are made here, so that these tests say nothing of what the real ones allow.
"""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from hemorrhage import plugins
from hemorrhage.planning import variants
from hemorrhage.settings import Axis, between, whole


@dataclass(frozen=True)
class Thin:
    sparsity: float = 0.5
    per: str = "row"
    calibration: str = "default"

    def __post_init__(self):
        object.__setattr__(self, "sparsity", between("sparsity", self.sparsity, 0, 1))


@dataclass(frozen=True)
class Round:
    bits: int = 8
    group: int | None = None
    symmetric: bool = True

    def __post_init__(self):
        object.__setattr__(self, "bits", whole("bits", self.bits, 2, 8))


@dataclass(frozen=True)
class Ready:
    path: str = ""


@dataclass(frozen=True)
class Nothing:
    pass


def method(name, family, settings, axis=None, needs=(), repairs=()):
    module = SimpleNamespace(Settings=settings, AXIS=axis, NEEDS=frozenset(needs), REPAIRS=repairs)

    class Made(plugins.Plugin):
        module = property(lambda self: MODULES[self.name])

    MODULES[name] = module
    return Made("modifications", name, family, None)


MODULES: dict = {}
METHODS = {
    plugin.name: plugin
    for plugin in [
        method("identity", "control", Nothing),
        method("thin", "pruning", Thin, Axis("sparsity", 0), ["calibration"]),
        method("round", "quantization", Round, Axis("bits", None, rises=False, integer=True)),
        method("ready", "deployed", Ready),
        method("repair", "decoding", Nothing, needs=["fit_reference"], repairs=("*",)),
    ]
}


@pytest.fixture(autouse=True)
def methods(monkeypatch):
    real = plugins.found
    monkeypatch.setattr(plugins, "found", lambda kind: METHODS if kind == "modifications" else real(kind))


def slugs(*entries):
    return [variant.slug for variant in variants.expand(entries)]


def one(entry):
    return variants.expand([entry])[1]


def test_identity_is_always_the_first_variant_and_stands_once():
    assert slugs() == ["identity"]
    assert slugs("thin", "identity") == ["identity", "thin"]


def test_every_list_is_expanded_in_the_order_of_the_config():
    assert slugs({"thin": {"sparsity": [0.5, 0.25], "per": ["row", "matrix"]}})[1:] == [
        "thin_sparsity~0.5_per~row",
        "thin_sparsity~0.5_per~matrix",
        "thin_sparsity~0.25_per~row",
        "thin_sparsity~0.25_per~matrix",
    ]


def test_steps_of_one_entry_chain_into_one_variant():
    assert slugs([{"thin": {"sparsity": 0.5}}, {"round": {"bits": [4, 3]}}])[1:] == [
        "thin_sparsity~0.5+round_bits~4",
        "thin_sparsity~0.5+round_bits~3",
    ]


def test_a_slug_holds_the_named_settings_in_the_order_of_the_method():
    assert one({"round": {"symmetric": False, "bits": 4}}).slug == "round_bits~4_symmetric~no"
    assert one("round").slug == "round"


def test_equal_numbers_are_one_variant():
    assert slugs({"round": {"bits": [4, 4.0, "4"]}}, {"thin": {"sparsity": ["5e-1", 0.5]}})[1:] == [
        "round_bits~4",
        "thin_sparsity~0.5",
    ]


def test_a_path_is_named_by_its_last_part_and_two_that_share_it_are_refused():
    assert one({"ready": {"path": "path:/models/small-4bit/"}}).slug == "ready_path~small-4bit"
    with pytest.raises(ValueError, match=r"'ready_path~m': two entries with other settings share this name"):
        slugs({"ready": {"path": ["/a/m", "/b/m"]}})


def test_the_recipe_holds_every_setting_as_a_builtin_value():
    recipe = one([{"thin": {"sparsity": 0.5}}, "repair"]).recipe
    assert recipe == [
        {"method": "thin", "settings": {"sparsity": 0.5, "per": "row", "calibration": "default"}},
        {"method": "repair", "settings": {}},
    ]


def test_needs_and_calibration_sets_are_those_of_all_steps():
    variant = one([{"thin": {"calibration": "code"}}, {"thin": {"sparsity": 0.1}}, "repair"])
    assert variant.needs == {"calibration", "fit_reference"}
    assert variant.calibrations() == ["code", "default"]


def test_the_family_is_the_first_steps_that_is_not_a_mitigation_of_any():
    assert one(["repair", "round"]).family == "quantization"
    assert one(["thin", "round"]).family == "pruning"
    assert one("repair").family == "decoding"


def test_a_sweep_walks_one_axis_and_the_arm_is_what_stays():
    chained = one([{"thin": {"per": "matrix", "sparsity": 0.5}}, {"round": {"bits": 4}}])
    assert chained.sweeps() == [
        ("thin_sparsity~*_per~matrix+round_bits~4", "thin_per~matrix+round_bits~4", 0.5),
        ("thin_sparsity~0.5_per~matrix+round_bits~*", "round+thin_sparsity~0.5_per~matrix", 4),
    ]


def test_levels_of_one_sweep_share_its_name_and_arm_and_a_default_level_is_on_it():
    found = [variant.sweeps()[0] for variant in variants.expand(["round", {"round": {"bits": [4, 3]}}])[1:]]
    assert found == [("round_bits~*", "round", 8), ("round_bits~*", "round", 4), ("round_bits~*", "round", 3)]


def test_a_method_without_axis_is_in_no_sweep():
    assert one("repair").sweeps() == []


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ("thn", r"unknown modification 'thn'\. Did you mean 'thin'\? Known: identity"),
        ({"thin": {"sparsty": 0.5}}, r"thin: unknown setting 'sparsty'\. Did you mean 'sparsity'"),
        ({"thin": {"sparsity": 1.5}}, r"thin: sparsity: 1\.5 is outside the allowed range 0 to 1"),
        ({"round": {"bits": 0}}, r"round: bits: 0 is not a whole number of 2 to 8"),
        ({"round": {"bits": [4, 3.5]}}, r"round: bits: 3\.5 is not a whole number"),
        ({"thin": {}, "round": {}}, "a step is a name, or one name with its settings"),
        ({"round": 4}, "a step is a name, or one name with its settings"),
        (4, "a step is a name, or one name with its settings"),
        ({"thin": {"per": "a b"}}, "only letters, digits"),
        ({"ready": {"path": "x" * 200}}, "at most 200 fit into a path"),
    ],
)
def test_a_mistake_is_refused_in_one_sentence(entry, word):
    with pytest.raises(ValueError, match=word) as error:
        variants.expand([entry])
    assert "\n" not in str(error.value)


def test_decoders_are_expanded_like_variants():
    steps = variants.expand_steps("decoders", ["greedy", {"temperature": {"temperature": [0.7, 1.0, 1]}}, "greedy"])
    assert [step.slug() for step in steps] == ["greedy", "temperature_temperature~0.7", "temperature_temperature~1"]
    assert [step.plugin.kind for step in steps] == ["decoders"] * 3
    assert (steps[1].method, dict(steps[1].settings)) == ("temperature", {"temperature": 0.7})
    assert (steps[1].axis, steps[1].level) == ("temperature", 0.7)


def test_an_unknown_decoder_is_refused_as_one():
    with pytest.raises(ValueError, match=r"unknown decoder 'temprature'\. Did you mean 'temperature'"):
        variants.expand_steps("decoders", ["temprature"])
    with pytest.raises(ValueError, match="temperature: temperature: -1 is outside"):
        variants.expand_steps("decoders", [{"temperature": {"temperature": -1}}])
