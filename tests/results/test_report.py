"""The report and the card say what report.json says, in one closed file."""

import copy
import json
import re
from html.parser import HTMLParser

import pyarrow as pa
import pytest
from tests.tables import FAST, mixed, numeric

import weft
from weft.results.report import write_report
from weft.results.svg import _ticks

EXPLAINED = {**FAST, "results": {}}
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module", params=["class", "number"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "run"
    if request.param == "class":
        table = mixed(300)
        words = ["yes" if v == "yes" else HOSTILE for v in table["bought"].to_pylist()]
        table = table.set_column(4, "bought", pa.array(words)).append_column("<b>bold</b>", table["price"])
        return weft.train(table, "bought", folder, quiet=True, **EXPLAINED)
    return weft.train(numeric(300), "y", folder, quiet=True, features={"label": "off"}, **EXPLAINED)


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.links, self._open = [], [], [], []
        self.feed(text)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "action") or (v and "url(" in v)]
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_closed_and_without_script(run):
    page = Page((run.path / "report.html").read_text())
    assert not page._open and "script" not in page.tags and not page.links
    assert "default-src 'none'" in (run.path / "report.html").read_text()
    assert len((run.path / "report.html").read_bytes()) < 100_000


def test_the_page_says_the_numbers_of_the_json(run):
    figures = json.loads((run.path / "report.json").read_text())
    page = Page((run.path / "report.html").read_text())
    assert figures["headline"] in page.text
    for model in figures["models"]:
        assert model["title"] in page.text
        if "accuracy" in model["metrics"]:
            assert f"{100 * model['metrics']['accuracy']['value']:.1f} %" in page.text
        else:
            assert f"{model['metrics']['rmse']['value']:.3g}" in page.text
    for column in figures["columns"]:
        assert column["name"] in page.text and column["reason"] in page.text
    assert figures["verdict"]["recommended"] in page.text


def test_every_drawing_has_words_for_those_who_cannot_see_it(run):
    text = (run.path / "report.html").read_text()
    drawings = re.findall(r"<svg[^>]*>", text)
    assert drawings and all('role="img"' in d and 'aria-label="' in d for d in drawings)


def test_figures_whose_interval_cannot_be_told_are_drawn_as_dots(run, tmp_path):
    figures = copy.deepcopy(run.figures)
    for model in figures["models"]:
        for figure in model["metrics"].values():
            figure |= {"low": None, "high": None}
    text = write_report(tmp_path, figures).read_text()
    assert re.search(r'<line class="range ours" x1="([\d.]+)" x2="\1"', text)
    for model in figures["models"]:
        for figure in model["metrics"].values():
            figure["value"] = None
    assert "–" in Page(write_report(tmp_path, figures).read_text()).text


def test_the_card_says_the_headline(run):
    card = (run.path / "README.md").read_text()
    assert run.figures["headline"].replace("<", "&lt;") in card and HOSTILE not in card
    assert run.figures["data"]["fingerprint"] in card


@pytest.mark.parametrize(
    ("low", "high"), [(0.5, 1.0), (0, 1), (0.93, 0.94), (3, 4000), (-20, 1e7), (1e-6, 3e-6), (0.612, 0.613)]
)
def test_ticks_are_few_round_and_inside(low, high):
    ticks = _ticks(low, high)
    assert 2 <= len(ticks) <= 8
    assert all(low <= t <= high * (1 + 1e-9) for t in ticks)
    assert all(len(f"{t:.10g}".replace("-", "").replace(".", "").strip("0")) <= 5 for t in ticks)
