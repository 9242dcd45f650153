"""`spikeloom train` and `spikeloom eval`: the trainer and the evaluation with their own options."""

import typer

from .common import speaks

#: Options go through as they are.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@speaks
def train(context: typer.Context) -> None:
    """Train a model (needs torch); --help lists the options."""
    from ..model.train import main

    main(context.args)


@speaks
def evaluate(context: typer.Context) -> None:
    """Evaluate a model (needs torch); --help lists the options."""
    from ..model.evaluate import main

    main(context.args)
