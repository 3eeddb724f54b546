"""lm-eval's model: it answers from the ledger, and from an engine what the ledger lacks.

`LedgerLM` turns lm-eval's requests into questions the way lm-eval's own Hugging Face model does (special tokens,
truncation from the left, rolling windows), so that both models get the same tokens.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from orchestrator.core.errors import UserError
from orchestrator.core.records import Answer, Decoding, Question, Serving
from tasks.evaluation.chat import Chat
from tasks.evaluation.gen_kwargs import read_gen_kwargs, stop_texts
from tasks.evaluation.requests import THINK_END, Cut, cut_of, think_end_of

Answering = Callable[[Sequence[Question]], Sequence[Answer]]
"""Gives an answer for each question, in order: an engine."""


class Unanswered(Exception):
    """The ledger has no answer to a question, and there is no engine to generate it."""


class LedgerLM(TemplateLM):  # type: ignore[misc]
    """One recipe as lm-eval's model.

    Args:
        tokenizer: the serving's Hugging Face tokenizer.
        seed: of sampled decoding; each prompt's own is derived from it, the prompt and the repeat.
        known: the recipe's answers by question id.
        answer: the engine; None where only stored answers count.
    """

    def __init__(
        self,
        serving: Serving,
        tokenizer: Any,
        seed: int = 0,
        known: Mapping[str, Answer] | None = None,
        answer: Answering | None = None,
    ) -> None:
        super().__init__()
        self.serving, self.tokenizer, self.seed = serving, tokenizer, seed
        self.known: dict[str, Answer] = dict(known or {})
        self.answer = answer
        self._questions: dict[Any, tuple[Question, ...]] = {}
        self._encode = lru_cache(maxsize=8192)(lambda text, **kwargs: tuple(tokenizer.encode(text, **kwargs)))

    def knowing(self, known: Mapping[str, Answer]) -> LedgerLM:
        """Return the same model, its tokenised requests included, over another recipe's answers."""
        other = copy.copy(self)
        other.known = dict(known)
        return other

    # ---------------------------------------------------------------- lm-eval's interface of a model
    @property
    def eot_token_id(self) -> int:
        """Id of the token that ends a text.

        Raises:
            UserError: the tokenizer names none.
        """
        end = self._with_row(self.tokenizer.eos_token_id)
        if end is None:
            raise UserError(
                f"parents.{self.serving.parent}.model: its tokenizer names no end of text that is in its vocabulary; "
                "training examples end with it, and it stands before a text without context: correct eos_token in its "
                "tokenizer_config.json, or set tokenizer to another parent"
            )
        return end

    @property
    def prefix_token_id(self) -> int:
        """Id of the token that stands before a text without context.

        Raises:
            UserError: the tokenizer names neither a beginning nor an end of text, or one that has no row.
        """
        begin = self.tokenizer.bos_token_id
        if begin is None:
            return self.eot_token_id
        if self._with_row(begin) is None:
            token = self.tokenizer.bos_token
            raise UserError(
                f"parents.{self.serving.parent}.model: its tokenizer's beginning of text, {token!r}, "
                "is not in its vocabulary, and stands before a text without context; correct bos_token in its "
                "tokenizer_config.json, or set tokenizer to another parent"
            )
        return int(begin)

    def _with_row(self, number: int | None) -> int | None:
        """The id, where the embedding has a row for it; transformers gives unknown tokens ids beyond its end."""
        beyond = number is not None and self.serving.vocab_size is not None and number >= self.serving.vocab_size
        return None if beyond else number

    @property
    def tokenizer_name(self) -> str:
        """Digest of the tokenizer; part of lm-eval's cache keys."""
        return self.serving.tokenizer

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Return the ids of a text's tokens; a text that begins with the BOS token gets no second one.

        Raises:
            UserError: the models have no row for one.
        """
        bos = self.tokenizer.bos_token
        if add_special_tokens is None and bos and string.startswith(bos):
            add_special_tokens = False
        special = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        ids = list(self._encode(string, **special))
        if ids and self._with_row(max(ids)) is None:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise UserError(
                f"parents.{self.serving.parent}.model: its tokenizer reads {token!r} as id {max(ids)}, but the models' "
                f"vocabulary is {self.serving.vocab_size}; set tokenizer to a parent whose tokens all have a row"
            )
        return ids

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return the conversation as the text that the model reads."""
        return Chat(self.tokenizer, self.serving.parent)(chat_history, add_generation_prompt)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return the log-probability of each continuation, in nats, and whether it is the greedy one."""
        return [_as_loglikelihood(answer) for (answer,) in self.answers(requests)]

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        answers = self._look_up([self._pair(context, target) for _, context, target in requests])
        return [_as_loglikelihood(answer) for answer in answers]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of each whole text, in nats."""
        return [math.fsum(_as_loglikelihood(answer)[0] for answer in group) for group in self.answers(requests)]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return the generated text of each prompt."""
        return [
            generated_text(request, answer) for (answer,), request in zip(self.answers(requests), requests, strict=True)
        ]

    # ---------------------------------------------------------------- requests as questions
    def questions(self, request: Instance, repeat: int = 0) -> tuple[Question, ...]:
        """Make the questions behind one lm-eval request: one, or one per window of a rolling log-likelihood.

        Args:
            repeat: how many times lm-eval has passed the request before.

        Raises:
            UserError: the request does not fit into the context, or has a setting that is not supported.
        """
        args = (arg if isinstance(arg, str) else json.dumps(arg, default=str) for arg in request.args)
        cut = cut_of(request)
        key = (request.request_type, *args, cut, repeat)
        if key not in self._questions:
            match request.request_type:
                case "loglikelihood":
                    made = self._loglikelihood(*request.args)
                case "loglikelihood_rolling":
                    made = self._rolling(*request.args)
                case "generate_until":
                    context, kwargs = request.args
                    made = (self._generation(context, kwargs, cut, repeat),)
            self._questions[key] = made
        return self._questions[key]

    def _loglikelihood(self, context: str, continuation: str) -> tuple[Question, ...]:
        if context:
            return (self._pair(*self._encode_pair(context, continuation)),)
        target = self.tok_encode(continuation, add_special_tokens=False)
        if target[0] == self.prefix_token_id:
            return (self._pair(target[:1], target[1:]),)
        return (self._pair([self.prefix_token_id], target),)

    def _pair(self, context: Sequence[int], target: Sequence[int]) -> Question:
        # vLLM generates at least one token, so one place of the window stays free.
        room = self.serving.max_model_len - 1
        if len(target) >= room:
            raise UserError(
                f"workers.engine.max_model_len: a continuation of {len(target)} tokens does not fit into "
                f"{self.serving.max_model_len}; raise it"
            )
        cut = max(0, len(context) + len(target) - room)
        return Question(tuple(context[cut:]), tuple(target), truncated=cut)

    def _rolling(self, text: str) -> tuple[Question, ...]:
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.serving.max_model_len - 2,
            context_len=1,
        )
        return tuple(self._pair(*make_disjoint_window(window)) for window in windows)

    def _generation(self, context: str, gen_kwargs: dict[str, Any], cut: Cut | None, repeat: int) -> Question:
        thought = gen_kwargs.get(THINK_END)
        wanted = read_gen_kwargs({key: value for key, value in gen_kwargs.items() if key != THINK_END})
        room = self.serving.max_model_len - wanted.max_tokens
        if room <= 0:
            raise UserError(
                f"workers.engine.max_model_len: {self.serving.max_model_len} leaves no room for a prompt before "
                f"{wanted.max_tokens} new tokens; raise it, or lower gen_kwargs.max_gen_toks of the objective"
            )
        room = min(room, wanted.max_context or room)
        tokens = self.tok_encode(context)
        kept = self.shorten(context, cut, room) if cut and len(tokens) > room else tokens[-room:]
        if len(kept) > room:
            raise UserError(
                f"workers.engine.max_model_len: a prompt has {len(kept)} tokens without its input, but room for "
                f"{room}; raise max_model_len, or lower gen_kwargs.max_gen_toks of the objective"
            )
        decoding = Decoding(
            max_tokens=wanted.max_tokens,
            # The task's stop texts may be in the reasoning, too; they count after it (`generated_text`).
            stop=() if thought else wanted.stop,
            temperature=wanted.temperature,
            top_p=wanted.top_p,
            top_k=wanted.top_k,
            repetition_penalty=wanted.repetition_penalty,
            seed=_seed(self.seed, repeat, kept) if wanted.temperature > 0 else None,
            skip_special_tokens=not (thought and self._is_special(thought)),
        )
        return Question(tuple(kept), decoding=decoding, truncated=len(tokens) - len(kept))

    def shorten(self, context: str, cut: Cut, room: int) -> list[int]:
        """Return the prompt's tokens, with as much of the cut's part as fits into `room` tokens.

        The instructions around the part stay whole. Without the part the prompt may still be too long.

        Raises:
            UserError: the chat template or the prompt's own changes more of the part than the spaces around it.
        """
        if cut.part not in context:  # many chat templates trim a turn
            cut = cut._replace(part=cut.part.strip())
        before, found, after = context.partition(cut.part)
        if not found:
            raise UserError(
                f"a prompt of {len(self.tok_encode(context))} tokens is longer than the {room} that fit, and cannot be "
                "shortened, because its template changes the input inside it; raise workers.engine.max_model_len"
            )
        low, high = 0, len(cut.part)  # characters kept: the most that fit lie in [low, high)
        while high - low > 1:
            middle = (low + high) // 2
            if len(self.tok_encode(before + cut.kept(middle) + after)) <= room:
                low = middle
            else:
                high = middle
        return self.tok_encode(before + cut.kept(low) + after)

    def _is_special(self, text: str) -> bool:
        """Whether a text is a token that is left out of generated texts, unless they are to keep such tokens."""
        return text in self.tokenizer.get_added_vocab() and not self.tokenizer.decode(
            self.tokenizer.convert_tokens_to_ids(text), skip_special_tokens=True
        )

    # ---------------------------------------------------------------- answers
    def _with_repeats(self, requests: Sequence[Instance]) -> list[tuple[Question, ...]]:
        """The questions of each request; lm-eval repeats a request by passing the same object again."""
        seen: Counter[int] = Counter()
        found = []
        for request in requests:
            found.append(self.questions(request, seen[id(request)]))
            seen[id(request)] += 1
        return found

    def answers(self, requests: Sequence[Instance]) -> list[list[Answer]]:
        """Return the answers to the questions of each request.

        Raises:
            Unanswered: there is none to a question, and no engine.
        """
        grouped = self._with_repeats(requests)
        self._look_up([question for group in grouped for question in group])
        return [[self.known[question.id] for question in group] for group in grouped]

    def _look_up(self, questions: Sequence[Question]) -> list[Answer]:
        missing = list({question.id: question for question in questions if question.id not in self.known}.values())
        if missing:
            if self.answer is None:
                raise Unanswered(f"{len(missing)} of {len(questions)} questions have no answer yet")
            self.known.update({answer.question_id: answer for answer in self.answer(missing)})
        return [self.known[question.id] for question in questions]


def generated_text(request: Instance, answer: Answer, *, past_stops: bool = False) -> str:
    """Return the text of an answer as lm-eval's filters get it: after its reasoning, before a stop text.

    Args:
        past_stops: return what follows a stop text too.
    """
    stop = [] if past_stops else list(stop_texts(request.args[1]))
    return str(postprocess_generated_text(answer.text or "", stop=stop, think_end_token=think_end_of(request)))


def _seed(seed: int, repeat: int, tokens: Sequence[int]) -> int:
    """The seed of a prompt: with one for all prompts, all would be sampled with the same random numbers."""
    text = json.dumps([seed, repeat, *tokens])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _as_loglikelihood(answer: Answer) -> tuple[float, bool]:
    assert answer.logprob is not None and answer.is_greedy is not None, "the request is for a log-likelihood"
    return answer.logprob, answer.is_greedy
