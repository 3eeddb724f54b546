"""Generation tasks are lm-eval's, and generate as the paper does."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.config.generation import Generation, TextMetrics
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.records import Answer
from orchestrator.stats.scores import TaskScore
from tasks.evaluation.judge import score_task
from tasks.evaluation.requests import cut_of
from tasks.evaluation.suites import load_suites, remember
from tasks.generation.sources import FILES, READERS
from tasks.generation.task import GenerationTask, load_task, share
from tests.helpers.clinical import make_problem_list
from tests.helpers.sweeps import content
from tests.helpers.tasks import lm


def test_the_tasks_generate_as_the_paper_does(tmp_path: Path) -> None:
    make_problem_list(tmp_path)
    task = load_task("here", "clinical_problem_list", Generation(data={"clinical_problem_list": str(tmp_path)}))
    task.build_all_requests()
    (instance,) = task.instances
    prompt, settings = instance.args
    assert prompt.startswith("List the problems") and prompt.endswith("T 39.1\n\nProblems:")
    wanted = {
        "temperature": 0.3,
        "top_p": 0.9,
        "repetition_penalty": 1.2,
        "max_gen_toks": 8192,
        "max_context_toks": 8192,
    }
    assert settings == {"until": [], "do_sample": True, **wanted}
    assert cut_of(instance) == (instance.doc["input"], "right")
    assert set(FILES) == set(READERS)


def test_nothing_checked_is_nothing_unsupported() -> None:
    assert share([(1, 2), (0, 0), (3, 3)]) == 0.8
    assert share([(0, 0)]) == 1.0


def test_the_task_is_lm_evals() -> None:
    from lm_eval.api.task import ConfigurableTask

    assert issubclass(GenerationTask, ConfigurableTask)


# -------------------------------------------------------------------- the composite's choice
PAIRS = [
    ("The patient has pain.\nNo fever was noted.", "Patient has hip pain.\nNo fever."),
    ("takes 5 mg daily of the drug", "takes 5 mg of it daily"),
    ("", "denies fever and chills"),
    ("The dosing was changed for the patients with renal failures", "The dose changes in patients with renal failure"),
]
"""Generated texts and their references."""


def scored(folder: Path, pairs: list[tuple[str, str]], metric: str | list[str], chosen: dict[str, Any]) -> TaskScore:
    folder.mkdir(exist_ok=True)
    data = [{"letter": f"letter {i}", "summary": reference} for i, (_, reference) in enumerate(pairs)]
    (folder / "letters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    own = {"file": str(folder / "letters.jsonl"), "prompt": "{{input}}", "input": "letter", "reference": "summary"}
    objective = {"tasks": ["letters"], "metric": metric, "gen_kwargs": {"max_gen_toks": 64}}
    config = SweepConfig.model_validate(
        content(objectives={"x": objective}, generation={"own": {"letters": own}, "metrics": chosen})
    )
    outputs = iter([output for output, _ in pairs])
    model = lm(lambda question: Answer(question.id, text=next(outputs), tokens=9))
    (suite,) = load_suites(config.objectives, config, model)
    remember([suite], config, folder / "metrics")
    return score_task(suite, model)


COMPOSITE = "composite_without_bertscore"
VARIANTS = [
    {"bleu": bleu, "rouge": rouge, "stemming": stemming}
    for bleu, rouge, stemming in product(("sentence", "corpus"), ("rougeL", "rougeLsum"), (False, True))
]


@pytest.mark.slow
@pytest.mark.parametrize("chosen", VARIANTS, ids=lambda each: TextMetrics(**each).words)
def test_a_composite_is_the_mean_of_what_the_sweep_chooses(chosen: dict[str, Any], tmp_path: Path) -> None:
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    score = scored(tmp_path, PAIRS, COMPOSITE, chosen)
    bleu = "bleu" if chosen["bleu"] == "sentence" else "corpus_bleu"
    names = [bleu, "meteor", "rouge1", "rouge2", chosen["rouge"]]
    assert score.value == pytest.approx(np.mean([score.metrics[name] for name in names]))
    outputs, references = zip(*PAIRS, strict=True)
    assert score.metrics["corpus_bleu"] == pytest.approx(sacrebleu.corpus_bleu(outputs, [references]).score / 100)
    sentences = [sacrebleu.sentence_bleu(o, [r]).score / 100 for o, r in PAIRS]
    assert score.metrics["bleu"] == pytest.approx(np.mean(sentences)), "both are shown, whatever is chosen"
    rouge = RougeScorer(["rougeLsum"], use_stemmer=chosen["stemming"])
    lsum = [rouge.score(r, o)["rougeLsum"].fmeasure for o, r in PAIRS]
    assert score.metrics["rougeLsum"] == pytest.approx(np.mean(lsum))


@pytest.mark.parametrize("metric", [COMPOSITE, "corpus_bleu"])
def test_corpus_bleus_influence_is_the_jackknifes(metric: str, tmp_path: Path) -> None:
    chosen = {"bleu": "corpus"}
    whole = scored(tmp_path / "all", PAIRS, metric, chosen)
    without = [
        scored(tmp_path / str(left), [pair for i, pair in enumerate(PAIRS) if i != left], metric, chosen).value
        for left in range(len(PAIRS))
    ]
    assert whole.influence == pytest.approx(3 * (np.mean(without) - np.array(without)))


def test_metrics_that_are_averaged_lose_the_same_documents(tmp_path: Path) -> None:
    """The influence of a mean of corpus BLEU and METEOR is the mean of theirs, document by document."""
    many = PAIRS * 60
    both, bleu, meteor = (
        scored(tmp_path, many, metric, {}) for metric in (["corpus_bleu", "meteor"], "corpus_bleu", "meteor")
    )
    assert both.influence == pytest.approx((bleu.influence + meteor.influence) / 2)
    assert len({*np.round(bleu.influence, 12)}) == len(PAIRS), "no groups: equal documents have equal influence"


def test_the_default_is_sentence_bleu_and_rouge_l_without_stemming() -> None:
    assert Generation().metrics.words == "sentence BLEU, ROUGE-L, no stemming"
