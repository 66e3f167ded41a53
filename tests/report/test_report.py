import struct
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest

from superpose.report import FigureFiles, Grid, Images, Picture, Report, Section, Text, render


def svg(colour, width=320):
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}pt" height="200pt" '
        f'viewBox="0 0 {width} 200"><rect width="{width}" height="200" fill="{colour}"/></svg>'
    ).encode()


def png(pixels):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(np.uint8))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def digit(seed):
    rng = np.random.default_rng(seed)
    return png(np.kron(rng.integers(0, 2, (7, 7)), np.ones((4, 4))) * 200)


FIGURES = {
    "small": FigureFiles(svg("white"), svg("black")),
    "wide": FigureFiles(svg("white", 520), svg("black", 520)),
}


def report(**changes):
    parts = {
        "title": "Where twenty features find room in five dimensions",
        "subtitle": "Toy models over the whole range of densities, eight seeds each",
        "summary": ["Superposition begins at *p* = 0.41 [0.38, 0.44].", "The `TopK` code wins."],
        "sections": [
            Section(
                "Phases", [Text("A paragraph. " * 30), Picture("small", "Caption.", "Squares")]
            ),
            Section(
                "Recovery",
                [
                    Picture("wide", "Two panels.", "More squares"),
                    Grid(
                        ["dictionary", *(f"score {i}" for i in range(9)), "agrees"],
                        [["TopK", *[0.12345] * 9, True], ["a" * 60, *[None] * 9, False]],
                        "Scores.",
                    ),
                    Images([(digit(i), f"digit {i}") for i in range(9)], "Digits."),
                ],
            ),
        ],
        "manifest": {"command": "superpose run --seed 0", "seed": 0, "key": "x" * 300},
    }
    return Report(**(parts | changes))


class Reading(HTMLParser):
    """Elements in order, their attributes, and all text outside of styles and scripts."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self._inside = [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"style", "script"} & set(self._inside):
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


ATTACKS = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style></title></code></pre><img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    '" onload="alert(1)" x=\'',
    "' onerror='alert(1)",
    "{{ 7 * 7 }} {% raw %}",
    "`<b onclick=alert(1)>` and *<i onclick=alert(1)>*",
    "<!-- --><![CDATA[ x ]]>&lt;&#60;",
    "javascript:alert(1)",
    "a\x00b\x08c",
    "\ud800 alone",
]


def everywhere(text):
    """A report that carries a text in every place there is for one."""
    blocks = [
        Text(text),
        Picture("small", text, text),
        Grid([text, text], [[text, 1.0]], text),
        Images([(digit(0), text)], text),
    ]
    return report(
        title=text,
        subtitle=text,
        summary=[text],
        sections=[Section(text, blocks)],
        manifest={"command": text, text: text},
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_texts_make_no_elements(attack):
    harmless = Reading(render(everywhere("`a` and *b*" if "`" in attack else "words"), FIGURES))
    page = Reading(render(everywhere(attack), FIGURES))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in harmless.elements]
    assert not any(name.startswith("on") for _, names in page.elements for name in names)
    plain = attack.replace("`", "").replace("*", "") if "`" in attack else attack
    if plain.isprintable() and "7 * 7" not in plain:
        assert page.text.count(plain) >= 8
        assert page.all("img")[0]["alt"] == attack


def test_marks_that_reorder_text_are_made_visible():
    page = render(everywhere("gnp\u202egpj.\u2066x"), FIGURES)
    assert "\u202e" not in page
    assert "gnp⟨U+202E⟩gpj.⟨U+2066⟩x" in Reading(page).text


def test_every_page_can_be_encoded():
    for attack in ATTACKS:
        render(everywhere(attack), FIGURES).encode()


def test_only_code_and_emphasis_are_markup():
    finding = "`W*W` is *big*, 2 * 3 * 4 < 25 [no](link)"
    page = render(report(sections=[], summary=[finding]))
    wanted = "<code>W*W</code> is <em>big</em>, 2 * 3 * 4 &lt; 25 [no](link)"
    assert wanted in page


def test_nothing_is_fetched_from_elsewhere():
    page = Reading(render(report(), FIGURES))
    for _, attributes in page.elements:
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith(("#", "data:"))
        assert "style" not in attributes
    policy = page.all("meta")[1]["content"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


def test_headings_descend_by_one_and_pictures_are_described():
    page = Reading(render(report(), FIGURES))
    levels = [int(tag[1]) for tag, _ in page.elements if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) <= 1
    assert page.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in page.all("img"))


def test_identifiers_are_unique_and_links_lead_somewhere():
    page = Reading(render(report(), FIGURES))
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(names)) == len(names)
    assert {link["href"][1:] for link in page.all("a")} <= set(names)


def test_numbers_are_shown_short_and_set_right():
    numbers = [[-0.123456, 3, "0.5 [0.4, 0.6]"], [None, -4, ""], [float("nan"), 5, "−1"]]
    grid = Grid(["a", "b", "c"], numbers)
    assert grid.numeric == [True, True, True]
    page = Reading(render(report(sections=[Section("T", [grid])])))
    cells = [attributes for attributes in page.all("td") if attributes == {"class": "number"}]
    assert len(cells) == 9
    assert "−0.123" in page.text
    assert Grid(["a", "b"], [["x", True]]).numeric == [False, False]
    assert Grid(["a"], []).numeric == [False]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"row 1 has 1 cells for 2 columns"):
        Grid(["a", "b"], [[1, 2], [3]])
    with pytest.raises(ValueError, match=r"Picture\('wide'\).*there are small"):
        render(report(), {"small": FIGURES["small"]})


def test_equal_reports_make_equal_pages():
    assert render(report(), FIGURES) == render(report(), FIGURES)


VISIBLE = """selector => [...document.querySelectorAll(selector)].map(
    image => image.checkVisibility() && image.complete && image.naturalWidth > 0)"""
CONTRAST = """() => {
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!colour.startsWith('rgba(')) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let worst = [21, ''];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const pair = [light(getComputedStyle(element).color), light(ground(element))];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < worst[0]) worst = [ratio, walker.currentNode.data.trim()];
  }
  return worst;
}"""


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1440])
def test_a_page_opens_offline_and_fits(visit, width, scheme):
    seen = visit(render(report(), FIGURES), width, scheme)
    seen.page.locator("summary").click()
    assert seen.value("document.scrollingElement.scrollWidth <= innerWidth")
    shown = {"light": ".on-light", "dark": ".on-dark"}
    assert seen.page.evaluate(VISIBLE, shown.pop(scheme)) == [True, True]
    assert seen.page.evaluate(VISIBLE, shown.popitem()[1]) == [False, False]
    ratio, text = seen.value(CONTRAST)
    assert ratio >= 4.5, text
    assert [url for url in seen.requests if not url.startswith("data:")] == [seen.page.url]
    assert seen.complaints == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_toggle_overrides_the_system_and_is_remembered(visit, scheme):
    seen = visit(render(report(), FIGURES), scheme=scheme)
    background = "getComputedStyle(document.body).backgroundColor"
    paper = {"light": "rgb(253, 253, 251)", "dark": "rgb(20, 23, 26)"}
    for choice in ("dark", "light"):
        seen.page.get_by_text(choice.title(), exact=True).click()
        assert seen.value(background) == paper[choice]
        assert seen.page.evaluate(VISIBLE, f".on-{choice}") == [True, True]
    seen.page.reload()
    assert seen.value(background) == paper["light"]
    seen.page.get_by_text("Auto", exact=True).click()
    assert seen.value(background) == paper[scheme]
    assert seen.complaints == []


@pytest.mark.browser
def test_print_is_light_and_complete(visit):
    seen = visit(render(report(), FIGURES), scheme="dark")
    seen.page.get_by_text("Dark", exact=True).click()
    seen.page.emulate_media(media="print")
    assert seen.page.evaluate(VISIBLE, ".on-light") == [True, True]
    assert seen.page.evaluate(VISIBLE, ".on-dark, .theme, .contents") == [False] * 4
    assert seen.value("getComputedStyle(document.body).color") == "rgb(28, 30, 33)"
    assert seen.page.pdf().startswith(b"%PDF")
    assert seen.value("document.querySelector('details').open")


@pytest.mark.browser
@pytest.mark.parametrize("attack", ATTACKS)
def test_texts_execute_nothing(visit, attack):
    seen = visit(render(everywhere(attack), FIGURES))
    assert [url for url in seen.requests if not url.startswith("data:")] == [seen.page.url]
    assert seen.complaints == []


@pytest.mark.browser
def test_the_keyboard_reaches_the_findings_first(visit):
    seen = visit(render(report(), FIGURES))
    seen.page.keyboard.press("Tab")
    assert seen.value("document.activeElement.className") == "skip"
    assert seen.value("document.activeElement.getBoundingClientRect().left") >= 0
    seen.page.keyboard.press("Enter")
    assert seen.value("document.activeElement.id") == "findings"
