"""Says in words what a run of `kickserve batch` came to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kickserve_data.scoring import Summary
    from kickserve_scores.quality import Quality


def facts_of(summary: Summary) -> list[tuple[str, str]]:
    """Return names and values."""
    mean = "none" if summary.mean_prediction is None else f"{summary.mean_prediction:.1%}"
    facts = [
        ("predicted", f"{summary.sent:,}"),
        ("refused", f"{summary.refused:,}"),
        ("mean probability", mean),
        ("rate", f"{summary.rate:,.0f} kicks a second"),
    ]
    if summary.skipped:
        facts.insert(2, ("left out", f"{summary.skipped:,}, by --min-distance"))
    if summary.warned:
        facts.append(("with a warning", f"{summary.warned:,}"))
    if not summary.kept:
        facts.append(("kept", "no, only written: --keep does both"))
    if summary.not_carried:
        names = ", ".join(summary.not_carried)
        facts.append(("not carried along", f"{names}: the output has columns of its own by that name"))
    return [*facts, *([] if summary.quality is None else quality_facts(summary.quality))]


def quality_facts(quality: Quality) -> list[tuple[str, str]]:
    """Say in words how good predictions were."""
    return [
        ("outcomes known", f"{quality.count:,}, of which {quality.success_rate:.1%} succeeded"),
        ("Brier score", f"{quality.brier:.4f}"),
        ("log loss", f"{quality.log_loss:.4f}"),
        ("ECE", f"{quality.ece:.4f}"),
        ("AUC", "none: all came out alike" if quality.auc is None else f"{quality.auc:.4f}"),
    ]
