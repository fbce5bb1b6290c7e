use std::net::TcpStream;

use super::*;

#[test]
fn databases_of_one_server_know_nothing_of_each_other() {
    let (one, other) = (Database::new(), Database::new());
    assert_eq!(one.address(), other.address());
    one.execute("CREATE TABLE t (n bigint); INSERT INTO t VALUES (7)");
    assert_eq!(one.execute("SELECT n FROM t"), "7");
    assert_eq!(other.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
    assert_eq!(other.execute("SHOW server_encoding"), "UTF8");

    let role = one.role("someone", "right");
    assert!(one.url_of(&role).starts_with(&format!("postgres://{role}@127.0.0.1:")));
    let name = one.name().to_owned();
    drop(one);
    let left = other.execute(&format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'"));
    assert_eq!(left, "0");
}

#[test]
fn a_server_comes_back_on_the_same_port_with_what_was_committed() {
    let server = Server::start();
    let database = server.database();
    database.execute("CREATE TABLE t (n bigint); INSERT INTO t VALUES (7)");
    server.stop();
    assert!(TcpStream::connect(server.address()).is_err());
    server.start_again();
    assert_eq!(database.execute("SELECT n FROM t"), "7");
    assert!(server.log().contains("ready to accept connections"), "{}", server.log());
}

#[test]
fn others_than_root_need_a_password_and_tls_where_there_is_any() {
    let certificates = Certificates::new();
    let server = Setup::new().tls(&certificates).with("max_connections", "17").start();
    let database = server.database();
    assert_eq!(database.execute("SHOW max_connections"), "17");
    let role = database.role("someone", "right");
    let log_in = |password: &str, mode: &str| {
        let mut command = Command::new(programs().join("psql"));
        command.env_clear().env("PGPASSWORD", password).env("PGSSLMODE", mode);
        command.args(["--no-psqlrc", "--dbname", &database.url_of(&role), "--command", "SELECT 1"]);
        command.output().unwrap().status.success()
    };
    assert!(log_in("right", "require"));
    assert!(!log_in("wrong", "require"));
    assert!(!log_in("right", "disable"));
}
