"""One page of the Python reference for each part of the package; mkdocstrings reads the docstrings."""

from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "uniemo_ray"
_NOT_CODE = ("presets", "tiny")


def package_pages() -> dict[str, tuple[str, str]]:
    """Path in the site -> (title, text): one page for the root's modules, one for each package."""
    pages = {"reference/api/root.md": ("uniemo_ray", _page("uniemo_ray", sorted(PACKAGE.glob("[a-z]*.py"))))}
    for folder in sorted(PACKAGE.iterdir()):
        if (folder / "__init__.py").is_file() and folder.name not in _NOT_CODE:
            modules = sorted(folder.rglob("[a-z]*.py"))
            pages[f"reference/api/{folder.name}.md"] = (folder.name, _page(folder.name, modules))
    return pages


def _page(title: str, modules: list[Path]) -> str:
    text = f"# {title}\n\n"
    for module in modules:
        name = ".".join(["uniemo_ray", *module.relative_to(PACKAGE).with_suffix("").parts])
        text += f"::: {name}\n\n"
    return text
