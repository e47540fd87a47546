"""A copy of the workflow in a temporary folder, with a tiny model and local text, that tests run and break."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

import tiny

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "Makefile", "pyproject.toml", "scripts", "rules", "profiles", "envs", "resources")

CONFIG = {
    "models": {"tiny": {"source": "path:model"}},
    "texts": {"prose": {"source": "path:text.jsonl", "format": "jsonl"}},
    "protocol": {"window": 32},
    "tokens": {
        "evaluation": {"text": "prose", "windows": 8},
        "fit": {"text": "prose", "windows": 4},
        "calibration": {"default": {"text": "prose", "windows": 4}},
    },
    "variants": [
        {"magnitude": {"sparsity": [0.3, 0.6]}},
        {"wanda": {"sparsity": [0.3, 0.6]}},
        {"rtn": {"bits": [8, 3]}},
        [{"rtn": {"bits": [8, 3]}}, "calibrated_temperature"],
    ],
    "decoding": {
        "decoders": [{"temperature": {"temperature": 0.7}}],
        "variants": ["rtn_bits~3"],
        "prompts": {"count": 4, "tokens": 8},
        "new_tokens": 8,
    },
}


class Project:
    """A folder with a copy of the workflow's files, a tiny model, a text and a config."""

    def __init__(self, folder, config=CONFIG):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, self.folder / part, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
            else:
                shutil.copy(source, self.folder / part)
        tiny.write_folder(self.folder / "model")
        lines = [json.dumps({"text": article}) for article in tiny.plain_text(articles=32)]
        (self.folder / "text.jsonl").write_text("\n".join(lines) + "\n")
        self.configure(config)

    def copy(self, folder):
        """Return a copy that may be changed; Snakemake's memory of the run and all times come along."""
        subprocess.run(["cp", "-a", str(self.folder), str(folder)], check=True)
        other = object.__new__(Project)
        other.folder, other.config = Path(folder), self.config
        return other

    def configure(self, config):
        self.config = config
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    @property
    def environment(self):
        return {
            **os.environ,
            "HEMORRHAGE_CACHE": str(self.folder / "cache"),
            "COLUMNS": "200",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def command(self, *arguments, cores="2"):
        return [
            sys.executable,
            "-m",
            "snakemake",
            "--cores",
            cores,
            "--workflow-profile",
            "none",
            "--rerun-incomplete",
            "--show-failed-logs",
            *arguments,
        ]

    def run(self, *arguments, check=True, cores="2"):
        """Run Snakemake and return what it did; with ``check`` a failed run fails the test with its output."""
        done = self.call(self.command(*arguments, cores=cores))
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def call(self, command):
        """Run a command in the project's folder."""
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)

    def jobs(self, *arguments):
        """Return the number of jobs by rule that a run would have."""
        shown = self.run("--dry-run", "--quiet", "rules", *arguments)
        return parse_jobs(shown.stdout + shown.stderr)

    def refusal(self, config, *arguments):
        """Return the output of a run that must fail before any job."""
        self.configure(config)
        done = self.run("--dry-run", *arguments, check=False)
        assert done.returncode != 0
        return (done.stdout + done.stderr).strip()

    def read(self, name):
        return (self.folder / "results" / name).read_bytes()


def parse_jobs(text):
    """Read the "Job stats" table; {} for nothing to be done."""
    rows = re.findall(r"^(\w+)\s+(\d+)\s*$", text, flags=re.MULTILINE)
    return {rule: int(count) for rule, count in rows if rule not in ("total", "all")}
