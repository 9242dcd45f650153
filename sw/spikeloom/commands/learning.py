"""`spikeloom train`, `distil`, `eval` and `ablate`: trainer, distillation, evaluation and ablations with their own options."""

import typer

from .common import DIFFERS, speaks

#: Options go through as they are.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@speaks
def train(context: typer.Context) -> None:
    """Train a model (needs torch); --help lists the options."""
    from ..model.train import main

    main(context.args)


@speaks
def distil(context: typer.Context) -> None:
    """Train a student from a softmax teacher, which is trained first where there is none (needs torch); --help lists the options."""
    from ..model.distil import main

    main(context.args)


@speaks
def evaluate(context: typer.Context) -> None:
    """Evaluate a model (needs torch); --help lists the options, --suite NAME --help those of the other suites."""
    if any(argument.split("=")[0] == "--suite" for argument in context.args):
        from .suites import main as suites

        if suites(context.args):
            raise typer.Exit(DIFFERS)
        return
    from ..model.evaluate import main

    main(context.args)


@speaks
def ablate(context: typer.Context) -> None:
    """Run the ablations, or report them (needs torch); --help lists the options."""
    from ..model.ablations import main

    main(context.args)
