"""Tables of the answer database, on SQLite or PostgreSQL.

The audit trail is append-only: triggers of the database refuse to update or delete its rows. A row
of `judgements` is the current answer; every earlier one is in the trail.
"""

from __future__ import annotations

import sqlalchemy as sa

VERSION = "1"
"""Version of the tables, stored in `settings`."""

METADATA = sa.MetaData()

SETTINGS = sa.Table(
    "settings",
    METADATA,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
"""The version, the secret that picture names are made with, and the row that writers lock."""

ITEMS = sa.Table(
    "items",
    METADATA,
    sa.Column("item", sa.String(64), primary_key=True),
    sa.Column("set", sa.String(32), nullable=False),
    sa.Column("digest", sa.String(32), nullable=False),
    sa.Column("triplet", sa.Text, nullable=False),
    sa.Column("task", sa.String(64), nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("dimensions", sa.Text, nullable=False),  # JSON
    sa.Column("candidates", sa.Integer, nullable=False),
)
"""Every question that was ever served, all dimensions together."""

SERVED = sa.Table(
    "served",
    METADATA,
    sa.Column("run", sa.String(1024), primary_key=True),
    sa.Column("item", sa.ForeignKey(ITEMS.c.item), primary_key=True),
    sa.Column("set", sa.String(32), nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("gold", sa.Boolean, nullable=False),
    sa.Column("closed", sa.Boolean, nullable=False),
    sa.Index("served_in_order", "run", "set", "closed", "gold", "rank"),
)
"""The questions in a work folder now, in the order of its files. `closed`: enough annotators have
finished it; a question that is not marked may have enough too."""

ANNOTATORS = sa.Table(
    "annotators",
    METADATA,
    sa.Column("annotator", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(200), nullable=False, unique=True),
    sa.Column("token_hash", sa.String(64), nullable=False),
    sa.Column("admin", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("revoked_at", sa.Double),
    sa.Column("last_seen", sa.Double),
)
"""People with a token, of which only the SHA-256 is kept."""

SESSIONS = sa.Table(
    "sessions",
    METADATA,
    sa.Column("session", sa.Integer, primary_key=True),
    sa.Column("annotator", sa.ForeignKey(ANNOTATORS.c.annotator), nullable=False, index=True),
    sa.Column("cookie_hash", sa.String(64), nullable=False),
    sa.Column("csrf", sa.String(64), nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
)
"""Logins; in the database so that they survive a restart of the server."""

LEASES = sa.Table(
    "leases",
    METADATA,
    sa.Column("item", sa.ForeignKey(ITEMS.c.item), primary_key=True),
    sa.Column("annotator", sa.ForeignKey(ANNOTATORS.c.annotator), primary_key=True, index=True),
    sa.Column("order", sa.Text, nullable=False),  # JSON: candidate at each shown position
    sa.Column("begun_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Column("finished", sa.Boolean, nullable=False),
)
"""Who has begun which question. It occupies one of the question's `overlap` places while it is
finished or has not expired."""

JUDGEMENTS = sa.Table(
    "judgements",
    METADATA,
    sa.Column("judgement", sa.Integer, primary_key=True),
    sa.Column("item", sa.ForeignKey(ITEMS.c.item), nullable=False),
    sa.Column("dimension", sa.String(64), nullable=False),
    sa.Column("annotator", sa.ForeignKey(ANNOTATORS.c.annotator), nullable=False, index=True),
    sa.Column("best", sa.Integer),
    sa.Column("worst", sa.Integer),
    sa.Column("usable", sa.Boolean),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("answered_at", sa.Double, nullable=False),
    sa.UniqueConstraint("item", "dimension", "annotator"),
    sa.CheckConstraint("(best IS NULL) = (worst IS NULL)"),
    sa.CheckConstraint("best IS NULL OR (best <> worst AND usable IS NULL)"),
)
"""The current answer of an annotator to a question in one dimension, in candidate numbers."""

AUDIT = sa.Table(
    "audit",
    METADATA,
    sa.Column("entry", sa.Integer, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("annotator", sa.String(200), nullable=False),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("item", sa.String(64)),
    sa.Column("dimension", sa.String(64)),
    sa.Column("detail", sa.Text, nullable=False),  # JSON
    sa.Column("save_key", sa.String(300), unique=True),
)
"""Every write, login and change of a token. `save_key` makes a repeated save a no-op."""

APPEND_ONLY = "the audit trail is append-only"

_SQLITE_TRIGGERS = [
    f"CREATE TRIGGER IF NOT EXISTS audit_no_{verb.lower()} BEFORE {verb} ON audit "
    f"BEGIN SELECT RAISE(ABORT, '{APPEND_ONLY}'); END"
    for verb in ("UPDATE", "DELETE")
]

_POSTGRESQL_TRIGGERS = [
    "CREATE OR REPLACE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE EXCEPTION '{APPEND_ONLY}'; END $$",
    "CREATE OR REPLACE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON audit "
    "FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()",
    "CREATE OR REPLACE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()",
]

TRIGGERS = {"sqlite": _SQLITE_TRIGGERS, "postgresql": _POSTGRESQL_TRIGGERS}
"""Database -> the statements that make the audit trail append-only."""
