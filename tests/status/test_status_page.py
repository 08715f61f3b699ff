"""The page in a real Chromium: what it shows, live, by keyboard, with the token, and hostile mail: it stays text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import ENTER, ESCAPE, TAB, Browser
from looking import Looked, Remembered, accepted, counted
from queueing import entry
from serving import Served, beside

from smtpmaild.queue import State
from smtpmaild.server.house import Reload
from smtpmaild.status.site import Access
from smtpmaild.web.guard import Token

pytestmark = pytest.mark.debian

SECRET = "correct-horse-battery"
#: What tries to be more than text: markup, handlers, a turn of direction, what cannot be seen, very much of it.
SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
TURNED = "invoice\u202egnp.exe"
LONG = "A" * 5000
HOSTILE = f'"<svg/onload=document.title=1>"@{"x" * 60}.example'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    memory = Remembered(tmp_path_factory.mktemp("history"))
    accepted(memory, "Q1", subject="Minutes of the meeting", recipients=["alice@example.com", "bob@example.com"])
    accepted(memory, "Q2", subject=SCRIPT, reverse_path=HOSTILE, helo=SCRIPT)
    accepted(memory, "Q3", subject=TURNED, message_id=LONG)
    accepted(memory, "Q4", subject=LONG, peer=SCRIPT)
    memory.add("delivered", queue_id="Q1", recipient="alice@example.com", reply="250 2.0.0 Ok", age=2.0)
    mail = [entry(f"b{number}@y.example", queue_id=f"00000000000000000{number}") for number in range(3)]
    held = entry("c@z.example", queue_id="00000000000000000H", state=State.HELD)
    looked = Looked(tmp_path_factory.mktemp("page"), *mail, held, memory=memory, access=Access(Token(SECRET)))
    with beside(looked) as one:
        one.run(looked.feed.look)
        yield one


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Browser]:
    browser.look(1280, 900)
    browser.open(served.url)
    browser.until_text("#live", "live")
    browser.until_text("#messages-list", "Minutes of the meeting")
    yield browser
    assert browser.console() == [], "the page complained, or the browser forbade it something"
    assert browser.script("return document.title") == "mx.example · smtpmaild"


#: Where on the page, and what stands there.
CONTENT = (
    ("#hostname", ["mx.example"]),
    ("#state", ["serving"]),
    ("#tiles", ["Accepted", "Sessions\n3 open", "In the queue\n4"]),
    ("#legend", ["Accepted", "Refused", "Deferred"]),
    ("#refusals", ["local_domains.example.com (smtp.yaml:9)", "550 5.1.1 at RCPT", "30", "no command of SMTP"]),
    ("#listeners", ["mx", "127.0.0.1:25"]),
    ("#networks", ["192.0.2.0/24", "3"]),
    ("#queue", ["mx:y.example", "mx:z.example", "1 held"]),
    ("#stores", ["mail", "free"]),
    ("#workers", ["Worker 0", "serving", "lag 2 ms"]),
    ("#certificates", ["mx.example, mail.example", "59 days", "/etc/mx.pem"]),
    (
        "#messages-list",
        ["carol@sender.example → alice@example.com and 1 more", "accepted", "192.0.2.7:4711", "2 KB"],
    ),
)


def test_content(page: Browser) -> None:
    for selector, texts in CONTENT:
        for text in texts:
            page.until_text(selector, text)


def test_chart_is_drawn(page: Browser) -> None:
    page.until(lambda: page.count("#chart canvas"), "the chart")
    assert "last hour" in str(page.script("return document.querySelector('#chart').getAttribute('aria-label')"))
    page.script("document.querySelector('input[name=span][value=\"1440\"]').click()")
    assert "last day" in str(page.script("return document.querySelector('#chart').getAttribute('aria-label')"))


def test_it_is_live(page: Browser, served: Served) -> None:
    looked = served.looked
    assert looked.memory is not None
    memory = looked.memory
    served.run(looked.feed.look)  # from here on messages are news
    busier = counted()
    busier.refusals.count("MAIL", "550 5.7.1", "new rule")
    busier.messages_accepted += 7

    def more() -> None:
        looked.staged.pulse(1, sessions={"mx": 41}, networks={"198.51.100.0/24": 41}, counters=busier.counters())
        accepted(memory, "Q9", subject="Just in")
        looked.observer._last = None  # the clock of the desk stands still

    served.run(more)
    served.run(looked.feed.look)
    page.until_text("#messages-list", "Just in")
    page.until_text("#networks", "198.51.100.0/24")
    page.until_text("#sessions-count", "42 open")
    page.until_text("#legend", "Accepted 7")
    page.until_text("#refusals", "new rule")


#: Lets the answers to one question wait for window.go().
SLOW_LIST = """
const fetched = window.fetch;
window.fetch = async (...all) => {
  const answer = await fetched(...all);
  if (!String(all[0]).startsWith("/api/messages?")) return answer;
  const text = await answer.text();
  await new Promise((go) => { window.go = go; });
  return new Response(text, {status: answer.status, headers: answer.headers});
};
document.getElementById("search").requestSubmit();
"""


def test_news_that_come_while_the_list_is_read(page: Browser, served: Served) -> None:
    looked = served.looked
    memory = looked.memory
    assert memory is not None
    served.run(looked.feed.look)
    page.script(SLOW_LIST)
    page.until(lambda: page.script("return Boolean(window.go)"), "the list")
    served.run(lambda: accepted(memory, "Q10", subject="While you read"))
    served.run(looked.feed.look)
    page.until_text("#messages-list", "While you read")
    page.script("window.go(); setTimeout(() => { window.isDrawn = true; }, 300);")
    page.until(lambda: page.script("return window.isDrawn"), "the list as it was")
    page.until_text("#messages-list", "While you read")
    assert page.text("#messages-list").count("Minutes of the meeting") == 1


def test_a_refused_reload_is_told(page: Browser, served: Served) -> None:
    looked = served.looked

    def refused(is_good: bool) -> None:
        looked.reload_was(Reload(1, 0.0, is_good=is_good, cause=f"smtp.yaml:3: {SCRIPT}"))
        looked.observer._last = None

    served.run(lambda: refused(False))
    served.run(looked.feed.look)
    page.until_text("#notice", "was refused, the configuration before it serves on: smtp.yaml:3: <script>")
    served.run(lambda: refused(True))
    served.run(looked.feed.look)
    page.until(lambda: page.count("#notice[hidden]"), "the end of the notice")


def test_hostile_mail_is_text(page: Browser) -> None:
    shown = page.text("#messages-list")
    assert "<script>document.title='owned'</script>" in shown
    assert "invoice\\u{202e}gnp.exe" in shown
    assert "\u202e" not in shown
    assert LONG not in shown
    assert page.count("#messages-list script, #messages-list img, #messages-list svg") == 0
    assert page.script("return document.documentElement.scrollWidth <= innerWidth")


def test_the_life_of_hostile_mail_is_text(page: Browser) -> None:
    for name in ("Q2", "Q3", "Q4"):
        search(page, name)
        page.click("#messages-list button")
        page.until_text("#life-events", "Accepted")
        assert page.count("#life script, #life img, #life svg") == 0
        assert page.script("return document.querySelector('#life').scrollWidth <= innerWidth")
        page.keys(ESCAPE)
    search(page, "")


def search(page: Browser, text: str) -> None:
    page.script(
        "const field = document.querySelector('#search-text'); field.value = arguments[0];"
        "field.dispatchEvent(new Event('input'))",
        text,
    )
    first = "return document.querySelector('#messages-list button')?.dataset.at ?? ''"
    page.until(
        lambda: str(page.script(first)).startswith(f"{text} ") if text else page.count("#messages-list tbody tr") > 1,
        f"what was found for {text!r}",
    )


def test_keyboard_alone(page: Browser) -> None:
    page.keys("/")
    page.keys(*"MINUTES")
    page.until(lambda: page.count("#messages-list tbody tr") == 1, "one message")
    page.keys(TAB, ENTER)
    page.until_text("#life-events", "Delivered")
    assert page.text("#life-title") == "Minutes of the meeting"
    assert "alice@example.com" in page.text("#life-events")
    page.keys(ESCAPE)
    assert page.count("dialog[open]") == 0
    assert str(page.script("return document.activeElement.innerText")).startswith("carol@")
    page.keys("/", ESCAPE)
    page.until(lambda: page.count("#messages-list tbody tr") > 1, "all messages again")


def test_news_leave_the_keyboard_where_it_is(page: Browser, served: Served) -> None:
    looked = served.looked
    assert looked.memory is not None
    memory = looked.memory
    served.run(looked.feed.look)
    page.script("[...document.querySelectorAll('#messages-list button')].at(-1).focus()")
    before = page.script("return document.activeElement.dataset.at")
    served.run(lambda: accepted(memory, "Q7", subject="Meanwhile"))
    served.run(looked.feed.look)
    page.until_text("#messages-list", "Meanwhile")
    assert page.script("return document.activeElement.dataset.at") == before


def test_nothing_is_found(page: Browser) -> None:
    page.script(
        "const field = document.querySelector('#search-text'); field.value = 'nobody at all';"
        "document.querySelector('#search').requestSubmit()"
    )
    page.until_text("#messages-list", "Nothing was found.")
    page.keys("/", ESCAPE)


def test_steering_wants_the_token_and_a_second_look(page: Browser, served: Served) -> None:
    page.click("#queue button")
    page.until_text("#queue", "000000000000000000")
    assert page.count("#queue .row-actions button") == 0

    page.click("#token-button")
    page.keys(*"wrong-token-wrong", ENTER)
    page.until_text("#token-error", "This is not the token.")
    page.script("document.querySelector('#token-text').value = ''")
    page.keys(*SECRET, ENTER)
    page.until_text("#token-button", "Forget token")
    page.until_text("#queue", "drop")
    assert page.count("dialog[open]") == 0

    drop = "const all = [...document.querySelectorAll('#queue tbody tr .row-actions button')];"
    page.script(f"{drop} all.find((one) => one.textContent === 'drop').click()")
    assert page.text("#confirm-title") == "Drop this message?"
    page.keys(ESCAPE)
    assert waiting(served) == 4

    page.script(  # asked again before the browser has told that the dialog was closed
        f"{drop} const one = all.find((one) => one.textContent === 'drop'); one.click();"
        "document.querySelector('#confirm').close(); one.click()"
    )
    assert page.count("#confirm[open]") == 1
    page.keys(*"a test", ENTER)
    page.until(lambda: page.count("dialog[open]") == 0, "the end of the question")
    assert waiting(served) == 3
    page.until(lambda: "000000000000000000\n" not in page.text("#queue"), "one message less")

    page.click("#token-button")
    page.until_text("#token-button", "Enter token")
    page.until(lambda: page.count("#queue .row-actions button") == 0, "no more buttons")


def waiting(served: Served) -> int:
    queue = served.looked.desk.queue
    assert queue is not None
    return len([*queue.find({})])


def test_a_phone_is_enough(page: Browser) -> None:
    page.look(360, 700, "dark")
    assert page.script("return document.documentElement.scrollWidth") == 360
    assert page.script("return getComputedStyle(document.body).backgroundColor") == "rgb(18, 21, 26)"
    page.script("document.querySelector('#queue button').click()")
    page.until_text("#queue", "deferred" if "deferred" in page.text("#queue") else "queued")
    assert page.script("return document.documentElement.scrollWidth") == 360


def test_daemon_that_went_away_is_told(browser: Browser, tmp_path: Path) -> None:
    with beside(Looked(tmp_path)) as alone:
        browser.look(1280, 900)
        browser.open(alone.url)
        browser.until_text("#live", "live")
        browser.until_text("#messages-list", "No history is kept")
        browser.until(lambda: browser.script("return document.querySelector('#token-button').hidden"), "no button")
    browser.until_text("#live", "no connection")


def test_a_page_that_may_not_be_read_asks_for_the_token(browser: Browser, tmp_path: Path) -> None:
    with beside(Looked(tmp_path, access=Access(Token(SECRET), for_reading=True))) as private:
        browser.look(1280, 900)
        browser.open(private.url)
        browser.until(lambda: browser.count("#token-dialog[open]"), "the question")
        assert "y.example" not in browser.text("body")
        browser.keys(*SECRET, ENTER)
        browser.until_text("#live", "live")
        browser.until_text("#queue", "mx:y.example")
