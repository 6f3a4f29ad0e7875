"""MkDocs hook: adds the generated pages, and inlines SVG diagrams so that they follow the page's colours."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tools.docs.commands import command_pages
from tools.docs.http import http_page, service_settings_page
from tools.docs.packages import package_pages
from tools.docs.settings import settings_page

ROOT = Path(__file__).parents[2]
PYTHON_NAV = "Python API"
_DIAGRAM = re.compile(r'<img alt="([^"]*)" src="[^"]*diagrams/([a-z0-9-]+\.svg)"\s*/?>')


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put one entry per package below "Python API" of the navigation."""
    pages = [{title: path} for path, (title, _) in package_pages().items()]
    for section in config.nav or []:
        for entries in section.values():
            for entry in entries if isinstance(entries, list) else []:
                if isinstance(entry, dict) and PYTHON_NAV in entry:
                    entry[PYTHON_NAV] = [*entry[PYTHON_NAV], *pages]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the code, and the two that lie in the repository's root."""
    pages = {
        "reference/settings.md": settings_page(),
        "reference/http.md": http_page(),
        "reference/service-settings.md": service_settings_page(),
        "project/contributing.md": (ROOT / "CONTRIBUTING.md").read_text(),
        "project/changelog.md": (ROOT / "CHANGELOG.md").read_text().replace("](docs/", "](../"),
        **command_pages(),
        **{path: text for path, (_, text) in package_pages().items()},
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace images of `docs/images/diagrams` by the SVG itself."""

    def inline(match: re.Match[str]) -> str:
        svg = (Path(config.docs_dir) / "images" / "diagrams" / match[2]).read_text()
        return svg.replace("<svg ", f'<svg aria-label="{match[1]}" ', 1)

    return _DIAGRAM.sub(inline, html)
