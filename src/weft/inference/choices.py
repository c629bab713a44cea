"""How probable each of several texts is after a prompt, exactly.

log p(choice | prompt) is the sum of its tokens' log probabilities (Brown 2020, 2.4). A choice that another one
begins with counts with the end after it, so that of two choices never both are written. The probabilities are those of
the choices among themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from tokenizers import Tokenizer

from weft.errors import DataError
from weft.inference.constraint import Constraint, Grammar
from weft.inference.generate import TOKENS_AT_ONCE, Prompt, check_numbers, read, read_prompt, resting
from weft.inference.letters import Line
from weft.inference.sampling import Sampling
from weft.models.language import LanguageModel, check_writes


@dataclass(frozen=True)
class Choice:
    """One of several texts after a prompt."""

    text: str
    probability: float
    """Among the choices; all together are 1."""
    log_probability: float
    """In nats, among all texts."""
    ids: list[int]
    """Its tokens, without the end."""


def score_choices(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str, choices: Sequence[str], cut: bool = False
) -> list[Choice]:
    """The choices, the most probable first.

    The tokens of a choice are the tokenizer's own after the prompt; where the tokenizer would join the prompt's last
    letters with the choice's first ones, they are the fewest that write the choice.

    Raises:
        UsageError: the model cannot write, or not one of the choices.
        DataError: the prompt and the longest choice do not fit the model's context.
    """
    check_writes(model)
    constraint = Constraint.one_of(choices)
    ends = list(model.config.end)
    grammar = Grammar(constraint, tokenizer, model.config.vocabulary, ends)
    of_choice = [grammar.spell(choice, prompt) for choice in constraint.choices]
    closed = [bool(ends) and longer for longer in _goes_on(constraint.choices)]
    longest = max(len(ids) + end for ids, end in zip(of_choice, closed, strict=True))
    found = _fitting(model, read_prompt(model, tokenizer, prompt, Sampling(max_tokens=longest), cut), longest, cut)
    line = Line(tokenizer, found.ids, ends, (), found.limit, found.limited_by)
    rows = max(1, TOKENS_AT_ONCE // (len(found.ids) + longest))
    scores: list[float] = []
    with resting(model):
        for start in range(0, len(of_choice), rows):
            part = slice(start, start + rows)
            scores += _scores(model, line, of_choice[part], closed[part], ends)
    top = max(scores)
    whole = math.fsum(math.exp(s - top) for s in scores)
    told = [
        Choice(text, math.exp(score - top) / whole, score, ids)
        for text, score, ids in zip(constraint.choices, scores, of_choice, strict=True)
    ]
    return sorted(told, key=lambda choice: -choice.probability)


def _fitting(model: LanguageModel, prompt: Prompt, longest: int, cut: bool) -> Prompt:
    """The prompt, or its end, so that the longest choice can be read after it; its last token is not read."""
    context = model.config.longest
    if context is None or len(prompt.ids) + longest - 1 <= context:
        return prompt
    first = prompt.ids[:1] if prompt.ids[0] == model.config.begin else []
    room = context + 1 - longest - len(first)
    if not cut or room < 1:
        raise DataError(
            f"the prompt and a choice must fit the model's {context:,} tokens together. Got {len(prompt.ids):,} and "
            f"{longest:,}. Shorten them, or allow the prompt's beginning to be left out (--cut, or cut=True)."
        )
    return replace(prompt, ids=first + prompt.ids[len(prompt.ids) - room :], limit=longest)


def _goes_on(choices: Sequence[str]) -> list[bool]:
    """Whether another choice begins with this one: then, in order, the next one does."""
    ordered = sorted(choices)
    longer = {one for one, following in pairwise(ordered) if following.startswith(one)}
    return [choice in longer for choice in choices]


def _scores(
    model: LanguageModel, line: Line, of_choice: Sequence[list[int]], closed: Sequence[bool], ends: list[int]
) -> list[float]:
    """The log probability of each choice after the prompt of ``line``, all read side by side."""
    reading, _ = read(model, [line.prompt], Sampling())
    device = reading.logits_BV.device
    reading.select(torch.zeros(len(of_choice), dtype=torch.int64, device=device))
    scores = [0.0] * len(of_choice)
    live = list(range(len(of_choice)))
    place = 0
    while True:
        check_numbers(reading.logits_BV)
        logs = reading.logits_BV.double().log_softmax(dim=-1)
        for row, i in enumerate(live):
            if place < len(of_choice[i]):
                scores[i] += logs[row, of_choice[i][place]].item()
            else:
                scores[i] += logs[row, ends].logsumexp(dim=0).item()
        going = [row for row, i in enumerate(live) if place + 1 < len(of_choice[i]) + closed[i]]
        if not going:
            return scores
        live = [live[row] for row in going]
        reading.select(torch.tensor(going, device=device))
        reading.step(torch.tensor([of_choice[i][place] for i in live], device=device))
        place += 1
