"""The page of a report in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fserr_bpf_compare import report
from tests.live.browser import Browser
from tests.live.conftest import IN_LAB, skip
from tests.unit.report_cells import RUN, one_of_each, whole_matrix
from tests.unit.test_report import HOSTILE, SEEN, hostile

PHONE, DESKTOP = (390, 844), (1280, 900)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if IN_LAB:
        skip("a browser is slow in an emulated machine; the host runs it", expected=True)
    if shutil.which("chromedriver") is None or shutil.which("chromium") is None:
        skip("needs Debian's packages chromium and chromium-driver", expected=False)
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with the four outcomes, a hostile cell, and a matrix wider than a phone."""
    directory = tmp_path_factory.mktemp("report")
    few = [one for one in whole_matrix() if one.cell.scenario.endswith(("_3", "_33"))]
    report.write(directory, [*one_of_each(), hostile(), *few], RUN)
    return (directory / "index.html").as_uri()


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
@pytest.mark.parametrize("unfolded", [False, True])
def test_page_never_scrolls_sideways(
    browser: Browser, url: str, size: tuple[int, int], unfolded: bool
) -> None:
    browser.show(*size, "light")
    browser.open(url)
    if unfolded:
        browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
    assert browser.run("return innerWidth") == size[0]
    assert browser.run("return document.documentElement.scrollWidth") == size[0]


def test_matrix_scrolls_and_its_first_column_stays(browser: Browser, url: str) -> None:
    browser.show(*PHONE, "light")
    browser.open(url)
    before, after, moved = browser.run("""
        const scroll = document.querySelector('#matrix .scroll')
        const name = document.querySelector('.matrix th[scope=row]')
        const before = name.getBoundingClientRect().left
        scroll.scrollLeft = 100
        return [before, name.getBoundingClientRect().left, scroll.scrollLeft]
    """)
    assert moved == 100
    assert before == after


def test_hostile_text_is_text(browser: Browser, url: str) -> None:
    browser.open(url)
    found = browser.run("""
        return {
            active: document.querySelectorAll(
                'script, img, iframe, object, embed, link, form, svg').length,
            handlers: [...document.querySelectorAll('*')].filter(
                e => [...e.attributes].some(a => a.name.startsWith('on') && a.name != 'open')
            ).length,
            log: [...document.querySelectorAll('#different .lines li')].map(e => e.textContent),
            lines: [...document.querySelectorAll('#different .lines li')].map(
                e => getComputedStyle(e).whiteSpaceCollapse),
        }
    """)
    assert (found["active"], found["handlers"]) == (0, 0)
    assert "<script>alert(1)</script>" + SEEN in found["log"]
    assert "two\nlines" in found["log"]
    assert set(found["lines"]) == {"preserve"}
    assert HOSTILE not in browser.run("return document.documentElement.textContent")


def test_nothing_is_loaded_and_nothing_refused(browser: Browser, url: str) -> None:
    browser.open("about:blank")
    browser.requests()
    browser.console()
    browser.open(url)
    assert browser.requests() == [url]
    assert browser.console() == []  # the style's hash is right: a refused one would be here


def test_policy_refuses_what_would_be_smuggled_in(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.run("""
        document.body.insertAdjacentHTML('beforeend',
            '<img src="x.png" onerror="window.hit = 1"><div id=smuggled style="color: red">')
        const script = document.createElement('script')
        script.textContent = 'window.hit = 1'
        document.body.append(script)
    """)
    assert browser.run("return window.hit === undefined")
    assert browser.run("return document.getElementById('smuggled').style.color") == ""
    assert len(browser.console()) >= 3


def test_links_reach_their_targets(browser: Browser, url: str) -> None:
    browser.open(url)
    links, dangling, twice = browser.run("""
        const links = [...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href'))
        const ids = [...document.querySelectorAll('[id]')].map(e => e.id)
        return [
            links.length,
            links.filter(link => link[0] != '#' || !ids.includes(link.slice(1))),
            ids.length - new Set(ids).size,
        ]
    """)
    cells = browser.run("return document.querySelectorAll('.detail').length")
    assert links >= 2 * cells
    assert dangling == []
    assert twice == 0


def test_link_unfolds_its_cell(browser: Browser, url: str) -> None:
    browser.show(*DESKTOP, "light")
    browser.open(url)
    target = browser.run("return document.querySelector('#same .detail').id")
    unfolded = f"return document.getElementById('{target}').closest('details').open"
    assert not browser.run(unfolded)
    browser.click(f".matrix a[href='#{target}']")
    assert browser.run(unfolded)
    top = browser.run(f"return document.getElementById('{target}').getBoundingClientRect().top")
    assert 0 <= top < DESKTOP[1]


def test_cells_that_are_not_the_same_are_open(browser: Browser, url: str) -> None:
    browser.open(url)
    closed = browser.run("""
        return ['different', 'broken', 'not-run', 'same'].map(
            id => document.querySelectorAll(`#${id} > details:not([open])`).length)
    """)
    assert closed[:3] == [0, 0, 0]
    assert closed[3] > 0


def contrast(browser: Browser, selector: str) -> float:
    """Contrast of an element's text with its background, as WCAG 2 counts."""
    ratio = browser.run(
        """
        const rgb = (css) => css.match(/[\\d.]+/g).map(Number)
        const light = (css) => rgb(css).slice(0, 3).map(c => c / 255)
            .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0)
        const element = document.querySelector(arguments[0])
        let back = element
        while (rgb(getComputedStyle(back).backgroundColor)[3] === 0) back = back.parentElement
        const both = [
            light(getComputedStyle(element).color),
            light(getComputedStyle(back).backgroundColor),
        ].sort((a, b) => b - a)
        return (both[0] + 0.05) / (both[1] + 0.05)
        """,
        selector,
    )
    return float(ratio)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_kind_of_text_can_be_read(browser: Browser, url: str, scheme: str) -> None:
    browser.show(*DESKTOP, scheme)
    browser.open(url)
    for selector in (
        *("h1", ".quiet", "a[href='#matrix']", ".badge.same", ".badge.different"),
        *(".badge.broken", ".badge.not-run", "mark", ".event caption strong", ".lines li"),
        *(".totals .same a", ".totals .different a", ".totals .broken a", ".totals .not-run a"),
    ):
        assert contrast(browser, selector) >= 4.5, selector


def test_dark_and_light_differ(browser: Browser, url: str) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        browser.show(*DESKTOP, scheme)
        browser.open(url)
        color = browser.run("return getComputedStyle(document.body).backgroundColor")
        grounds.append(sum(map(int, color.removeprefix("rgb(").removesuffix(")").split(","))))
    light, dark = grounds
    assert light > 700
    assert dark < 100


def test_outcomes_differ_without_colour(browser: Browser, url: str) -> None:
    browser.open(url)
    badges = browser.run("""
        return ['same', 'different', 'broken', 'not-run'].map(outcome => {
            const style = getComputedStyle(document.querySelector(`.matrix .badge.${outcome}`))
            const sign = document.querySelector(`.matrix .badge.${outcome} .sign`).textContent
            return [sign, `${style.borderRadius} ${style.outlineStyle} ${style.fontWeight}`]
        })
    """)
    signs, shapes = zip(*badges, strict=True)
    assert signs == ("=", "≠", "!", "○")
    assert len(set(shapes[:3])) == 3


def test_whole_matrix_lays_out_only_what_is_open(browser: Browser, tmp_path: Path) -> None:
    """What makes a page of 420 cells quick to open: closed details are not rendered."""
    report.write(tmp_path, whole_matrix(), RUN)
    browser.show(*PHONE, "dark")
    browser.open((tmp_path / "index.html").as_uri())
    look = """
        const details = [...document.querySelectorAll('.detail, .detail *')]
        return [document.querySelectorAll('.matrix .badge').length,
                details.length, details.filter(e => e.checkVisibility()).length,
                document.documentElement.scrollWidth]
    """
    cells, elements, rendered, width = browser.run(look)
    assert cells == 420
    assert elements > 100_000
    assert rendered == 0
    assert width == PHONE[0]
    browser.run("document.querySelector('.detail').closest('details').open = true")
    assert 0 < browser.run(look)[2] < elements / cells * 2
