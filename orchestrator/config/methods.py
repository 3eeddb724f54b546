"""mergekit's merge methods: their parameters, whether they need a base model, whether they draw random numbers.

Written down because importing mergekit takes eight seconds and a wrong sweep file should be refused at once. A test
holds the table against mergekit's own registry.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    whole: str
    """Parameters of the whole merge."""
    each: str
    """Parameters that each model may have of its own (or all together, under `parameters`)."""
    base: bool = True
    """Needs a base_model."""
    random: bool = False
    """Draws from torch's global random state, so that its seed is part of the recipe."""

    @property
    def parameters(self) -> list[str]:
        return [*self.whole.split(), *self.each.split()]


DELTAS = "int8_mask normalize rescale lambda"

METHODS = {
    "linear": Method("normalize", "weight", base=False),
    "slerp": Method("t", ""),
    "nuslerp": Method("nuslerp_row_wise nuslerp_flatten", "weight", base=False),
    "multislerp": Method("normalize_weights eps", "weight", base=False),
    "karcher": Method("max_iter tol", "", base=False),
    "nearswap": Method("t", ""),
    "model_stock": Method("filter_wise", ""),
    "arcee_fusion": Method("", "", random=True),
    "passthrough": Method("", "scale", base=False),
    "task_arithmetic": Method(DELTAS, "weight density"),
    "ties": Method(DELTAS, "weight density"),
    "breadcrumbs": Method(DELTAS, "weight density gamma"),
    "breadcrumbs_ties": Method(DELTAS, "weight density gamma"),
    "dare_linear": Method(DELTAS, "weight density", random=True),
    "dare_ties": Method(DELTAS, "weight density", random=True),
    "della": Method(DELTAS, "weight density epsilon", random=True),
    "della_linear": Method(DELTAS, "weight density epsilon", random=True),
    "sce": Method("int8_mask select_topk", ""),
    "ram": Method("epsilon", ""),
    "ramplus_tl": Method("r alpha epsilon", ""),
}
