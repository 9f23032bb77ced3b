"""The status page in a headless Chromium, as a phone shows it: Debian's packages chromium and chromium-driver."""

import json
import os
import re
import shutil

import pytest
from harness import PATIENCE
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from test_status import PASSWORD, Stage

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not CHROMIUM or not DRIVER, reason="Debian's packages chromium and chromium-driver are not installed"
)
WIDTH, HEIGHT = 390, 844
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
HOSTILE = "<script>document.title='hacked'</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    stage = Stage(tmp_path_factory.mktemp("status"))
    stage.gateway.inject(to="dead@example.com", subject=HOSTILE)
    stage.gateway.inject(to=[f"later{n}@a-rather-long-name-for-a-phone.example.com" for n in range(5)])
    stage.find("later0@a-rather-long-name-for-a-phone.example.com", "waiting")
    yield stage
    stage.close()


@pytest.fixture(scope="module")
def phone(tmp_path_factory):
    """A browser with the window of a phone."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(option)
    options.add_experimental_option(
        "mobileEmulation", {"deviceMetrics": {"width": WIDTH, "height": HEIGHT, "pixelRatio": 1.0}}
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    env = {**os.environ, "SE_OFFLINE": "true"}
    browser = webdriver.Chrome(options, Service(DRIVER, env=env))
    yield browser
    browser.quit()


@pytest.fixture
def page(stage, phone):
    """The browser with the page, once its script has shown what there is."""
    phone.get(f"http://x:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{stage.port}/")
    wait(phone, lambda: "Up for" in text(phone))
    return phone


def wait(browser, what):
    WebDriverWait(browser, PATIENCE, 0.05).until(lambda _: what())


def text(browser):
    return browser.execute_script("return document.body ? document.body.innerText : ''")


def press(browser, label):
    button = next(b for b in browser.find_elements(By.TAG_NAME, "button") if b.text == label)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()


def test_a_wrong_password_shows_nothing(stage, phone):
    phone.get(f"http://x:wrong@127.0.0.1:{stage.port}/")
    assert "cold-store" not in phone.page_source
    statuses = [
        json.loads(line["message"])["message"]["params"]["response"]["status"]
        for line in phone.get_log("performance")
        if '"Network.responseReceived"' in line["message"] and f":{stage.port}/" in line["message"]
    ]
    assert statuses == [401]


def test_the_page_fits_a_phone_and_tells_all_of_it(page):
    said = text(page)
    for part in ("cold-store", "freezer", "-18.0 °C", "cool room", "Dead letters", "nobody of that name",
                 "gateway: ready", "tried 1 time, again in"):  # fmt: skip
        assert part in said
    assert page.title == "cold-store"
    wide = page.execute_script("""return [...document.querySelectorAll("*")].filter(
        e => e.getBoundingClientRect().right > innerWidth + 0.5 || e.scrollWidth > e.clientWidth + 1 && e.clientWidth
    ).map(e => e.outerHTML.slice(0, 200))""")
    assert wide == []
    assert page.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [WIDTH, WIDTH]
    small = [b.text for b in page.find_elements(By.TAG_NAME, "button") if b.size["height"] < 44]
    assert small == []  # a finger needs that much


def test_what_strangers_send_is_shown_and_does_nothing(stage, page):
    stage.ask("GET", "/" + HOSTILE[:8].replace("<", "").replace(">", ""))
    assert "<script>alert(1)</script> nobody of that name" in text(page)
    assert page.title == "cold-store"
    assert page.execute_script("return [document.images.length, document.scripts.length]") == [0, 1]
    said = [line["message"] for line in page.get_log("browser") if line["level"] == "SEVERE"]
    assert [line for line in said if "401" not in line] == []


def test_no_request_leaves_the_gateway(stage, page):
    asked = {
        re.sub("//.*@", "//", json.loads(line["message"])["message"]["params"]["request"]["url"])
        for line in page.get_log("performance")
        if '"Network.requestWillBeSent"' in line["message"]
    }
    here = f"http://127.0.0.1:{stage.port}/"
    assert {here, here + "status.json"} <= asked
    assert {url for url in asked if not url.startswith((here, "data:", "chrome:"))} == set()  # and its own pages


def test_both_buttons_work(stage, page):
    press(page, "Send a test mail")
    wait(page, lambda: "The test mail is in the queue." in text(page))
    stage.gateway.wait_for("delivered to oncall@example.com")
    since = stage.gateway.mark()
    press(page, "Start the queue")
    wait(page, lambda: "The queue was started." in text(page))
    stage.gateway.wait_for("deferred for later0", since=since)


def test_a_dead_letter_is_deleted_when_a_person_says_so_twice(stage, page):
    press(page, "Delete")
    page.switch_to.alert.dismiss()
    assert stage.find("dead@example.com")
    press(page, "Delete")
    page.switch_to.alert.accept()
    wait(page, lambda: "The mail was deleted." in text(page) and "Dead letters" not in text(page))
    assert not [m for m in stage.mails() if m["to"] == ["dead@example.com"]]


def test_the_page_says_when_the_gateway_does_not_answer(stage, page):
    stage.gateway.kill()
    page.execute_script("go()")
    wait(page, lambda: "The gateway does not answer." in text(page))
