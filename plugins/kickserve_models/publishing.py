"""Publishes a model in a repository of the Hugging Face hub, with a card of its origin and quality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from huggingface_hub import CommitOperationAdd, EvalResult, HfApi, ModelCardData
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it is documented there
from msgspec import Struct
from msgspec.structs import replace

from kickserve.errors import RemoteError, first_line
from kickserve.features import BY_NAME
from kickserve.plugins import ModelUnusable
from kickserve_models.hub import JSON

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kickserve.schemas import ModelCard

# The names of files in the repository: by these `HF_REPO_ID` finds them before others of their kind.
_NAMES: Final = {".json": JSON, ".onnx": "model.onnx", ".skops": "model.skops"}
_README: Final = "README.md"
_SCORES: Final = {
    "brier": ("brier_score", "Brier score (0 is best)"),
    "log_loss": ("log_loss", "log loss"),
    "ece": ("expected_calibration_error", "expected calibration error"),
    "auc": ("roc_auc", "area under the ROC curve"),
}
_MESSAGE: Final = "A model for kickserve"
_TASK: Final = "tabular-classification"
_REFUSED: Final = (401, 403)


class Publication(Struct, kw_only=True, frozen=True):
    """The files for a repository, before or after they are uploaded.

    Attributes:
        repository: its name, `owner/name`.
        private: whether a new repository becomes private.
        files: their contents by their names there.
        commit: the new revision; null where nothing was uploaded.
        url: of the commit's page; null likewise.
    """

    repository: str
    private: bool
    files: dict[str, bytes]
    commit: str | None = None
    url: str | None = None


def check_publishable(repository: str, file: Path) -> None:
    """Check a name and a kind of file, before the file is read.

    Args:
        repository: `owner/name`.
        file: of the model.

    Raises:
        ModelUnusable: the name is none, or the file of a kind that others could not load safely.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ModelUnusable(f"{repository} is no name of a repository: it must read owner/name") from error
    if "/" not in repository:
        raise ModelUnusable(f"{repository} lacks the owner: it must read owner/name")
    if file.suffix.lower() not in _NAMES:
        raise ModelUnusable(
            f"{file.name} is not published: only JSON, ONNX and skops run no code of their own. A pickle can"
            " be saved with skops or as ONNX"
        )


def prepare(
    repository: str, file: Path, card: ModelCard, *, private: bool, licence: str | None
) -> Publication:
    """Make the files of a publication.

    Args:
        repository: `owner/name`.
        file: of the model, which passes `check_publishable` and has been loaded.
        card: of the model.
        private: whether a new repository becomes private.
        licence: its identifier on the hub, such as `mit`; None for a card without one.
    """
    readme = "".join(_readme(repository, card, licence))
    return Publication(
        repository=repository,
        private=private,
        files={_NAMES[file.suffix.lower()]: file.read_bytes(), _README: readme.encode()},
    )


def publish(publication: Publication, token: str | None) -> Publication:
    """Upload the files in one commit; the repository is made where there is none.

    Args:
        publication: made by `prepare`.
        token: of the hub; None for the login of the hub's own command line.

    Raises:
        RemoteError: the hub can't be reached or refuses; the message names the next step.
    """
    name = publication.repository
    try:
        api = HfApi(token=token)
        api.create_repo(name, private=publication.private, exist_ok=True)
        additions = [CommitOperationAdd(path, data) for path, data in publication.files.items()]
        made = api.create_commit(name, additions, commit_message=_MESSAGE)
    except HfHubHTTPError as error:
        raise RemoteError(_refusal(name, error)) from error
    except Exception as error:  # the hub's library passes on those of its HTTP client, whichever that is
        raise RemoteError(f"the hub can't be reached ({first_line(error)}): nothing was published") from error
    return replace(publication, commit=made.oid, url=made.commit_url)


def _refusal(repository: str, error: HfHubHTTPError) -> str:
    if error.response.status_code in _REFUSED:
        return f"the hub does not let you write to {repository}: set HF_TOKEN to a token that may write there"
    return f"the hub did not take {repository}: {first_line(error)}"


# The card, in the hub's own form: a head of YAML, and a text.


def _readme(repository: str, card: ModelCard, licence: str | None) -> Iterator[str]:
    head = ModelCardData(
        license=licence,
        library_name="kickserve",
        pipeline_tag=_TASK,
        tags=["rugby", "kicks", "calibration", "tabular"],
        model_name=card.name,
        eval_results=list(_results(card)) or None,
    )
    yield f"---\n{head.to_yaml()}\n---\n\n# {card.name}\n\n{card.description}\n\n"
    if card.trained_on.get("simulated"):
        yield "**Trained on simulated kicks, not on recorded ones.**\n\n"
    yield f"Takes {len(card.features)} features of a rugby place kick: {', '.join(card.features)}.\n"
    yield "It gives the probability that the kick succeeds.\n\n"
    yield f"```console\n$ pip install kickserve\n$ HF_REPO_ID={repository} kickserve serve\n```\n\n"
    yield from _limits(card)
    yield from _facts("How it was made", card.trained_on)
    yield from _quality(card.metrics)


def _limits(card: ModelCard) -> Iterator[str]:
    yield "## What it knows\n\n"
    for name, (low, high) in card.domain.items():
        yield f"- {name} from {low:g} to {high:g} {BY_NAME[name].unit}".rstrip() + "; beyond, it warns\n"
    if not card.domain:
        yield "- Its file does not tell on which kicks it was trained, so it can't warn of others.\n"
    if card.assumed:
        yield f"- Its effects of {', '.join(card.assumed)} are assumptions: no data show them.\n"
    yield f"- {card.interval or 'It gives no interval of the probability.'}\n\n"


def _facts(title: str, facts: Mapping[str, Any]) -> Iterator[str]:
    if not facts:
        return
    yield f"## {title}\n\n"
    for name, value in facts.items():
        if isinstance(value, list):
            yield f"- {name.replace('_', ' ')}:\n" + "".join(f"  - {each}\n" for each in value)
        elif value is not None and value is not False:
            yield f"- {name.replace('_', ' ')}: {value}\n"
    yield "\n"


def _quality(metrics: Mapping[str, Any]) -> Iterator[str]:
    if not metrics:
        return
    yield f"## How good it is\n\nMeasured on {metrics.get('measured_on', 'kicks that are not named')}.\n\n"
    yield "| measure | value | standard error |\n| --- | --- | --- |\n"
    for name, (_, words) in _SCORES.items():
        if isinstance(metrics.get(name), float):
            error = metrics.get(f"{name}_se")
            shown = f"{error:.4f}" if isinstance(error, float) else ""
            yield f"| {words} | {metrics[name]:.4f} | {shown} |\n"
    yield "\n"
    yield from _reliability(metrics.get("reliability"))


def _reliability(found: Any) -> Iterator[str]:
    """Make a table of bins (mean probability, share that succeeded, kicks): a file may hold anything."""
    try:
        bins = msgspec.convert(found or [], list[tuple[float, float, float]])
    except msgspec.ValidationError:
        return
    if not bins:
        return
    yield "| kicks | mean probability | share that succeeded |\n| --- | --- | --- |\n"
    for predicted, succeeded, count in bins:
        yield f"| {count:,.0f} | {predicted:.1%} | {succeeded:.1%} |\n"


def _results(card: ModelCard) -> Iterator[EvalResult]:
    for name, (metric, words) in _SCORES.items():
        if isinstance(card.metrics.get(name), float):
            yield EvalResult(
                task_type=_TASK,
                dataset_type="rugby-place-kicks",
                dataset_name=str(card.metrics.get("measured_on", "kicks that are not named")),
                metric_type=metric,
                metric_name=words,
                metric_value=round(card.metrics[name], 4),
            )
