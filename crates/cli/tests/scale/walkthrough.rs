//! What docs/scaling.md tells to type is typed.

use std::fs;
use std::path::Path;
use std::process::Command;

use deltaport_testkit::clients::{free_port, require};

use crate::objects::Objects;

/// What ends everything that the script has started, and removes its directory.
const EPILOGUE: &str = r#"
leave() {
    status=$?
    [ $status = 0 ] || tail -n 20 $WORK/*.log
    kill $(jobs -p) 2>/dev/null || true
    [ ! -e $WORK/nginx.pid ] || kill $(cat $WORK/nginx.pid) || true
    as_postgres $PG/pg_ctl --pgdata $WORK/names/data --mode immediate stop >/dev/null || true
    wait
    cd / && rm -rf $WORK
    exit $status
}
trap leave EXIT
"#;

/// The blocks of the document that are to be run.
fn blocks(document: &str) -> Vec<&str> {
    let blocks = document.split("```sh run\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn three_replicas_from_nothing() {
    for program in ["/usr/sbin/nginx", "/usr/bin/curl", "/usr/bin/pg_createcluster"] {
        require(program);
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let document = fs::read_to_string(repository.join("docs/scaling.md")).unwrap();
    let objects = Objects::start();
    let blocks = blocks(&document);
    assert_eq!(blocks.len(), 4, "the blocks of the walkthrough");
    // The database's block first, so that what ends it knows where it is.
    let mut script = format!("set -euo pipefail\n{}\n{EPILOGUE}\n{}", blocks[0], blocks[1..].concat());
    let mut replace = |from: &str, to: &str| {
        assert!(script.contains(from), "the walkthrough has no {from}");
        script = script.replace(from, to);
    };
    replace("5433", &free_port().to_string());
    replace("127.0.0.1:8080", &format!("127.0.0.1:{}", free_port()));
    // Three ports that differ in their last digit.
    replace("127.0.0.1:500", &format!("127.0.0.1:{}", free_port() / 10));
    replace("s3://deltaport/hub", &format!("s3://{}/hub", objects.bucket));
    replace("http://127.0.0.1:3900", &objects.endpoint);
    replace("region = \"garage\"", &format!("region = \"{}\"", objects.region));

    let mut bash = Command::new("/usr/bin/timeout");
    bash.args(["--kill-after=10", "300", "/bin/bash", "-c", &script]);
    let programs = Path::new(env!("CARGO_BIN_EXE_deltaport")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    bash.env("PATH", path).env("DEPLOY", repository.join("deploy")).envs(objects.variables());
    let output = bash.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}\n{script}", String::from_utf8_lossy(&said));
}
