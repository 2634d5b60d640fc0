"""``headway chaos R1``: break the plane on purpose, on a stack of its own, and say whether its promises held."""

from argparse import ArgumentParser, Namespace

from headway.commands import Outcome, Run, Say


def chaos_command(parser: ArgumentParser) -> Run:
    """Run one reliability test; holds when the promise held and every fault is proven."""
    from orchestration.chaos.tests_table import TESTS, find_test

    parser.add_argument("test", help="; ".join(f"{entry.name}: {entry.promise}" for entry in TESTS))
    parser.add_argument("--short", action="store_true", help="a minute or two instead of the whole test")
    parser.add_argument("--seed", type=int, help="of the schedule and the events; default: the commit's first 8 digits")
    parser.add_argument(
        "--mutant",
        help="plant this bug, to see the test fail: "
        + "; ".join(f"{entry.name}: {', '.join(entry.mutants)}" for entry in TESTS if entry.mutants),
    )

    def run(arguments: Namespace, say: Say) -> Outcome:
        from headway.errors import ContractViolation
        from orchestration.chaos.report import Trial

        entry = find_test(arguments.test)
        if arguments.mutant is not None and arguments.mutant not in entry.mutants:
            raise ContractViolation(
                f"{entry.name}: got the mutant {arguments.mutant!r}, wanted one of {', '.join(entry.mutants)}"
            )
        seed = arguments.seed if arguments.seed is not None else seed_of_commit()
        trial = Trial(test=entry.name, short=arguments.short, seed=seed, mutant=arguments.mutant, say=say)
        report = entry.load()(trial)
        return Outcome(holds=report.held, facts=report.facts(), lines=report.lines())

    return run


def seed_of_commit() -> int:
    """Return the first 8 hexadecimal digits of the commit under test; 0 without a checkout."""
    import subprocess

    from headway.settings import project_root

    try:
        said = subprocess.run(
            ["git", "rev-parse", "--short=8", "HEAD"],  # noqa: S607 - found on PATH, as for everybody
            cwd=project_root(),
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return 0
    return int(said.stdout.strip()[:8], 16)
