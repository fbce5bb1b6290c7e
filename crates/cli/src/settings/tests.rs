//! The settings as operators write them, the mistakes they make, and that the table of keys is whole.

use std::path::Path;

use super::*;
use crate::settings::key::Default as KeyDefault;
use crate::settings::keys::{CERTIFICATE, MIRROR, OIDC, REPOSITORY, RULE, SETTINGS, TAG_RULE, UPSTREAM};
use deltaport_trust::Action;
use proptest::prelude::*;

fn read(text: &str) -> Result<Settings, Vec<Problem>> {
    Settings::read(text, Path::new("/etc/deltaport"), &Overrides::default())
}

fn good(text: &str) -> Settings {
    read(text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"))
}

#[test]
fn nothing_said_means_the_defaults() {
    let settings = good("");
    assert_eq!(settings.listen.to_string(), "127.0.0.1:5000");
    assert_eq!(settings.validate, Validate::None);
    assert_eq!(settings.limits.manifest_size, Size(4 << 20));
    assert!(
        settings.upstream.is_empty() && settings.data.is_none() && settings.access.trust_loopback.is_none()
    );
}

#[test]
fn everything_can_be_said() {
    let settings = good(
        r#"
        listen = "[::]:443"
        data = "data"
        validate = ["linux/amd64", "linux/arm64/v8"]
        shutdown_grace = "5s"
        trusted_proxies = ["10.1.2.3", "2001:db8::/48"]
        [[repository]]
        names = ["team/**", "app"]
        validate = "all"
        [tls]
        certificate = "tls.crt"
        key = "/keys/tls.key"
        [access]
        htpasswd = "htpasswd"
        trust_loopback = true
        groups = { dev = ["anna", "bert"] }
        [[access.rule]]
        repositories = ["team/**"]
        allow = ["pull", "push"]
        groups = ["dev"]
        [storage]
        blobs = "s3://images/hub/"
        metadata = "postgresql://hub@db.example/deltaport"
        [storage.s3]
        endpoint = "https://s3.example:9000/"
        credentials_file = "s3-credentials"
        [storage.postgres]
        tls = "verify"
        [limits]
        free_disk = "1 GiB"
        [space]
        cached = "20 GiB"
        pins = ["docker.io/library/**", "quay.io/team/app:v*"]
        [[upstream]]
        host = "docker.io"
        url = "https://registry-1.docker.io/"
        default = true
        username = "site7"
        password_file = "hub.password"
        deltas = "never"
        hosts = ["docker.mirror.example"]
        repositories = ["library/**"]
        platforms = ["linux/amd64", "linux/arm/*"]
        platformless = false
        max_age = "5m"
        stale = "30d"
        negative_age = "0s"
        [[upstream.tags]]
        tags = ["v*"]
        immutable = true
        [[upstream.tags]]
        tags = ["*-rc*", "edge"]
        max_age = "1h"
        [log]
        level = "debug"
        format = "json"
        "#,
    );
    assert_eq!(settings.data.as_deref(), Some(Path::new("/etc/deltaport/data")));
    assert_eq!(settings.trusted_proxies[1].to_string(), "2001:db8::/48");
    let storage = &settings.storage;
    assert_eq!(storage.blobs.as_ref().unwrap().to_string(), "s3://images/hub");
    assert_eq!(storage.metadata.as_ref().unwrap().to_string(), "postgres://hub@db.example:5432/deltaport");
    assert_eq!(storage.s3.credentials_file.as_deref(), Some(Path::new("/etc/deltaport/s3-credentials")));
    assert_eq!((storage.s3.is_path_style(), storage.postgres.tls), (true, PostgresTls::Verify));
    assert_eq!((settings.space.cached, settings.space.pins.len()), (Size(20 << 30), 2));
    assert_eq!(settings.tls.certificate.as_deref(), Some(Path::new("/etc/deltaport/tls.crt")));
    assert_eq!(settings.tls.key.as_deref(), Some(Path::new("/keys/tls.key")));
    assert!(matches!(&settings.validate, Validate::Platforms(platforms) if platforms.len() == 2));
    assert_eq!((settings.repository[0].names.len(), &settings.repository[0].validate), (2, &Validate::All));
    assert_eq!((settings.upstream[0].platforms.len(), settings.upstream[0].platformless), (2, false));
    assert_eq!(settings.access.groups["dev"].len(), 2);
    assert_eq!(settings.access.rule[0].allow, [Action::Pull, Action::Push]);
    assert_eq!(settings.upstream[0].url, "https://registry-1.docker.io");
    assert_eq!(settings.upstream[0].repositories[0].as_str(), "library/**");
    assert_eq!(settings.upstream[0].stale, Stale::For("30d".parse().unwrap()));
    let rules: Vec<_> = settings.upstream[0]
        .tags
        .iter()
        .map(|rule| (rule.tags.len(), rule.max_age, rule.immutable))
        .collect();
    assert_eq!(rules, [(1, None, true), (2, Some("1h".parse().unwrap()), false)]);
    assert_eq!((settings.upstream[0].deltas, settings.log.level), (Deltas::Never, Level::Debug));
    assert_eq!(settings.limits.free_disk, Size(1 << 30));
}

#[test]
fn hosts_as_they_are_written() {
    for host in ["docker.io", "localhost", "hub.example:5000", "10.0.0.7:443", "xn--bcher-kva.example"] {
        let settings = good(&format!("[[upstream]]\nhost = \"{host}\"\nurl = \"http://a\""));
        assert_eq!(settings.upstream[0].host, host);
    }
}

#[test]
fn the_command_line_wins() {
    let overrides = Overrides {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        data: Some("here".into()),
        insecure_http: true,
    };
    let text = "listen = \"0.0.0.0:80\"\ndata = \"/there\"";
    let settings = Settings::read(text, Path::new("/etc"), &overrides).unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:0");
    assert_eq!(settings.data.as_deref(), Some(Path::new("here")));
    assert!(settings.insecure_http);
}

#[test]
fn mistakes_are_told_with_their_place_and_what_is_right() {
    for (text, line, column, says) in [
        // Keys.
        ("lisen = \"127.0.0.1:1\"", 1, 1, "unknown key `lisen`; did you mean `listen`?"),
        ("\n[limits]\nmanifst_size = \"4MiB\"", 3, 1, "did you mean `limits.manifest_size`?"),
        ("manifest_size = \"4MiB\"", 1, 1, "did you mean `limits.manifest_size`?"),
        ("[limit]\nfree_disk = \"1GiB\"", 1, 2, "did you mean `limits`?"),
        ("fruit = 1", 1, 1, "`deltaport config reference` shows every key"),
        ("limits.fruit = 1", 1, 8, "unknown key `limits.fruit`"),
        ("[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\nusernam = \"x\"", 4, 1, "did you mean `username`?"),
        // Types.
        ("listen = 5000", 1, 10, "must be an IP address and a port"),
        ("listen = \":5000\"", 1, 10, "not an IP address and a port"),
        ("insecure_http = \"yes\"", 1, 17, "must be true or false"),
        ("limits = 3", 1, 1, "write [limits] above"),
        ("[upstream]\nhost = \"a\"", 1, 1, "write [[upstream]] with double brackets"),
        ("[cache]\nmanifests = 16", 2, 13, "must be a size such as"),
        ("[limits]\npage_size = \"many\"", 2, 13, "must be a whole number from 1 to 100000"),
        ("access.groups = [\"dev\"]", 1, 17, "is a table"),
        ("access.groups.dev = \"anna\"", 1, 15, "must be a list of user names"),
        // Values.
        ("[limits]\nmanifest_size = \"4KiB\"", 2, 17, "from 64KiB to 64MiB"),
        ("[limits]\npage_size = 0", 2, 13, "from 1 to 100000"),
        ("[limits]\npage_size = -1", 2, 13, "from 1 to 100000"),
        ("shutdown_grace = \"half an hour\"", 1, 18, "must be a time such as \"30s\""),
        ("[log]\nlevel = \"inf\"", 2, 9, "did you mean \"info\"?"),
        ("[log]\nformat = \"xml\"", 2, 10, "must be \"text\" or \"json\""),
        ("validate = \"some\"", 1, 12, "\"some\" is neither"),
        ("validate = [\"linux\"]", 1, 12, "not a platform"),
        ("validate = []", 1, 12, "an empty list demands nothing"),
        ("[[repository]]\nnames = [\"a\"]", 2, 1, "needs `validate`"),
        (
            "[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\nplatforms = [\"linux/arm*\"]",
            4,
            14,
            "not a platform such as",
        ),
        (
            "[[access.rule]]\nrepositories = [\"Team/*\"]\nallow = [\"pull\"]\nlocal = true",
            2,
            17,
            "'T' cannot stand",
        ),
        ("[[access.rule]]\nrepositories = [\"a\"]\nallow = [\"pul\"]\nlocal = true", 3, 10, "not an action"),
        ("[[upstream]]\nhost = \"Docker.io\"\nurl = \"http://a\"", 2, 8, "small letters"),
        ("[[upstream]]\nhost = \"a_b\"\nurl = \"http://a\"", 2, 8, "not a host name"),
        ("[[upstream]]\nhost = \"a/b\"\nurl = \"http://a\"", 2, 8, "not a host name"),
        ("[[upstream]]\nhost = \"a:\"\nurl = \"http://a\"", 2, 8, "not a host name"),
        ("[[upstream]]\nhost = \"\"\nurl = \"http://a\"", 2, 8, "not a host name"),
        ("[[upstream]]\nhost = \"a\"\nurl = \"ftp://a\"", 3, 7, "https:// or http://"),
        ("[[upstream]]\nhost = \"a\"\nurl = \"https://me:secret@a\"", 3, 7, "password_file"),
        ("[[upstream]]\nhost = \"a\"\nurl = \"https://a/v2/\"", 3, 7, "only a host and a port"),
        ("[storage]\nblobs = \"gs://images\"", 2, 9, "gs: is no scheme"),
        ("[storage]\nblobs = \"s3://Images\"", 2, 9, "small letters"),
        ("[storage]\nblobs = \"s3://images/a//b\"", 2, 9, "single slashes"),
        ("[storage]\nmetadata = \"names/\"", 2, 12, "that of a directory"),
        ("[storage]\nmetadata = \"postgres://db.example/x\"", 2, 12, "the user is missing"),
        ("[storage]\nmetadata = \"postgres://hub@db.example\"", 2, 12, "the name of the database"),
        ("[storage]\nmetadata = \"postgres://hub:secret@db.example/x\"", 2, 12, "password_file"),
        ("[storage]\nmetadata = \"postgres://hub@db.example/x?sslmode=off\"", 2, 12, "[storage.postgres]"),
        (
            "trusted_proxies = [\"balancer.example\"]",
            1,
            20,
            "a network is an address and the number of its bits",
        ),
        ("trusted_proxies = [\"::/0\"]", 1, 20, "everybody is in it"),
        // What is missing or does not go together.
        ("[[upstream]]\nhost = \"a\"", 2, 1, "[[upstream]] needs `url`"),
        ("[tls]\nkey = \"k\"", 1, 2, "`tls.key` needs `tls.certificate`"),
        ("listen = \"0.0.0.0:5000\"", 1, 1, "other machines can reach 0.0.0.0:5000"),
        ("[[access.rule]]\nrepositories = [\"a\"]\nallow = [\"pull\"]", 1, 10, "grants to nobody"),
        (
            "[access]\nhtpasswd = \"h\"\n[[access.rule]]\nrepositories = [\"a\"]\nallow = [\"pull\"]\ngroups = [\"dev\"]",
            3,
            10,
            "the group \"dev\"",
        ),
        (
            "[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\n[[upstream]]\nhost = \"a\"\nurl = \"http://b\"",
            5,
            1,
            "upstreams 1 and 2 have the same",
        ),
        ("[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\nusername = \"u\"", 2, 1, "needs `password_file`"),
        ("[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\npassword_env = \"P\"", 2, 1, "needs `username`"),
        (
            "[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\nusername = \"u\"\ncredential_helper = \"pass\"",
            2,
            1,
            "`username` must not be given",
        ),
        (
            "[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\ncredentials_file = \"c\"\ncredential_helper = \"pass\"",
            2,
            1,
            "exclude each other",
        ),
        (
            "[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\ncredential_helper = \"../x\"",
            4,
            21,
            "not the name",
        ),
        (
            "[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\npassword_env = \"\"",
            4,
            16,
            "environment variable",
        ),
        ("[[upstream]]\nhost = \"a\"\nurl = \"https://a\"\nclient_key = \"k\"", 2, 1, "`client_certificate`"),
        (
            "[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\nclient_key = \"k\"\nclient_certificate = \"c\"",
            2,
            1,
            "is for https",
        ),
        ("[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\nhosts = [\"m:80\"]", 4, 10, "no port"),
        ("[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\nstale = \"always\"", 4, 9, "\"forever\" or a time"),
        ("[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\nstale = \"4000d\"", 4, 9, "at most 3650d"),
        ("[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\nrepositories = [\"/x\"]", 4, 17, "slash"),
        (
            "[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\n[[upstream.tags]]\nimmutable = true",
            5,
            1,
            "[[upstream.tags]] needs `tags`",
        ),
        (
            "[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\n[[upstream.tags]]\ntags = [\"v?\"]",
            5,
            9,
            "a pattern of tags is made of",
        ),
        (
            "[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\n[[upstream.tags]]\ntags = [\"v*\"]",
            2,
            1,
            "the [[upstream.tags]] for v* needs either",
        ),
        (
            "upstream = [{host = \"a\", url = \"http://a\", hosts = [\"m\"]}, \
             {host = \"b\", url = \"http://b\", hosts = [\"m\"]}]",
            1,
            61,
            "upstreams 1 and 2 both have m",
        ),
        // Not even TOML.
        ("listen = ", 1, 10, "this is not TOML"),
        ("listen = \"a\"\nlisten = \"b\"", 2, 1, "this is not TOML"),
    ] {
        let problems = read(text).expect_err(text);
        let found = &problems[0];
        assert!(found.message.contains(says), "{text}\n{found:#?}");
        assert_eq!((found.line, found.column), (Some(line), Some(column)), "{text}\n{found:#?}");
        assert_eq!(problems.len(), 1, "{text}\n{problems:#?}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let problems =
        read("lisen = 1\ninsecure_http = 1\n[limits]\npage_size = 0\n[log]\nlevel = \"loud\"").unwrap_err();
    assert_eq!(problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [1, 2, 4, 6].map(Some));
    let many = "x = 1\n".repeat(0) + &(0..500).map(|i| format!("fruit{i} = 1\n")).collect::<String>();
    assert_eq!(read(&many).unwrap_err().len(), 100);
}

#[test]
fn problems_are_written_as_compilers_write_them() {
    let problems = Problems { file: Some("site.toml".into()), problems: read("lisen = 1").unwrap_err() };
    assert_eq!(problems.to_string(), "site.toml:1:1: unknown key `lisen`; did you mean `listen`?");
}

/// The names of all values in JSON, as paths.
fn leaves(value: &serde_json::Value, path: &str, names: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) if path != "access.groups" => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(value, &path, names);
            }
        }
        _ => {
            names.insert(path.to_owned());
        }
    }
}

/// The names of the fields of a value.
fn fields(value: &impl Serialize) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    leaves(&serde_json::to_value(value).unwrap(), "", &mut names);
    names
}

#[test]
fn every_field_has_a_row_and_every_row_a_field() {
    let rows: BTreeSet<String> = SETTINGS.iter().copied().flatten().map(|key| key.name.to_owned()).collect();
    assert_eq!(fields(&good("")), rows);
    let rows: BTreeSet<String> = RULE.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(fields(&Rule::default()), rows);
    let rows: BTreeSet<String> = CERTIFICATE.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(fields(&Certificate::default()), rows);
    let rows: BTreeSet<String> = OIDC.iter().map(|key| key.name.to_owned()).collect();
    let claims = std::collections::BTreeMap::from([(String::new(), BTreeSet::new())]);
    let names = fields(&Issuer { claims, ..Issuer::default() });
    let names: BTreeSet<String> = names.iter().map(|name| name.trim_end_matches('.').to_owned()).collect();
    assert_eq!(names, rows);
    let rows: BTreeSet<String> = UPSTREAM.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(fields(&Upstream::default()), rows);
    let rows: BTreeSet<String> = TAG_RULE.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(fields(&TagRule::default()), rows);
    let rows: BTreeSet<String> = MIRROR.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(fields(&Mirror::default()), rows);
    let rows: BTreeSet<String> = REPOSITORY.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(fields(&Repository::default()), rows);
}

#[test]
fn every_default_and_every_example_is_possible() {
    let rows = SETTINGS.iter().copied().flatten().map(|key| (key.name, key.default));
    for (name, default) in rows.filter(|(name, _)| !name.starts_with("tls.")) {
        let (KeyDefault::Value(value)
        | KeyDefault::Unset { example: value, .. }
        | KeyDefault::Required(value)) = default;
        good(&format!("{name} = {value}"));
    }
}

/// The reference with everything in effect: a # and a space is prose, a # alone hides a key.
fn uncommented(reference: &str) -> String {
    let shown = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    reference.lines().map(shown).collect()
}

#[test]
fn the_reference_is_a_configuration() {
    let text = reference(ReferenceFormat::Toml);
    let as_shown = serde_json::to_value(good(&text)).unwrap();
    assert_eq!(as_shown, serde_json::to_value(good("")).unwrap(), "commented out, it says nothing");
    // Of these, an upstream has one, and a certificate's user; and a certificate that is asked for takes the place of one
    // that is there; and only a mirror of a layout says its repository.
    let upstream = ["password_env", "credentials_file", "credential_helper"];
    let exclude =
        [&upstream[..], &["dns_name", "email", "uri"], &["certificate", "key", "repository"]].concat();
    let all = uncommented(&text);
    let possible = |line: &&str| !exclude.iter().any(|key| line.starts_with(&format!("{key} =")));
    let settings = good(&all.lines().filter(possible).collect::<Vec<_>>().join("\n"));
    assert_eq!((settings.upstream.len(), settings.access.rule.len()), (1, 1));
}

#[test]
fn what_is_in_effect_can_be_fed_back() {
    let text =
        "data = \"/x\"\n[[upstream]]\nhost = \"a\"\nurl = \"http://a\"\n[access]\ngroups = { g = [\"u\"] }";
    let settings = good(text);
    let written = toml::to_string(&settings).unwrap();
    assert_eq!(
        serde_json::to_value(good(&written)).unwrap(),
        serde_json::to_value(&settings).unwrap(),
        "{written}"
    );
}

#[test]
fn the_documentation_is_the_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == reference(ReferenceFormat::Markdown),
        "docs/configuration.md is out of date: run `cargo run -- config reference --markdown > docs/configuration.md`"
    );
}

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn no_value_panics(
        key in proptest::sample::select(SETTINGS.iter().copied().flatten().map(|key| key.name).collect::<Vec<_>>()),
        value in prop_oneof![
            Just("{}".to_owned()), Just("[]".to_owned()), Just("[{}]".to_owned()), Just("[1, \"a\"]".to_owned()),
            any::<i64>().prop_map(|n| n.to_string()), any::<f64>().prop_map(|n| n.to_string()),
            "\"[ -~&&[^\"\\\\]]{0,20}\"", "[a-z0-9:-]{0,20}", Just("{ a = [\"b\"], c = 1 }".to_owned()),
        ],
    ) {
        let _ = read(&format!("{key} = {value}"));
        let _ = read(&format!("[[{key}]]\nx = {value}\n[[{key}]]\n"));
        let _ = read(&format!("[{key}]\nx = {value}"));
    }

    #[test]
    fn no_damage_to_the_reference_panics(at in 0..20_000_usize, with in any::<char>()) {
        let damaged: String = uncommented(&reference(ReferenceFormat::Toml))
            .chars()
            .enumerate()
            .map(|(i, c)| if i == at { with } else { c })
            .collect();
        if let Err(problems) = read(&damaged) {
            let lines = damaged.lines().count().max(1) + 1;
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.iter().all(|problem| problem.line.is_none_or(|line| (1..=lines).contains(&line))));
        }
    }
}

#[test]
fn mirrors_need_an_upstream_a_name_of_their_own_and_tags() {
    let rule = |more: &str| format!("[[mirror]]\nname = \"a\"\nsource = \"quay.io/team/app\"\n{more}\n");
    let settings = good(&rule("tags = [\"v*\"]\nsemver = \"^1.2\"\nnewest = 3\nevery = \"6h\""));
    let mirror = &settings.mirror[0];
    assert_eq!(
        mirror.place().map(|(host, name)| format!("{host} {name}")).as_deref(),
        Some("quay.io team/app")
    );
    assert_eq!((mirror.newest, mirror.every), (3, Span(std::time::Duration::from_secs(6 * 3600))));
    let hub = "[[upstream]]\nhost = \"hub.example\"\nurl = \"https://hub.example\"\n";
    for (text, expected) in [
        (rule("tags = []"), "wants no `tags`"),
        (rule(""), "needs `tags`"),
        (format!("{}{}", rule("tags = [\"a\"]"), rule("tags = [\"b\"]")), "two of [[mirror]]"),
        (format!("{hub}{}", rule("tags = [\"a\"]")), "no [[upstream]] with that `host`"),
        (rule("tags = [\"a\"]\nsemver = \"latest\""), "a range is made of versions"),
        (rule("tags = [\"regex:v[0-9\"]"), "it is no regular expression: unclosed character class"),
        (rule("tags = [\"a\"]\nexcept = [\"v?\"]"), "a pattern is made of"),
        (rule("tags = [\"a\"]\nschedule = \"0 25 * * *\""), "\"25\" is no hour"),
        (rule("tags = [\"a\"]\nschedule = \"@daily\"\nevery = \"6h\""), "has `every` and `schedule`"),
        (rule("tags = [\"a\"]\nwindows = [\"night\"]"), "a window is written as"),
        (format!("timezone = \"Nowhere/Atlantis\"\n{}", rule("tags = [\"a\"]")), "has no Nowhere/Atlantis"),
        (rule("tags = [\"a\"]").replace("\"a\"\nsource", "\"A b\"\nsource"), "small letters"),
        (rule("tags = [\"a\"]").replace("quay.io/team/app", "app"), "begins with the host"),
        (rule("tags = [\"a\"]\nto = \"lan.example/app\""), "the `to` of the [[mirror]] a is at lan.example"),
        (rule("tags = [\"a\"]\nto = \"quay.io/team/*\""), "one repository, without *"),
        (rule("tags = [\"a\"]\nto = \"oci:images\""), "there is an absolute path"),
        (rule("tags = [\"a\"]\nrepository = \"vendor/app\""), "with a layout as its `source`, and only then"),
        (
            rule("tags = [\"a\"]").replace("quay.io/team/app", "oci:/x"),
            "with a layout as its `source`, and only then",
        ),
        (rule("tags = [\"a\"]\nprune_cap = \"most\""), "a number of tags such as 20"),
        (rule("tags = [\"a\"]").replace("quay.io/team/app", "quay.io/te?am*"), "begins with the host"),
    ] {
        let problems = read(&text).unwrap_err();
        assert!(problems.iter().any(|problem| problem.message.contains(expected)), "{text}\n{problems:#?}");
    }
}

#[test]
fn who_comes_how_is_checked() {
    let certificate = |more: &str| {
        format!(
            "[tls]\ncertificate = \"c\"\nkey = \"k\"\nclient_ca = \"a\"\n[[access.certificate]]\nuser = \"site7\"\n{more}\n"
        )
    };
    let issuer = "[[access.oidc]]\nissuer = \"https://ci.example\"\naudience = \"us\"\nuser = \"ci\"\n";
    let settings = good(&format!("{}{issuer}", certificate("uri = \"spiffe://a/7\"")));
    assert_eq!((settings.access.certificate.len(), settings.access.oidc.len()), (1, 1));
    assert!(settings.access.for_rules().logins);
    assert!(!good("").access.for_rules().logins);
    for (text, expected) in [
        (certificate(""), "exactly one of"),
        (certificate("uri = \"a\"\nemail = \"b\""), "exactly one of"),
        ("[[access.certificate]]\nuser = \"a\"\nuri = \"b\"".to_owned(), "needs `tls.client_ca`"),
        (certificate("uri = \"a\"").replace("site7", "a:b"), "no colon"),
        ("[tls]\nclient_ca = \"a\"".to_owned(), "needs `tls.certificate`"),
        (
            "listen = \"0.0.0.0:1\"\ninsecure_http = true\n[access]\ntokens = true".to_owned(),
            "needs `access.url`",
        ),
        ("[access]\nurl = \"registry.example\"".to_owned(), "must begin with https://"),
        (issuer.replace("https://", ""), "must begin with https://"),
        (issuer.replace("ci.example\"", "ci.example\"\nkeys = 7"), "must be a path"),
        (format!("{issuer}claims = {{ a = \"b\" }}"), "must be a list"),
    ] {
        let problems = read(&text).unwrap_err();
        assert!(problems.iter().any(|problem| problem.message.contains(expected)), "{text}\n{problems:#?}");
    }
}
