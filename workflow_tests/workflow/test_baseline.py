"""A probe that compares with what it recorded of the reference: which jobs wait for which."""

import copy

import pytest
from workflow.project import CONFIG as TINY
from workflow.project import Project

CONFIG = {
    **copy.deepcopy(TINY),
    "variants": [{"magnitude": {"sparsity": 0.3}}],
    "decoding": {"decoders": []},
    "probes": {"fidelity": {}, "tasks": {"settings": {"tasks": ["agreement"], "items": 4}}},
}
VARIANT = "results/models/tiny/variants/magnitude_sparsity~0.3"


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("baseline"), CONFIG)


def test_a_variant_waits_for_the_reference_s_record_and_the_reference_for_none(asked):
    assert asked.jobs("--", f"{VARIANT}/tasks.json")["measure_tasks"] == 2
    assert asked.jobs("--", "results/models/tiny/variants/identity/tasks.json")["measure_tasks"] == 1
    assert asked.jobs("--", f"{VARIANT}/fidelity.json")["measure_fidelity"] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text": "prosa"}, "text in probes.tasks.settings 'prosa'. Did you mean 'prose'?"),
        ({"item": 3}, "unknown setting 'item'. Did you mean 'items'?"),
    ],
)
def test_wrong_settings_are_refused_before_any_job(asked, settings, message):
    refused = copy.deepcopy(CONFIG)
    refused["probes"]["tasks"]["settings"] = settings
    assert message in asked.refusal(refused)
    asked.configure(CONFIG)
