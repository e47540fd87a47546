"""What is refused of a recipe by the sizes that a config.json tells, before any variant is made."""

import pytest

from hemorrhage.planning import refusals

FACTS = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}


def recipe(*steps):
    return [{"method": method, "settings": settings} for method, settings in steps]


@pytest.mark.parametrize(
    ("pattern", "name"), [("4:9", "width 1536 of intermediate_size"), ("2:5", "width 576 of hidden_size")]
)
@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_a_pattern_that_does_not_divide_a_width_is_refused(method, pattern, name):
    with pytest.raises(ValueError, match=f"v: pattern: groups of . do not divide the {name}"):
        refusals.check_recipe("v", recipe((method, {"pattern": pattern})), FACTS)


@pytest.mark.parametrize(
    "first",
    [
        ("flap", {"ratio": 0.2}),
        ("taylor_structured", {"ratio": 0.2}),
        ("slice_residual", {"ratio": 0.2}),
    ],
)
def test_a_size_that_a_step_changes_refuses_nothing_behind_it(first):
    group = ("rtn", {"bits": 4, "group": 512})
    with pytest.raises(ValueError, match="group: 512 does not divide the width 576"):
        refusals.check_recipe("v", recipe(group, first), FACTS)
    refusals.check_recipe("v", recipe(first, group), FACTS)


def test_a_depth_that_a_step_changes_refuses_nothing_behind_it():
    drop = ("drop_blocks", {"blocks": 30})
    with pytest.raises(ValueError, match="blocks: 30 cannot be dropped from 30"):
        refusals.check_recipe("v", recipe(drop), FACTS)
    refusals.check_recipe("v", recipe(("repeat_blocks", {"blocks": 2}), drop), FACTS)
