//! What happened in the database: triggers write down who took which lease and what was done under it, so that it can be
//! told afterwards whether anything was done twice, or by somebody who had no right to it any more.

use std::time::{Duration, Instant};

use deltaport_testkit::postgres::Database;

use crate::hub::Hub;
use crate::ledger::Move;

/// How often it is looked whether what is waited for is so.
const LOOK: Duration = Duration::from_millis(250);
/// How often the collector may run until nothing is left to be removed: links, then bytes, then objects.
const COLLECTIONS: usize = 6;

const TRIGGERS: &str = r#"
CREATE TABLE seen (
    id     bigserial PRIMARY KEY,
    at     bigint NOT NULL DEFAULT now_in_milliseconds(),
    what   text NOT NULL,
    name   text NOT NULL,
    due    bigint,
    until  bigint
);

CREATE FUNCTION see_lease() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO seen (what, name) VALUES ('lease given back', OLD.name);
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO seen (what, name) VALUES ('lease taken', NEW.name);
    ELSIF NEW.holder <> OLD.holder THEN
        INSERT INTO seen (what, name, until) VALUES ('lease taken over', NEW.name, OLD.until);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER see_lease AFTER INSERT OR UPDATE OR DELETE ON lease FOR EACH ROW EXECUTE FUNCTION see_lease();

CREATE FUNCTION see_slot() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO seen (what, name, due)
        VALUES (CASE WHEN NEW.done IS NULL THEN 'run begun' ELSE 'run done' END, NEW.name, NEW.due);
    RETURN NULL;
END $$;
CREATE TRIGGER see_slot AFTER INSERT OR UPDATE ON slot FOR EACH ROW EXECUTE FUNCTION see_slot();

CREATE FUNCTION see_delta() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO seen (what, name) VALUES ('delta made', concat_ws(' ', NEW.repository, NEW.base, NEW.target));
    RETURN NULL;
END $$;
CREATE TRIGGER see_delta AFTER INSERT ON layer_delta FOR EACH ROW EXECUTE FUNCTION see_delta();

CREATE FUNCTION see_job() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    pair text := concat_ws(' ', OLD.repository, OLD.base, OLD.target);
BEGIN
    IF TG_OP = 'DELETE' THEN
        -- Struck from the list, since whoever made it died, again and again.
        IF OLD.claimed IS NULL AND OLD.attempts >= 3 THEN
            INSERT INTO seen (what, name) VALUES ('delta given up', pair);
        END IF;
    ELSIF OLD.holder IS NULL AND NEW.holder IS NOT NULL THEN
        INSERT INTO seen (what, name) VALUES ('delta claimed', pair);
    ELSIF OLD.holder IS NOT NULL AND NEW.holder IS NULL THEN
        INSERT INTO seen (what, name, until) VALUES (
            CASE WHEN OLD.until <= now_in_milliseconds() THEN 'delta taken from the dead' ELSE 'delta given back' END,
            pair, OLD.until);
    ELSIF OLD.holder <> NEW.holder THEN
        INSERT INTO seen (what, name) VALUES ('delta stolen', pair);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER see_job AFTER UPDATE OR DELETE ON delta_job FOR EACH ROW EXECUTE FUNCTION see_job();

CREATE FUNCTION see_upload() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO seen (what, name, until) VALUES ('upload taken over', NEW.id, OLD.until);
    RETURN NULL;
END $$;
CREATE TRIGGER see_upload AFTER UPDATE ON upload FOR EACH ROW
    WHEN (OLD.holder IS NOT NULL AND NEW.holder <> OLD.holder) EXECUTE FUNCTION see_upload();

CREATE TABLE promised (repository text NOT NULL, base text NOT NULL, target text NOT NULL);
"#;

/// What must never have happened, and how to find it.
const NEVER: [(&str, &str); 9] = [
    (
        "a lease was taken from somebody who had it",
        "SELECT * FROM seen WHERE what IN ('lease taken over', 'upload taken over') AND until > at",
    ),
    (
        "a job was taken from somebody who had it",
        "SELECT * FROM seen WHERE what = 'delta stolen'",
    ),
    (
        "a run was done twice",
        "SELECT name, due FROM seen WHERE what = 'run done' GROUP BY name, due HAVING count(*) > 1",
    ),
    (
        "a run was begun and never done, although there was another",
        "SELECT name, due FROM seen AS begun WHERE what = 'run begun'
             AND NOT EXISTS (SELECT 1 FROM seen WHERE what = 'run done' AND name = begun.name AND due = begun.due)
             AND EXISTS (SELECT 1 FROM seen WHERE what = 'run begun' AND name = begun.name AND due > begun.due)",
    ),
    (
        "a run was begun again although nobody had died of it",
        "SELECT name, due FROM seen AS begun WHERE what = 'run begun' GROUP BY name, due
             HAVING count(*) - 1 > (SELECT count(*) FROM seen WHERE what = 'lease taken over' AND name = begun.name
                 AND id BETWEEN min(begun.id) AND max(begun.id))",
    ),
    (
        "a run was for an earlier time than the one before",
        "SELECT * FROM (SELECT *, lag(due) OVER (PARTITION BY name ORDER BY id) AS before FROM seen
             WHERE what = 'run begun') AS runs WHERE due < before",
    ),
    (
        "the end of a run was said by somebody who had lost its lease",
        "SELECT * FROM seen AS done WHERE what = 'run done' AND (
             SELECT what FROM seen WHERE name = done.name AND id < done.id ORDER BY id DESC LIMIT 1) <> 'run begun'",
    ),
    (
        "a delta was made twice to effect",
        "SELECT name FROM seen WHERE what = 'delta made' GROUP BY name HAVING count(*) > 1",
    ),
    (
        "a delta was made by somebody who had lost its lease",
        "SELECT * FROM seen AS made WHERE what = 'delta made' AND (
             SELECT what FROM seen WHERE name = made.name AND id < made.id ORDER BY id DESC LIMIT 1) <> 'delta claimed'",
    ),
];

/// The database of a hub, and what is written down in it.
pub(crate) struct History(Database);

impl History {
    /// Has everything written down from now on that happens in a database of names.
    pub(crate) fn of(database: Database) -> Self {
        database.execute(TRIGGERS);
        Self(database)
    }

    fn lines(&self, query: &str) -> Vec<String> {
        self.0.execute(query).lines().map(str::to_owned).collect()
    }

    /// Panics when a query finds anything.
    fn never(&self, what: &str, query: &str) {
        let found = self.0.execute(query);
        assert!(found.is_empty(), "{what}:\n{found}");
    }

    /// Waits until every delta that was to be made is made, or is known not to be worth it; how many there are. Panics when
    /// for `limit` there is no progress.
    pub(crate) async fn wait_for_deltas(&self, limit: Duration) -> usize {
        let (mut deadline, mut fewest) = (Instant::now() + limit, usize::MAX);
        loop {
            let left = self.lines("SELECT id, claimed, attempts, holder FROM delta_job");
            if left.is_empty() {
                break;
            }
            if left.len() < fewest {
                (deadline, fewest) = (Instant::now() + limit, left.len());
            }
            assert!(Instant::now() < deadline, "nobody does these jobs: {left:#?}");
            tokio::time::sleep(LOOK).await;
        }
        self.lines("SELECT 1 FROM layer_delta").len()
    }

    /// Waits until these tags lead to these digests, whatever an upstream has: repository, tag and digest, a line each.
    pub(crate) async fn wait_for_tags(&self, wanted: &[String], limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            let there = self.lines(
                "SELECT repository.name, tag.name, tag.digest FROM tag JOIN repository ON repository.id = repository",
            );
            let missing: Vec<_> = wanted.iter().filter(|tag| !there.contains(tag)).collect();
            if missing.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "not mirrored: {missing:#?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Sees to it that nothing was done twice to effect, and that every delta which was promised is known: made, not worth it,
    /// or of a layer that was removed, or given up after so many of those who made it had died.
    pub(crate) fn is_in_order(&self, promised: &[Move]) {
        for (what, query) in NEVER {
            self.never(what, query);
        }
        if !promised.is_empty() {
            let row = |one: &Move| {
                format!("('{}', '{}', '{}')", one.repository, one.base.digest, one.target.digest)
            };
            let rows: Vec<_> = promised.iter().map(row).collect();
            self.0.execute(&format!("INSERT INTO promised VALUES {}", rows.join(", ")));
        }
        self.never(
            "a job was lost",
            "SELECT promised.* FROM promised JOIN repository ON repository.name = promised.repository
             WHERE NOT EXISTS (SELECT 1 FROM layer_delta AS known
                 WHERE known.repository = repository.id AND known.base = promised.base AND known.target = promised.target)
             AND NOT EXISTS (SELECT 1 FROM seen
                 WHERE what = 'delta given up' AND name = concat_ws(' ', repository.id, promised.base, promised.target))
             AND 2 = (SELECT count(*) FROM repository_blob AS held
                 WHERE held.repository = repository.id AND held.digest IN (promised.base, promised.target))",
        );
    }

    /// The pairs of layers of which it is known that a delta is not worth it: repository, base and target.
    pub(crate) fn not_worth_it(&self) -> Vec<String> {
        self.lines(
            "SELECT repository.name, base, target FROM layer_delta JOIN repository ON repository.id = repository
             WHERE digest IS NULL",
        )
    }

    /// Lets days go by, as far as the database tells, and has what nothing refers to removed. Then what is in the bucket is
    /// what names say, neither more nor less. How many objects that is.
    pub(crate) fn is_collected(&self, hub: &Hub) -> usize {
        let left = "SELECT (SELECT count(*) FROM doomed) + (SELECT count(*) FROM review) + (SELECT count(*) FROM upload)";
        for _ in 0..COLLECTIONS {
            self.0.execute(
                "UPDATE doomed SET due = 0; UPDATE review SET since = 0; UPDATE upload SET touched = 0",
            );
            hub.command(&["gc"]);
            if self.0.execute(left) == "0" {
                break;
            }
        }
        self.never("this cannot be removed", "SELECT place, multipart, due, taken FROM doomed");
        self.never("this is reviewed again and again", "SELECT * FROM review");
        self.never(
            "nothing refers to this",
            "SELECT digest FROM blob WHERE NOT EXISTS (SELECT 1 FROM repository_blob AS held WHERE held.digest = blob.digest)
                 AND NOT EXISTS (SELECT 1 FROM manifest WHERE manifest.digest = blob.digest)
             UNION SELECT digest FROM repository_blob AS held WHERE NOT EXISTS (SELECT 1 FROM reference
                 WHERE reference.repository = held.repository AND reference.digest = held.digest)
                 AND NOT EXISTS (SELECT 1 FROM layer_delta AS known
                 WHERE known.repository = held.repository AND known.digest = held.digest)",
        );
        let mut named = self.lines("SELECT place, size FROM blob WHERE place IS NOT NULL");
        if let Some(listed) = hub.objects.listed() {
            let mut listed: Vec<_> =
                listed.into_iter().map(|(name, size)| format!("{name}|{size}")).collect();
            named.sort_unstable();
            listed.sort_unstable();
            assert_eq!(listed, named, "what is in the bucket, and what names say");
        }
        named.len()
    }

    /// What was seen, in figures.
    pub(crate) fn figures(&self) -> String {
        self.lines("SELECT what, count(*) FROM seen GROUP BY what ORDER BY what")
            .join(", ")
            .replace('|', ": ")
    }
}
