"""The command group, and what happens to errors."""

import os
import sys

import click

from tightrope import __version__
from tightrope.errors import TightropeError
from tightrope.plugins import import_optional

COMMANDS = {
    "fit": "fit",
    "compress": "fit",
    "convert": "comparison",
    "compare": "comparison",
    "rebuild": "fit",
    "report": "fit",
    "verify": "bundles",
    "measure": "bundles",
    "show": "bundles",
    "embed": "bundles",
    "score": "bundles",
    "classify": "bundles",
    "pack": "bundles",
    "unpack": "bundles",
    "bench-worker": "bundles",
    "export": "export",
    "index": "index",
    "model": "model",
    "serve": "serve",
    "key": "key",
    "probe": "prediction",
    "predict": "prediction",
    "targets": "lists",
    "recipes": "lists",
    "cache": "lists",
    "completion": "lists",
}
"""Each command, and the file beside this one that holds it: only the one that is called is imported."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_optional(f"tightrope.cli.{COMMANDS[cmd_name]}", wanted_by=f"tightrope {cmd_name}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tightrope")
def cli() -> None:
    """Fit a model to a small device, and prove that it still works.

    \b
    tightrope fit all-MiniLM-L6-v2 --budget "speedup>=1.8x, size<=30MB, loss<=1%" --out minilm.bundle
    tightrope verify minilm.bundle
    tightrope embed minilm.bundle sentences.txt --out vectors.npy
    """


def main() -> None:
    """Run the command line; an error of ours becomes two lines and exit code 1, never a traceback.

    Ctrl-C while a library of C++ loads (pybind11) comes as an ImportError that it caused.
    """
    try:
        code = cli(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except TightropeError as error:
        click.echo(f"tightrope: {error.message}\n           {error.hint}", err=True)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output went away: `tightrope recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort, ImportError) as error:
        if isinstance(error, ImportError) and not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        click.echo("tightrope: interrupted; nothing was left half-written.", err=True)
        sys.stdout.flush()
        os._exit(130)  # an interpreter that a library's own code was interrupted in would end by the signal instead
    except MemoryError:
        click.echo(
            "tightrope: this machine ran out of memory.\n           Give smaller inputs, or more room.", err=True
        )
        sys.exit(1)
