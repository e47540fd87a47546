"""The default model and the default study's token sets, made by the project's own preparation, for tests on them."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
import yaml

PROJECT = Path(__file__).resolve().parents[1]
NAME = "smollm2-135m"
WINDOWS = 8  # of the evaluation set, which shares no article with the calibration set


def shared(tmp_path_factory):
    """The folder of ``prepare``, made once in a run of pytest."""
    folder = tmp_path_factory.getbasetemp() / "default-model"
    return folder if (folder / "tokens" / "calibration.default.npz").is_file() else prepare(folder)


def prepare(folder):
    """Write ``base/`` and ``tokens/`` of the default model into ``folder`` as a run has them; skips where it cannot."""
    from hemorrhage import cache
    from hemorrhage.planning.token_plan import TokenPlan
    from hemorrhage.sources import fetch

    config = yaml.safe_load((PROJECT / "config.yaml").read_text(encoding="utf8"))
    source, plan = config["models"][NAME], TokenPlan(config)
    try:
        fetch.fetch(source["source"], source["sha256"], cache.downloads())
        for text in plan.texts_of("evaluation").values():
            fetch.fetch(text["source"], text["sha256"], cache.downloads())
    except (OSError, ValueError) as error:
        pytest.skip(f"the default model cannot be fetched: {error}")
    _script("prepare_model").prepare(source, config["dtype"], (), folder / "base")
    for name in ("evaluation", "calibration.default"):
        path = folder / "tokens" / f"{name}.npz"
        path.parent.mkdir(exist_ok=True, parents=True)
        _script("prepare_tokens").prepare(
            folder / "base", name, plan.specs(name), plan.texts_of(name), config["seed"], path
        )
    return folder


def _script(name):
    """One of the workflow's scripts as a module."""
    spec = importlib.util.spec_from_file_location(name, PROJECT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def held_out(folder):
    """Token ids [8, 256] that no method saw."""
    from hemorrhage.corpus.tokens import TokenSet

    ids = TokenSet.load(folder / "tokens" / "evaluation.npz").tokens[:WINDOWS]
    return torch.as_tensor(ids, dtype=torch.long)


@torch.no_grad()
def log_probabilities(model, ids):
    """Natural logs of the next-token probabilities [N, L, V] in float32, window after window."""
    return torch.stack([model(input_ids=row[None], use_cache=False).logits[0].float().log_softmax(-1) for row in ids])


def mean_kl(log_p, log_q):
    """KL(p‖q) in nats, the mean over all positions."""
    sums = [float((p.exp() * (p - q)).sum(-1, dtype=torch.float64).mean()) for p, q in zip(log_p, log_q, strict=True)]
    return sum(sums) / len(sums)
