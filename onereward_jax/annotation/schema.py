"""SQL tables of the preference store. A record's identity is its primary key, see `store`."""

SCHEMA_VERSION = 3

SCHEMA = """
CREATE TABLE IF NOT EXISTS candidates (
  triplet_id TEXT NOT NULL,
  "index" INTEGER NOT NULL,
  picture TEXT NOT NULL,
  num_inference_steps INTEGER NOT NULL,
  guidance_scale REAL NOT NULL,
  true_cfg_scale REAL NOT NULL,
  negative_prompt TEXT NOT NULL,
  noise_strength REAL NOT NULL,
  noise_seed INTEGER NOT NULL,
  disturbance REAL NOT NULL,
  source_digest TEXT NOT NULL CHECK (source_digest <> ''),
  digest TEXT NOT NULL CHECK (digest <> ''),
  PRIMARY KEY (triplet_id, "index")
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS preferences (
  triplet_id TEXT NOT NULL,
  task TEXT NOT NULL,
  dimension TEXT NOT NULL,
  winner INTEGER,
  loser INTEGER,
  annotator TEXT NOT NULL,
  answered_at REAL NOT NULL,
  seconds REAL NOT NULL,
  PRIMARY KEY (triplet_id, dimension, annotator),
  CHECK ((winner IS NULL) = (loser IS NULL)),
  CHECK (winner IS NULL OR winner <> loser),
  FOREIGN KEY (triplet_id, winner) REFERENCES candidates (triplet_id, "index"),
  FOREIGN KEY (triplet_id, loser) REFERENCES candidates (triplet_id, "index")
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS preferences_by_task ON preferences (task, dimension);
"""
