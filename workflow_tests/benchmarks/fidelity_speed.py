"""Time and memory of the probe ``fidelity`` against a bare forward pass, head included, over the same tokens.

    python workflow_tests/benchmarks/fidelity_speed.py BASE [--windows 16] [--window 256] [--repeats 5] [--batch 4]

Both sides run in turn in one process, so that load on the machine meets both; reported are medians after a warm-up
and the median of the paired ratios. For the peak memory each size of the token set runs in a process of its own.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from hemorrhage.analysis.statistics import index_matrix
from hemorrhage.architecture import models
from hemorrhage.architecture.head import Head, hidden_states
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.measuring import comparison, fidelity_metrics


def token_set(windows, window, vocabulary):
    """Return random windows with every prediction scored."""
    ids = np.random.default_rng(0).integers(4, vocabulary, (windows, window), dtype=np.int32)
    scored = np.ones(ids.shape, dtype=bool)
    scored[:, 0] = False
    return TokenSet(ids, scored, np.full(windows, 4 * window), [str(i) for i in range(windows)], {})


class Kept(list):
    """Hidden states [B, L, d] of the reference, as the probe reads them."""

    def __getitem__(self, windows):
        return torch.cat(super().__getitem__(windows))


def forward(model, tokens, batch):
    """Logits of every position as the model makes them, thrown away batch after batch."""
    with torch.no_grad():
        for part in torch.as_tensor(tokens.tokens, dtype=torch.long).split(batch):
            _ = model(input_ids=part.to(model.device), use_cache=False).logits


def fidelity(model, head, hidden, tokens, batch, index):
    """The complete probe: comparison and all metrics with their intervals."""
    values = comparison.compare(head, hidden, model, tokens, batch)
    return fidelity_metrics.summarise(values, tokens, index)


def seconds(action):
    """Return how long an action takes, in seconds."""
    start = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_mb():
    """Return the peak memory of this process (of the device, if there is one) in MB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(arguments):
    """Return medians, ratio and peak memory as a dict."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(arguments.threads)
    model = models.load(arguments.base, arguments.dtype, device)
    head = Head.of(model)
    tokens = token_set(arguments.windows, arguments.window, model.config.get_text_config().vocab_size)
    index = index_matrix("benchmark", "evaluation", arguments.windows)
    parts = torch.as_tensor(tokens.tokens, dtype=torch.long, device=device).split(1)
    hidden = Kept([hidden_states(model, part).cpu() for part in parts])
    before, batch = peak_mb(), arguments.batch
    if arguments.memory:
        fidelity(model, head, hidden, tokens, batch, index)
        kept = sum(part.numel() * part.element_size() for part in hidden) / 1e6
        return {
            "tokens": tokens.tokens.size,
            "peak_mb": round(peak_mb()),
            "reference_mb": round(kept),
            "before_mb": round(before),
        }
    actions = {
        "forward": lambda: forward(model, tokens, batch),
        "fidelity": lambda: fidelity(model, head, hidden, tokens, batch, index),
    }
    for action in actions.values():
        action()
    times = {name: [] for name in actions}
    for _ in range(arguments.repeats):
        for name, action in actions.items():
            times[name].append(seconds(action))
    ratios = [probe / bare for probe, bare in zip(times["fidelity"], times["forward"], strict=True)]
    return {
        "tokens": tokens.tokens.size,
        **{f"{name}_s": round(statistics.median(t), 3) for name, t in times.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def main():
    """Print the times, and with ``--sizes`` the peak memory at several numbers of windows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a dense checkpoint folder")
    for name, default in (("windows", 16), ("window", 256), ("repeats", 5), ("batch", 4), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--memory", action="store_true", help="one pass of the probe, and the peak memory")
    parser.add_argument("--sizes", type=int, nargs="*", default=[], help="numbers of windows for the peak memory")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments)), flush=True)
    for windows in arguments.sizes:
        command = [sys.executable, __file__, arguments.base, "--memory", "--windows", str(windows)]
        for name in ("window", "batch", "threads", "dtype"):
            command += [f"--{name}", str(getattr(arguments, name))]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
