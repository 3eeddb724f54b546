"""Questions per second: one prompt per question, against lm-eval's one prompt per choice on the same engine.

    .venv/bin/python -m benchmarks.scoring [--tasks medmcqa] [--limit 100] [--num-fewshot 0] [--repeat 3]

The questions are lm-eval's for SmolLM2-135M, from the data sets in MERGEFRONT_DATA: tasks whose choices are single
tokens (medmcqa), or several (mmlu_anatomy_continuation). The last line is JSON: `ratio` is the peer's median time over
ours, `largest_difference` the largest between the two in any log-likelihood.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import questions, smollm2, start, tell, timed
from orchestrator.core.records import Answer, Question
from tasks.serving.vllm_engine import VllmEngine


def per_choice(engine: VllmEngine, asked: Sequence[Question]) -> list[float]:
    """As lm-eval's vLLM model asks: context and choice as one prompt, scored with prompt_logprobs."""
    from vllm import SamplingParams

    engine.llm.reset_prefix_cache()
    prompts = [[*question.context, *question.continuation] for question in asked]
    sampling = SamplingParams(temperature=0, prompt_logprobs=1, max_tokens=1, detokenize=False)
    outputs = engine.llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=False)
    found = []
    for question, prompt, output in zip(asked, prompts, outputs, strict=True):
        places = range(len(question.context), len(prompt))
        found.append(sum(output.prompt_logprobs[place][prompt[place]].logprob for place in places))
    return found


def _logprob(answer: Answer) -> float:
    assert answer.logprob is not None
    return answer.logprob


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["medmcqa"])
    parser.add_argument("--limit", type=int, default=100, help="documents per task")
    parser.add_argument("--num-fewshot", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        parents = smollm2(scratch)
        asked = questions(args.tasks, args.limit, args.num_fewshot, scratch)
        engine = start(parents[0], parents[1], scratch / "engine", args.dtype)
        engine.answer(asked[:8])
        per_choice(engine, asked[:8])
        times: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(args.repeat):
            spent, ours = timed(lambda: engine.answer(asked))
            times["ours"].append(spent)
            spent, peer = timed(lambda: per_choice(engine, asked))
            times["peer"].append(spent)
        difference = max(abs(_logprob(mine) - theirs) for mine, theirs in zip(ours, peer, strict=True))
        documents = len({question.context for question in asked})
        tell(
            f"scoring {' '.join(args.tasks)}, {args.num_fewshot} shots, {args.dtype}",
            "ours",
            "peer",
            times,
            documents=documents,
            choices=len(asked),
            largest_difference=round(difference, 6),
        )


if __name__ == "__main__":
    main()
