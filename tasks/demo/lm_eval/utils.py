"""The demo's questions as lm-eval reads them.

They are generated, so that they do not depend on the working directory.
"""

from datasets import Dataset
from lm_eval.tasks.ifeval.utils import agg_inst_level_acc, process_results

from tasks.demo import formulary as _formulary
from tasks.demo import instructions as _instructions

__all__ = ["agg_inst_level_acc", "formulary", "instructions", "process_results"]


def formulary(**_: object) -> dict[str, Dataset]:
    """Make the multiple-choice questions; lm-eval passes the task's metadata, which they do not need."""
    return {"test": Dataset.from_list([dict(each) for each in _formulary.documents()])}


def instructions(**_: object) -> dict[str, Dataset]:
    """Make the instruction prompts, in the columns of google/IFEval."""
    return {"test": Dataset.from_list([dict(each) for each in _instructions.documents()])}
