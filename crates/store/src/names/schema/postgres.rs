//! The tables of names in PostgreSQL, and how older ones are brought up to date.
//!
//! They are those of `names.db` (see [`super`]), column by column, and so are the triggers. What is not there is what the
//! journal needs. What is there besides is `outcome`.
//!
//! Replicas of two versions run side by side while a new one is rolled out. So a step leaves the tables such that the
//! program before it can go on with them: it adds, and what it takes away no version before it uses.

use crate::error::{Error, Result};
use crate::names::sql::{Connection, Session, values};

/// The version of the tables of this program.
const VERSION: i64 = 3;

/// Step `n` takes the tables from version `n` to `n + 1`. A released step is never changed.
const STEPS: [&str; 3] = [V1, V2, V3];

/// The key of the advisory lock that is held while tables are made: "deltapor" in ASCII.
const LOCK: i64 = 0x6465_6c74_6170_6f72;

/// The oldest server that has what is asked of it.
const OLDEST_SERVER: i64 = 130_000;

/// Fails when the server does not have what is asked of it.
fn check_server(connection: &Connection) -> Result<()> {
    let server: i64 =
        connection.one("SELECT CAST(current_setting('server_version_num') AS bigint)", values![], |row| {
            row.get(0)
        })?;
    match server < OLDEST_SERVER {
        true => Err(Error::Unusable(format!(
            "this PostgreSQL has version {}; deltaport needs 13 or newer",
            server / 10_000
        ))),
        false => Ok(()),
    }
}

/// Fails when [`migrate`] would; changes nothing.
pub(crate) fn check_before(connection: &Connection) -> Result<()> {
    check_server(connection)?;
    let encoding: String =
        connection.one("SELECT current_setting('server_encoding')", values![], |row| row.get(0))?;
    if encoding != "UTF8" {
        return Err(Error::Unusable(format!(
            "the database is encoded in {encoding}; make one with ENCODING 'UTF8' from template0"
        )));
    }
    let found = version(connection)?;
    if found > VERSION {
        return Err(too_new(found));
    }
    // Whoever made the tables may change them; a first time, somebody has to be allowed to.
    let (allowed, what) = match found {
        0 => (
            "SELECT COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false)",
            "may not make tables in the database; GRANT CREATE ON SCHEMA public TO it, or make it the database's owner",
        ),
        _ => (
            "SELECT has_table_privilege('repository', 'SELECT, INSERT, UPDATE, DELETE')",
            "may not use the tables that are there; they belong to another role",
        ),
    };
    if !connection.one(allowed, values![], |row| row.get::<bool>(0))? {
        let role: String =
            connection.one("SELECT CAST(current_user AS text)", values![], |row| row.get(0))?;
        return Err(Error::Unusable(format!("the role {role} {what}")));
    }
    Ok(())
}

/// Makes the tables, or brings older ones up to date. Who comes at the same time waits.
pub(crate) fn migrate(connection: &Connection) -> Result<()> {
    check_server(connection)?;
    let encoding: String =
        connection.one("SELECT current_setting('server_encoding')", values![], |row| row.get(0))?;
    if encoding != "UTF8" {
        return Err(Error::Unusable(format!(
            "the database in PostgreSQL is encoded in {encoding}; deltaport needs one in UTF8"
        )));
    }
    if version(connection)? == VERSION {
        return Ok(());
    }
    // To wait for another who makes them, or to make them, may take longer than any other statement.
    if let Connection::Postgres(session) = connection {
        session.take_time()?;
    }
    connection.batch("BEGIN")?;
    // In the transaction, so that it goes whatever happens.
    connection.optional("SELECT pg_advisory_xact_lock(?1)", values![LOCK], |_| Ok(()))?;
    let found = version(connection)?;
    if found > VERSION {
        return Err(too_new(found));
    }
    let steps = usize::try_from(found).ok().and_then(|found| STEPS.get(found..)).unwrap_or_default();
    for step in steps {
        connection.batch(step)?;
    }
    connection.execute(
        "INSERT INTO setting (name, value) VALUES ('schema', ?1)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        values![VERSION],
    )?;
    connection.batch("COMMIT")
}

/// Fails when the tables are not those of this program.
pub(crate) fn check(connection: &Connection) -> Result<()> {
    match version(connection)? {
        VERSION => Ok(()),
        found if found > VERSION => Err(too_new(found)),
        0 => Err(Error::Unusable(
            "there are no names in this database; `deltaport serve` makes the tables".to_owned(),
        )),
        found => Err(Error::Unusable(format!(
            "the names in PostgreSQL have version {found}, this program reads version {VERSION}; \
             `deltaport serve` brings them up to date"
        ))),
    }
}

/// The version of the tables; 0 when there are none.
fn version(connection: &Connection) -> Result<i64> {
    let there = "SELECT to_regclass('setting') IS NOT NULL";
    if !connection.one(there, values![], |row| row.get::<bool>(0))? {
        return Ok(0);
    }
    let version = "SELECT value FROM setting WHERE name = 'schema'";
    Ok(connection.optional(version, values![], |row| row.get(0))?.unwrap_or(0))
}

fn too_new(found: i64) -> Error {
    Error::Unusable(format!(
        "the names in PostgreSQL have version {found}, this program knows versions up to {VERSION}; \
         use a newer deltaport"
    ))
}

/// Has the session work in the schema that the address names.
pub(crate) fn enter(session: &Session, schema: &str) -> Result<()> {
    let quoted = format!("\"{}\"", schema.replace('"', "\"\""));
    session.batch(&format!("SET search_path TO {quoted}"))
}

/// Makes the schema that the address names, if it is not there.
pub(crate) fn create(session: &Session, schema: &str) -> Result<()> {
    let quoted = format!("\"{}\"", schema.replace('"', "\"\""));
    let literal = quoted.replace('\'', "''");
    // Asked first, since IF NOT EXISTS needs the right to make one even when it is there, and two may come at once.
    session.batch(&format!(
        "DO $do$ BEGIN
            PERFORM pg_advisory_xact_lock({LOCK});
            IF to_regnamespace('{literal}') IS NULL THEN CREATE SCHEMA {quoted}; END IF;
         END $do$"
    ))
}

/// Times are milliseconds since 1970, as the clock of the database has them.
const V1: &str = r#"
CREATE TABLE setting (
    name  text COLLATE "C" PRIMARY KEY,
    value bigint NOT NULL
);

CREATE TABLE repository (
    id   bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
);

-- Bytes that are here, those of manifests included. place is the object that holds them; null: a file named after the
-- digest, or, with a bucket, the row of a manifest.
CREATE TABLE blob (
    digest  text COLLATE "C" PRIMARY KEY,
    size    bigint NOT NULL,
    created bigint NOT NULL,
    place   text COLLATE "C"
);
CREATE UNIQUE INDEX blob_by_place ON blob (place) WHERE place IS NOT NULL;

-- Which repository holds which blob.
CREATE TABLE repository_blob (
    repository bigint NOT NULL REFERENCES repository (id),
    digest     text COLLATE "C" NOT NULL REFERENCES blob (digest),
    linked     bigint NOT NULL,
    PRIMARY KEY (repository, digest)
);
CREATE INDEX repository_blob_by_digest ON repository_blob (digest, repository);

-- artifact_type is what a list of referrers shows; annotations only where there is a subject.
CREATE TABLE manifest (
    id            bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    repository    bigint NOT NULL REFERENCES repository (id),
    digest        text COLLATE "C" NOT NULL REFERENCES blob (digest),
    media_type    text COLLATE "C" NOT NULL,
    artifact_type text COLLATE "C",
    subject       text COLLATE "C",
    annotations   text COLLATE "C",
    size          bigint NOT NULL,
    pushed        bigint NOT NULL,
    bytes         bytea NOT NULL,
    UNIQUE (repository, digest)
);
CREATE INDEX manifest_by_digest ON manifest (digest);
CREATE INDEX manifest_by_age ON manifest (repository, pushed, id);
CREATE INDEX manifest_by_subject ON manifest (repository, subject, digest) WHERE subject IS NOT NULL;
CREATE INDEX manifest_by_type ON manifest (repository, subject, artifact_type, digest) WHERE subject IS NOT NULL;

-- What a manifest refers to, and whether that is in the same repository.
CREATE TABLE reference (
    manifest   bigint NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    position   bigint NOT NULL,
    repository bigint NOT NULL,
    kind       text COLLATE "C" NOT NULL CHECK (kind IN ('config', 'layer', 'manifest', 'subject')),
    digest     text COLLATE "C" NOT NULL,
    media_type text COLLATE "C" NOT NULL,
    size       bigint NOT NULL,
    platform   text COLLATE "C",
    present    bigint NOT NULL CHECK (present IN (0, 1)),
    PRIMARY KEY (manifest, position)
);
CREATE INDEX reference_by_digest ON reference (repository, digest, kind);
-- Images of other repositories with the same layer.
CREATE INDEX reference_by_layer ON reference (digest) WHERE kind = 'layer';

CREATE TABLE tag (
    repository bigint NOT NULL,
    name       text COLLATE "C" NOT NULL,
    digest     text COLLATE "C" NOT NULL,
    updated    bigint NOT NULL,
    PRIMARY KEY (repository, name),
    FOREIGN KEY (repository, digest) REFERENCES manifest (repository, digest)
);
CREATE INDEX tag_by_digest ON tag (repository, digest);

-- Until when a tag pointed at another manifest, which need not be here any more: each once, the present one never.
CREATE TABLE tag_past (
    repository bigint NOT NULL,
    tag        text COLLATE "C" NOT NULL,
    digest     text COLLATE "C" NOT NULL,
    until      bigint NOT NULL,
    PRIMARY KEY (repository, tag, digest),
    FOREIGN KEY (repository, tag) REFERENCES tag (repository, name) ON DELETE CASCADE
);

-- state is the saved hasher after position bytes. The repository need not exist yet. holder may go on until a time, and
-- alone may make the object spare. Parts of part_size bytes go to object, as multipart; behind them there is rest, or the
-- object tail. doubtful: a holder was given up, who may not know.
CREATE TABLE upload (
    id         text COLLATE "C" PRIMARY KEY,
    repository text COLLATE "C" NOT NULL,
    owner      text COLLATE "C" NOT NULL,
    position   bigint NOT NULL,
    state      bytea NOT NULL,
    touched    bigint NOT NULL,
    holder     text COLLATE "C",
    until      bigint NOT NULL DEFAULT 0,
    spare      text COLLATE "C",
    part_size  bigint,
    object     text COLLATE "C",
    multipart  text COLLATE "C",
    rest       bytea,
    tail       text COLLATE "C",
    doubtful   bigint NOT NULL DEFAULT 0 CHECK (doubtful IN (0, 1))
);
CREATE INDEX upload_by_owner ON upload (owner);
CREATE INDEX upload_by_age ON upload (touched);

-- The parts of an upload that are there, counted from 0, with what the service calls each.
CREATE TABLE upload_part (
    upload text COLLATE "C" NOT NULL REFERENCES upload (id) ON DELETE CASCADE,
    number bigint NOT NULL,
    tag    text COLLATE "C" NOT NULL,
    PRIMARY KEY (upload, number)
);

-- Objects to be removed when they are due, or their parts. taken: somebody is about to, so none may be referred to again.
CREATE TABLE doomed (
    place     text COLLATE "C" PRIMARY KEY,
    multipart text COLLATE "C",
    due       bigint NOT NULL,
    taken     bigint NOT NULL CHECK (taken IN (0, 1))
);
CREATE INDEX doomed_by_time ON doomed (due);

-- What is known about a delta; no digest: it is not worth its bytes. Goes with the link of either layer.
CREATE TABLE layer_delta (
    repository bigint NOT NULL REFERENCES repository (id),
    base       text COLLATE "C" NOT NULL,
    target     text COLLATE "C" NOT NULL,
    digest     text COLLATE "C",
    made       bigint NOT NULL,
    PRIMARY KEY (repository, base, target)
);
CREATE INDEX layer_delta_by_target ON layer_delta (repository, target);
CREATE INDEX layer_delta_by_digest ON layer_delta (repository, digest);

-- waited: somebody waits for it. claimed: since when it is being made. attempts: how often that was begun. holder: who makes
-- it, until when that is believed.
CREATE TABLE delta_job (
    id         bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    repository bigint NOT NULL REFERENCES repository (id),
    base       text COLLATE "C" NOT NULL,
    target     text COLLATE "C" NOT NULL,
    waited     bigint NOT NULL CHECK (waited IN (0, 1)),
    asked      bigint NOT NULL,
    claimed    bigint,
    attempts   bigint NOT NULL DEFAULT 0,
    holder     text COLLATE "C",
    until      bigint,
    UNIQUE (repository, base, target)
);
CREATE INDEX delta_job_by_target ON delta_job (repository, target);
CREATE INDEX delta_job_by_turn ON delta_job (waited DESC, asked, id) WHERE claimed IS NULL;
CREATE INDEX delta_job_by_end ON delta_job (until) WHERE claimed IS NOT NULL;
CREATE INDEX delta_job_by_urgency ON delta_job (waited, asked);

-- The collector's queue: a link that may be unreferenced, or (repository 0) bytes that may be.
CREATE TABLE review (
    repository bigint NOT NULL,
    digest     text COLLATE "C" NOT NULL,
    since      bigint NOT NULL,
    PRIMARY KEY (repository, digest)
);
CREATE INDEX review_by_age ON review (since, repository, digest);

-- Why a repository lacks a manifest that its indexes refer to: it was evicted, or upstream has none either.
CREATE TABLE absence (
    repository bigint NOT NULL REFERENCES repository (id),
    digest     text COLLATE "C" NOT NULL,
    reason     text COLLATE "C" NOT NULL CHECK (reason IN ('evicted', 'upstream')),
    PRIMARY KEY (repository, digest)
);

-- Manifests that came from an upstream, and when each was last used. All others were pushed.
CREATE TABLE cached (
    repository bigint NOT NULL,
    digest     text COLLATE "C" NOT NULL,
    used       bigint NOT NULL,
    PRIMARY KEY (repository, digest),
    FOREIGN KEY (repository, digest) REFERENCES manifest (repository, digest) ON DELETE CASCADE
);
CREATE INDEX cached_by_use ON cached (used, repository, digest);

-- What a policy (its digest) decided about a manifest under a tag, or ('') by its digest; text is JSON.
CREATE TABLE verdict (
    repository bigint NOT NULL,
    digest     text COLLATE "C" NOT NULL,
    tag        text COLLATE "C" NOT NULL,
    policy     text COLLATE "C" NOT NULL,
    at         bigint NOT NULL,
    accepted   bigint NOT NULL CHECK (accepted IN (0, 1)),
    text       text COLLATE "C" NOT NULL,
    PRIMARY KEY (repository, digest, tag),
    FOREIGN KEY (repository, digest) REFERENCES manifest (repository, digest) ON DELETE CASCADE
);
CREATE INDEX verdict_refused ON verdict (policy, repository, digest) WHERE accepted = 0;

-- What is believed until a time. What a value means is said by who notes it.
CREATE TABLE note (
    topic text COLLATE "C" NOT NULL,
    key   text COLLATE "C" NOT NULL,
    value bigint NOT NULL,
    until bigint NOT NULL,
    PRIMARY KEY (topic, key)
);
CREATE INDEX note_by_end ON note (until);

-- Tags that a mirror rule has brought to a place, and what each led to then.
CREATE TABLE mirrored (
    rule   text COLLATE "C" NOT NULL,
    place  text COLLATE "C" NOT NULL,
    tag    text COLLATE "C" NOT NULL,
    digest text COLLATE "C" NOT NULL,
    PRIMARY KEY (rule, place, tag)
);
CREATE INDEX mirrored_by_tag ON mirrored (place, tag);

-- Uploads that have been begun elsewhere, and where each goes on.
CREATE TABLE outgoing (
    place  text COLLATE "C" NOT NULL,
    digest text COLLATE "C" NOT NULL,
    upload text COLLATE "C" NOT NULL,
    PRIMARY KEY (place, digest)
);

-- What only one may do at a time, who does it, and until when that is believed of who does not say so again.
CREATE TABLE lease (
    name   text COLLATE "C" PRIMARY KEY,
    holder text COLLATE "C" NOT NULL,
    until  bigint NOT NULL
);

-- What is done again and again: the time for which it was done last, and when that was over; null while it is not.
CREATE TABLE slot (
    name text COLLATE "C" PRIMARY KEY,
    due  bigint NOT NULL,
    done bigint
);

-- Each change writes a row here, under a random number. When a connection breaks during a commit, whoever made the change
-- tries to write the same row with made = 0: it learns whether the change was made, and if not, that it never will be.
CREATE TABLE outcome (
    id   bigint PRIMARY KEY,
    at   bigint NOT NULL,
    made bigint NOT NULL CHECK (made IN (0, 1))
);
CREATE INDEX outcome_by_age ON outcome (at);

CREATE FUNCTION now_in_milliseconds() RETURNS bigint LANGUAGE sql VOLATILE AS
    $$ SELECT CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS bigint) $$;

CREATE FUNCTION to_review(of_repository bigint, of_digest text, at bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO review (repository, digest, since) VALUES (of_repository, of_digest, at)
        ON CONFLICT (repository, digest) DO UPDATE SET since = excluded.since
$$;

CREATE FUNCTION blob_linked() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE reference SET present = 1
        WHERE repository = NEW.repository AND digest = NEW.digest AND kind IN ('config', 'layer') AND present = 0;
    PERFORM to_review(NEW.repository, NEW.digest, NEW.linked);
    RETURN NULL;
END $$;
CREATE TRIGGER blob_linked AFTER INSERT ON repository_blob FOR EACH ROW EXECUTE FUNCTION blob_linked();

CREATE FUNCTION blob_linked_again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM to_review(NEW.repository, NEW.digest, NEW.linked);
    RETURN NULL;
END $$;
CREATE TRIGGER blob_linked_again AFTER UPDATE OF linked ON repository_blob
    FOR EACH ROW EXECUTE FUNCTION blob_linked_again();

CREATE FUNCTION blob_unlinked() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE reference SET present = 0
        WHERE repository = OLD.repository AND digest = OLD.digest AND kind IN ('config', 'layer') AND present = 1;
    PERFORM to_review(0, OLD.digest, now_in_milliseconds());
    DELETE FROM delta_job WHERE repository = OLD.repository AND (base = OLD.digest OR target = OLD.digest);
    RETURN NULL;
END $$;
CREATE TRIGGER blob_unlinked AFTER DELETE ON repository_blob FOR EACH ROW EXECUTE FUNCTION blob_unlinked();

CREATE FUNCTION manifest_put() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE reference SET present = 1
        WHERE repository = NEW.repository AND digest = NEW.digest AND kind IN ('manifest', 'subject')
            AND present = 0;
    DELETE FROM absence WHERE repository = NEW.repository AND digest = NEW.digest;
    RETURN NULL;
END $$;
CREATE TRIGGER manifest_put AFTER INSERT ON manifest FOR EACH ROW EXECUTE FUNCTION manifest_put();

CREATE FUNCTION manifest_goes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    DELETE FROM absence
        WHERE repository = OLD.repository
            AND digest IN (SELECT digest FROM reference WHERE manifest = OLD.id AND kind = 'manifest')
            AND NOT EXISTS (SELECT 1 FROM reference AS other
                WHERE other.repository = OLD.repository AND other.digest = absence.digest
                    AND other.kind = 'manifest' AND other.manifest <> OLD.id);
    RETURN OLD;
END $$;
CREATE TRIGGER manifest_goes BEFORE DELETE ON manifest FOR EACH ROW EXECUTE FUNCTION manifest_goes();

CREATE FUNCTION manifest_deleted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE reference SET present = 0
        WHERE repository = OLD.repository AND digest = OLD.digest AND kind IN ('manifest', 'subject')
            AND present = 1;
    PERFORM to_review(0, OLD.digest, now_in_milliseconds());
    RETURN NULL;
END $$;
CREATE TRIGGER manifest_deleted AFTER DELETE ON manifest FOR EACH ROW EXECUTE FUNCTION manifest_deleted();

CREATE FUNCTION reference_deleted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM to_review(OLD.repository, OLD.digest, now_in_milliseconds());
    RETURN NULL;
END $$;
CREATE TRIGGER reference_deleted AFTER DELETE ON reference FOR EACH ROW
    WHEN (OLD.present = 1 AND OLD.kind IN ('config', 'layer')) EXECUTE FUNCTION reference_deleted();

CREATE FUNCTION layer_delta_deleted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM to_review(OLD.repository, OLD.digest, now_in_milliseconds());
    RETURN NULL;
END $$;
CREATE TRIGGER layer_delta_deleted AFTER DELETE ON layer_delta FOR EACH ROW
    WHEN (OLD.digest IS NOT NULL) EXECUTE FUNCTION layer_delta_deleted();
"#;

/// What all replicas have to know and nobody else may.
const V2: &str = "
-- What is in private/ where names are in a directory. changed: a time that is another after each change.
CREATE TABLE private (
    name    text COLLATE \"C\" PRIMARY KEY,
    content bytea NOT NULL,
    changed bigint NOT NULL
);
";

/// What replicas tell each other.
const V3: &str = "
-- How far something is that one replica does and others are asked about; text is JSON. at: when it said so last.
CREATE TABLE told (
    topic  text COLLATE \"C\" NOT NULL,
    number bigint NOT NULL,
    text   text COLLATE \"C\" NOT NULL,
    at     bigint NOT NULL,
    PRIMARY KEY (topic, number)
);
CREATE INDEX told_by_age ON told (at);
";
