"""Text from a language model: whole, as it comes, or only the distribution of the next token.

Prompts of like length share a batch, padded on the left; what a row writes depends on its prompt and its seed,
never on the others. Greedy and drawn texts share one loop; beam search has its own (``weft.inference.beams``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from weft.errors import CheckpointError, DataError, UsageError
from weft.features.batching import in_turn
from weft.inference.beams import search
from weft.inference.constraint import Grammar
from weft.inference.letters import HALF, Letters, Line, Stopped
from weft.inference.pieces import BYTES
from weft.inference.sampling import Sampling, choose, filtered
from weft.models.language import Continuation, LanguageModel, check_writes

TOKENS_AT_ONCE = 8_192
"""Read and written tokens of a batch: what the cache of keys and values must hold."""


@dataclass(frozen=True)
class Written:
    """A text that was written. ``text`` goes on where the prompt ends; a stop string is not in it."""

    text: str
    ids: list[int]
    """All tokens written, with those of a stop string and the end."""
    log_probabilities: list[float]
    """Of each token, as the model sees it: before temperature and filters."""
    stopped: Stopped
    """end: the model's own end; stop: a stop string; length: max_tokens; context: no more positions.

    Of a constraint, complete: it allows nothing more; stuck: it asks for letters that no token has.
    """
    cut: int = 0
    """Tokens of the prompt's beginning that were left out to fit the model."""
    valid: bool | None = None
    """Whether the text fulfils its constraint, which one that was cut off may not; None without a constraint.

    One that was cut off inside a letter counts as one that does not.
    """


@dataclass(frozen=True)
class NextToken:
    """A token that may come next; its text, or its bytes where it is half a letter, or its name."""

    text: str
    id: int
    probability: float


@dataclass(frozen=True)
class Prompt:
    """What is read before a text is written."""

    ids: list[int]
    cut: int
    limit: int
    limited_by: Stopped
    seed: int


def write(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str | Sequence[int]],
    sampling: Sampling = Sampling(),
    samples: int = 1,
    cut: bool = False,
) -> list[Written]:
    """Texts that go on from the prompts, in their order.

    Args:
        prompts: texts, or the ids of a text that a task made (a source, a dialogue).
        samples: texts a prompt, one after the other, drawn with the seeds seed, seed + 1, ...
        cut: leave out the beginning of a prompt that is too long; and of a text that grows longer than the context
            (beyond it, its last half is read anew).

    Raises:
        UsageError: the model reads and cannot write.
        DataError: a prompt is too long or empty (where the model has no token to begin with).
    """
    _check_samples(sampling, samples)
    grammar = grammar_of(model, tokenizer, sampling)
    seeds = [replace(sampling, seed=sampling.seed + i) for i in range(samples)]
    found = [read_prompt(model, tokenizer, p, s, cut) for p in prompts for s in seeds]
    written: dict[int, Written] = {}
    for places, texts in write_prompts(model, tokenizer, found, sampling, grammar):
        written |= zip(places, texts, strict=True)
    return [written[i] for i in range(len(found))]


class Stream:
    """A text in pieces, each certain to stay: whole letters, and nothing that may become a stop string.

    Joined they are ``written.text``, which is there when all have come. Beam search gives one piece at its end.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, prompt: Prompt, sampling: Sampling):
        grammar = grammar_of(model, tokenizer, sampling)
        self._prompt, self._lines = prompt, [_line(model, tokenizer, prompt, sampling, grammar)]
        self._steps = _steps(model, self._lines, [prompt.seed], sampling)

    def __iter__(self) -> Iterator[str]:
        for _ in self._steps:
            piece = self._lines[0].certain()
            if piece:
                yield piece

    @property
    def written(self) -> Written:
        return _written(self._lines[0], self._prompt)


def stream(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str | Sequence[int], sampling: Sampling = Sampling(),
    cut: bool = False,
) -> Stream:  # fmt: skip
    """The text that ``write`` gives, piece by piece as it comes. Raises as ``write`` does, at once."""
    return Stream(model, tokenizer, read_prompt(model, tokenizer, prompt, sampling, cut), sampling)


def next_tokens(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    count: int = 10,
    sampling: Sampling | None = None,
    cut: bool = False,
) -> tuple[list[NextToken], float]:
    """The ``count`` most probable next tokens, and the probability of all others together.

    ``sampling``: the distribution that these settings leave; without them, the model's own.
    """
    if count < 1:
        raise UsageError(f"the number of next tokens must be above 0. Got {count}.")
    one = read_prompt(model, tokenizer, prompt, replace(sampling or Sampling(), max_tokens=1), cut)
    line = _line(model, tokenizer, one, sampling or Sampling(), grammar_of(model, tokenizer, sampling or Sampling()))
    if line.stopped:
        raise DataError(f"the constraint must allow a token after {prompt!r}. It allows none that the tokenizer has.")
    with resting(model):
        reading, seen = read(model, [line.prompt], sampling or Sampling())
    logits = reading.logits_BV.float()
    check_numbers(logits)
    probabilities = (
        (logits if sampling is None else filtered(logits, sampling, seen, _allowed([line], logits)))[0]
        .double()
        .softmax(dim=-1)
    )
    order = probabilities.argsort(descending=True, stable=True)
    shown = order[:count].tolist()
    tokens = [NextToken(_spelt(tokenizer, one.ids, i), i, probabilities[i].item()) for i in shown]
    return tokens, probabilities[order[count:]].sum().item()


# ---- the loop


def grammar_of(model: LanguageModel, tokenizer: Tokenizer, sampling: Sampling) -> Grammar | None:
    """The constraint for this model's tokens: made once, since it looks at every token."""
    if sampling.constraint is None:
        return None
    check_writes(model)
    return Grammar(sampling.constraint, tokenizer, model.config.vocabulary, model.config.end)


def write_prompts(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    grammar: Grammar | None = None,
) -> Iterator[tuple[list[int], list[Written]]]:
    """Places in ``prompts`` and the texts written for them, a batch at a time."""
    lengths = np.array([len(p.ids) + p.limit for p in prompts], np.int64)
    for places in in_turn(np.arange(len(prompts)), lengths, TOKENS_AT_ONCE // sampling.beams, 0):
        chosen = [prompts[i] for i in places]
        lines = [_line(model, tokenizer, p, sampling, grammar) for p in chosen]
        for _ in _steps(model, lines, [p.seed for p in chosen], sampling):
            pass
        yield places.tolist(), [_written(line, p) for line, p in zip(lines, chosen, strict=True)]


def _steps(model: LanguageModel, lines: list[Line], seeds: Sequence[int], sampling: Sampling) -> Iterator[None]:
    """Write all ``lines`` to their ends, a token a step; those of beam search take their places at once."""
    begun = [i for i, line in enumerate(lines) if line.stopped is None]  # a constraint may allow nothing to begin with
    live = [lines[i] for i in begun]
    if not live:
        return
    with resting(model):
        reading, seen = read(model, [line.prompt for line in live], sampling)
        context = model.config.longest
        if sampling.beams > 1:
            check_numbers(reading.logits_BV)
            found = search(reading, live, sampling.beams, sampling.length_penalty, sampling.repetition_penalty, seen)
            for i, line in zip(begun, found, strict=True):
                lines[i] = line
            yield
            return
        # the prompt is part of the seed: rows of a table do not draw the same numbers
        randoms = [np.random.default_rng([seeds[i], *lines[i].prompt]) for i in begun]
        while live:
            logits = reading.logits_BV.float()
            check_numbers(logits)
            tokens = choose(logits, sampling, seen, _allowed(live, logits), randoms)
            log_probabilities = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(dim=-1)
            for line, token, log_probability in zip(live, tokens.tolist(), log_probabilities.tolist(), strict=True):
                line.take(token, log_probability)
            yield
            going = [i for i, line in enumerate(live) if line.stopped is None]
            if len(going) < len(live):  # rows that are done cost nothing more
                live, randoms = [live[i] for i in going], [randoms[i] for i in going]
                if not live:
                    return
                keep = torch.tensor(going, device=logits.device)
                reading.select(keep)
                tokens, seen = tokens[keep], None if seen is None else seen[keep]
            if context is not None and int(reading.past.max()) >= context:
                reading, _ = read(model, [_window(line, context, model.config.begin) for line in live], sampling)
            else:
                reading.step(tokens)
            if seen is not None:
                seen = seen.scatter(1, tokens[:, None], True)


def _window(line: Line, context: int, begin: int | None) -> list[int]:
    """What is read of a text to go on with it: all, or its last half context where it no longer fits."""
    ids = line.prompt + line.ids
    if len(ids) <= context:
        return ids
    first = ids[:1] if ids[0] == begin else []
    return first + ids[len(ids) - max(1, context // 2 - len(first)) :]


def read(
    model: LanguageModel, prompts: Sequence[Sequence[int]], sampling: Sampling
) -> tuple[Continuation, Tensor | None]:
    """The prompts, read; and where the repetition penalty needs it, the tokens they hold [B, V]."""
    device = model.device
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros(len(prompts), longest, dtype=torch.bool)
    seen = torch.zeros(len(prompts), model.config.vocabulary, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        ids[i, longest - len(prompt) :] = torch.tensor(prompt)
        mask[i, longest - len(prompt) :] = True
        seen[i, prompt] = True
    ids, mask = ids.to(device), mask.to(device)
    # a model that rewrites reads its source both ways
    prefix = mask if model.config.backbone.attention == "rewriting" else None
    reading = Continuation(model, ids, None if bool(mask.all()) else mask, prefix)
    return reading, seen.to(device) if sampling.repetition_penalty != 1 else None


def _allowed(lines: Sequence[Line], logits_BV: Tensor) -> Tensor | None:
    """The tokens that each line's constraint allows next [B, V]; None without a constraint."""
    states = [line.state.allowed for line in lines if line.state is not None]
    return torch.from_numpy(np.stack(states)).to(logits_BV.device) if states else None


@contextmanager
def resting(model: LanguageModel) -> Iterator[None]:
    """No dropout while it writes; afterwards the model is in the mode it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def check_numbers(logits_BV: Tensor) -> None:
    if not bool(logits_BV.sum().isfinite()):  # which one number that is not finite spoils
        raise CheckpointError("the model must give finite logits. Got NaN or infinity: its weights are damaged.")


def _check_samples(sampling: Sampling, samples: int) -> None:
    if samples < 1:
        raise UsageError(f"samples must be a whole number above 0. Got {samples}.")
    if samples > 1 and sampling.temperature == 0:
        raise UsageError("several samples need a temperature above 0; at 0, and with beams, all would be the same.")


# ---- prompts


def read_prompt(
    model: LanguageModel, tokenizer: Tokenizer, text: str | Sequence[int], sampling: Sampling, cut: bool
) -> Prompt:
    """The ids of a prompt (which may be given as ids), and how much may be written after it."""
    check_writes(model)
    ids = encode_prompt(model, tokenizer, text) if isinstance(text, str) else list(text)
    context = model.config.longest
    if context is None:
        return Prompt(ids, 0, sampling.max_tokens, "length", sampling.seed)
    left_out = 0
    if len(ids) > context:
        if not cut:
            raise DataError(
                f"a prompt must have at most {context:,} tokens for this model. Got {len(ids):,}. Shorten it, or allow "
                f"its beginning to be left out (--cut, or cut=True)."
            )
        first = ids[:1] if ids[0] == model.config.begin else []
        keep = max(context - sampling.max_tokens + 1, context // 2, len(first) + 1)
        left_out = len(ids) - keep
        ids = first + ids[left_out + len(first) :]
    # the last token is written without being read
    room = context - len(ids) + 1
    goes_on = cut and sampling.beams == 1 and model.config.backbone.attention == "writing"
    if room < sampling.max_tokens and not goes_on:
        return Prompt(ids, left_out, room, "context", sampling.seed)
    return Prompt(ids, left_out, sampling.max_tokens, "length", sampling.seed)


def check_letters(text: str) -> None:
    """Raises DataError where a prompt holds what is no letter."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"a prompt must be letters that UTF-8 knows. Got half a surrogate pair at letter {error.start + 1}. "
            "Remove it."
        ) from None


def encode_prompt(model: LanguageModel, tokenizer: Tokenizer, text: str) -> list[int]:
    """With what the tokenizer puts before a text, without what it puts after one."""
    check_letters(text)
    mask = tokenizer.encode("a").special_tokens_mask
    after = mask[::-1].index(0) if 0 in mask else 0
    encoded = tokenizer.encode(text).ids
    ids = list(encoded[: len(encoded) - after])
    if ids:
        return ids
    # a text of its own begins where the one before it ended (GPT-2 has one token for both)
    start = model.config.begin if model.config.begin is not None else next(iter(model.config.end), None)
    if start is None:
        raise DataError("a prompt must hold at least one token: this model has no token to begin with. Got none.")
    return [start]


def _line(model: LanguageModel, tokenizer: Tokenizer, prompt: Prompt, sampling: Sampling, grammar: Grammar | None
          ) -> Line:  # fmt: skip
    state = grammar.begin(prompt.ids) if grammar else None
    return Line(tokenizer, prompt.ids, model.config.end, sampling.stop, prompt.limit, prompt.limited_by, state)


def _written(line: Line, prompt: Prompt) -> Written:
    assert line.stopped is not None, "the text is not done"
    return Written(line.text, line.ids, line.log_probabilities, line.stopped, prompt.cut, line.valid)


# ---- one token, for a reader


def _spelt(tokenizer: Tokenizer, before: Collection[int], token: int) -> str:
    """The letters of a token after others; its bytes where they are no letters; its name where it is special."""
    letters = Letters(tokenizer, list(before))
    text = letters.take(token) or letters.finish(cut=False)
    if text and HALF not in text:
        return text
    name = tokenizer.id_to_token(token)
    if name is None:
        return f"<{token}>"
    if text and all(letter in BYTES for letter in name):
        return "".join(f"\\x{BYTES[letter]:02x}" for letter in name)
    return name
