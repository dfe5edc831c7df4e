"""Changes of outcomes, in both databases: triggers note them, so that a learner need not read all again.

Each statement that sets, corrects, takes back or deletes an outcome, or takes a name off it, notes in
`kickserve_changes` the earliest `outcome_at` that it touches, whatever program runs it. The last notes are
kept; who has not looked for longer reads everything.
"""

from __future__ import annotations

from typing import Final

KEPT: Final = 10_000
"""The newest notes, which are kept."""

SQLITE: Final = (
    "CREATE TABLE kickserve_changes (number INTEGER PRIMARY KEY, at INTEGER NOT NULL)",
    f"""CREATE TRIGGER kickserve_changes_kept AFTER INSERT ON kickserve_changes BEGIN
        DELETE FROM kickserve_changes WHERE number <= new.number - {KEPT};
    END""",  # noqa: S608 - a number
    """CREATE TRIGGER predictions_changed AFTER UPDATE OF outcome, outcome_at, kicker ON predictions
        WHEN coalesce(old.outcome_at, new.outcome_at) IS NOT NULL BEGIN
        INSERT INTO kickserve_changes (at) VALUES (min(
            coalesce(old.outcome_at, new.outcome_at), coalesce(new.outcome_at, old.outcome_at)));
    END""",
    """CREATE TRIGGER predictions_deleted AFTER DELETE ON predictions WHEN old.outcome_at IS NOT NULL BEGIN
        INSERT INTO kickserve_changes (at) VALUES (old.outcome_at);
    END""",
)
"""The step of SQLite's schema."""

# The newest note, and the earliest instant of those behind a mark.
SQLITE_CHANGES: Final = """SELECT (SELECT max(number) FROM kickserve_changes),
    (SELECT min(at) FROM kickserve_changes WHERE number > ?)"""

# Numbers of notes are given before their transactions end, and not in the order in which these end. So a
# reader asks for the notes of all transactions that had not ended when it asked before (`xact`), and passes
# over those that it has seen. Notes that another transaction removes as well are left to that one.
POSTGRES: Final = f"""
    CREATE TABLE kickserve_changes (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at timestamptz NOT NULL,
        xact xid8 NOT NULL DEFAULT pg_current_xact_id()
    );
    CREATE INDEX kickserve_changes_xact ON kickserve_changes (xact);
    CREATE FUNCTION kickserve_note_change(first timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    DECLARE made bigint; BEGIN
        IF first IS NULL THEN RETURN; END IF;
        INSERT INTO kickserve_changes (at) VALUES (first) RETURNING number INTO made;
        DELETE FROM kickserve_changes WHERE number IN (
            SELECT number FROM kickserve_changes WHERE number <= made - {KEPT}
            ORDER BY number LIMIT 100 FOR UPDATE SKIP LOCKED);
    END $$;
    CREATE FUNCTION kickserve_predictions_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    BEGIN
        IF TG_OP = 'UPDATE' THEN
            PERFORM kickserve_note_change(least(
                (SELECT min(outcome_at) FROM before), (SELECT min(outcome_at) FROM after)));
        ELSE
            PERFORM kickserve_note_change((SELECT min(outcome_at) FROM before));
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER kickserve_changed AFTER UPDATE ON predictions
        REFERENCING OLD TABLE AS before NEW TABLE AS after
        FOR EACH STATEMENT EXECUTE FUNCTION kickserve_predictions_changed();
    CREATE TRIGGER kickserve_removed AFTER DELETE ON predictions
        REFERENCING OLD TABLE AS before
        FOR EACH STATEMENT EXECUTE FUNCTION kickserve_predictions_changed()
"""  # noqa: S608 - a number
"""The step of Postgres' schema, before the rights of others are given to the table."""

# The bounds of transactions under way, and the newest note; of notes behind a mark the earliest instant of
# those not seen, and the numbers of those that the next look may see again.
POSTGRES_CHANGES: Final = """SELECT pg_snapshot_xmin(now)::text, pg_snapshot_xmax(now)::text,
        (SELECT max(number) FROM kickserve_changes),
        (SELECT min(at) FROM kickserve_changes WHERE xact >= $1::text::xid8 AND number <> ALL($2::bigint[])),
        (SELECT coalesce(array_agg(number), '{}') FROM kickserve_changes WHERE xact >= pg_snapshot_xmin(now))
    FROM pg_current_snapshot() AS now"""
POSTGRES_NOTE: Final = "SELECT kickserve_note_change('epoch')"
"""Notes that outcomes have gone with a whole month, which fires no trigger."""
