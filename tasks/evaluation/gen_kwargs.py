"""The settings of a generation: lm-eval's, vLLM's and transformers' spellings, read as one set and checked.

A setting that only says what is done anyway (one beam, one answer) is accepted; any other that would change the text
and is not supported is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from orchestrator.core.errors import UserError, hint

GenKwargs = Mapping[str, Any]
"""A task file's `generation_kwargs`, or the `gen_kwargs` of a sweep file."""
DEFAULT_MAX_GEN_TOKS = 256
"""New tokens where nothing says how many; lm-eval's default."""
ALIASES = {
    "stop": "until",
    "stop_sequences": "until",
    "stop_strings": "until",
    "max_new_tokens": "max_gen_toks",
    "max_tokens": "max_gen_toks",
    "max_completion_tokens": "max_gen_toks",
}
"""A spelling of vLLM, transformers or an API → lm-eval's."""
SAME_AS_WITHOUT: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("n", "best_of", "num_beams", "num_beam_groups", "num_return_sequences"), (1,)),
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "diversity_penalty", "no_repeat_ngram_size"), (0,)),
    **dict.fromkeys(("min_tokens", "min_new_tokens", "min_length"), (0,)),
    **dict.fromkeys(("ignore_eos", "include_stop_str_in_output", "renormalize_logits"), (False,)),
    **dict.fromkeys(("stop_token_ids", "bad_words", "suppress_tokens"), ([],)),
    **dict.fromkeys(("skip_special_tokens", "detokenize"), (True,)),
    **dict.fromkeys(("min_p", "epsilon_cutoff", "eta_cutoff"), (0,)),
    **dict.fromkeys(("typical_p", "encoder_repetition_penalty"), (1,)),
}
"""Setting → the values with which the text is what it is without the setting."""
WITHOUT_EFFECT = frozenset({
    "use_cache", "early_stopping", "length_penalty", "pad_token_id", "spaces_between_special_tokens", "output_scores",
    "output_logits", "return_dict_in_generate",
})  # fmt: skip
"""Settings that the text does not depend on, whatever their value: those of beams, padding and further outputs."""


class Number(NamedTuple):
    """The values that a number may have: whole ones or not, and from where to where."""

    whole: bool
    least: float
    most: float
    words: str


LARGEST = 2**31 - 1
"""The largest number that vLLM's kernels take."""
NUMBERS = {
    "temperature": Number(False, 0.01, 2, "0 (greedy), or between 0.01 and 2"),
    "top_p": Number(False, math.ulp(0), 1, "above 0 and at most 1"),
    "top_k": Number(True, -1, LARGEST, "a whole number: at least 1, or 0 for all tokens"),
    "repetition_penalty": Number(False, math.ulp(0), LARGEST, "above 0"),
    "max_gen_toks": Number(True, 1, LARGEST, "a whole number of at least 1"),
    "max_context_toks": Number(True, 1, LARGEST, "a whole number of at least 1"),
}
"""Numbers and their ranges, which are those of vLLM's SamplingParams; `max_context_toks` is the longest prompt."""
SUPPORTED = ("until", "do_sample", *NUMBERS)


@dataclass(frozen=True)
class Generation:
    """How a text is generated."""

    max_tokens: int
    stop: tuple[str, ...]
    temperature: float
    """0 is greedy."""
    top_p: float
    top_k: int
    repetition_penalty: float
    max_context: int | None
    """Longest prompt in tokens; None for what `max_model_len` leaves."""


def overlaid(task: GenKwargs, *settings: GenKwargs, delimiter: str | None = None) -> dict[str, Any]:
    """Lay settings of a sweep file over those of a task file, each in place of the same one in any spelling.

    Args:
        settings: in order; a later one replaces an earlier one, and None takes it away.
        delimiter: the few-shot delimiter, which lm-eval writes into `until` where a task file has none.

    Returns:
        The settings in lm-eval's spelling.

    Raises:
        UserError: one mapping has two spellings of a setting with different values, or settings of a sweep file have
            no effect beside those of the task file.
    """
    default = delimiter is not None and task.get("until") == [delimiter]
    spelled = any(ALIASES.get(key) == "until" for key in task)
    found = _canonical({key: value for key, value in task.items() if not (default and spelled and key == "until")})
    own: dict[str, Any] = {}
    for mapping in map(_canonical, settings):
        if mapping.get("do_sample") is False and _number("temperature", mapping.get("temperature") or 0) > 0:
            raise UserError(
                f"gen_kwargs: temperature = {mapping['temperature']!r} has no effect beside do_sample: false; write "
                "do_sample: true, or leave temperature out"
            )
        own |= mapping
    samples = _number("temperature", own.get("temperature") or 0) > 0
    if samples and "do_sample" not in own and found.get("do_sample") is False:
        raise UserError(
            f"gen_kwargs: temperature = {own['temperature']!r} has no effect, as the task file says do_sample: false; "
            "add do_sample: true, or leave temperature out"
        )
    if own.get("do_sample") is True and "temperature" not in own and found.get("temperature") == 0:
        raise UserError(
            "gen_kwargs: do_sample = True has no effect, as the task file says temperature: 0; add a temperature, or "
            "leave do_sample out"
        )
    found |= own
    return {key: value for key, value in found.items() if value is not None}


def _canonical(mapping: GenKwargs) -> dict[str, Any]:
    """The same settings in lm-eval's spelling."""
    found: dict[str, Any] = {}
    first: dict[str, str] = {}
    for key, value in mapping.items():
        name = ALIASES.get(key, key)
        if value is None and name in found:
            continue
        if found.get(name) is not None and found[name] != value:
            raise UserError(
                f"gen_kwargs: {first[name]} = {found[name]!r} and {key} = {value!r} are one setting; write only {name}"
            )
        first[name], found[name] = key, value
    return found


def stop_texts(kwargs: GenKwargs) -> tuple[str, ...]:
    """Read the texts at which a generation ends.

    Raises:
        UserError: one is no text.
    """
    given = _canonical(kwargs).get("until")
    texts = [] if given is None else given if isinstance(given, list | tuple) else [given]
    for text in texts:
        if not isinstance(text, str):
            raise UserError(f"gen_kwargs: until has {text!r}, which is no text; write it in quotes")
    return tuple(text for text in texts if text)  # lm-eval passes over empty ones, too


def read_gen_kwargs(kwargs: GenKwargs) -> Generation:
    """Read the settings of a generation; without `do_sample` and `temperature` it is greedy, as in lm-eval.

    Raises:
        UserError: one is not supported or out of its range.
    """
    found = {key: value for key, value in _canonical(kwargs).items() if value is not None}
    do_sample = found.get("do_sample")
    if do_sample not in (None, True, False):
        raise UserError(f"gen_kwargs: do_sample = {do_sample!r} is neither true nor false; write one of them")
    numbers = {name: _number(name, found[name]) for name in NUMBERS if name in found}
    # vLLM's and transformers' default of the temperature is 1.
    temperature = 0.0 if do_sample is False else float(numbers.get("temperature", 1.0 if do_sample else 0.0))
    _check_others(found, is_greedy=temperature == 0)
    return Generation(
        max_tokens=int(numbers.get("max_gen_toks", DEFAULT_MAX_GEN_TOKS)),
        stop=stop_texts(found),
        temperature=temperature,
        top_p=float(numbers.get("top_p", 1.0)),
        top_k=int(numbers.get("top_k", 0)),
        repetition_penalty=float(numbers.get("repetition_penalty", 1.0)),
        max_context=int(numbers["max_context_toks"]) if "max_context_toks" in numbers else None,
    )


def _number(name: str, value: Any) -> float:
    allowed = NUMBERS[name]
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # YAML reads 2e-5 as a text
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    fits = allowed.least <= number <= allowed.most or (name == "temperature" and number == 0)
    if not fits or (allowed.whole and number != math.floor(number)):
        raise UserError(f"gen_kwargs: {name} = {value!r} is out of its range: {allowed.words}")
    return number


def _check_others(found: GenKwargs, is_greedy: bool) -> None:
    """Refuse what would change the text and is not supported."""
    for key, value in found.items():
        if key in SUPPORTED or key in WITHOUT_EFFECT or value in SAME_AS_WITHOUT.get(key, ()):
            continue
        if key == "seed":
            _check_seed(value, is_greedy)
        elif key == "max_length":
            raise UserError(
                f"gen_kwargs: max_length = {value!r} counts prompt and answer together, which is "
                "workers.engine.max_model_len here; write max_gen_toks for the answer's tokens (null takes max_length "
                "of a task file away)"
            )
        else:
            raise UserError(
                f"gen_kwargs: {key} = {value!r} is not supported{hint(key, SUPPORTED)} (known: {', '.join(SUPPORTED)});"
                f" {key}: null takes it away where a task file has it"
            )


def _check_seed(value: Any, is_greedy: bool) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"gen_kwargs: seed = {value!r} is no whole number; write the sweep file's key seed instead")
    if not is_greedy:
        raise UserError(
            f"gen_kwargs: seed = {value!r} would give every prompt the same random numbers; the sweep file's key seed "
            "gives each its own: write it there (null takes seed of a task file away)"
        )
