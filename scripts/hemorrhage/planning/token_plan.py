"""The token sets of a study: which windows are cut, from which text, under which protocol."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hemorrhage.corpus.protocol import Protocol


@dataclass(frozen=True)
class TokenPlan:
    """The parts of a config that say what is measured, fitted and calibrated on.

    Raises ValueError naming the key, the value and what is allowed.
    """

    config: dict[str, Any]

    @cached_property
    def protocol(self) -> Protocol:
        """The protocol of the evaluation windows."""
        return Protocol.of(self.config["protocol"], dtype=self.config["dtype"])

    def protocol_plans(self) -> dict[str, dict[str, Any]]:
        """Every protocol under which the unmodified models are measured too: name -> text, windows, protocol.

        Each scores about as many tokens as the evaluation windows, in at least two windows.
        """
        evaluation, own = self.config["tokens"]["evaluation"], self._window("evaluation", self.sets["evaluation"])
        plans = {}
        for asked in self.config.get("protocols", []):
            chosen = self._protocol_of(asked)
            windows: int | str = evaluation["windows"]
            if isinstance(windows, int):
                room = windows * own.window - chosen.window
                windows = max(2, room // int(chosen.stride or chosen.window) + 1)
            name = asked if isinstance(asked, str) else chosen.slug
            plans[name] = {"text": evaluation["text"], "windows": windows, "protocol": chosen.as_dict()}
        return plans

    def _protocol_of(self, asked: str | dict[str, Any]) -> Protocol:
        try:
            if isinstance(asked, str):
                return Protocol.of(asked, dtype=self.config["dtype"])
            return Protocol.of(self.protocol.as_dict(), **{"stride": None, **asked})
        except ValueError as error:
            raise ValueError(f"protocols, {asked}: {error}") from None

    @cached_property
    def sets(self) -> dict[str, dict[str, Any]]:
        """The token sets of the config by the name that their files have."""
        tokens = self.config["tokens"]
        first = {name: tokens[name] for name in ("evaluation", "fit") if name in tokens}
        return {**first, **{f"calibration.{key}": value for key, value in tokens["calibration"].items()}}

    def calibrations(self) -> dict[str, dict[str, Any]]:
        """Text, number and length of sequences, and joining of articles, of every calibration set."""
        found = {}
        for name, spec in self.config["tokens"]["calibration"].items():
            cut = self._window(f"calibration.{name}", spec)
            found[name] = {key: spec[key] for key in ("text", "windows")} | {
                "window": cut.window,
                "joining": cut.joining,
            }
        return found

    def specs(self, name: str) -> dict[str, dict[str, Any]]:
        """The specifications of token set ``name`` and of all sets that choose their articles before it."""
        sets = self.sets
        before = [key for key in ("evaluation", "fit") if key in sets and name != "evaluation"]
        return {
            key: {**sets[key], "protocol": self._window(key, sets[key]).as_dict()}
            for key in dict.fromkeys([*before, name])
        }

    def texts_of(self, name: str) -> dict[str, dict[str, Any]]:
        """The text sources that token set ``name`` and the sets before it read."""
        used = {spec["text"] for spec in self.specs(name).values()}
        return {text: self.config["texts"][text] for text in sorted(used)}

    def _window(self, name: str, spec: dict[str, Any]) -> Protocol:
        """The protocol of one token set: the evaluation's, with the window and joining that the set names."""
        own: dict[str, Any] = {key: spec[key] for key in ("window", "joining") if key in spec}
        if own or name.startswith("calibration"):
            own["stride"] = None  # windows of another length or joining do not overlap
        if own.get("joining") == "article":
            own["tail"] = "drop"
        return Protocol.of(self.protocol.as_dict(), **own)
