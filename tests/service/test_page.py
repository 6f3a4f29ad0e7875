"""The page's files: complete, from this server alone, and labelled for screen readers."""

import re
from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest

from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.service.api.page import FILES

PAGES = ("/", "/docs")


class Elements(HTMLParser):
    """All elements with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("url", PAGES)
def test_everything_comes_from_this_server(client, url):
    response = client.get(url)
    assert response.headers["content-type"].startswith("text/html")
    for _, attributes in Elements(response.text).found:
        assert not any(name.startswith("on") or name == "style" for name in attributes), attributes
        for name in ("src", "href"):
            target = attributes.get(name)
            if target and not target.startswith("#"):
                assert not target.startswith(("/", "http")), target  # relative, so that a prefix is kept
                assert client.get(urljoin(url, target)).status_code == 200, target


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_server(client, name):
    response = client.get(f"/page/{name}")
    assert response.status_code == 200
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", response.text)
    for module in re.findall(r'from "\./([\w.]+)"', response.text):
        assert module in FILES
    assert not re.findall(
        r"""["'`]/(?:v1|page|docs)\b""", response.text
    )  # relative, so that a prefix is kept


def test_there_is_no_way_out_of_the_folder(client):
    for name in ("..%2fapp.py", "%2e%2e/app.py", "app.py", "../settings.py", ""):
        assert client.get(f"/page/{name}").status_code == 404


def test_scripts_find_their_elements():
    ids = {
        a["id"]
        for page in ("index.html", "docs.html")
        for _, a in Elements(FILES[page].read_text()).found
        if "id" in a
    }
    for name, path in FILES.items():
        if name.endswith(".js"):
            for wanted in re.findall(r'\$\("([\w-]+)"\)', path.read_text()):
                assert wanted in ids, (name, wanted)


def test_every_field_has_a_label_and_every_emotion_a_colour():
    text = FILES["index.html"].read_text()
    fields = [a for tag, a in Elements(text).found if tag in ("input", "select")]
    labelled = "".join(re.findall(r"<label.*?</label>", text, re.DOTALL))
    assert len(fields) > 8
    for field in fields:
        mark = f'id="{field["id"]}"' if "id" in field else f'value="{field["value"]}"'
        assert mark in labelled, field
    for emotion in EMOTIONS:
        assert f'[data-emotion="{emotion}"]' in FILES["style.css"].read_text()
