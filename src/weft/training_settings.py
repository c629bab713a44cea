"""What a pipeline file says of the training, as frozen settings; :mod:`weft.config` reads the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from weft.errors import listing

Share = Annotated[float, Field(ge=0, lt=1)]


class StrictSettings(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def check_owners(settings: Any, owners: Mapping[str, tuple[str | None, ...]], what: str) -> None:
    """Raises ValueError where a setting is given that is for other types, which ``what`` has in words."""
    for name, types in owners.items():
        if getattr(settings, name) is not None and settings.type not in types:
            words = [word for word in types if word]
            whose = " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
            raise ValueError(f"{name} is for {what.format(whose)}, this one is {settings.type or 'guessed'}. Remove it")


class BackTranslationSettings(StrictSettings):
    """Training texts translated away and back, once, by runs that write texts (Sennrich 2016, Xie 2020)."""

    through: Annotated[list[str], Field(min_length=1)]
    """Folders of runs with a target of type text, in their order: e.g. one from English to Chinese, one back."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the rows that are read as they came back; drawn anew each epoch."""


class AugmentSettings(StrictSettings):
    """Training texts in other words and pictures seen otherwise, drawn anew each epoch.

    A word of Chinese or Japanese is a character.
    """

    delete: Share = 0.0
    """Share of the words that are left out."""
    swap: Share = 0.0
    """Share of the words that change places with the next."""
    typo: Share = 0.0
    """Share of the words with a slip at one letter: doubled, left out, swapped or the key beside it."""
    mask: Share = 0.0
    """Share of the tokens that are hidden, in spans of three."""
    identity: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the rows in which an identity that is named (woman, Muslim, ...) is exchanged for another, in all
    columns alike (counterfactual augmentation, Zmigrod 2019; English and Chinese)."""
    back_translation: BackTranslationSettings | None = None
    """Read some rows as given models translate them away and back; the other changes are made after it."""
    crop: Share | None = None
    """Most of its side by which a picture is moved along each axis (default: 0.07 where there are pictures)."""
    flip: bool = False
    """Half of the pictures are mirrored; not for what has a right and a left, such as digits."""
    color: Share = 0.0
    """Most by which brightness, contrast and saturation are multiplied up or down."""
    erase: Share | None = None
    """Share of the pictures of which a rectangle is hidden (default: 0.25 where there are pictures)."""
    rand_augment: Annotated[int, Field(ge=0, le=4)] = 0
    """Changes of a picture drawn from fourteen: turned, sheared, equalised, ... (Cubuk 2020)."""
    strength: Annotated[int, Field(ge=1, le=10)] | None = None
    """Of those changes (default: 5)."""

    @property
    def for_texts(self) -> list[str]:
        return [n for n in ("delete", "swap", "typo", "mask", "identity", "back_translation") if getattr(self, n)]

    @property
    def for_pictures(self) -> list[str]:
        return [n for n in ("crop", "flip", "color", "erase", "rand_augment") if getattr(self, n)]

    @model_validator(mode="after")
    def _does_something(self) -> AugmentSettings:
        if not (self.for_texts or self.for_pictures) and self.crop is None and self.erase is None:
            raise ValueError(
                "must change something. Give delete, swap, typo, mask or identity a share, or back_translation, or of "
                "pictures crop, flip, color, erase or rand_augment; or remove augment"
            )
        if not self.rand_augment and self.strength is not None:
            raise ValueError("strength is for rand_augment. Give it, or remove strength")
        return self


def several(value: Any) -> Any:
    """A bare word is a list of one."""
    return [value] if isinstance(value, str) else value


class ByGroups(StrictSettings):
    """Whose rows are told apart."""

    by: Annotated[list[str], BeforeValidator(several, json_schema_input_type=str | list[str]), Field(min_length=1)]
    """Columns that say to which group a row belongs; several also together. The model need not read them."""


class FairnessSettings(ByGroups):
    """How groups are treated more alike, at some cost in accuracy, which the report tells."""

    how: Literal["reweigh", "penalty", "thresholds"]
    """Before it learns: rows count so that group and class are independent (Kamiran & Calders 2012). While it learns:
    what the group tells of the answers costs. After it: a threshold a group (Hardt 2016), where that is lawful."""
    goal: Literal["parity", "opportunity"] = "parity"
    """Equal shares of all rows that are given a class, or of those that truly are of it (of two classes the one that is
    looked for counts); of a number equal means of the answers, or of their errors."""
    strength: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Of a penalty its weight (default: 2), of reweigh the power of its weights (default: 1.5), of thresholds which
    part of the way is gone, at most 1 (default: 1)."""

    @model_validator(mode="after")
    def _fits(self) -> FairnessSettings:
        if self.how == "thresholds" and (self.strength or 0) > 1:
            raise ValueError(f"strength of thresholds is a part of the way, at most 1. Got {self.strength:g}")
        if self.how == "reweigh" and self.goal != "parity":
            raise ValueError("reweigh makes all shares equal. Remove goal, or take penalty or thresholds")
        return self


class PrivacySettings(StrictSettings):
    """Private training (Abadi 2016): what is learnt says next to nothing of any one training row."""

    epsilon: Annotated[float, Field(gt=0, le=1000)]
    """How much it may say at most: whatever is seen of the model is at most e^epsilon times as likely with a row as
    without it, but for a chance of delta. 1 is strong, 8 weak."""
    delta: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Default: 1 / (10 rows)."""
    clip: Annotated[float, Field(gt=0)] = 4.0
    """The longest that the gradient of a row may be; longer ones are shortened."""


class OwnerPrivacySettings(PrivacySettings):
    """... of any one owner (McMahan 2018)."""

    clip: Annotated[float, Field(gt=0)] = 1.0
    """The longest that the update of an owner may be."""


class FederatedSettings(StrictSettings):
    """Federated averaging (McMahan 2017), rehearsed in one process: each file or folder of data.source is an owner."""

    steps: Annotated[int, Field(ge=1, le=1000)] = 1
    """Steps of each owner in a round."""
    rate: Annotated[float, Field(gt=0, le=10)] = 0.1
    """How large these are."""
    privacy: OwnerPrivacySettings | None = None
    """Train so that nobody can tell whether an owner took part: each round draws owners and adds noise."""


class ParallelSettings(StrictSettings):
    """How a model lies on several processes (`weft run --processes N`, `torchrun`). Left out, each holds all of it; the
    rows of a step are always shared."""

    shard: bool = False
    """Each process holds a piece of every weight, gradient and moment (FSDP; Rajbhandari 2020)."""
    tensor: Annotated[int, Field(ge=1)] = 1
    """Processes that split the matrices of each block of a Transformer (Shoeybi 2019); their number is a multiple."""


class DistilSettings(StrictSettings):
    """A small model learns from the answers of a trained one, its teacher, beside the labels (Hinton 2015); of rows
    without a target from its answers alone."""

    from_: Annotated[str, Field(alias="from")]
    """The teacher: a run that predicts the same column from some or all of these columns; of next_token a run or an
    imported checkpoint that writes, whose tokens the model takes."""
    temperature: Annotated[float, Field(ge=1, le=100)] = 2.0
    """Both answers are softened by it, so that what the teacher thinks of wrong classes counts. Numbers have none."""
    weight: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Of the teacher's answers; the labels have the rest."""
    max_loss: Annotated[float, Field(ge=0)] = 0.5
    """Points of the run's figure that the model may lose beside its teacher on the validation rows (`.inf`: any)."""


Searched = Literal["learning_rate", "weight_decay", "dropout", "width", "layers", "batch_rows", "label_smoothing",
                   "consistency", "mixup", "column_dropout"]  # fmt: skip
"""Settings that a search may look for, those of the model among them."""


class SearchSettings(StrictSettings):
    """Better settings are looked for before the model is trained, by their validation loss (needs weft[tune])."""

    trials: Annotated[int, Field(ge=2, le=10_000)] = 30
    """Trainings at most, those that are given up early among them; the first is of the settings as they are."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """No trial begins after so many, and the one at hand is given up. By the clock, so that no two such searches are
    the same."""
    over: Annotated[list[Searched], Field(min_length=1)] | None = None
    """What is looked for (default: all of it that the file leaves open and the task has)."""


class TrainingSettings(StrictSettings):
    """How it learns; what is left out is chosen by the data."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    """Most passes over the training rows; early stopping usually ends sooner."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Stop after this long, whatever the epoch. By the clock, so that no two such runs are the same."""
    batch_rows: Annotated[int, Field(ge=1)] | None = None
    """Rows of one optimiser step."""
    accumulate: Annotated[int, Field(ge=2)] | None = None
    """Parts that a step's rows are computed in, one after another: the same step in less memory."""
    parallel: ParallelSettings | None = None
    """How a model lies on several processes."""
    checkpoint_activations: bool = False
    """Keep only what goes into each block of a Transformer and compute the rest again on the way back (Chen 2016): the
    same steps in less memory, a third slower."""
    optimizer: Literal["adamw", "muon"] | None = None
    """Muon makes the steps of a Transformer's matrices orthogonal (default where a text model begins from nothing)."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """The highest, after the steps that warm up (default: by the model and the optimiser)."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """Decoupled from the gradient (Loshchilov 2019) (default: by the data)."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs without a better validation loss before training stops."""
    label_smoothing: Share | None = None
    """Share of the probability that is spread over all tokens or items (Szegedy 2016), where a text or a dialogue is
    written or items are ranked (default: 0.1 for a text from scratch, else 0)."""
    class_weight: Literal["balanced"] | None = None
    """`balanced` weighs each class by the inverse of its share; probabilities are corrected back."""
    augment: AugmentSettings | None = None
    """Changes made to the training texts and pictures."""
    mixup: Annotated[float, Field(ge=0, le=100)] | None = None
    """Rows are mixed with others by a share from Beta(mixup, mixup) (Zhang 2018)."""
    cutmix: Annotated[float, Field(ge=0, le=100)] | None = None
    """A part of each picture is cut from another row's, by a share from Beta(cutmix, cutmix) (Yun 2019)."""
    consistency: Annotated[float, Field(ge=0, le=1000)] | None = None
    """Every row is read twice, and differing answers cost this much (R-Drop, Liang 2021)."""
    column_dropout: Share | None = None
    """Share of a row's columns that are hidden while it is learnt, as if they were missing; never all of them."""
    distil: DistilSettings | None = None
    """Learn from a trained run as well, where a class, a number or the next token is predicted."""
    fairness: FairnessSettings | None = None
    """Treat groups more alike, where a class or a number is predicted."""
    dropout_schedule: Literal["early", "late", "rising"] | None = None
    """Dropout in the first half of the training only, in the second only, or growing from none (Liu 2023)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; `auto` takes bfloat16 where the machine multiplies it in hardware."""
    canaries: Annotated[int, Field(ge=1, le=100)] | list[str] | None = None
    """Secrets that are planted among the training texts of a next_token model, for `weft audit` to look for: so many of
    ours, or texts with a number of four digits or more."""
    federated: FederatedSettings | None = None
    """Every step is a round, to which each owner gives a clipped update of its own rows and nothing else."""
    privacy: PrivacySettings | None = None
    """Train so that nobody can tell whether a row was learnt from."""
    search: SearchSettings | None = None
    """Look for better settings of the training and the model first."""
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    """Of all that is drawn: the first weights, the order of the rows, what is hidden."""

    @property
    def private(self) -> PrivacySettings | None:
        """Of rows or of owners."""
        return self.federated.privacy if self.federated and self.privacy is None else self.privacy

    @model_validator(mode="after")
    def _planted(self) -> TrainingSettings:
        for text in self.canaries if isinstance(self.canaries, list) else ():
            if len(re.findall(r"[0-9]{4,}", text)) != 1:
                raise ValueError(
                    f"canaries: each must hold one number of four digits or more. Got {text!r}. Correct it"
                )
        return self

    @model_validator(mode="after")
    def _private(self) -> TrainingSettings:
        if self.private is None:
            return self
        if self.search:
            raise ValueError("search: every trial would spend epsilon anew. Remove it, or privacy")
        mixes = [n for n in ("mixup", "cutmix") if getattr(self, n)]
        if mixes:
            raise ValueError(f"{listing(mixes)} mixes rows, privacy keeps them apart. Keep one of them")
        if self.class_weight:
            raise ValueError("class_weight is counted from the rows, without privacy. Keep one of them")
        if self.augment and self.augment.back_translation:
            raise ValueError("back_translation goes through models that may have learnt the rows. Remove it or privacy")
        if self.fairness and self.fairness.how != "thresholds":
            raise ValueError(f"fairness by {self.fairness.how} looks at other rows. Take thresholds, or remove privacy")
        if self.patience:
            raise ValueError("patience: a private training makes all its steps, for which its noise is. Remove it")
        if self.parallel:
            raise ValueError(
                "parallel: privacy holds the gradient of a row whole. Processes share rows without it. Remove it"
            )
        if self.accumulate:
            raise ValueError("accumulate: rows of a private step are computed in parts anyway. Remove it")
        if self.precision == "bfloat16":
            raise ValueError("precision: private gradients are float32. Remove it")
        return self

    @model_validator(mode="after")
    def _one_of(self) -> TrainingSettings:
        given = [n for n in ("mixup", "cutmix", "consistency") if getattr(self, n)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other. Remove one of them")
        if self.distil:
            also = [*given, *(n for n in ("fairness", "federated", "privacy", "class_weight") if getattr(self, n))]
            if also:
                raise ValueError(f"distil and {' and '.join(also)} exclude each other. Remove one")
        if self.fairness and self.fairness.how != "thresholds":
            also = [*given, *(["class_weight"] if self.class_weight else [])]
            also += ["accumulate"] if self.accumulate and self.fairness.how == "penalty" else []
            if also:
                raise ValueError(
                    f"fairness by {self.fairness.how} and {' and '.join(also)} exclude each other. Remove one"
                )
        if self.accumulate and (self.mixup or self.cutmix or (self.consistency and self.class_weight)):
            odd = "mixup" if self.mixup else "cutmix" if self.cutmix else "class_weight with consistency"
            raise ValueError(f"{odd} needs all rows of a step at once. Remove it, or accumulate")
        return self
