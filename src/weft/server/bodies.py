"""What a request may hold and what an answer holds, as OpenAPI says it. A field that is not here is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MOST_PROMPTS, MOST_SAMPLES, MOST_INPUTS, MOST_ROWS, MOST_EXPLAINED, MOST_TOP = 64, 16, 2_048, 1_000, 16, 20

Name = Annotated[str, StringConstraints(max_length=200)]
Text = Annotated[str, StringConstraints(min_length=1)]
Neutral = Annotated[float, Field(ge=0, le=0, description="not supported: 0, or left out")]


class Strict(BaseModel):
    """A field that is not named here is refused, and so is a value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Body(Strict):
    """What every request may hold."""

    model: Name | None = None
    """Which of the served runs (GET /v1/models); default: the first that can do it."""


class StreamOptions(Strict):
    """What a stream tells beside the text."""

    include_usage: bool = False
    """One more piece at the end, with the number of tokens."""


class Writing(Body):
    """How a text is written."""

    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    """0: always the most probable token. Default: 1; of a run that writes a column from another 0."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Draw from the fewest tokens that reach this probability together."""
    top_k: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Draw from this many most probable tokens."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Draw from tokens at least this share as probable as the most probable one."""
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    """Above 1, tokens that are there already become less probable."""
    stop: Text | Annotated[list[Text], Field(max_length=16)] | None = None
    """The text ends before the first of these."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    """The same seed, prompt and settings give the same text, whatever else is asked at the time."""
    n: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] | None = None
    """How many texts, with the seeds seed, seed + 1, ..."""
    stream: bool | None = None
    """Answer piece by piece, as server-sent events."""
    stream_options: StreamOptions | None = None
    frequency_penalty: Neutral | None = None
    presence_penalty: Neutral | None = None


class CompletionBody(Writing):
    """A text to go on from."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Annotated[list[int], Field(min_length=1)]
        | Annotated[list[Annotated[list[int], Field(min_length=1)]], Field(min_length=1, max_length=MOST_PROMPTS)]
    )
    """One text or several, as letters or as the ids of tokens."""
    max_tokens: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Write at most this many tokens (default: 16, or of a run that writes a column what it learnt)."""
    logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    """The log probability of every token, and of this many most probable ones in its place."""
    echo: bool | None = None
    """The answer begins with the prompt."""


class Part(Strict):
    """A part of a message; only texts are read."""

    type: Literal["text"]
    text: str


class Message(Strict):
    """One turn of a dialogue."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(min_length=1)]


class NamedSchema(Strict):
    """A JSON schema that the answer fulfils."""

    name: Name = ""
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class Format(Strict):
    """What an answer may be: any text, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class ChatBody(Writing):
    """A dialogue to answer."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    """A system message or none, then turns; the last is the user's."""
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Write at most this many tokens (default: 500)."""
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """The newer name of max_tokens."""
    logprobs: bool | None = None
    """The log probability of every token."""
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    """... and of this many most probable ones in its place."""
    response_format: Format | None = None


class EmbeddingBody(Body):
    """Texts to turn into vectors."""

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_INPUTS)]
    encoding_format: Literal["float", "base64"] | None = None
    """base64: the bytes of float32 numbers, little-endian."""


class NextBody(Body):
    """A text whose next token is asked for."""

    prompt: str | Annotated[list[int], Field(min_length=1)]
    count: Annotated[int, Field(ge=1, le=100)] = 10
    """How many of the most probable tokens."""


Row = dict[str, Any]


class PredictBody(Body):
    """Rows of a table to predict: a column a key; pictures as base64 or data: addresses."""

    rows: Annotated[list[Row], Field(min_length=1, max_length=MOST_ROWS)]


class ExplainBody(Body):
    """Rows of a table to explain, or a text that a run that writes goes on from."""

    rows: Annotated[list[Row], Field(min_length=1, max_length=MOST_EXPLAINED)] | None = None
    prompt: str | None = None
    method: Literal["shap", "lime", "gradient", "attention"] = "shap"
    of: str | None = None
    """What to explain (default: what the run says): a class or label, a text, an item, a part of a context."""


class RecommendBody(Body):
    """A user of the training by name, or a history."""

    user: str | int | None = None
    history: Annotated[list[str | int | dict[str, Any]], Field(max_length=10_000)] | None = None
    """Ids of items, or objects with item, time and rating; may be empty."""
    k: Annotated[int, Field(ge=1, le=1_000)] = 10
    taken: bool | None = None
    """Whether what the user had may be recommended (default: as the run decided)."""


# ---- answers


class Problem(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Failed(BaseModel):
    """A request that was not answered."""

    error: Problem


def problem(status: int, message: str, code: str, field: str | None = None) -> dict[str, Any]:
    """What is said of a request that was not answered; ``field``: the one that is wrong."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": field, "code": code}}


class Usage(BaseModel):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]


class Written(BaseModel):
    """One text."""

    index: int
    finish_reason: str | None
    logprobs: dict[str, Any] | None


class Choice(Written):
    """One text that goes on from a prompt."""

    text: str


class ChatChoice(Written):
    """One answer."""

    message: dict[str, Any]


class Answered(BaseModel):
    """What was written for a request."""

    id: str
    created: int
    model: str
    usage: Usage | None


class Completion(Answered):
    """Texts that go on from prompts."""

    object: Literal["text_completion"]
    choices: list[Choice]


class ChatCompletion(Answered):
    """Answers to a dialogue."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class Vector(BaseModel):
    """The vector of one text, of length one."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Embeddings(BaseModel):
    """Vectors of texts."""

    object: Literal["list"]
    data: list[Vector]
    model: str
    usage: dict[str, int]


class Model(BaseModel):
    """A run that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    can: list[str]
    """What may be asked of it."""
    columns: dict[str, dict[str, Any]]
    """Of a run of a table: the columns that it reads, each with its type and, of categories, the frequent ones."""
    target: str | None


class Models(BaseModel):
    """All runs that are served."""

    object: Literal["list"]
    data: list[Model]


class NextToken(BaseModel):
    """A token that may come next."""

    id: int
    text: str
    probability: float


class Next(BaseModel):
    """The next token after a prompt, whose ids and letters these are."""

    model: str
    ids: list[int]
    text: str
    tokens: list[NextToken]
    rest: float
    """The probability of all other tokens together."""


class Predictions(BaseModel):
    """An answer a row, in their order, as ``weft predict`` gives it; of a row that cannot be read ``error``."""

    model: str
    predictions: list[dict[str, Any]]


class Explanations(BaseModel):
    """An explanation a row, as ``weft explain --json`` gives it."""

    model: str
    explanations: list[dict[str, Any]]


class Item(BaseModel):
    """An item and the probability that it comes next."""

    item: str
    title: str | None
    score: float


class Recommendations(BaseModel):
    """The items that most probably come next, the best first."""

    model: str
    items: list[Item]


class Health(BaseModel):
    """Whether the server can answer."""

    status: Literal["ok", "failed"]
