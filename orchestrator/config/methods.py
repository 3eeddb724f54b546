"""The merge methods of mergekit, one entry each: everything about a method except its arithmetic.

They are listed here because importing mergekit takes eight seconds, and a wrong sweep file should be refused at once. A
test compares the table with mergekit's own registry. To add a method, add an entry; if it works element by element, set
`elementwise`, and register its form under the same name in `tasks.merging.elementwise`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.config.settings import Parameter
from orchestrator.core.errors import hint

COPY = "passthrough"
"""The method of a recipe that is one model as it is."""
DELTAS = ("int8_mask", "normalize", "rescale", "lambda")
"""Parameters of the methods that add task vectors (differences from a base model)."""
SHARE = Parameter(low=0, high=1)
FLAG = Parameter(bool)
PARAMETERS = {
    "weight": Parameter(),
    "density": SHARE,
    "gamma": SHARE,
    "epsilon": SHARE,
    "t": SHARE,
    "select_topk": SHARE,
    "lambda": Parameter(),
    "scale": Parameter(),
    "eps": Parameter(low=0),
    "tol": Parameter(low=0),
    "r": Parameter(low=0),
    "alpha": Parameter(low=0),
    "max_iter": Parameter(int, low=0),
    "normalize": FLAG,
    "normalize_weights": FLAG,
    "rescale": FLAG,
    "int8_mask": FLAG,
    "filter_wise": FLAG,
    "nuslerp_row_wise": FLAG,
    "nuslerp_flatten": FLAG,
}
"""Name → what its values may be; a name means the same in every method that has it."""


@dataclass(frozen=True)
class MixingRatio:
    """A number in [0, 1] that alone determines a merge of two models: 0 is the first, 1 the second."""

    key: Literal["alpha", "t"]
    """Its key in the sweep file and in a recipe's label."""
    weight: str | None = None
    """The per-model parameter that it sets: to the ratio for the second model, to 1 - ratio for the first. None where
    the ratio is a parameter of the whole merge, under the name `key`."""
    arc: bool = False
    """Whether it follows the arc between two tensors, or a straight line where they are nearly parallel."""

    def settings(self, ratio: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Return the parameters of the first model, of the second, and of the whole merge.

        Args:
            ratio: a number, or mergekit's gradient or filters over numbers.
        """
        if self.weight is None:
            return {}, {}, {self.key: ratio}
        return {self.weight: _complement(ratio)}, {self.weight: ratio}, {}

    def read(self, second: dict[str, Any], whole: dict[str, Any]) -> Any:
        """Return the ratio that `settings` wrote into the parameters, or None.

        Args:
            second: parameters of the second model.
            whole: parameters of the whole merge.
        """
        return whole.get(self.key) if self.weight is None else second.get(self.weight)


@dataclass(frozen=True)
class MergeMethod:
    """What is known of a merge method before any tensor is read."""

    name: str
    """Its name in mergekit."""
    whole: tuple[str, ...] = ()
    """Parameters of the whole merge."""
    each: tuple[str, ...] = ()
    """Per-model parameters, which `parameters` of the whole merge may also set for all models."""
    base: Literal["required", "optional", "ignored"] = "ignored"
    """Whether it takes a base_model; one that is ignored is merged like any other model."""
    least: int = 2
    """Smallest number of models, besides the base_model where the method takes one."""
    most: int | None = None
    """Largest number of them."""
    required: tuple[str, ...] = ()
    """Parameters without a default."""
    shares: bool = False
    """Whether weights count as shares of their sum, which then must not be 0."""
    shares_flag: str | None = None
    """The parameter that is false where they count as they are; None where they never do."""
    random: bool = False
    """Whether it draws from torch's global random state, so that the seed is part of the recipe."""
    ratio: MixingRatio | None = None
    """The short form for two models; None where the method has none."""
    elementwise: bool = False
    """Whether a slice of a merged tensor depends only on the same slice of the models' tensors, and perhaps on what was
    measured of whole tensors before; `tasks.merging.elementwise.FORMS` has the arithmetic."""

    @property
    def needs_base(self) -> bool:
        """Whether it requires a base_model."""
        return self.base == "required"

    @property
    def parameters(self) -> list[str]:
        """Names of all parameters, those of the whole merge first."""
        return [*self.whole, *self.each]

    def parameters_beside(self, ratio: bool) -> list[str]:
        """List the parameters that `parameters` of a sweep file may set.

        Args:
            ratio: whether the merge is written with a ratio, which sets some itself.
        """
        taken = {self.ratio.key, self.ratio.weight} if ratio and self.ratio else set()
        return [name for name in self.parameters if name not in taken]

    def check_ratio(self, given: dict[str, Any]) -> str | None:
        """Return the key of the method's ratio where a sweep file gives it, else None.

        Args:
            given: the keys that ratios have in a sweep file, with their values; None where the file has none.

        Raises:
            ValueError: the method does not have the ratio that is given.
        """
        keys = [key for key, value in given.items() if value is not None]
        for key in keys:
            if self.ratio is None or self.ratio.key != key:
                raise ValueError(f"{key} belongs to method {_with_ratio(key)}, but the method here is {self.name!r}")
        return keys[0] if keys else None


def _deltas(name: str, *each: str, random: bool = False) -> MergeMethod:
    """Make the entry of a method that adds task vectors; they have the same parameters, but for some of each model."""
    per_model = ("weight", "density", *each)
    return MergeMethod(name, DELTAS, per_model, "required", 1, None, ("weight",), random=random, elementwise=True)


_ENTRIES = (
    MergeMethod(
        "linear", ("normalize",), ("weight",), required=("weight",), shares=True, shares_flag="normalize",
        ratio=MixingRatio("alpha", weight="weight"), elementwise=True,
    ),
    MergeMethod("slerp", ("t",), (), "required", 1, 1, ("t",), ratio=MixingRatio("t", arc=True), elementwise=True),
    MergeMethod(
        "nuslerp", ("nuslerp_row_wise", "nuslerp_flatten"), ("weight",), "optional", 2, 2, ("weight",), shares=True,
        elementwise=True,
    ),
    MergeMethod(
        "multislerp", ("normalize_weights", "eps"), ("weight",), "optional", 2, None, ("weight",),
        shares=True, shares_flag="normalize_weights",
    ),
    MergeMethod("karcher", ("max_iter", "tol")),
    MergeMethod("nearswap", ("t",), (), "required", 1, 1, ("t",), elementwise=True),
    MergeMethod("model_stock", ("filter_wise",), (), "required", 2),
    MergeMethod("arcee_fusion", (), (), "required", 1, 1, random=True),
    MergeMethod(COPY, each=("scale",), least=1, most=1, elementwise=True),
    _deltas("task_arithmetic"),
    _deltas("ties"),
    _deltas("breadcrumbs", "gamma"),
    _deltas("breadcrumbs_ties", "gamma"),
    _deltas("dare_linear", random=True),
    _deltas("dare_ties", random=True),
    _deltas("della", "epsilon", random=True),
    _deltas("della_linear", "epsilon", random=True),
    MergeMethod("sce", ("int8_mask", "select_topk"), (), "required", 1),
    MergeMethod("ram", ("epsilon",), (), "required", 1, elementwise=True),
    MergeMethod("ramplus_tl", ("r", "alpha", "epsilon"), (), "required", 1),
)  # fmt: skip
METHODS = {method.name: method for method in _ENTRIES}


def merge_method(name: str) -> MergeMethod:
    """Return the entry of a method by mergekit's name.

    Raises:
        ValueError: mergekit has no such method.
    """
    if name not in METHODS:
        known = ", ".join(sorted(METHODS))
        raise ValueError(f"mergekit has no merge method {name!r}{hint(name, METHODS)} (it has: {known})")
    return METHODS[name]


def ratio_words() -> str:
    """Name the ratios and the methods that have them: `alpha (linear) or t (slerp)`."""
    keys = dict.fromkeys(method.ratio.key for method in METHODS.values() if method.ratio)
    return " or ".join(f"{key} ({_with_ratio(key)})" for key in keys)


def _with_ratio(key: str) -> str:
    return " or ".join(method.name for method in METHODS.values() if method.ratio and method.ratio.key == key)


def _complement(setting: Any) -> Any:
    """Return 1 - setting in the form of the setting, which is a number, a gradient or filters of mergekit."""
    if isinstance(setting, list):
        return [_complement(item) for item in setting]
    if isinstance(setting, dict):
        return {**setting, "value": _complement(setting["value"])}
    # Rounded like a span of the sweep file, so that the recipe says 0.7 and not 0.7000000000000001.
    return round(1.0 - setting, 10)
