"""Settings of a generation in lm-eval's, vLLM's and transformers' spellings: one set, checked before anything starts."""

from __future__ import annotations

import math
from typing import Any

import pytest

from orchestrator.core.errors import UserError
from tasks.evaluation.gen_kwargs import Generation, overlaid, read_gen_kwargs, stop_texts

GREEDY = Generation(256, (), 0.0, 1.0, 0, 1.0, None)
SAMPLED = {"do_sample": True, "temperature": 0.7}
ACCEPTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"until": "Q:"}, {"stop": ("Q:",)}),
    ({"stop": ["x", "y"]}, {"stop": ("x", "y")}),
    ({"stop_strings": ["x"], "until": None}, {"stop": ("x",)}),
    ({"until": [""]}, {}),
    *(
        ({key: 7}, {"max_tokens": 7})
        for key in ("max_gen_toks", "max_tokens", "max_new_tokens", "max_completion_tokens")
    ),
    ({"max_tokens": 7, "max_new_tokens": 7}, {"max_tokens": 7}),
    ({"max_gen_toks": 7.0, "temperature": "5e-1"}, {"max_tokens": 7, "temperature": 0.5}),
    ({"do_sample": False, "temperature": 1}, {}),  # longbench's
    ({"do_sample": True, "temperature": 0}, {}),
    ({"do_sample": True}, {"temperature": 1.0}),
    ({"temperature": 0.2}, {"temperature": 0.2}),
    ({"top_k": -1, "top_p": 0.95}, {"top_k": -1, "top_p": 0.95}),
    ({"num_beams": 1, "n": 1, "num_return_sequences": 1, "use_cache": False, "early_stopping": True}, {}),
    ({"min_p": 0.0, "presence_penalty": 0, "frequency_penalty": 0.0, "seed": 1234}, {}),
    ({"skip_special_tokens": True, "ignore_eos": False, "length_penalty": 0.6, "stop_token_ids": []}, {}),
    ({**SAMPLED, "min_p": 0}, {"temperature": 0.7}),
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"temperature": -1}, "temperature = -1 is out of its range: 0"),
    ({"temperature": 2.5}, "temperature = 2.5"),
    ({"temperature": 0.001}, "temperature = 0.001"),
    ({"temperature": math.nan}, "temperature = nan"),
    ({"temperature": True}, "temperature = True"),
    ({"temperature": "warm"}, "temperature = 'warm'"),
    ({"temperature": [0.7]}, "temperature ="),
    ({"top_p": 0}, "top_p = 0 is out of its range: above 0 and at most 1"),
    ({"top_p": 1.5}, "top_p = 1.5"),
    ({"top_k": -5}, "top_k = -5"),
    ({"top_k": 5.5}, "top_k = 5.5"),
    ({"repetition_penalty": 0}, "repetition_penalty = 0"),
    ({"repetition_penalty": math.inf}, "repetition_penalty = inf"),
    ({"max_gen_toks": 0}, "max_gen_toks = 0"),
    ({"max_new_tokens": 10**400}, "max_gen_toks ="),
    ({"max_tokens": 4, "max_gen_toks": 400}, "max_tokens = 4 and max_gen_toks = 400 are one setting"),
    ({"until": ["x"], "stop": ["y"]}, "are one setting; write only until"),
    ({"until": [1]}, "until has 1, which is no text"),
    ({"do_sample": "false"}, "do_sample = 'false' is neither true nor false"),
    ({"seed": "a"}, "seed = 'a'"),
    ({**SAMPLED, "seed": 5}, "the sweep file's key seed gives each its own"),
    ({**SAMPLED, "min_p": 0.1}, "min_p = 0.1 is not supported"),
    ({"num_beams": 4}, "num_beams = 4 is not supported"),
    ({"n": 2}, "n = 2"),
    ({"min_p": 0.1}, "min_p = 0.1"),
    ({"presence_penalty": 1.0}, "presence_penalty = 1.0"),
    ({"skip_special_tokens": False}, "skip_special_tokens = False"),
    ({"max_length": 2048}, "write max_gen_toks"),
    ({"temprature": 0.5}, "temprature = 0.5 is not supported; did you mean 'temperature'?"),
]


@pytest.mark.parametrize(("kwargs", "changed"), ACCEPTED, ids=str)
def test_accepted(kwargs: dict[str, Any], changed: dict[str, Any]) -> None:
    assert read_gen_kwargs(kwargs) == Generation(**{**vars(GREEDY), **changed})


@pytest.mark.parametrize(("kwargs", "message"), REFUSED, ids=str)
def test_refused_with_the_range_or_the_way_out(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        read_gen_kwargs(kwargs)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("task", "settings", "merged"),
    [
        ({"max_gen_toks": 400}, [{"max_new_tokens": 4}], {"max_gen_toks": 4}),
        ({"max_new_tokens": 400}, [{"max_gen_toks": 4}, {"max_tokens": 5}], {"max_gen_toks": 5}),
        ({"num_beams": 10, "until": ["x"]}, [{"num_beams": None}], {"until": ["x"]}),
        ({"max_new_tokens": 4}, [{"max_gen_toks": None}], {}),
        ({"max_gen_toks": 4}, [{"max_gen_toks": 5}, {"max_tokens": None}], {}),
        ({"until": ["\n\n"], "stop": ["x"]}, [], {"until": ["x"]}),  # lm-eval wrote until itself
        ({"until": ["\n\n"]}, [{"stop": "x"}], {"until": "x"}),
        ({"do_sample": True, "temperature": 0.3}, [{"temperature": 0}], {"do_sample": True, "temperature": 0}),
    ],
    ids=str,
)
def test_a_sweeps_setting_replaces_the_task_files_in_any_spelling(
    task: dict[str, Any], settings: list[dict[str, Any]], merged: dict[str, Any]
) -> None:
    assert overlaid(task, *settings, delimiter="\n\n") == merged


def test_a_temperature_that_the_task_file_switches_off_is_refused() -> None:
    with pytest.raises(UserError, match="the task file says do_sample: false; add do_sample: true"):
        overlaid({"do_sample": False}, {"temperature": 0.7})
    with pytest.raises(UserError, match=r"temperature = 0\.7 has no effect beside do_sample: false"):
        overlaid({}, {"do_sample": False, "temperature": 0.7})
    assert overlaid({}, SAMPLED, {"do_sample": False})["do_sample"] is False
    assert overlaid({"do_sample": False}, SAMPLED) == SAMPLED
    with pytest.raises(UserError, match="the task file says temperature: 0; add a temperature"):
        overlaid({"temperature": 0.0}, {"do_sample": True})


def test_an_answer_is_cut_at_the_stop_texts_of_any_spelling() -> None:
    assert stop_texts({"stop_sequences": ["a", ""]}) == ("a",)
