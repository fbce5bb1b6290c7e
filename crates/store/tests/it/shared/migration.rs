//! How tables come about, and what is said of those that cannot be used.

use deltaport_store::{Error, NamesOptions, Options, PostgresOptions, Store};
use deltaport_testkit::postgres::{Database, Setup};
use deltaport_testkit::tls::Certificates;
use futures_util::future::join_all;

use crate::common::*;

fn at(url: &str) -> PostgresOptions {
    PostgresOptions { url: url.to_owned(), password: None, tls: None, connections: 2 }
}

async fn open_at(home: &Home, options: PostgresOptions) -> Result<Store, Error> {
    Store::open(Options { names: NamesOptions::Postgres(options), ..home.options() }).await
}

/// What is said when a store cannot be opened for a reason that only the operator can do something about.
async fn refused(home: &Home, options: PostgresOptions) -> String {
    match open_at(home, options).await {
        Err(Error::Unusable(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_start_at_once() {
    let home = Home::hub();
    let others: Vec<_> = (0..6).map(|_| home.other()).collect();
    let stores = join_all(others.iter().map(|other| home.open_other(other))).await;
    push_blob(&stores[0], &repository("app"), noise(1, 100)).await.unwrap();
    for store in &stores {
        assert_eq!(store.names().repositories(None, 10).await.unwrap().items, [repository("app")]);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn tables_of_a_newer_program_are_left_alone() {
    let home = Home::postgres();
    home.open().await.close().await.unwrap();
    home.sql("UPDATE setting SET value = 1000 WHERE name = 'schema'");
    let text = refused(&home, at(&home.database().url())).await;
    assert!(text.contains("version 1000") && text.contains("use a newer deltaport"), "{text}");
}

#[tokio::test]
async fn the_address_may_name_a_schema_and_several_registries_share_a_database() {
    let home = Home::postgres();
    let app = repository("app");
    for schema in ["one", "Two"] {
        let url = format!("{}?schema={schema}", home.database().url());
        // Each has its own bytes.
        let directory = tempfile::tempdir().unwrap();
        let names = NamesOptions::Postgres(at(&url));
        let options = Options { root: directory.path().to_owned(), names, ..home.options() };
        let store = Store::open(options).await.unwrap();
        assert!(!store.names().repository_exists(&app).await.unwrap(), "{schema}");
        push_blob(&store, &app, noise(1, 100)).await.unwrap();
        store.close().await.unwrap();
        drop(store);
    }
    let tables = "SELECT DISTINCT table_schema FROM information_schema.tables WHERE table_name = 'manifest' ORDER BY 1";
    assert_eq!(home.sql(tables), ["Two", "one"]);
}

#[tokio::test]
async fn what_the_operator_has_to_change_is_said_in_a_sentence() {
    let home = Home::postgres();
    let role = home.database().role("pusher", "right");
    let url = home.database().url_of(&role);
    let with = |password: &str| PostgresOptions { password: Some(password.to_owned()), ..at(&url) };
    let text = refused(&home, with("wrong")).await;
    assert!(text.contains("password authentication failed") && !text.contains("wrong"), "{text}");
    open_at(&home, with("right")).await.unwrap().close().await.unwrap();

    let url = home.database().url();
    let text = refused(&home, at(&url.replace(home.database().name(), "nowhere"))).await;
    assert!(text.contains("nowhere") && text.contains("does not exist"), "{text}");
    home.sql(&format!("CREATE SCHEMA closed; GRANT USAGE ON SCHEMA closed TO {role}"));
    let closed = PostgresOptions { url: format!("{url}?schema=closed"), ..with("right") };
    let closed = PostgresOptions { url: closed.url.replace("postgres@", &format!("{role}@")), ..closed };
    let text = refused(&home, closed).await;
    assert!(text.contains("permission denied for schema closed"), "{text}");

    let name = format!("{}_ascii", home.database().name());
    home.sql(&format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"));
    let text = refused(&home, at(&url.replace(home.database().name(), &name))).await;
    assert!(text.contains("encoded in SQL_ASCII"), "{text}");
    home.sql(&format!("DROP DATABASE {name} WITH (FORCE)"));

    let text = refused(&home, at("http://example.com")).await;
    assert!(text.contains("the address of PostgreSQL"), "{text}");
    let closed = open_at(&home, at("postgres://postgres@127.0.0.1:1/x")).await;
    assert!(matches!(closed, Err(Error::Unavailable { .. })), "{closed:?}");
}

#[tokio::test]
async fn tls_is_spoken_and_certificates_are_verified() {
    let (right, wrong) = (Certificates::new(), Certificates::new());
    let server = Setup::new().tls(&right).start();
    let home = Home::over(server.database());
    let role = home.database().role("pusher", "secret");
    let url = home.database().url_of(&role).replace("127.0.0.1", "localhost");
    let options = |url: &str, certificates: &Certificates| PostgresOptions {
        password: Some("secret".to_owned()),
        tls: Some(certificates.client()),
        ..at(url)
    };
    for mode in ["", "?sslmode=require", "?sslmode=verify-full"] {
        let store = open_at(&home, options(&format!("{url}{mode}"), &right)).await.unwrap();
        store.close().await.unwrap();
        drop(store);
    }
    let untrusted = open_at(&home, options(&url, &wrong)).await.unwrap_err().to_string();
    assert!(untrusted.contains("certificate"), "{untrusted}");
    let text = open_at(&home, PostgresOptions { tls: None, ..options(&url, &right) }).await.unwrap_err();
    assert!(text.to_string().contains("no encryption"), "{text}");
}

#[tokio::test]
async fn a_database_that_orders_text_otherwise_makes_no_difference() {
    let database = Database::new();
    let name = format!("{}_words", database.name());
    database.execute(&format!(
        "CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C'"
    ));
    let home = Home::embedded();
    let store = open_at(&home, at(&database.url().replace(database.name(), &name))).await.unwrap();
    for repository in ["b", "a-b", "a/b", "a_b", "a0"].map(repository) {
        push_blob(&store, &repository, noise(1, 10)).await.unwrap();
    }
    let listed: Vec<String> =
        store.names().repositories(None, 10).await.unwrap().items.iter().map(ToString::to_string).collect();
    assert_eq!(listed, ["a-b", "a/b", "a0", "a_b", "b"]);
    store.close().await.unwrap();
    drop(store);
    database.execute(&format!("DROP DATABASE {name} WITH (FORCE)"));
}
