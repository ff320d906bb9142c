"""The command that serves a run's documents to a browser."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from colophon.pipeline.cli.options import JsonOption, SetOption
from colophon.pipeline.cli.report import opened, tokenizer_loader
from colophon.pipeline.cli.terminal import echo, echo_json

DEFAULT_PORT = 0


def view(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Recipe file, name of a bundled recipe, or the output directory of a run."),
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1.", show_default="any free one")
    ] = DEFAULT_PORT,
    opens: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a page on this machine to search a run's documents and read them and their sequences, until Ctrl-C.

    Example: `colophon view recipes/web.toml --port 8765`
    """
    run, loaded = opened("view", recipe, settings)
    from colophon.pipeline.reports.view.calls import Calls
    from colophon.pipeline.reports.view.server import ViewServer

    calls = Calls(run, load_tokenizer=tokenizer_loader(run, loaded, where=recipe))
    with ViewServer(calls, port=port) as server:
        if as_json:
            echo_json({"url": server.url, "documents": calls.num_documents})
        else:
            echo(f"{run.path}: {calls.num_documents:,} documents at {server.url} (Ctrl-C ends)")
        if opens:
            import webbrowser

            webbrowser.open(server.url)
        with suppress(KeyboardInterrupt):  # the way to end it
            server.serve_forever()
