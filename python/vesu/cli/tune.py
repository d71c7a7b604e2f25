"""Tuning: `vesu tune`."""

from pathlib import Path

from vesu.cli.arguments import Arguments, Commands, command


def add(commands: Commands) -> None:
    """Declare the command."""
    tuned = command(
        commands, "tune", _tune, "tune what comes after a finished run's model, and judge it on other volumes"
    )
    tuned.add_argument("run", type=Path, metavar="RUN", help="run folder")
    tuned.add_argument("--data", type=Path, help="the run's data folder (default: where the run found it)")
    tuned.add_argument("--trials", type=int, default=40, metavar="N", help="trials of each seed (default: 40)")
    tuned.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds of the sampler (default: 3)")
    tuned.add_argument(
        "--metric",
        choices=("score", "f_beta"),
        default="score",
        help="what is maximised: the competition's score (default), or F-beta, which is quicker",
    )
    tuned.add_argument("--space", type=Path, metavar="FILE", help="TOML file of what is tuned (docs/tuning.md)")
    tuned.add_argument(
        "--volumes", type=int, default=8, metavar="N", help="validation volumes: half choose, half judge (default: 8)"
    )
    tuned.add_argument("--cache", type=Path, help="folder for the model's probabilities (default: RUN/cache)")
    tuned.add_argument("--restart", action="store_true", help="give up what an earlier tuning of this run left")
    tuned.add_argument("--quiet", action="store_true", help="no line a trial")


def _tune(arguments: Arguments) -> None:
    from vesu.run.tuning import tune
    from vesu.tuning import read_space

    def on_trial(seed: int, n: int, value: float) -> None:
        if not arguments.quiet:
            print(f"seed {seed}, trial {n} of {arguments.trials}: {arguments.metric} {value:.4f}", flush=True)

    found = tune(
        arguments.run,
        arguments.data,
        trials=arguments.trials,
        seeds=range(arguments.seeds),
        metric=arguments.metric,
        space=None if arguments.space is None else read_space(arguments.space),
        max_volumes=arguments.volumes,
        cache=arguments.cache,
        restart=arguments.restart,
        on_trial=on_trial,
    )
    print(found)
