"""Plans of sizes: against published optima, published runs, and what torch itself keeps."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from weft.cli import call
from weft.errors import UsageError
from weft.estimates.devices import DEVICES, count_of, gpus_of
from weft.estimates.layouts import RESERVE, choose, layouts
from weft.estimates.plan import Asked, plan
from weft.estimates.scaling import CORRECTED, WAYS
from weft.estimates.sizes import Layout, Shape, activations, memory, of_size, usual_shape
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.tokens import Tokens
from weft.models.transformer import Transformer, TransformerConfig

DOCS = Path(__file__).parents[2] / "docs" / "plan.md"
H100 = DEVICES["h100"]


def rows_of(heading: str) -> list[list[str]]:
    """The rows of a table of the page, from its first column's name."""
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(heading))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


class TestScaling:
    @pytest.mark.parametrize("way", WAYS, ids=lambda w: w.name)
    def test_the_best_size_is_where_no_other_of_the_same_budget_is_better(self, way: object) -> None:
        """By a search over sizes of one budget of 6 N D FLOPs, which knows nothing of the closed form."""
        tokens = 140e9
        size = way.size_for(tokens)  # type: ignore[attr-defined]
        assert way.tokens_for(size) == pytest.approx(tokens, rel=1e-6)  # type: ignore[attr-defined]
        if hasattr(way, "loss"):
            sizes = size * np.geomspace(0.2, 5, 2001)
            losses = [way.loss(n, size * tokens / n) for n in sizes]
            assert sizes[int(np.argmin(losses))] == pytest.approx(size, rel=2e-3)

    def test_published_optima(self) -> None:
        """Hoffmann 2022: 67B and 63B at Gopher's budget, about 40B by way 3; 70B wants about 1.4T tokens. Besiroglu
        2024: about 20 tokens a parameter, as ways 1 and 2, where the published third fit wants far more."""
        for way, size in zip(WAYS[:2], (67e9, 63e9), strict=True):
            assert way.size_for(5.76e23 / 6 / size) == pytest.approx(size, rel=1e-6)
        third = WAYS[2]
        sizes = np.geomspace(1e10, 1e12, 4001)
        best = sizes[int(np.argmin([third.loss(n, 5.76e23 / 6 / n) for n in sizes]))]  # type: ignore[union-attr]
        assert 25e9 < best < 45e9
        assert WAYS[0].tokens_for(70e9) == pytest.approx(1.4e12, rel=0.1)
        assert 15 < CORRECTED.tokens_for(70e9) / 70e9 < 25
        assert third.tokens_for(70e9) / 70e9 > 60


class TestSizes:
    @pytest.mark.parametrize("size", [70e6, 1e9, 7e9, 70e9, 405e9])
    def test_a_usual_shape_has_about_the_parameters_asked_for(self, size: float) -> None:
        assert usual_shape(size).parameters == pytest.approx(size, rel=0.05)

    def test_shapes_of_llama(self) -> None:
        """Touvron 2023, table 2."""
        assert [(s.width, s.heads) for s in map(usual_shape, (7e9, 13e9))] == [(4_096, 32), (5_120, 40)]

    def test_parameters_are_those_of_the_model(self) -> None:
        config = TransformerConfig(width=128, layers=3, heads=2, attention="writing")
        with torch.device("meta"):
            model = LanguageModel(LanguageConfig(config, 1_000))
        count = sum(p.numel() for p in model.parameters())
        assert Shape(128, 3, 2, 1_000).parameters == count == of_size(128, 3, 2, count).parameters

    def test_activations_are_what_torch_keeps_for_the_way_back(self) -> None:
        """In float32, with fused attention. torch's norms on a CPU also keep what they normalised, 4 D each, and gates
        are bent anew there on the way back, 4 H less."""
        width, batch, length = 256, 2, 128
        kept = []
        for layers in (1, 2):
            torch.manual_seed(0)
            model = Transformer(TransformerConfig(width=width, layers=layers, heads=4))
            own, held = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

            def keep(t: torch.Tensor, own: set[int] = own, held: dict[int, torch.Tensor] = held) -> torch.Tensor:
                if t.untyped_storage().data_ptr() not in own:
                    held[t.untyped_storage().data_ptr()] = t
                return t

            places = torch.arange(length).expand(batch, -1)
            states = torch.randn(batch, length, width, requires_grad=True)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
                model(Tokens(states, None, places, torch.zeros_like(places)))
            kept.append(sum(t.untyped_storage().nbytes() for t in held.values()))
        measured = (kept[1] - kept[0]) / (batch * length)
        shapes = [Shape(width, n, 4, 0) for n in (1, 2)]
        one, two = (activations(shape, length, Layout(), product=4) / length for shape in shapes)
        assert two - one == pytest.approx(measured + 4 * shapes[0].hidden, rel=0.005)

    def test_parts_are_shared_out(self) -> None:
        shape = usual_shape(7e9)
        alone, shared = memory(shape, 4_096, Layout()), memory(shape, 4_096, Layout(8, True))
        assert alone["optimizer"] == 8 * shape.parameters == 8 * shared["optimizer"]
        assert shared["activations"] == alone["activations"] and shared["gradients"] * 8 == alone["gradients"]
        both = memory(shape, 4_096, Layout(8, False, 2))
        table = 8 * 32_000 * shape.width
        assert both["optimizer"] == pytest.approx((alone["optimizer"] + table) / 2, rel=1e-4)  # the table is not split
        assert both["activations"] < alone["activations"]
        less = activations(shape, 4_096, Layout(checkpoint_activations=True))
        assert less < alone["activations"] / 5 < activations(shape, 4_096, Layout(), fused=False) / 5

    def test_cache(self) -> None:
        """Llama 2 7B: 2 x 32 layers x 4,096 x 2 bytes, half a megabyte a token."""
        assert Shape(4_096, 32, 32).cache(1) == 524_288


class TestLayouts:
    @pytest.mark.parametrize(("size", "devices"), [(125e6, 1), (7e9, 8), (13e9, 64), (70e9, 64)])
    def test_what_is_proposed_fits_and_nothing_simpler_does(self, size: float, devices: int) -> None:
        shape = usual_shape(size)
        found = choose(shape, 4_096, devices, H100, 2**21)
        assert found.shares * found.tensor == devices
        assert sum(memory(shape, 4_096, found).values()) <= (1 - RESERVE) * H100.memory
        for one in layouts(shape, devices, H100.node):
            if replace(found, rows=1) == one:
                break
            assert sum(memory(shape, 4_096, one).values()) > (1 - RESERVE) * H100.memory

    def test_one_that_fits_nowhere_names_the_least_that_does(self) -> None:
        with pytest.raises(UsageError, match=r"The least that does is (\d+)xA100") as caught:
            choose(usual_shape(70e9), 4_096, 8, DEVICES["a100"], 2**21)
        least = int(re.search(r"least that does is (\d+)x", str(caught.value))[1])  # type: ignore[index]
        found = choose(usual_shape(70e9), 4_096, least, DEVICES["a100"], 2**21)
        assert found.shares * found.tensor == least
        with pytest.raises(UsageError):
            choose(usual_shape(70e9), 4_096, least // 2, DEVICES["a100"], 2**21)

    def test_a_row_too_long_for_any_number_of_devices(self) -> None:
        with pytest.raises(UsageError, match="shorter --context"):
            choose(usual_shape(405e9), 65_536, 1_024, H100, 2**21)


class TestPublished:
    @pytest.mark.parametrize(
        "row", rows_of("| run | parameters | tokens | row | device | published hours"), ids=lambda r: r[0]
    )
    def test_the_table_of_runs_is_what_is_computed(self, row: list[str]) -> None:
        _, size, tokens, length, device, published, utilisation, ours, error, real, _ = row
        flops = usual_shape(count_of(size, "")).products(count_of(length, "")) * count_of(tokens, "")  # type: ignore[arg-type]
        an_hour = 3_600 * DEVICES[device.lower()].peak
        hours, said = count_of(published, ""), float(utilisation.split()[0])
        assert flops / (an_hour * said) == pytest.approx(count_of(ours, ""), abs=0.51)
        assert f"{count_of(ours, '') / hours - 1:+.0%}" == error
        assert f"{flops / (an_hour * hours):.2f}" == real

    def test_the_errors_are_as_said(self) -> None:
        errors = [
            abs(float(row[8].strip("%+")))
            for row in rows_of("| run | parameters | tokens | row | device | published h")
        ]
        assert (len(errors), sum(e <= 25 for e in errors), round(float(np.median(errors)))) == (18, 13, 19)

    def test_the_command_says_the_same_hours(self) -> None:
        """Llama 2 7B at 0.4, of the table."""
        found = plan(Asked(6.74e9, 2e12, 1_024, DEVICES["a100"], 4_096))
        (ours,) = [
            row[7]
            for row in rows_of("| run | parameters | tokens | row | device | published h")
            if row[0] == "Llama 2 7B"
        ]
        assert found["device_hours"] == pytest.approx(count_of(ours, ""), rel=1e-4)

    @pytest.mark.parametrize(
        "row", rows_of("| run | parameters | tokens | row | device | published MWh"), ids=lambda r: r[0]
    )
    def test_the_table_of_energy_is_what_is_computed(self, row: list[str]) -> None:
        _, size, tokens, length, device, published, ours, error, _ = row
        asked = Asked(
            count_of(size, ""), count_of(tokens, ""), 1_024, DEVICES[device.lower()], int(count_of(length, "")), pue=1.0
        )
        kwh = plan(asked)["kwh"]
        assert kwh / 1_000 == pytest.approx(float(ours), abs=0.5)
        assert f"{kwh / 1_000 / float(published) - 1:+.0%}" == error


class TestWords:
    def test_sizes_and_devices(self) -> None:
        assert [count_of(t, "") for t in ("7B", "350m", "1.5T", "7e9", "140,000")] == [7e9, 350e6, 1.5e12, 7e9, 140e3]
        assert (
            gpus_of("64xH100") == (64, "h100") and gpus_of("rtx4090") == (1, "4090") and gpus_of("this") == (1, "this")
        )

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--params", "7X"], "--params: must be a number above zero such as 350M, 7B or 1.5T. Got '7X'."),
            (["--tokens", "0"], "--tokens: must be a number above zero"),
            (["--params", "7B", "--gpus", "8xH1000"], "Did you mean 'H100'?"),
            (["--params", "7B", "--gpus", "0xH100"], "must be a count and a device"),
            (["--params", "1000"], "weft plan FILE"),
            (["--params", "7B", "--utilisation", "40"], "must be above 0 and at most 1"),
            (["--params", "7B", "--probe", "20"], "is for a pipeline file"),
            ([], "--params or --tokens"),
        ],
        ids=lambda w: " ".join(w) if isinstance(w, list) else "",
    )
    def test_what_cannot_be(self, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert call(["plan", *words]) == 2
        assert said in capsys.readouterr().err.replace("\n", " ")

    def test_money_and_co2_only_where_they_are_given(self, capsys: pytest.CaptureFixture[str]) -> None:
        base = ["plan", "--params", "7B", "--tokens", "140B", "--gpus", "64xH100", "--json"]
        assert call(base) == 0
        plain = json.loads(capsys.readouterr().out)
        assert "money" not in plain and "co2_kg" not in plain
        assert call([*base, "--price-per-gpu-hour", "2", "--co2-per-kwh", "0.4"]) == 0
        priced = json.loads(capsys.readouterr().out)
        assert priced["money"] == pytest.approx(2 * priced["device_hours"])
        assert priced["co2_kg"] == pytest.approx(0.4 * priced["kwh"])
        assert priced["kwh"] == pytest.approx(priced["device_hours"] * 0.7 * 1.1)
