"""`kickserve model publish`: puts a model into a repository of the hub, or shows what would be put there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from kickserve.loading import load_file
from kickserve.settings import Settings
from kickserve.terminal import print_facts, print_json, say, stdout

if TYPE_CHECKING:
    from kickserve_models.publishing import Publication


@click.command("publish")
@click.argument("repository", metavar="REPO_ID")
@click.option("--file", type=click.Path(path_type=Path), help="The model's file; by default KICKSERVE_MODEL.")
@click.option("--upload", is_flag=True, help="Really do it. Without this, what would be done is shown.")
@click.option("--public", is_flag=True, help="Make a new repository public; otherwise it is private.")
@click.option("--license", "licence", help="Identifier of its licence on the hub, such as mit.")
@click.option("--json", "as_json", is_flag=True, help="Write the summary as JSON.")
def command(
    repository: str,
    file: Path | None,
    licence: str | None,
    *,
    upload: bool,
    public: bool,
    as_json: bool,
) -> None:
    r"""Publish a model on the Hugging Face hub, with a card that tells how good it is.

    Nothing is uploaded without --upload. What is there already under the same names is replaced, and stays in
    the repository's history.

    \b
    Examples:
      kickserve model publish me/kicks --file model.json
      HF_TOKEN=... kickserve model publish me/kicks --file model.json --public --license mit --upload
    """
    from kickserve_models.publishing import prepare, publish  # the hub's library takes its time

    settings = Settings.load()
    chosen = file or settings.model
    if chosen is None:
        raise click.UsageError("say which model: --file model.json, or KICKSERVE_MODEL")
    # Loaded as it would be served: what can't be served is not published.
    card = load_file(chosen).card
    publication = prepare(repository, chosen, card, private=not public, licence=licence)
    if upload:
        publication = publish(publication, settings)
    if as_json:
        print_json(_summary(publication))
    else:
        _show(publication)


def _summary(publication: Publication) -> dict[str, object]:
    return {
        "repository": publication.repository,
        "private": publication.private,
        "files": {name: len(data) for name, data in publication.files.items()},
        "uploaded": publication.commit is not None,
        "commit": publication.commit,
        "url": publication.url,
    }


def _show(publication: Publication) -> None:
    if publication.commit is None:
        stdout().print(publication.files["README.md"].decode(), markup=False, soft_wrap=True)
    kind = "private" if publication.private else "public"
    facts = [("repository", f"{publication.repository}, {kind} where it is new")]
    facts += [("file", f"{name}, {len(data):,} bytes") for name, data in publication.files.items()]
    if publication.commit is not None:
        serve = f"HF_REPO_ID={publication.repository} HF_REVISION={publication.commit} kickserve serve"
        facts += [("published", publication.url or ""), ("serve it with", serve)]
    print_facts(facts)
    if publication.commit is None:
        say("Nothing was uploaded. Above is its card; --upload publishes it.")
