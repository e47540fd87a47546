"""Tasks: what the variant still answers, and which answers differ from the reference's, item by item.

Asked through lm-eval: three tasks that need no network (``last_word``, ``continuation``, both built at run time from
articles of the study's text that neither a fit nor a calibration set touches, and ``agreement``, from a grammar), any
task or group of lm-eval by its name (``arc_easy``, ``hellaswag``, ``mmlu``; their data come from the hub), and task
definitions in lm-eval's form as ``local:`` with a folder or a .yaml file. Reported per task are accuracy, normalised
accuracy, the margin between the right and the best wrong choice, and against the reference flips in both directions,
McNemar's exact p, the paired change of accuracy and of the margin, and ``score_loss``, the share of the reference's
accuracy that is lost; names without a task are over all items together. ``flips`` counts every changed answer, from one
wrong choice to another too; a task without choices tells only right from wrong.

Cost: about 250 tokens of forward pass an item for the three built-in tasks together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hemorrhage.settings import whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hemorrhage.probing import Context
    from hemorrhage.records import Measurement

VERSION = 2
BASELINE = True
TEXTS = True
PACKAGES = ("lm-eval", "datasets", "mwparserfromhell")
EXAMPLE = {"tasks": ["agreement"], "items": 6}
LOCAL = "local:"


@dataclass(frozen=True)
class Settings:
    """What is asked.

    Attributes:
        tasks: names, see above.
        items: of each task, drawn by ``seed``; all of them if a data set holds fewer.
        text: name of the text that tasks are built from; None for that of the evaluation windows.
        batch: requests in one forward pass.
        seed: of the choice of items.
    """

    tasks: tuple[str, ...] = ("last_word", "continuation", "agreement")
    items: int = 100
    text: str | None = None
    batch: int = 8
    seed: int = 1

    def __post_init__(self) -> None:
        names = [self.tasks] if isinstance(self.tasks, str) else list(self.tasks)
        if not names or len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"tasks: {self.tasks!r} is not a list of different names of tasks.")
        for name in names:
            if name.startswith(LOCAL) and not Path(name.removeprefix(LOCAL)).exists():
                raise ValueError(f"tasks: '{name}' names a file or folder that does not exist.")
        object.__setattr__(self, "tasks", tuple(names))
        for name, low in (("items", 2), ("batch", 1), ("seed", 0)):
            object.__setattr__(self, name, whole(name, getattr(self, name), low))


def measure(model: PreTrainedModel, context: Context, settings: Settings) -> Measurement:
    """Ask ``model`` the tasks and compare its answers with the reference's; without a baseline it is the reference.

    Raises:
        ValueError: an unknown task, too few items in the text, or items that the reference was not asked.
        OSError: a data set that cannot be loaded.
    """
    from hemorrhage.tasks import asking

    return asking.measure(model, context, list(settings.tasks), settings.items, settings.batch, settings.seed)
