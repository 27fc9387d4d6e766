"""`evolve report`: what the page tells, that no name can harm it, and how it looks and works in a real browser."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import pytest
from browser import errors_in, open_browser, resize
from click.testing import CliRunner
from made_study import drawn, make_study

from evolve.cli import cli
from evolve.page import write
from evolve.report import page_of, view_into
from evolve.summary import summarise
from search_spaces import Param, Space
from studies import build_pruner, build_sampler, open_study, sqlite_url
from studies.trials import BASE, FAILURE

HOSTILE = "<script>document.title='owned'</script>"
CHINESE = "数字检测"
SECTIONS = ["history", "curves", "hyps", "importances", "lineage", "parallel", "workers", "trials", "provenance"]


def report(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["report", *arguments])


def page_for(study: Any) -> str:
    return write(page_of(study, view_into(study), None))


def small(name: str, url: str, **params: Any) -> Any:
    """A study that has no run folder."""
    space = Space("small", tuple(params.values()) or (Param("lr0", 0.01, 1e-4, 0.5, log=True),))
    return open_study(
        name,
        url,
        sampler=build_sampler("random", space, seed=0),
        pruner=build_pruner("none", epochs=6, warmup_epochs=0),
        identity={"space": space.to_dict(), "epochs": 6, "trainer": "toy:ToyTrainer"},
        base=space.defaults(),
        base_seeds=0,
    )


# --------------------------------------------------------------------------------------------------------------------
# what it tells
# --------------------------------------------------------------------------------------------------------------------


def test_the_report_lies_in_the_run_folder_and_holds_everything(tmp_path):
    paths, _ = make_study(tmp_path, 40, name=CHINESE)
    result = report(CHINESE, "--runs", str(tmp_path))
    assert (result.exit_code, result.output.strip()) == (0, str(paths.report))
    page = paths.report.read_text(encoding="utf-8")
    assert f"<h1>{CHINESE}</h1>" in page
    assert re.findall(r'<section id="(\w+)"', page) == [
        *("history", "changes", "curves", "hyps", "importances", "lineage", "parallel", "workers", "trials"),
        *("export", "provenance"),
    ]
    assert page.count("<tr data-state=") == 40
    assert escape(f"evolve export {shlex.quote(str(paths.root))} --format") in page, "it lies in no ./runs"
    assert "evolve train --hyp" in page
    assert len(page.encode()) < 10e6


def test_any_storage_will_do_and_no_run_folder_is_needed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = f"journal:{tmp_path}/studies.log"
    study = small("far", url)
    study.add_trial(drawn(3, 1))
    result = report("far", "--storage", url)
    assert (result.exit_code, result.output.strip()) == (0, "report.html")
    assert report("far", "--storage", url, "-o", "other.html").exit_code == 0
    page = Path("other.html").read_text(encoding="utf-8")
    assert "<h1>far</h1>" in page
    assert escape(f"evolve export far --storage {url} --format") in page
    assert "runs/" not in page.partition('<section id="export"')[2].partition("</section>")[0]


def test_a_password_of_the_storage_stands_in_no_command(tmp_path):
    study = small("far", "memory:")
    study.add_trial(drawn(3, 1))
    page = write(page_of(study, view_into(study), None, "postgresql://me:hunter2@db/studies"))
    assert escape("evolve export far --storage 'postgresql://me:***@db/studies' --format") in page
    assert "hunter2" not in page


def test_a_study_beside_another_in_its_database_leaves_that_ones_folder_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths, _ = make_study(tmp_path / "runs", 3)
    paths.train_log(1).parent.mkdir(parents=True, exist_ok=True)
    paths.train_log(1).write_text("a line of points\n")
    url = sqlite_url(paths.database)
    other = small("two", url)
    for number in range(2):
        other.add_trial(drawn(number, 1))
    assert report("two", "--storage", url).output.strip() == "report.html"
    assert not paths.report.exists()
    assert "points" not in CliRunner().invoke(cli, ["show", "1", "two", "--storage", url]).output
    assert report("points", "--storage", url).exit_code == 0
    assert paths.report.exists()


def test_a_study_that_is_not_there_is_one_sentence(tmp_path):
    result = report("nothing", "--runs", str(tmp_path))
    assert result.exit_code == 2
    assert "there is no study 'nothing'" in result.output


def test_the_page_asks_the_network_for_nothing_and_says_so_to_the_browser(tmp_path):
    _, study = make_study(tmp_path, 5)
    page = page_for(study)
    assert "default-src 'none'" in page
    ours = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)  # Plotly's names places that it never asks here
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", ours)


def test_no_password_stands_on_the_page(tmp_path):
    _, study = make_study(tmp_path, 30)
    page = page_for(study)
    assert "no answer from postgresql://me" in page
    assert "secret" not in page


def test_failures_stand_with_their_reasons(tmp_path):
    _, study = make_study(tmp_path, 30)
    table = page_for(study).partition("Why trials failed")[2]
    assert "<td>3</td><td>7</td>" in table[:2000], "trials 7, 18 and 29, for one reason"


@pytest.mark.parametrize(
    ("trials", "certainty", "told"),
    [
        (0, "nothing", "No trial has completed yet."),
        (1, "nothing", "Nothing has beaten the base yet"),
        (40, "open", "which no race has confirmed"),
    ],
)
def test_the_verdict_comes_first_and_says_no_more_than_is_known(tmp_path, trials, certainty, told):
    _, study = make_study(tmp_path, trials)
    summary = summarise(view_into(study))
    assert summary.certainty == certainty
    assert told in summary.sentence
    page = page_for(study)
    assert page.index('class="verdict') < page.index('<section id="history"')
    assert ("pruning saved" in summary.sentence) == (trials > 1)


def test_of_several_goals_the_front_is_told(tmp_path):
    _, study = make_study(tmp_path, 40, objective="map50_95,latency_ms")
    summary = summarise(view_into(study))
    assert summary.sentence.startswith("The front has ")
    page = page_for(study)
    assert '<section id="front">' in page
    assert '<th scope="col"><button type="button">latency_ms</button></th>' in page


# --------------------------------------------------------------------------------------------------------------------
# in a browser
# --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as driver:
        yield driver


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[int, Path]:
    """Reports of studies of so many trials."""
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for trials in (0, 1, 40, 1000):
        _, study = make_study(folder, trials, name=f"of{trials}" if trials != 40 else CHINESE, storage="memory:")
        found[trials] = folder / f"{trials}.html"
        found[trials].write_text(page_for(study), encoding="utf-8")
    return found


def opened(browser: Any, path: Path, width: int = 1400) -> Any:
    """The page, when all that is to be drawn is."""
    from selenium.webdriver.support.ui import WebDriverWait

    resize(browser, width)
    browser.get(path.as_uri())
    WebDriverWait(browser, 120).until(is_drawn)
    return browser


def is_drawn(browser: Any) -> bool:
    return bool(browser.execute_script("return document.documentElement.dataset.drawn === 'all'"))


def is_drawn_in(theme: str, browser: Any) -> bool:
    return browser.execute_script("return document.documentElement.dataset.theme") == theme and is_drawn(browser)


@pytest.mark.parametrize("width", [1400, 420])
@pytest.mark.parametrize("trials", [0, 1, 40, 1000])
def test_every_picture_is_drawn_without_an_error(browser, pages, trials, width):
    page = opened(browser, pages[trials], width)
    assert errors_in(page) == []
    drawn_traces = page.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('.plot')].map((plot) => [plot.id.slice(5),"
        " [plot.data.filter((trace) => trace.visible !== false).length, plot.querySelectorAll('.trace').length,"
        " plot.getBoundingClientRect().width]]))"
    )
    assert set(drawn_traces) == {"history", "curves", "hyps", "importances", "lineage", "parallel", "workers"}
    for name, (asked, there, wide) in drawn_traces.items():
        assert there >= asked, name
        assert asked or trials < 40, name
        assert 300 < wide <= width or name in ("parallel", "workers"), name
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    requests = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in requests if not name.startswith(("data:", "blob:"))] == []


def test_pointing_at_a_trial_tells_of_it(browser, pages):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    page = opened(browser, pages[40])
    point = page.find_elements("css selector", "#plot-lineage .scatterlayer .point")[-1]
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", point)
    ActionChains(page).move_to_element(point).perform()
    WebDriverWait(page, 20).until(lambda driver: driver.find_elements("css selector", "#plot-lineage .hovertext"))
    told = page.find_element("css selector", "#plot-lineage .hovertext").text
    assert re.search(r"trial \d+ · complete", told)
    assert "→" in told


def test_what_a_name_holds_is_shown_and_not_run(browser, tmp_path):
    url = sqlite_url(tmp_path / "study.db")
    study = small(HOSTILE, url, one=Param(HOSTILE, HOSTILE, choices=(HOSTILE, "b")), two=Param("x", 0.5, 0.0, 1.0))
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from optuna.trial import TrialState, create_trial

    for number in range(8):
        failed = number == 7
        study.add_trial(
            create_trial(
                state=TrialState.FAIL if failed else TrialState.COMPLETE,
                values=None if failed else [number / 10],
                params={HOSTILE: "b" if number else HOSTILE, "x": 0.5 if not number else number / 10},
                distributions={HOSTILE: CategoricalDistribution((HOSTILE, "b")), "x": FloatDistribution(0, 1)},
                user_attrs={FAILURE: HOSTILE, "operator": HOSTILE, **({BASE: True} if not number else {})},
            )
        )
    path = tmp_path / "report.html"
    assert report(HOSTILE, "--storage", url, "-o", str(path)).exit_code == 0
    page = opened(browser, path)
    assert page.title == f"{HOSTILE} · evolve"
    assert page.find_element("tag name", "h1").text == HOSTILE
    assert HOSTILE in page.find_element("css selector", "#trials tbody").text
    assert page.find_elements("css selector", "script") and errors_in(page) == []
    scripts = [script.get_attribute("textContent") for script in page.find_elements("css selector", "script")]
    assert [len(text) for text in scripts if text.startswith("document.title")] == []


def test_controls_work_by_keyboard(browser, pages):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    page = opened(browser, pages[40])
    page.find_element("tag name", "body").send_keys(Keys.TAB)
    theme = page.switch_to.active_element
    assert theme.get_attribute("id") == "theme", "it is the first that Tab reaches"
    before = page.execute_script("return document.documentElement.dataset.theme")
    theme.send_keys(Keys.ENTER)
    WebDriverWait(page, 60).until(is_drawn)
    assert page.execute_script("return document.documentElement.dataset.theme") != before
    head = page.find_element("xpath", "//div[@id='trials' or .]//th[button[text()='fitness']]")
    head.find_element("tag name", "button").send_keys(Keys.ENTER)
    assert head.get_attribute("aria-sort") == "descending"
    told = [cell for cell in column(page, "fitness") if cell]
    assert told == sorted(told, key=float, reverse=True)
    assert column(page, "fitness")[: len(told)] == told, "those without one come last"
    head.find_element("tag name", "button").send_keys(Keys.SPACE)
    assert [cell for cell in column(page, "fitness") if cell] == told[::-1]
    page.find_element("id", "states").send_keys("pruned")
    rows = page.find_elements("css selector", "#trials tbody tr")
    assert {row.get_attribute("data-state") for row in rows if row.is_displayed()} == {"pruned"}


def column(page: Any, name: str) -> list[str]:
    script = (
        "const heads = [...document.querySelectorAll('#trials th')].map((head) => head.textContent.trim());"
        "const at = heads.indexOf(arguments[0]);"
        "return [...document.querySelectorAll('#trials tbody tr')].map((row) => row.children[at].textContent)"
    )
    found: list[str] = page.execute_script(script, name)
    return found


CONTRAST = """
const light = (rgb) => {
  const [r, g, b] = rgb.map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const parts = (css) => css.match(/[\\d.]+/g).map(Number);
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = parts(getComputedStyle(at).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour.slice(0, 3);
  }
  return [255, 255, 255];
};
const selectors = "h1, h2, p, button, select, nav a, th, td, dt, dd, summary, pre, label, footer, li, .command span";
return [...document.querySelectorAll(selectors)].filter((element) => element.offsetParent).map((element) => {
  const [one, other] = [light(parts(getComputedStyle(element).color).slice(0, 3)), light(behind(element))];
  return [(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), element.outerHTML.slice(0, 80)];
}).sort((a, b) => a[0] - b[0])[0];
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(browser, pages, theme):
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    )
    page = opened(browser, pages[40])
    assert page.execute_script("return document.documentElement.dataset.theme") == theme
    least, where = page.execute_script(CONTRAST)
    assert least >= 4.5, where


def test_a_page_follows_when_the_system_turns_dark(browser, pages):
    from selenium.webdriver.support.ui import WebDriverWait

    def colour_of_text() -> str:
        title = browser.find_element("css selector", "#plot-history .xtitle")
        return str(title.value_of_css_property("fill"))

    seen = []
    for theme in ("light", "dark"):
        features = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
        if not seen:
            opened(browser, pages[40])
        WebDriverWait(browser, 60).until(partial(is_drawn_in, theme))
        seen.append(colour_of_text())
    assert seen == ["rgb(34, 39, 46)", "rgb(227, 231, 237)"]
