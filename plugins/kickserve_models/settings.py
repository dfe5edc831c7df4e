"""The settings of the plugin `models`."""

from __future__ import annotations

from dataclasses import dataclass

from kickserve.plugins import SettingsTable, kinds, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsSettings(SettingsTable):
    """The settings of the hub, of pickles, and of labels."""

    hf_repo_id: str | None = setting(
        "HF_REPO_ID", "", kinds.text, "Repository on the Hugging Face hub that holds the model."
    )
    hf_revision: str = setting(
        "HF_REVISION",
        "main",
        str.strip,
        "Branch, tag or commit of `HF_REPO_ID`; only a commit never changes.",
    )
    hf_token: str | None = setting(
        "HF_TOKEN", "", kinds.text, "Token for a private or gated repository on the hub.", secret=True
    )
    hf_offline: bool = setting(
        "HF_HUB_OFFLINE", "0", kinds.switch, "Whether files of the hub come from the local cache alone."
    )
    allow_pickle: bool = setting(
        "KICKSERVE_ALLOW_PICKLE",
        "0",
        kinds.switch,
        "Whether a model may be a pickle (.pkl, .pickle, .joblib); loading a pickle runs the code in the"
        " file.",
    )
    success_label: str | None = setting(
        "KICKSERVE_SUCCESS_LABEL",
        "",
        kinds.text,
        "Label of a kick that succeeds, in an ONNX or scikit-learn model whose labels are not 0 and 1:"
        " `goal`, `2`, ….",
    )
