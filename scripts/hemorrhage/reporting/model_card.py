"""The card of an exported checkpoint: what was done to the model, and what it lost, with error bars."""

from __future__ import annotations

import json
from typing import Any

from hemorrhage.records import Metric, Record

SHOWN = ("kl", "delta_nll", "perplexity_ratio", "perplexity", "top1_agreement")


def severity_word(ratio: float, table: list[list[Any]]) -> str:
    """Return the word for a relative increase of perplexity; above the table's last value, or not finite, is fatal."""
    return next((word for word, limit in table if ratio - 1 <= limit), "fatal")


def text(record: dict[str, Any], base: dict[str, Any], fidelity: Record, severity: list[list[Any]]) -> str:
    """Return the card as Markdown.

    Args:
        record: ``modification.json``.
        base: ``hemorrhage.json`` of the reference.
        fidelity: the variant's record of the probe fidelity.
        severity: rows (word, greatest relative increase of perplexity).
    """
    word = severity_word(fidelity["perplexity_ratio"].value, severity)
    steps = "\n".join(f"1. `{step['method']}` {_settings(step['settings'])}" for step in record["recipe"])
    rows = "\n".join(_row(fidelity[name]) for name in SHOWN)
    attached = ""
    if record["attachments"]:
        attached = (
            "\n**Attachments.** Weights alone do not hold this variant: `hemorrhage.json` lists what this "
            f"project puts back as hooks when it loads the folder ({len(record['attachments'])} of them). "
            "Plain transformers loads the weights without them.\n"
        )
    return f"""---
library_name: transformers
tags: [hemorrhage]
---

# {fidelity.model}, modified: {fidelity.variant}

Made by Hemorrhage from `{base["source"]}` ({base["baseline"]} baseline). Damage: **{word}**.

## What was done

{steps}
{attached}{_packed(record["achieved"])}
What was achieved:

```json
{json.dumps(record["achieved"], indent=1, sort_keys=True)}
```

## What it lost

Against the reference under the same protocol; 95 % intervals, windows as the unit of resampling.

| metric | value | 95 % interval | unit | tokens | windows |
|---|---:|---|---|---:|---:|
{rows}

Protocol: `{json.dumps(fidelity.protocol, sort_keys=True)}`

Fingerprint of the weights: `{record["fingerprint"]}`
"""


def _packed(achieved: list[dict[str, Any]]) -> str:
    """What the card says of a variant that is kept packed as well, by what its last step achieved."""
    last = achieved[-1] if achieved else {}
    if "bytes_before" not in last:  # written by a deployed format, not only read
        return ""
    return (
        f"\n**Packed.** The folder `packed` holds the {last['storage']} checkpoint that was measured: "
        f"{last['bytes_on_disk'] / 1e6:.1f} MB of weights, {last['bytes_before'] / 1e6:.1f} MB before. The dense "
        "weights beside it are what it stands for; read back, it has the fingerprint below.\n"
    )


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items() if value is not None)


def _row(metric: Metric) -> str:
    return (
        f"| {metric.metric} | {metric.value:.5g} | {metric.low:.5g} to {metric.high:.5g} | {metric.unit} | "
        f"{metric.n} | {metric.blocks} |"
    )
