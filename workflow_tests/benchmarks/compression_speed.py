"""Time and memory of this project's compression methods against the libraries that do one each, on one model.

    python workflow_tests/benchmarks/compression_speed.py FOLDER [--methods wanda gptq] [--rounds 3] [--threads 2]

FOLDER is a model's result folder with ``base/`` and ``tokens/calibration.default.npz``, for instance
``results/models/smollm2-135m``. Every run is a process of its own that loads the model, compresses it and writes the
checkpoint; ours and the peer's run in turn, so that load on the machine meets both, after one run of each that only
loads. Reported are medians over the rounds of the wall time of the compression itself and of the whole process, the
processor time and the peak memory of the process, and medians of the ratios of a round. ``--write`` puts the table
into docs/benchmarks.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT / "scripts"), str(PROJECT / "workflow_tests")]
PAGE = PROJECT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- begin:compression -->\n", "<!-- end:compression -->"
GROUP = 64  # of quantised weights: 128 does not divide the default model's width
# method -> settings of ours, the peer, the largest share of the peer's wall time that is acceptable
CASES = {
    "wanda": ({"sparsity": 0.6}, "llm-compressor", 0.6),
    "sparsegpt": ({"sparsity": 0.6}, "llm-compressor", 0.4),
    "gptq": ({"bits": 3, "group": GROUP}, "GPTQModel", 0.35),
    "awq": ({"bits": 3, "group": GROUP, "clip": False}, "llm-compressor", None),
    "smoothquant": ({"bits": 8}, "llm-compressor", None),
    "rtn": ({"bits": 3, "group": GROUP}, None, None),
}
SIDES = ("ours", "peer")


def compress(side, method, folder, target):
    """Load, compress and save once in this process; returns the seconds of the compression. No method: only load."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if side == "peer" and method and CASES[method][1] == "GPTQModel":
        return _gptqmodel(folder, target)
    return (_ours if side == "ours" else _llmcompressor)(method, folder, target)


def _ours(method, folder, target):
    from peers import compressors

    from hemorrhage import checkpoints

    model = compressors.load(folder)
    if not method:
        return 0.0
    start = time.perf_counter()
    achieved = compressors.ours(model, folder, method, CASES[method][0])
    seconds = time.perf_counter() - start
    checkpoints.save(model, target, {"achieved": achieved, "fingerprint": checkpoints.fingerprint(model)})
    return seconds


def _llmcompressor(method, folder, target):
    from peers import compressors

    recipes = {
        "wanda": lambda: compressors.wanda(0.6),
        "sparsegpt": lambda: compressors.sparsegpt(0.6),
        "awq": lambda: compressors.awq(3, GROUP),
        "smoothquant": lambda: compressors.smoothquant(8, 0.5),
    }
    import llmcompressor  # noqa: F401 - the import belongs to the process, not to the compression

    model = compressors.load(folder)
    if not method:
        return 0.0
    start = time.perf_counter()
    compressors.llmcompressor(model, folder, recipes[method]())
    seconds = time.perf_counter() - start
    model.save_pretrained(target)
    return seconds


def _gptqmodel(folder, target):
    from peers import compressors

    packing, rows = compressors.gptqmodel(folder, bits=3, group_size=GROUP, desc_act=True, static_groups=True)
    start = time.perf_counter()
    compressors.quantize(packing, rows)
    seconds = time.perf_counter() - start
    packing.save(str(target))
    return seconds


def run(side, method, arguments):
    """One process; returns its seconds (compression, whole, processor) and its peak memory in MB."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, __file__, str(arguments.folder), "--one", side, "--target", f"{scratch}/out"]
        command += ["--methods", method] if method else []
        threads = str(arguments.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "GPTQMODEL_CPU_WORKERS": threads}
        start = time.perf_counter()
        with open(f"{scratch}/log", "w", encoding="utf8") as log:
            child = subprocess.Popen(command, cwd=scratch, env=environment, stdout=log, stderr=subprocess.STDOUT)
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        whole = time.perf_counter() - start
        lines = Path(scratch, "log").read_text(encoding="utf8").splitlines()
    if child.returncode:
        raise SystemExit(f"{side} {method} failed:\n" + "\n".join(lines[-20:]))
    seconds = next(json.loads(line)["seconds"] for line in reversed(lines) if line.startswith('{"seconds"'))
    return {"proper": seconds, "whole": whole, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / 1e3}


def measure(arguments):
    """Return the rows of the table, one a method."""
    sides_of = {method: SIDES if CASES[method][1] else SIDES[:1] for method in arguments.methods}
    for side in SIDES:
        run(side, None, arguments)
    found = {method: {side: [] for side in sides} for method, sides in sides_of.items()}
    for _ in range(arguments.rounds):
        for method, sides in sides_of.items():
            for side in sides:
                found[method][side].append(run(side, method, arguments))
                print(
                    method, side, {key: round(value, 1) for key, value in found[method][side][-1].items()}, flush=True
                )
    return [_row(method, found[method]) for method in arguments.methods]


def _row(method, runs):
    _, peer, bound = CASES[method]
    cells = [method, peer or "none"]
    for key in ("proper", "whole", "cpu", "peak"):
        medians = [
            f"{statistics.median(one[key] for one in runs[side]):.{0 if key == 'peak' else 1}f}" for side in runs
        ]
        cells.append(" / ".join(medians))
        if peer:
            ratios = [ours[key] / theirs[key] for ours, theirs in zip(runs["ours"], runs["peer"], strict=True)]
            cells.append(f"{statistics.median(ratios):.2f}")
        else:
            cells.append("")
    cells.insert(4, f"{bound:g}" if bound else "")
    return cells


def table(rows):
    """Return the Markdown table."""
    head = ["method", "peer", "compression, s", "ratio", "at most", "whole process, s", "ratio", "processor, s"]
    head += ["ratio", "peak memory, MB", "ratio"]
    rule = ["---", "---", *["---:"] * (len(head) - 2)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *rows))


def write(rows, arguments):
    """Put the table between its marks in docs/benchmarks.md."""
    note = f"Ours / the peer's, medians of {arguments.rounds} rounds with {arguments.threads} threads.\n\n"
    before, rest = PAGE.read_text(encoding="utf8").split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}{note}{table(rows)}{END}{after}", encoding="utf8")


def main():
    """Measure and print the table, or (``--one``) make one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a model's result folder")
    parser.add_argument("--methods", nargs="*", choices=CASES, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    parser.add_argument("--one", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.folder = arguments.folder.resolve()
    if arguments.one:
        seconds = compress(arguments.one, next(iter(arguments.methods or []), None), arguments.folder, arguments.target)
        print(json.dumps({"seconds": seconds}))
        return
    arguments.methods = arguments.methods or list(CASES)
    rows = measure(arguments)
    print(table(rows))
    if arguments.write:
        write(rows, arguments)


if __name__ == "__main__":
    main()
