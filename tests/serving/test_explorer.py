"""The explorer in a real browser: four views by mouse and by keyboard, nothing in the console, nothing from elsewhere."""

import re
import threading

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from text2token.model.embedder import Embedder
from text2token.serving import ServerSettings, Service, create_app

pytestmark = pytest.mark.serving
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


@pytest.fixture(scope="module")
def serve_page(model_folder, index_folder):
    """Starts a server in a thread; gives its address."""
    servers = []

    def start(**more):
        service = Service(
            ServerSettings(**{"model": "tiny", "indexes": {"docs": index_folder}, **more}), Embedder.open(model_folder)
        )
        server = uvicorn.Server(uvicorn.Config(create_app(service), port=0, log_level="warning"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            pass
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def address(serve_page):
    return serve_page()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser, address):
    opened = browser.new_page()
    said, asked = [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(address)
    expect(opened.locator("#model")).to_contain_text("tiny")
    yield opened
    assert said == []
    assert all(url.startswith((address, "data:")) for url in asked)
    opened.close()


def test_reading_as_one_types(page):
    page.get_by_label("Text", exact=True).fill("The cat sat on the warm mat.")
    expect(page.get_by_role("heading", name="What the vector says")).to_be_visible()
    expect(page.locator("#read .tokens li").first).to_be_visible()
    page.get_by_label("First instruction").fill("Which animal?")
    expect(page.get_by_role("heading", name="Under “Which animal?”")).to_be_visible()
    assert "text=The+cat+sat" in page.url
    address = page.url
    page.goto("about:blank")
    page.goto(address)  # a view can be shared
    expect(page.get_by_label("Text", exact=True)).to_have_value("The cat sat on the warm mat.")
    expect(page.get_by_role("heading", name="Under “Which animal?”")).to_be_visible()


def test_comparing(page):
    page.get_by_role("tab", name="Compare").click()
    expect(page.get_by_text("Type two texts")).to_be_visible()
    page.get_by_label("First text").fill("A dog chased the cat.")
    page.get_by_label("Second text").fill("A dog slept.")
    for heading in ("Pull together", "Only in the first", "Only in the second"):
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
    expect(page.locator("#compare .score").first).to_have_text(re.compile(r"-?\d\.\d{3}"))


def test_searching_with_weights_and_words_alone(page):
    page.get_by_role("tab", name="Search").click()
    page.get_by_label("Query").fill("a sitting cat")
    expect(page.locator("#search article").first).to_be_visible()
    expect(page.locator("#search mark").first).to_have_text(re.compile("cat|sat", re.IGNORECASE))
    page.locator("#search select[name=mode]").select_option("bm25")
    expect(page).to_have_url(re.compile("mode=bm25"))
    page.locator("#search select[name=mode]").select_option("hybrid")
    page.get_by_label("Words alone beside it").check()
    expect(page.get_by_role("heading", name="The words of the query alone")).to_be_visible()


def test_the_map_is_walked_with_the_keyboard_and_leads_to_a_search(page):
    page.get_by_role("tab", name="Read").focus()
    page.keyboard.press("ArrowLeft")  # from the first view to the last
    points = page.locator("#map circle")
    expect(points.first).to_be_visible()
    points.first.focus()
    for key in ("ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    expect(page.locator("#map .tip h2")).to_have_text(focused)
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab", name="Search")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#search article").first).to_be_visible()
    page.go_back()
    expect(page.get_by_role("tab", name="Map")).to_have_attribute("aria-selected", "true")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["read", "compare", "search", "map"])
def test_every_view_is_accessible(browser, address, view, scheme):
    state = {
        "read": "text=The+cat+sat&first=Which+animal",
        "compare": "first=A+cat&second=A+dog",
        "search": "query=cat&beside=1",
        "map": "",
    }
    opened = browser.new_page(color_scheme=scheme)
    opened.goto(f"{address}/#{view}?{state[view]}")
    expect(opened.locator(f"#{view} .result > :not(.message)").first).to_be_visible()
    expect(opened.locator(f"#{view} .result")).not_to_have_class(re.compile("busy"))
    report = Axe().run(opened)
    assert report.violations_count == 0, report.generate_report()
    opened.close()


def test_it_fits_a_phone(browser, address):
    opened = browser.new_page(viewport={"width": 360, "height": 640})
    for view in ("read?text=The+cat+sat", "compare?first=A+cat&second=A+dog", "search?query=cat", "map"):
        opened.goto(f"{address}/#{view}")
        expect(opened.locator(".result:visible > :not(.message)").first).to_be_visible()
        assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    opened.close()


def test_it_asks_for_the_key_once_and_errors_are_sentences(browser, serve_page):
    address = serve_page(keys=("open sesame",), indexes={})
    opened = browser.new_page()
    opened.goto(f"{address}/#search")
    opened.get_by_label("API key").fill("wrong")
    opened.get_by_role("button", name="Use it").click()
    expect(opened.get_by_text("The server does not accept this key.")).to_be_visible()
    expect(opened.get_by_label("API key")).to_have_value("")
    opened.keyboard.press("Escape")
    expect(opened.locator("#model .error")).to_contain_text("needs a key")
    opened.reload()
    opened.get_by_label("API key").fill("open sesame")
    opened.get_by_role("button", name="Use it").click()
    expect(opened.get_by_text("This server has no index")).to_be_visible()
    assert "sesame" not in opened.url
    opened.get_by_role("tab", name="Read").click()
    opened.get_by_label("Text", exact=True).fill("word " * 500)
    expect(opened.locator(".message.error")).to_contain_text("the model reads")
    opened.close()


def test_it_recovers_from_a_failed_start_and_from_a_key_that_no_header_can_hold(browser, serve_page):
    address = serve_page(keys=("open sesame",))
    opened = browser.new_page()
    opened.route("**/info", lambda route: route.abort(), times=1)
    opened.goto(address)
    expect(opened.locator("#model .error")).to_contain_text("does not answer")
    opened.get_by_role("tab", name="Search").click()
    opened.get_by_label("API key").fill("“open sesame”")
    opened.get_by_role("button", name="Use it").click()
    expect(opened.get_by_text("The server does not accept this key.")).to_be_visible()
    opened.get_by_label("API key").fill("open sesame")
    opened.get_by_role("button", name="Use it").click()
    expect(opened.locator("#model")).to_contain_text("tiny")
    opened.get_by_label("Query").fill("a sitting cat")
    expect(opened.locator("#search article").first).to_be_visible()
    opened.close()


def test_a_server_that_is_gone_and_an_answer_that_is_no_json_are_told(page):
    page.get_by_label("Text", exact=True).fill("The cat sat.")
    expect(page.locator("#read .tokens li").first).to_be_visible()
    page.route("**/explain", lambda route: route.fulfill(status=200, body="<html>Bad gateway</html>"))
    page.get_by_label("Text", exact=True).fill("The cat sat down.")
    expect(page.locator("#read .error")).to_contain_text("status 200")
    expect(page.locator("#read .result")).not_to_have_class(re.compile("busy"))
    page.unroute("**/explain")
    page.get_by_label("Text", exact=True).fill("The cat sat up.")
    expect(page.locator("#read .tokens li").first).to_be_visible()
