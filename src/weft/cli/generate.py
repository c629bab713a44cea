"""``weft generate RUN "PROMPT"``"""

from __future__ import annotations

import sys
import time
import unicodedata
from dataclasses import asdict
from math import exp, fsum
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from tokenizers import Tokenizer

from weft.cli import Engine, Json, Many, To, answer, aside, typed
from weft.engine import running
from weft.errors import UsageError, listing
from weft.features.chat import TEMPLATE, Chat
from weft.inference.choices import Choice, score_choices
from weft.inference.constraint import Constraint
from weft.inference.conversation import Conversation
from weft.inference.generate import NextToken, Stream, Written, next_tokens, stream, write
from weft.inference.sampling import Sampling
from weft.inference.write_table import write_table
from weft.models.packed import pack
from weft.models.pretrained import load_language_model
from weft.models.tokenizer_files import load_words
from weft.progress import Spoken
from weft.runs.language import LanguageRun
from weft.runs.opening import open_run, task_of
from weft.runs.texts import TextRun

_WARMTH = 0.8
_TOKENS, _ANSWER = 100, 500
_BAR = 30
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_WHY = {
    "end": "the model ended it",
    "stop": "at a stop string",
    "length": "cut off at --tokens",
    "context": "the model has no more positions; --cut goes on without the beginning",
    "complete": "the constraint allows nothing more",
    "stuck": "the constraint asks for letters that the tokenizer has not",
}


def generate(
    run: Path,
    prompt: str | None = None,
    /,
    *,
    next: int | None = None,
    tokens: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    beams: int = 1,
    length_penalty: float = 1.0,
    stop: Many = (),
    seed: int = 0,
    samples: int = 1,
    cut: bool = False,
    chat: bool = False,
    system: str = "",
    choices: str | None = None,
    choice: Many = (),
    regex: str | None = None,
    json_schema: Path | None = None,
    data: str | None = None,
    column: str | None = None,
    out: To | None = None,
    engine: Engine = "local",
    json: Json = False,
) -> None:
    """Go on from a prompt, answer it, show what may come next, or write a text for every row of a table.

    Args:
        run: A run of a language task, or an imported checkpoint that writes (weft import).
        prompt: The text to go on from; of a run that writes a column from another, the source; with --chat, what the
            user says.
        next: Instead of a text, show this many of the most probable next tokens (or choices) and what is left.
        tokens: Write at most this many (default: 100; with --chat 500; of a run that writes a column, as it learnt).
        temperature: 0 takes the most probable token, 1 draws as the model says (default: 0.8; 0 with beams
            and where a column is written).
        top_k: Draw from this many most probable tokens.
        top_p: Draw from the fewest tokens that reach this probability together.
        min_p: Draw from tokens at least this share as probable as the most probable one.
        repetition_penalty: Above 1, tokens that are there already become less probable.
        beams: Search for the most probable text with this many side by side.
        length_penalty: With beams: above 0 long texts gain, below 0 short ones.
        stop: End before this string; may be given several times.
        seed: The same seed, prompt and settings give the same text.
        samples: This many texts, drawn with the seeds seed, seed + 1, ...
        cut: Leave out the beginning of what is longer than the model's context, instead of stopping.
        chat: Talk by the model's chat template: one answer, or without a prompt a conversation, a turn a line.
        system: With --chat: what the model is told before the conversation.
        choices: Write one of these, separated by commas; spaces around them do not count.
        choice: Write this or another choice, which may hold commas and begin with a space; to be given several times.
        regex: Write a text that this regular expression matches from beginning to end.
        json_schema: Write JSON that fulfils the schema in this file.
        data: A table of prompts: file, glob, folder or address.
        column: The column of the table that holds the prompts.
        out: Texts for the table: .parquet, .csv or .jsonl, an address, or a folder of parts (OUT/). Rows set aside go
            beside it.
    """
    if system and not chat:
        raise UsageError("--system is for a conversation. Add --chat.")
    if chat and (data is not None or next is not None or samples > 1 or cut):
        raise UsageError("--chat answers turn by turn: without --data, --next, --samples or --cut.")
    if not chat and (prompt is None) == (data is None):
        raise UsageError("there must be a PROMPT, or a table of them (--data TABLE --column NAME -o OUT); not both.")
    if data is None and (column is not None or out is not None or engine != "local"):
        raise UsageError("--column, -o and --engine are for a table of prompts. Say which, with --data TABLE.")
    opened = open_run(run) if task_of(run) in ("text", "next_token", "dialogue") else None
    task = opened if isinstance(opened, TextRun) else None
    if task is not None and (data is not None or chat):
        names = listing(task.pairing.sources)
        raise UsageError(f"{run}: writes '{task.pairing.target}' from {names}. A table: weft predict {run} DATA -o OUT")
    if temperature is None:
        temperature = 1.0 if next is not None else 0.0 if beams > 1 or task is not None else _WARMTH
    if tokens is None:
        tokens = task.pairing.target_room if task is not None else _ANSWER if chat else _TOKENS
    constraint = _constraint(choices, choice, regex, json_schema)
    sampling = Sampling(
        max_tokens=tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
        repetition_penalty=repetition_penalty, beams=beams, length_penalty=length_penalty, stop=stop, seed=seed,
        constraint=constraint,
    )  # fmt: skip
    if next is not None and (data is not None or samples > 1 or beams > 1 or temperature == 0):
        raise UsageError("--next shows one distribution: without --data, --samples, --beams or --temperature 0.")
    if data is not None and (column is None or out is None or samples > 1):
        raise UsageError("--data needs --column NAME and -o OUT, and writes one text a row (no --samples).")
    # to a run a prompt is what its training texts were
    model, tokenizer = opened.loaded if isinstance(opened, LanguageRun) else load_language_model(run)
    pack(model)
    clean = opened.cleaned if isinstance(opened, LanguageRun) else str
    if chat:
        talk = Conversation(model, tokenizer, _chat(run, tokenizer), sampling, system, clean)
        return _answer(talk, prompt, json) if prompt is not None else _converse(talk, json)
    if data is not None and column is not None and out is not None:
        with running(engine):
            written = write_table(model, tokenizer, data, column, out, sampling, cut, Spoken(), clean)
        return _table(run, written, json)
    assert prompt is not None
    read: str | list[int] = clean(prompt)
    if task is not None:
        read, lost = task.source(prompt)
        if lost:
            Spoken().warn(f"the last {lost:,} tokens of the source were left out to fit the model")
    if task is None and next is not None and constraint is not None and constraint.choices:
        if sampling != Sampling(max_tokens=tokens, temperature=1.0, seed=seed, constraint=constraint):
            raise UsageError("--next shows how probable the choices are to the model: without settings of drawing.")
        _choices(prompt, score_choices(model, tokenizer, clean(prompt), constraint.choices, cut), next, json)
    elif next is not None:
        _next(prompt, *next_tokens(model, tokenizer, read, next, sampling, cut), json)
    elif json or samples > 1:
        _texts(prompt, "" if task is None else "\n", write(model, tokenizer, [read], sampling, samples, cut), json)
    else:
        _stream(prompt if task is None else prompt + "\n", stream(model, tokenizer, read, sampling, cut))


def _chat(run: Path, tokenizer: Tokenizer) -> Chat:
    words = load_words(run)
    if TEMPLATE not in words:
        raise UsageError(
            f"{run}: must have a chat template to chat. It has none. Teach it with target: {{column: MESSAGES, type: "
            f"dialogue}} and model: {{from: {run}}}, or go on from a text without --chat."
        )
    return Chat(tokenizer, words)


def _answer(talk: Conversation, prompt: str, json: bool) -> None:
    pieces = talk.say(prompt)
    _print(pieces, json)
    talk.hear(pieces.written)
    answer(json, {"messages": talk.messages, "answer": asdict(pieces.written)}, [""])


def _converse(talk: Conversation, json: bool) -> None:
    """A conversation: a turn a line, from a terminal until its input ends (Ctrl-D), or from a file or pipe."""
    say, seen = Spoken(), sys.stdin.isatty()
    if seen:
        say.line("a turn a line; an empty line or Ctrl-D ends the conversation")
    while True:
        if seen:
            say.console.print("> ", end="", style="bold")
        line = sys.stdin.readline()
        if not line or (seen and not line.strip()):
            break
        if not line.strip():
            continue
        pieces = talk.say(line.rstrip("\r\n"))
        if talk.forgotten:
            say.warn(f"the first {talk.forgotten:,} messages no longer fit the model and were left out")
        _print(pieces, json)
        if not json:
            print()
        talk.hear(pieces.written)
    if json:
        answer(True, {"messages": talk.messages}, [])


def _constraint(choices: str | None, choice: tuple[str, ...], regex: str | None, schema: Path | None
                ) -> Constraint | None:  # fmt: skip
    kinds = [bool(choices is not None or choice), regex is not None, schema is not None]
    if sum(kinds) > 1:
        raise UsageError("a text follows one constraint: --choices, --regex or --json-schema. Give one of them.")
    if regex is not None:
        return Constraint.matching(regex)
    if schema is not None:
        return Constraint.json_schema(schema)
    if not kinds[0]:
        return None
    return Constraint.one_of([*(c.strip() for c in choices.split(",")), *choice] if choices is not None else choice)


def _stream(prompt: str, pieces: Stream) -> None:
    """The prompt to stderr and what is written to stdout, so that a pipe gets only what is new."""
    say = Spoken()
    say.console.print(_harmless(prompt), end="", style="dim", markup=False)
    started = time.monotonic()
    _print(pieces)
    seconds = time.monotonic() - started
    print()
    written = pieces.written
    _warn([written])
    say.line(
        f"{len(written.ids):,} tokens, {len(written.ids) / max(seconds, 1e-9):.3g} a second; {_WHY[written.stopped]}"
    )
    say.line("next:    --seed for another text, --next 10 for what else might have come first")


def _print(pieces: Stream, quiet: bool = False) -> None:
    """A text as it comes, to stdout; ``quiet``: it only comes."""
    terminal = sys.stdout.isatty()
    for piece in pieces:
        if not quiet:
            print(_harmless(piece) if terminal else piece, end="", flush=True)


def _warn(texts: list[Written]) -> None:
    if texts[0].cut:
        Spoken().warn(f"the first {texts[0].cut:,} tokens of the prompt were left out to fit the model")
    if any(text.valid is False for text in texts):
        Spoken().warn(
            "the text broke off before it fulfilled its constraint; allow more --tokens, or constrain its length"
        )


def _texts(prompt: str, between: str, texts: list[Written], json: bool) -> None:
    lines: list[str] = []
    for number, text in enumerate(texts, start=1):
        lines += [f"--- {number}: {len(text.ids):,} tokens, {_WHY[text.stopped]}", prompt + between + text.text]
    _warn(texts)
    answer(json, {"prompt": prompt, "texts": [asdict(text) for text in texts]}, lines)


def _next(prompt: str, tokens: list[NextToken], rest: float, json: bool) -> None:
    lines = bars([(readable(token.text), token.probability) for token in tokens], rest)
    answer(json, {"prompt": prompt, "next": [asdict(token) for token in tokens], "rest": rest}, lines)


def _choices(prompt: str, choices: list[Choice], count: int, json: bool) -> None:
    """Probabilities among the choices, and how probable it is that the model would write any of them."""
    if count < 1:
        raise UsageError(f"the number of choices to show must be above 0. Got {count}.")
    shown, rest = choices[:count], sum(choice.probability for choice in choices[count:])
    lines = bars([(readable(choice.text), choice.probability) for choice in shown], rest)
    any_of_them = fsum(exp(choice.log_probability) for choice in choices)
    lines.append(f"unconstrained, the model would write one of them with probability {any_of_them:.3g}")
    values = {"prompt": prompt, "choices": [asdict(choice) for choice in shown], "rest": rest, "any": any_of_them}
    answer(json, values, lines)


def bars(shown: list[tuple[str, float]], rest: float) -> list[str]:
    """A line a name: its probability as a number and a bar; the last line is what is left over."""
    width = max(cell_len(name) for name, _ in [*shown, ("all others", rest)])
    most = max(probability for _, probability in shown)
    lines = [_row(name, probability, width, probability / most) for name, probability in shown]
    return [*lines, _row("all others", rest, width, 0)]


def _row(name: str, probability: float, width: int, share: float) -> str:
    eighths = round(share * _BAR * 8)
    bar = "█" * (eighths // 8) + _EIGHTHS[eighths % 8]
    return f"{name}{' ' * (width - cell_len(name))}  {probability:8.3%}  {bar}".rstrip()


def readable(text: str) -> str:
    """Spaces seen, line ends and other letters without a shape as they are written in a program."""
    return "".join("␣" if c == " " else c if c.isprintable() else repr(c)[1:-1] for c in text) or "(nothing)"


def _harmless(text: str) -> str:
    """Control characters as they are written in a program: a terminal would obey them."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else repr(c)[1:-1] for c in text)


def _table(run: Path, done: dict[str, Any], json: bool) -> None:
    why = ", ".join(f"{count:,} {_WHY[key]}" for key, count in sorted(done["stopped"].items()))
    lines = [
        f"{done['rows']:,} rows = {done['written']:,} written + {done['missing']:,} without a prompt + "
        f"{done['rejected']:,} set aside",
        *([f"stopped: {why}"] if why else []),
        *([f"broken off before they fulfilled the constraint: {done['invalid']:,}"] if done["invalid"] else []),
        f"wrote:   {done['output']}",
    ]
    answer(json, done, [*lines, *aside(done), f'next:    {typed("generate", run)} "PROMPT" --next 10'])
