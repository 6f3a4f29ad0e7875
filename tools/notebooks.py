"""Execute notebooks in place and keep only what a reader sees.

python -m tools.notebooks examples/*.ipynb
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

TIMEOUT_S = 600
"""For one cell."""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""What a notebook says of its kernel; versions and times would change with every execution."""


def execute(path: Path) -> NotebookNode:
    """Run all cells of a notebook in its own folder.

    Returns:
        The notebook with its new outputs; the file is left as it was.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT_S,
        kernel_name="python3",
        resources=resources,
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def main() -> None:
    """Execute every notebook that is named on the command line."""
    for name in sys.argv[1:]:
        path = Path(name)
        nbformat.write(execute(path), path)
        print(f"executed {path}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
