//! The tables of `names.db`, and how an older database is brought up to date.
//!
//! Triggers keep two things true whatever statement changes a row: `reference.present` says whether what a manifest
//! refers to is in its repository, and everything that may have become unreferenced stands in `review`.

pub(crate) mod postgres;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::sql;
use crate::error::{Error, Result};

/// What `user_version` is in a database of this program.
const VERSION: i64 = 10;

/// Step `n` takes a database from version `n` to `n + 1`. A released step is never changed.
const STEPS: [&str; 10] = [V1, V2, V3, V4, V5, V6, V7, V8, V9, V10];

/// How often a prepared statement is found again.
const STATEMENTS: usize = 128;

/// Settings of every connection.
pub(crate) fn configure(connection: &Connection) -> Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(std::time::Duration::from_secs(30))?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    // Plans do not depend on what is bound. Otherwise a statement with a bound LIMIT is prepared anew whenever it is used.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Fails when the tables are not those of this program.
pub(crate) fn check(connection: &sql::Connection) -> Result<()> {
    let found: i64 = connection.one("PRAGMA user_version", &[], |row| row.get(0))?;
    if found == VERSION {
        return Ok(());
    }
    let advice =
        if found > VERSION { "use a newer deltaport" } else { "`deltaport serve` brings it up to date" };
    Err(Error::Unusable(format!(
        "names.db has version {found}, this program reads version {VERSION}; {advice}"
    )))
}

/// Makes the tables, or brings older ones up to date; one transaction.
pub(crate) fn migrate(connection: &Connection) -> Result<()> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > VERSION {
        return Err(Error::Unusable(format!(
            "names.db has version {found}, this program knows versions up to {VERSION}; use a newer deltaport"
        )));
    }
    let steps = usize::try_from(found).ok().and_then(|found| STEPS.get(found..));
    let Some(steps) = steps else { return Err(Error::Corrupt(format!("names.db has version {found}"))) };
    if steps.is_empty() {
        return Ok(());
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    for step in steps {
        connection.execute_batch(step)?;
    }
    connection.pragma_update(None, "user_version", VERSION)?;
    connection.execute_batch("COMMIT")?;
    Ok(())
}

/// Times are milliseconds since 1970. Digests are text, so that a person with `sqlite3` can read and type them.
const V1: &str = "
CREATE TABLE repository (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- Bytes that are here, those of manifests included.
CREATE TABLE blob (
    digest  TEXT PRIMARY KEY,
    size    INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Which repository holds which blob.
CREATE TABLE repository_blob (
    repository INTEGER NOT NULL REFERENCES repository (id),
    digest     TEXT NOT NULL REFERENCES blob (digest),
    linked     INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX repository_blob_by_digest ON repository_blob (digest, repository);

-- artifact_type is what a list of referrers shows; annotations only where there is a subject.
CREATE TABLE manifest (
    id            INTEGER PRIMARY KEY,
    repository    INTEGER NOT NULL REFERENCES repository (id),
    digest        TEXT NOT NULL REFERENCES blob (digest),
    media_type    TEXT NOT NULL,
    artifact_type TEXT,
    subject       TEXT,
    annotations   TEXT,
    size          INTEGER NOT NULL,
    pushed        INTEGER NOT NULL,
    bytes         BLOB NOT NULL,
    UNIQUE (repository, digest)
) STRICT;
CREATE INDEX manifest_by_digest ON manifest (digest);
CREATE INDEX manifest_by_age ON manifest (repository, pushed);
CREATE INDEX manifest_by_subject ON manifest (repository, subject, digest) WHERE subject IS NOT NULL;
CREATE INDEX manifest_by_type ON manifest (repository, subject, artifact_type, digest) WHERE subject IS NOT NULL;

-- What a manifest refers to, and whether that is in the same repository.
CREATE TABLE reference (
    manifest   INTEGER NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    repository INTEGER NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('config', 'layer', 'manifest', 'subject')),
    digest     TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size       INTEGER NOT NULL,
    platform   TEXT,
    present    INTEGER NOT NULL CHECK (present IN (0, 1)),
    PRIMARY KEY (manifest, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX reference_by_digest ON reference (repository, digest, kind);

CREATE TABLE tag (
    repository INTEGER NOT NULL,
    name       TEXT NOT NULL,
    digest     TEXT NOT NULL,
    updated    INTEGER NOT NULL,
    PRIMARY KEY (repository, name),
    FOREIGN KEY (repository, digest) REFERENCES manifest (repository, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX tag_by_digest ON tag (repository, digest);

-- state is the saved hasher after offset bytes. The repository need not exist yet.
CREATE TABLE upload (
    id         TEXT PRIMARY KEY,
    repository TEXT NOT NULL,
    owner      TEXT NOT NULL,
    position   INTEGER NOT NULL,
    state      BLOB NOT NULL,
    touched    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX upload_by_owner ON upload (owner);
CREATE INDEX upload_by_age ON upload (touched);

-- What is known about a delta; no digest: it is not worth its bytes. Goes with the link of either layer.
CREATE TABLE layer_delta (
    repository INTEGER NOT NULL REFERENCES repository (id),
    base       TEXT NOT NULL,
    target     TEXT NOT NULL,
    digest     TEXT,
    made       INTEGER NOT NULL,
    PRIMARY KEY (repository, base, target)
) STRICT, WITHOUT ROWID;
CREATE INDEX layer_delta_by_target ON layer_delta (repository, target);
CREATE INDEX layer_delta_by_digest ON layer_delta (repository, digest);

-- The collector's queue: a link that may be unreferenced, or (repository 0) bytes that may be.
CREATE TABLE review (
    repository INTEGER NOT NULL,
    digest     TEXT NOT NULL,
    since      INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX review_by_age ON review (since, repository, digest);

-- Changes on their way to the journal. AUTOINCREMENT: a number is never given twice.
CREATE TABLE outbox (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    change TEXT NOT NULL
) STRICT;

CREATE TABLE setting (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER blob_linked AFTER INSERT ON repository_blob BEGIN
    UPDATE reference SET present = 1
        WHERE repository = NEW.repository AND digest = NEW.digest AND kind IN ('config', 'layer');
    INSERT INTO review (repository, digest, since) VALUES (NEW.repository, NEW.digest, NEW.linked)
        ON CONFLICT DO UPDATE SET since = excluded.since;
END;

CREATE TRIGGER blob_linked_again AFTER UPDATE OF linked ON repository_blob BEGIN
    INSERT INTO review (repository, digest, since) VALUES (NEW.repository, NEW.digest, NEW.linked)
        ON CONFLICT DO UPDATE SET since = excluded.since;
END;

CREATE TRIGGER blob_unlinked AFTER DELETE ON repository_blob BEGIN
    UPDATE reference SET present = 0
        WHERE repository = OLD.repository AND digest = OLD.digest AND kind IN ('config', 'layer');
    INSERT INTO review (repository, digest, since)
        VALUES (0, OLD.digest, CAST(unixepoch('subsec') * 1000 AS INTEGER))
        ON CONFLICT DO UPDATE SET since = excluded.since;
END;

CREATE TRIGGER manifest_put AFTER INSERT ON manifest BEGIN
    UPDATE reference SET present = 1
        WHERE repository = NEW.repository AND digest = NEW.digest AND kind IN ('manifest', 'subject');
END;

CREATE TRIGGER manifest_deleted AFTER DELETE ON manifest BEGIN
    UPDATE reference SET present = 0
        WHERE repository = OLD.repository AND digest = OLD.digest AND kind IN ('manifest', 'subject');
    INSERT INTO review (repository, digest, since)
        VALUES (0, OLD.digest, CAST(unixepoch('subsec') * 1000 AS INTEGER))
        ON CONFLICT DO UPDATE SET since = excluded.since;
END;

CREATE TRIGGER reference_deleted AFTER DELETE ON reference
WHEN OLD.present = 1 AND OLD.kind IN ('config', 'layer') BEGIN
    INSERT INTO review (repository, digest, since)
        VALUES (OLD.repository, OLD.digest, CAST(unixepoch('subsec') * 1000 AS INTEGER))
        ON CONFLICT DO UPDATE SET since = excluded.since;
END;

CREATE TRIGGER layer_delta_deleted AFTER DELETE ON layer_delta WHEN OLD.digest IS NOT NULL BEGIN
    INSERT INTO review (repository, digest, since)
        VALUES (OLD.repository, OLD.digest, CAST(unixepoch('subsec') * 1000 AS INTEGER))
        ON CONFLICT DO UPDATE SET since = excluded.since;
END;
";

/// The past of tags, and deltas that are to be made.
const V2: &str = "
-- Until when a tag pointed at another manifest, which need not be here any more: each once, the present one never.
CREATE TABLE tag_past (
    repository INTEGER NOT NULL,
    tag        TEXT NOT NULL,
    digest     TEXT NOT NULL,
    until      INTEGER NOT NULL,
    PRIMARY KEY (repository, tag, digest),
    FOREIGN KEY (repository, tag) REFERENCES tag (repository, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- waited: somebody waits for it. claimed: since when it is being made. attempts: how often that was begun.
CREATE TABLE delta_job (
    id         INTEGER PRIMARY KEY,
    repository INTEGER NOT NULL REFERENCES repository (id),
    base       TEXT NOT NULL,
    target     TEXT NOT NULL,
    waited     INTEGER NOT NULL CHECK (waited IN (0, 1)),
    asked      INTEGER NOT NULL,
    claimed    INTEGER,
    attempts   INTEGER NOT NULL DEFAULT 0,
    UNIQUE (repository, base, target)
) STRICT;
CREATE INDEX delta_job_by_target ON delta_job (repository, target);
CREATE INDEX delta_job_by_turn ON delta_job (waited DESC, asked, id) WHERE claimed IS NULL;

CREATE TRIGGER delta_job_collected AFTER DELETE ON repository_blob BEGIN
    DELETE FROM delta_job
        WHERE repository = OLD.repository AND (base = OLD.digest OR target = OLD.digest);
END;
";

/// Why children of indexes are absent.
const V3: &str = "
-- Why a repository lacks a manifest that its indexes refer to: it was evicted, or upstream has none either.
CREATE TABLE absence (
    repository INTEGER NOT NULL REFERENCES repository (id),
    digest     TEXT NOT NULL,
    reason     TEXT NOT NULL CHECK (reason IN ('evicted', 'upstream')),
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER absence_ended AFTER INSERT ON manifest BEGIN
    DELETE FROM absence WHERE repository = NEW.repository AND digest = NEW.digest;
END;

CREATE TRIGGER absence_forgotten BEFORE DELETE ON manifest BEGIN
    DELETE FROM absence
        WHERE repository = OLD.repository
            AND digest IN (SELECT digest FROM reference WHERE manifest = OLD.id AND kind = 'manifest')
            AND NOT EXISTS (SELECT 1 FROM reference AS other
                WHERE other.repository = OLD.repository AND other.digest = absence.digest
                    AND other.kind = 'manifest' AND other.manifest <> OLD.id);
END;
";

/// What may be evicted.
const V4: &str = "
-- Manifests that came from an upstream, and when each was last used. All others were pushed.
CREATE TABLE cached (
    repository INTEGER NOT NULL,
    digest     TEXT NOT NULL,
    used       INTEGER NOT NULL,
    PRIMARY KEY (repository, digest),
    FOREIGN KEY (repository, digest) REFERENCES manifest (repository, digest) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX cached_by_use ON cached (used, repository, digest);
";

/// What the policy decided.
const V5: &str = "
-- What a policy (its digest) decided about a manifest under a tag, or ('') by its digest; text is JSON.
CREATE TABLE verdict (
    repository INTEGER NOT NULL,
    digest     TEXT NOT NULL,
    tag        TEXT NOT NULL,
    policy     TEXT NOT NULL,
    at         INTEGER NOT NULL,
    accepted   INTEGER NOT NULL CHECK (accepted IN (0, 1)),
    text       TEXT NOT NULL,
    PRIMARY KEY (repository, digest, tag),
    FOREIGN KEY (repository, digest) REFERENCES manifest (repository, digest) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX verdict_refused ON verdict (policy, repository, digest) WHERE accepted = 0;
";

/// What was found out and may be forgotten.
const V6: &str = "
-- What is believed until a time. What a value means is said by who notes it.
CREATE TABLE note (
    topic TEXT NOT NULL,
    key   TEXT NOT NULL,
    value INTEGER NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (topic, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX note_by_end ON note (until);
";

/// What mirror rules have done.
const V7: &str = "
-- Tags that a mirror rule has brought to a place (a repository of this registry, or a destination elsewhere), and what each
-- led to then. Only those may be removed when the rule does not want them any more.
CREATE TABLE mirrored (
    rule   TEXT NOT NULL,
    place  TEXT NOT NULL,
    tag    TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (rule, place, tag)
) STRICT, WITHOUT ROWID;

-- Uploads that have been begun elsewhere, and where each goes on.
CREATE TABLE outgoing (
    place  TEXT NOT NULL,
    digest TEXT NOT NULL,
    upload TEXT NOT NULL,
    PRIMARY KEY (place, digest)
) STRICT, WITHOUT ROWID;
";

/// Who does what.
const V8: &str = "
-- What only one may do at a time, who does it, and until when that is believed of who does not say so again.
CREATE TABLE lease (
    name   TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What is done again and again: the time for which it was done last, and when that was over; null while it is not.
CREATE TABLE slot (
    name TEXT PRIMARY KEY,
    due  INTEGER NOT NULL,
    done INTEGER
) STRICT, WITHOUT ROWID;

-- Who makes the delta, and until when that is believed.
ALTER TABLE delta_job ADD COLUMN holder TEXT;
ALTER TABLE delta_job ADD COLUMN until INTEGER;
CREATE INDEX delta_job_by_end ON delta_job (until) WHERE claimed IS NOT NULL;
";

/// Bytes in a bucket.
const V9: &str = "
-- The object that holds the bytes; null: a file named after the digest, or, with a bucket, the row of a manifest.
ALTER TABLE blob ADD COLUMN place TEXT;
CREATE UNIQUE INDEX blob_by_place ON blob (place) WHERE place IS NOT NULL;

-- holder may go on until a time (0: nobody holds it), and alone may make the object spare. Parts of part_size bytes go to
-- object, as multipart; behind them there is rest, or the object tail. doubtful: a holder was given up, who may not know.
ALTER TABLE upload ADD COLUMN holder TEXT;
ALTER TABLE upload ADD COLUMN until INTEGER NOT NULL DEFAULT 0;
ALTER TABLE upload ADD COLUMN spare TEXT;
ALTER TABLE upload ADD COLUMN part_size INTEGER;
ALTER TABLE upload ADD COLUMN object TEXT;
ALTER TABLE upload ADD COLUMN multipart TEXT;
ALTER TABLE upload ADD COLUMN rest BLOB;
ALTER TABLE upload ADD COLUMN tail TEXT;
ALTER TABLE upload ADD COLUMN doubtful INTEGER NOT NULL DEFAULT 0 CHECK (doubtful IN (0, 1));

-- The parts of an upload that are there, counted from 0, with what the service calls each.
CREATE TABLE upload_part (
    upload TEXT NOT NULL REFERENCES upload (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    tag    TEXT NOT NULL,
    PRIMARY KEY (upload, number)
) STRICT, WITHOUT ROWID;

-- Objects to be removed when they are due, or their parts. taken: somebody is about to, so none may be referred to again.
CREATE TABLE doomed (
    place     TEXT PRIMARY KEY,
    multipart TEXT,
    due       INTEGER NOT NULL,
    taken     INTEGER NOT NULL CHECK (taken IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE INDEX doomed_by_time ON doomed (due);
";

/// Lists of referrers.
const V10: &str = "
-- All that a list of referrers says, so that the rows are not looked for, which lie wherever there was room.
DROP INDEX manifest_by_subject;
DROP INDEX manifest_by_type;
CREATE INDEX manifest_by_subject
    ON manifest (repository, subject, digest, media_type, artifact_type, annotations, size)
    WHERE subject IS NOT NULL;
CREATE INDEX manifest_by_type
    ON manifest (repository, subject, artifact_type, digest, media_type, annotations, size)
    WHERE subject IS NOT NULL;
";

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn a_statement_is_prepared_once_whatever_it_is_given() {
        let connection = Connection::open_in_memory().unwrap();
        configure(&connection).unwrap();
        migrate(&connection).unwrap();
        let list = "SELECT name FROM repository WHERE name > ?1 ORDER BY name LIMIT ?2";
        for limit in 1..5 {
            let mut statement = connection.prepare_cached(list).unwrap();
            assert!(!statement.exists((format!("behind-{limit}"), limit)).unwrap());
            assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
        }
    }

    #[test]
    fn referrers_are_listed_from_an_index_alone() {
        let connection = Connection::open_in_memory().unwrap();
        configure(&connection).unwrap();
        migrate(&connection).unwrap();
        for wanted in ["", "AND artifact_type = ?3"] {
            let list = format!(
                "EXPLAIN QUERY PLAN SELECT digest, media_type, artifact_type, annotations, size FROM manifest
                 WHERE repository = ?1 AND subject = ?2 {wanted} AND digest > ?4 ORDER BY digest LIMIT ?5"
            );
            let plan: String =
                connection.query_row(&list, [rusqlite::types::Null; 5], |row| row.get("detail")).unwrap();
            assert!(plan.contains("COVERING INDEX"), "{plan}");
        }
    }
}
