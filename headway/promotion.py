"""``headway promote``: a responsible person says which version should be served (SEMANTICS S15).

It sets the alias `champion` and nothing else; the release guard makes live equal to it, or says why not.
"""

from argparse import ArgumentParser, Namespace

from headway.commands import Outcome, Run, Say


def promote_command(parser: ArgumentParser) -> Run:
    """Point `champion` at a version."""
    parser.add_argument("product", help="for example the name of a folder in products/")
    parser.add_argument("--version", type=int, help="default: the version with alias `candidate`")

    def run(arguments: Namespace, _say: Say) -> Outcome:
        from headway.adapters.mlflow import MlflowRegistry, tame_client
        from headway.errors import PermanentFailure
        from headway.registry import CANDIDATE, CHAMPION
        from headway.settings import Settings

        tame_client()
        registry = MlflowRegistry(Settings().mlflow_url)
        version = arguments.version
        if version is None:
            candidate = registry.alias(arguments.product, CANDIDATE)
            if candidate is None:
                raise PermanentFailure(
                    f"{arguments.product}: no version has the alias {CANDIDATE!r}, so none passed the gate; "
                    "name one with --version, or train again"
                )
            version = candidate.version
        registry.set_alias(arguments.product, CHAMPION, version)
        line = f"{arguments.product}: champion is version {version}; the release guard makes it live"
        return Outcome(holds=True, facts={"product": arguments.product, "champion": version}, lines=[line])

    return run
