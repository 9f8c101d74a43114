"""`bellhop run`: a node."""

import os
from pathlib import Path

import click

from bellhop.node.cli.output import json_option
from bellhop.node.config import NodeConfig, load_config
from bellhop.node.metrics import Metrics
from bellhop.node.observe import Refusal, adopt_stderr, configure_logs


@click.command("run")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@click.pass_context
def run(context: click.Context, file: Path, as_json: bool) -> None:
    """Run the node that FILE describes, until SIGTERM.

    It logs to stderr; --json logs one JSON object a line whatever FILE says.

    Exit codes: 0 stopped, 2 configuration, 5 its random number generator, 70 a bug (start it anew),
    74 its disk.
    """
    config = load_config(file)
    metrics = node_metrics(config)

    def refused(refusal: Refusal) -> None:
        metrics.refused("", refusal.reason)

    stderr = adopt_stderr(refused)
    form = "json" if as_json else config.observe.log_format
    configure_logs(config.observe.log_level, form, stderr.stream)
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # workers are started anew, never forked from us
    # Only now: grpc must find stderr as it is to stay.
    from bellhop.node.daemon import run_node

    code = run_node(config, metrics)
    stderr.close()
    context.exit(code)


def node_metrics(config: NodeConfig) -> Metrics:
    """The figures of this node, with every word that may become a label."""
    from bellhop.hal.watched import Fault
    from bellhop.node.conversation import Reason
    from bellhop.node.witness import CORE_REFUSALS
    from bellhop.stack.diqkd.endings import ABORT_KINDS
    from bellhop.stack.messages import Stage

    return Metrics(
        peers=[peer.name for peer in config.peer],
        abort_reasons=[*ABORT_KINDS.values()],
        refusal_reasons=[*Reason, *CORE_REFUSALS, *Fault],
        stages=[stage.value for stage in Stage],
    )
