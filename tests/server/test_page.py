"""The page in Chromium: what a person does with the mouse, the keyboard or a phone, in English and Chinese."""

import base64
import shutil

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from tests.server.conftest import KEY, listening

from weft.server.served import Served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser, address, request):
    context = browser.new_context(**getattr(request, "param", {"locale": "en-US"}))
    found: Page = context.new_page()
    asked, wrong = [], []
    found.on("request", lambda one: asked.append(one.url))
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    found.goto(address)
    expect(found.locator("#run option")).to_have_count(3)
    yield found
    assert not wrong and all(url.startswith((address, "data:", "blob:")) for url in asked)
    context.close()


def no_barrier(page: Page) -> None:
    for part in page.locator("section:not([hidden]) details.request:not(:empty)").all():
        part.evaluate("node => node.open = true")
    found = Axe().run(page)
    assert not found.violations_count, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen"


def test_next_tokens_are_chosen_by_keyboard_and_written_on(page):
    page.get_by_label("The text to go on from").fill("The cat")
    page.get_by_role("button", name="What may come next?").press("Enter")
    bars = page.locator("#next .bars button")
    expect(bars).to_have_count(10)
    bars.first.press("Enter")
    expect(page.get_by_label("The text to go on from")).not_to_have_value("The cat")
    expect(bars.first).to_be_focused()
    page.get_by_label("Tokens at most").fill("12")
    page.get_by_role("button", name="Write on").click()
    expect(page.locator("#written")).to_contain_text("The cat")
    expect(page.get_by_role("button", name="Stop").first).to_be_hidden()
    assert len(page.locator("#written").inner_text()) > len("The cat")
    expect(page.locator("#write ~ .request")).to_contain_text("/v1/completions")
    no_barrier(page)


@pytest.mark.parametrize(
    "page", [{"locale": "zh-CN", "color_scheme": "dark", "viewport": {"width": 360, "height": 700}}], indirect=True
)
def test_a_chat_on_a_phone_in_chinese_in_the_dark(page):
    page.get_by_label("你说").fill("你好")
    page.get_by_label("你说").press("Enter")
    expect(page.locator("#turns li")).to_have_count(2)
    expect(page.locator("#turns li").first).to_contain_text("你好")
    expect(page.locator("#chat .stop")).to_be_hidden()
    no_barrier(page)
    page.get_by_role("button", name="English").click()
    expect(page.get_by_label("What you say")).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "en"


def test_a_row_is_predicted_and_its_words_marked(page, tmp_path):
    file = tmp_path / "photo.png"
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(file)
    page.get_by_label("Run").select_option("shop")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#problem")).to_contain_text("Nothing was given")
    expect(page.locator("#predicted")).to_be_empty()
    page.get_by_label("price").fill("12.5")
    page.get_by_label("colour").fill("red")
    page.get_by_label("when").fill("2022-05-01")
    page.get_by_label("review").fill("lovely soft fabric, size 3 was fine")
    page.get_by_label("photo").set_input_files(file)
    expect(page.locator("#fields img")).to_be_visible()
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#predicted .bars li")).to_have_count(2)
    expect(page.locator("#why p.text mark").first).to_be_visible(timeout=30_000)
    assert "lovely" in page.locator("#why p.text").inner_text()
    expect(page.locator("#row ~ .request")).to_contain_text("data:image/png;base64")
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text }")
    page.locator("#row ~ .request").evaluate("node => node.open = true")
    page.locator("#row ~ .request").get_by_role("button", name="Copy").first.click()
    assert base64.b64encode(file.read_bytes()).decode() in page.evaluate("window.copied"), (
        "no request without its picture"
    )
    no_barrier(page)


def test_items_are_recommended_and_what_is_wrong_is_said(page):
    page.get_by_label("Run").select_option("recommender")
    page.get_by_label("or a history").fill("i1, i2")
    page.get_by_role("button", name="Recommend").press("Enter")
    expect(page.locator("#items li")).to_have_count(5)
    no_barrier(page)
    page.goto(page.url + "docs")
    expect(page.get_by_role("heading", name="POST /predict")).to_be_visible()
    no_barrier(page)


def test_a_key_is_the_password_that_the_browser_asks_for(browser, writer):
    with listening(Served(writer, "writer"), keys=[KEY]) as address:
        context = browser.new_context(http_credentials={"username": "me", "password": KEY})
        page = context.new_page()
        page.goto(address)
        page.get_by_label("The text to go on from").fill("The cat")
        page.get_by_role("button", name="What may come next?").click()
        expect(page.locator("#next .bars button")).to_have_count(10)
        context.close()
