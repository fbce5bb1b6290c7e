//! What `deltaport config check` says about databases.

use deltaport_testkit::postgres::{Database, Setup};
use deltaport_testkit::tls::Certificates;

use crate::config_check::{refused, said};

fn in_database(url: &str, more: &str) -> String {
    format!("[storage]\nmetadata = \"{url}\"\n[storage.postgres]\n{more}\n")
}

#[test]
fn what_is_wrong_with_a_database_is_said_in_a_sentence() {
    let database = Database::new();
    let role = database.role("someone", "right password");
    let url = database.url_of(&role);
    let text = said(&in_database(&url, ""), &[("PGPASSWORD", "right password")]).unwrap();
    assert!(text.contains("good") && text.contains(&role), "{text}");
    assert_eq!(database.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");

    refused(&in_database(&url, ""), &[("PGPASSWORD", "wrong password")], &["password", &role]);
    refused(&in_database(&url, ""), &[], &["password"]);
    let nowhere = url.replace(database.name(), "nowhere");
    refused(&in_database(&nowhere, ""), &[("PGPASSWORD", "right password")], &["nowhere"]);
    let closed = format!("postgres://{role}@127.0.0.1:1/x");
    refused(&in_database(&closed, ""), &[], &["127.0.0.1:1"]);
    database.execute(&format!("REVOKE ALL ON SCHEMA public FROM {role}, public"));
    refused(&in_database(&url, ""), &[("PGPASSWORD", "right password")], &["may not make tables"]);
}

#[test]
fn tls_with_a_database_needs_an_authority_that_is_trusted() {
    let certificates = Certificates::new();
    let server = Setup::new().tls(&certificates).start();
    let database = server.database();
    let url = database.url_of(&database.role("someone", "right password"));
    let password = [("PGPASSWORD", "right password")];
    refused(&in_database(&url, "tls = \"off\""), &password, &["TLS"]);
    refused(&in_database(&url, "tls = \"verify\""), &password, &["ertificate"]);
    let directory = tempfile::tempdir().unwrap();
    certificates.write(directory.path());
    let ca = directory.path().join("ca.crt");
    said(&in_database(&url, &format!("tls = \"verify\"\nca = \"{}\"", ca.display())), &password).unwrap();
    let plain = Database::new();
    refused(&in_database(&plain.url(), "tls = \"verify\""), &[], &["TLS"]);
}

#[test]
fn tables_and_encodings_of_others_are_told() {
    let newer = Database::new();
    newer.execute("CREATE TABLE setting (name text COLLATE \"C\" PRIMARY KEY, value bigint NOT NULL)");
    newer.execute("INSERT INTO setting VALUES ('schema', 99)");
    refused(&in_database(&newer.url(), ""), &[], &["version 99", "use a newer deltaport"]);
    let latin = newer.url().replace(newer.name(), "latin");
    newer.execute("DROP DATABASE IF EXISTS latin");
    newer.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    refused(&in_database(&latin, ""), &[], &["LATIN1", "ENCODING 'UTF8'"]);
    newer.execute("DROP DATABASE latin");
}
