"""Uploads a report to an Evidently workspace: the cloud, one's own `evidently ui`, or a folder for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from requests import RequestException

from kickserve.errors import ConfigurationError, ServiceAway

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

    from kickserve.settings import Settings

_CLOUD: Final = "evidently.cloud"


def upload(snapshot: Snapshot, settings: Settings) -> str:
    """Add a report to the project that the settings name, which is made where it is missing.

    Only what is drawn goes there, no kick.

    Returns:
        Where it is now.

    Raises:
        ServiceAway: the workspace can't be reached.
        ConfigurationError: it is there, but refuses, or the settings can't be used.
    """
    address = settings.evidently_url or ""
    try:
        workspace = _workspace(address, settings.evidently_key)
        found = workspace.search_project(settings.evidently_project)
        project = found[0] if found else workspace.create_project(settings.evidently_project)
        return str(workspace.add_run(project.id, snapshot).url)
    except RequestException as error:
        raise _explained(address, error) from error
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"KICKSERVE_EVIDENTLY_URL={address} can't be used: {error}") from error


def _workspace(address: str, key: str | None) -> Any:
    """Open a workspace, whatever its kind: they have the same methods."""
    from evidently.ui.workspace import CloudWorkspace, RemoteWorkspace, Workspace

    if not address.startswith(("http://", "https://")):
        return Workspace.create(address)
    host = urlsplit(address).hostname or ""
    if host == _CLOUD or host.endswith(f".{_CLOUD}"):
        if key is None:
            raise ValueError("Evidently Cloud needs KICKSERVE_EVIDENTLY_KEY")
        return CloudWorkspace(token=key, url=address)
    return RemoteWorkspace(address, secret=key)


def _explained(address: str, error: RequestException) -> ServiceAway | ConfigurationError:
    if error.response is None:
        return ServiceAway(f"no Evidently workspace answers at {address} ({type(error).__name__})")
    return ConfigurationError(
        f"the Evidently workspace at {address} answered {error.response.status_code}:"
        " look at KICKSERVE_EVIDENTLY_KEY and KICKSERVE_EVIDENTLY_PROJECT"
    )
