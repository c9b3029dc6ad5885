"""Compares runs: `python -m src.report [DIR] [output=FILE.html] [--open]`.

Prints a table over the runs in DIR (experiments/), seeds and folds grouped as mean ± std, and
writes one HTML page, and a CSV, a Markdown and a PNG file of the same name (DIR/report.html);
--open shows the page in a browser.
"""

import os
import sys
import webbrowser
from pathlib import Path

from src.cli.environment import provide_home
from src.report.chart import draw_groups
from src.report.page import page
from src.runs.reading import SCORES, read_runs
from src.runs.tables import Overview, screen_tables, to_csv, to_markdown
from src.utils.console import console, setup_logging
from src.utils.errors import UserError, nearest
from src.utils.files import write_text


def main(arguments: list[str]) -> None:
    """Runs the command.

    Raises:
        UserError: An argument is not understood, or there are no runs.
    """
    root, output = parse_arguments([argument for argument in arguments if argument != "--open"])
    if output.parent.is_dir() and not os.access(output.parent, os.W_OK):
        raise UserError(f"{output.parent}: not writable; give output=FILE.html in another folder")
    overview = Overview.of(read_runs(root))
    if not overview.trained and not overview.evaluated:
        raise UserError(f"{root}: holds no runs that can be read; train one, or give their folder")
    for table in screen_tables(overview):
        console.print(table)
    for run in [*overview.trained, *overview.evaluated]:
        if run.status == "failed":
            console.print(f"{run.name} failed: {run.reason}", style="red")
    write_text(output.with_suffix(".csv"), to_csv(overview))
    write_text(output.with_suffix(".md"), to_markdown(overview))
    also = ".csv and .md"
    if any(group.spread(SCORES[0])[2] for group in overview.groups):
        draw_groups(output.with_suffix(".png"), overview, f"runs in {root}")
        also = ".csv, .md and .png"
    write_text(output, page(overview, root, output.parent))
    console.print(f"{output}, and as {also}", soft_wrap=True)
    if "--open" in arguments and not webbrowser.open(output.resolve().as_uri()):
        console.print("no browser can be started here: open the page by hand")


def parse_arguments(arguments: list[str]) -> tuple[Path, Path]:
    """The folder of the runs and the HTML file to write."""
    root, output = Path("experiments"), None
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or Path(argument).is_dir():
            root = Path(argument)
        elif key == "output" and Path(value).suffix == ".html":
            output = Path(value).expanduser()
        elif key == "output":
            raise UserError(f"output={value}: expected a file name that ends in .html")
        else:
            raise UserError(f"{key}: unknown key{nearest(key, ['output']) or '; known: output'}")
    return root, output or root / "report.html"


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        console.print(__doc__.strip(), highlight=False)
        sys.exit()
    setup_logging()
    provide_home()
    try:
        main(sys.argv[1:])
    except UserError as error:
        console.print("error:", style="bold red", end=" ")
        console.print(str(error), highlight=False, soft_wrap=True)
        sys.exit(1)
