"""An explanation in sentences that a non-expert understands, in English and Chinese."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from weft.results.explain.counterfactual import Change
from weft.results.explain.methods import Check
from weft.results.explain.nearest import Nearest
from weft.results.explain.reading import NO_ANSWER
from weft.results.explain.why import Explanation
from weft.results.explain.writing import Writing
from weft.results.pages import Phrases

TOLD = 3  # parts named on one side
HARDLY = 0.05  # of the largest share of a column: below it the column hardly mattered
LEAST, MAIN = 0.1, 0.5  # a word of the source is named from this share of the largest of all on, and of the word's own
MOST_TOLD = 12  # words written that are told of
STRONG = 0.25  # of the largest share: from here on a part that spoke against the answer is named
_EDGES = string.punctuation + "“”‘’«»…—–，。！？；：、（）《》【】"

_SAID = {
    "because": "It said {answer}{sure}, mostly because of {parts}",
    "number": "It said {answer}, where a typical row gets {base}",
    "up": "{parts} raised it",
    "down": "{parts} lowered it",
    "nothing": "It said {answer}{sure}; no single part of the row made the difference",
    "because ranking": "It recommended {answer}{sure}, mostly because of {parts}",
    "nothing ranking": "It recommended {answer}{sure}; nothing of the history made the difference",
    "because span": "It answered {answer}{sure}, mostly because of {parts}",
    "nothing span": "It answered {answer}{sure}; no single word made the difference",
    "because no answer": "It found no answer{sure}, mostly because of {parts}",
    "nothing no answer": "It found no answer{sure}; no single word made the difference",
    "number embedding": "The two texts are near each other by {answer} (1: the same)",
    "up embedding": "{parts} brought them nearer",
    "down embedding": "{parts} kept them apart",
    "wrote": "It wrote {answer}{sure}, mostly because of {parts}",
    "wrote more": "{count} more words have such a reason, which the table tells",
    "follows": "{parts} followed from what was written before: no word it was given made the difference",
    "against": "{parts} spoke against it",
    "hardly": "{parts} hardly mattered",
    "looked": "It said {answer}{sure}. It looked most at {parts}; where it looked is not why it decided",
    "without": "without {word}",
    "instead": "with {column} {to} instead of {was}",
    "would": "{changes} it would have said {answer}.",
    "sure": " ({p} sure)",
    "agree": "Of the {k} training rows most like this one {n} have the answer {answer}.",
    "disagree": "Of the {k} training rows most like this one only {n} have the answer {answer}: what it learnt from "
                "speaks against it.",
    "near": "The {k} training rows most like this one have {low} to {high}.",
    "beyond": "The {k} training rows most like this one have {low} to {high}: what it learnt from speaks against "
              "{answer}.",
    "unreliable": "Take this with caution: {checks}.",
    "adds up": "the shares do not add up to the answer",
    "sampling error": "the shares are known only roughly (more evaluations help)",
    "same again": "a second try would give another picture (more evaluations help)",
    "local R2": "a straight line does not tell what the model does here",
    "completeness gap": "the gradients do not account for the whole answer",
}  # fmt: skip


def sentences(why: Explanation | Writing, language: str = "en") -> list[str]:
    """What the explanation says, a sentence each."""
    t = Phrases(language)
    if isinstance(why, Writing):
        return [*_written(why, t), *_caution(why.checks, t)]
    told = [_attention(why, t)] if why.method == "attention" else _shares(why, t)
    if why.change is not None and why.change_to is not None:
        text = t(_SAID["would"], changes=_changes(why.change.changes, t), answer=t.quoted(why.change_to))
        told.append(text[0].upper() + text[1:])
    if why.nearest is not None and why.nearest.neighbours:
        told.append(_nearest(why.nearest, why.answer, t))
    return told + _caution(why.checks, t)


def _caution(checks: Sequence[Check], t: Phrases) -> list[str]:
    """What it means that checks failed."""
    failed = [t(_SAID[check.name]) for check in checks if not check.passed]
    return [t(_SAID["unreliable"], checks=t.listed(failed))] if failed else []


def _written(why: Writing, t: Phrases) -> list[str]:
    """A sentence for the words of which a word of the source made most; neighbours with one reason share it."""
    clear = LEAST * np.abs(why.shares).max(initial=0.0)
    told: list[tuple[list[int], tuple[str, ...]]] = []
    for word in range(len(why.words)):
        shares, errors = why.shares[:, word], why.errors[:, word]
        strong = (shares >= np.maximum(clear, MAIN * shares.max(initial=0.0))) & (shares > 2 * errors)
        order = [i for i in np.argsort(-shares, kind="stable").tolist() if strong[i]][:TOLD]
        parts = tuple(dict.fromkeys(_word(why.players[i].shown, t) for i in order))
        if told and told[-1][1] == parts:
            told[-1][0].append(word)
        else:
            told.append(([word], parts))
    said = []
    for words, parts in told:
        if parts:
            shown = t.quoted(why.text[why.words[words[0]].start : why.words[words[-1]].end])
            sure = _sure(float(np.exp(why.score[words].sum())), t)
            said.append(t(_SAID["wrote"], answer=shown, sure=sure, parts=t.listed(parts)) + t("."))
    if len(said) > MOST_TOLD:
        more = t(_SAID["wrote more"], count=len(said) - MOST_TOLD) + t(".")
        said = [*said[:MOST_TOLD], more]
    rest = [_word(why.words[w].shown, t) for words, parts in told if not parts for w in words]
    names = list(dict.fromkeys(rest))
    if 0 < len(names) <= MOST_TOLD:
        said.append(t(_SAID["follows"], parts=t.listed(names)) + t("."))
    return said


def _shares(why: Explanation, t: Phrases) -> list[str]:
    shares = why.shares if len(why.shares) else np.zeros(1)
    largest = float(np.abs(shares).max())
    answer, sure = _answer(why, t), _sure(why.probability, t)
    task = "no answer" if why.of == NO_ANSWER else why.task

    def phrase(key: str, **values: str) -> str:
        return t(_SAID.get(f"{key} {task}", _SAID[key]), answer=answer, sure=sure, **values)

    up, down = _most(why, 1, largest, t), _most(why, -1, largest, t)
    if why.of is None:
        first = phrase("number", base=_number(why.base))
        rest = [phrase(key, parts=t.listed(parts)) for key, parts in (("up", up), ("down", down)) if parts]
        told = [t("; ").join([first, *rest])]
    elif not up:
        told = [phrase("nothing")]
    else:
        told = [phrase("because", parts=t.listed(up))]
        if down:
            told.append(t(_SAID["against"], parts=t.listed(down)))
    columns = why.by_column()
    most = max((abs(share) for share in columns.values()), default=0.0)
    # the words of a text, or the events of a history, may balance one another and all matter
    size = Counter(player.column for player in why.players)
    small = [name for name, share in columns.items() if abs(share) < HARDLY * most]
    hardly = [name for name in small if why.task == "row" or size[name] == 1][:2]
    if hardly and len(columns) > 1:
        told.append(t(_SAID["hardly"], parts=t.listed(hardly)))
    return [t("; ").join(told) + t(".")]


def _nearest(found: Nearest, answer: str | float, t: Phrases) -> str:
    k, against = len(found.neighbours), found.disagrees(answer)
    if isinstance(answer, str):
        n = found.agreeing(answer)
        return t(_SAID["disagree" if against else "agree"], k=k, n=n, answer=t.quoted(answer))
    truths = [float(n.truth) for n in found.neighbours if not isinstance(n.truth, list)]
    ends = {"low": _number(min(truths)), "high": _number(max(truths))}
    return t(_SAID["beyond" if against else "near"], k=k, answer=_number(answer), **ends)


def _attention(why: Explanation, t: Phrases) -> str:
    order = np.argsort(-why.shares, kind="stable")[:TOLD]
    parts = t.listed([_part(why, i, t) for i in order.tolist()])
    return t(_SAID["looked"], answer=_answer(why, t), sure=_sure(why.probability, t), parts=parts) + t(".")


def _most(why: Explanation, sign: int, largest: float, t: Phrases) -> list[str]:
    """The parts on one side that made most of it, at most ``TOLD``."""
    order = np.argsort(-sign * why.shares, kind="stable")
    strong = [i for i in order.tolist() if sign * why.shares[i] >= STRONG * largest > 0]
    return list(dict.fromkeys(_part(why, i, t) for i in strong))[:TOLD]


def _part(why: Explanation, place: int, t: Phrases) -> str:
    player = why.players[place]
    if player.start is not None:
        return _word(player.shown, t)
    if why.task == "ranking" and player.column == why.target:
        return t.quoted(player.shown)
    return f"{player.column} {player.shown}"


def _changes(changes: Sequence[Change], t: Phrases) -> str:
    words = [_word(c.was, t) for c in changes if c.to is None]
    told = [t(_SAID["without"], word=t.listed(words))] if words else []
    told += [t(_SAID["instead"], column=c.column, to=c.to, was=c.was) for c in changes if c.to is not None]
    return t.listed(told)


def bare(word: str) -> str:
    """A word of a text, without the marks around it."""
    return word.strip(_EDGES) or word


def _word(word: str, t: Phrases) -> str:
    return t.quoted(bare(word))


def _answer(why: Explanation, t: Phrases) -> str:
    return t.quoted(str(why.answer)) if why.of is not None else _number(float(why.answer))


def _sure(p: float | None, t: Phrases) -> str:
    return "" if p is None else t(_SAID["sure"], p=f"{p:.0%}" if p < 0.995 else ">99%")


def _number(value: float) -> str:
    return f"{value:.4g}"
