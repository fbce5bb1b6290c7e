//! Whether settings that are each possible make sense together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use deltaport_registry::upstream::PUBLIC;
use deltaport_trust::certificates::{Identity, MAX_IDENTITIES, Name};
use deltaport_trust::tokens::MAX_CLAIMS;
use toml_edit::{Item, TableLike};

use super::keys::{layout, source};
use super::read::{Reader, start_of, start_of_key};
use super::{Access, Certificate, Rule, Settings, Upstream};

/// Reports what does not go together in `settings`, which were read from `file`.
pub(super) fn check(settings: &Settings, file: &dyn TableLike, reader: &mut Reader<'_>) {
    tls(settings, file, reader);
    access(settings, file, reader);
    upstreams(settings, file, reader);
    mirrors(settings, file, reader);
}

fn tls(settings: &Settings, file: &dyn TableLike, reader: &mut Reader<'_>) {
    let at = start_of_key(file, "tls");
    match (&settings.tls.certificate, &settings.tls.key) {
        (Some(_), None) => reader.problem(at, "`tls.certificate` needs `tls.key` beside it".to_owned()),
        (None, Some(_)) => reader.problem(at, "`tls.key` needs `tls.certificate` beside it".to_owned()),
        (Some(_), Some(_)) if !settings.acme.names.is_empty() => {
            let message =
                "[tls] has a certificate, and [acme] asks for one; only one of them can be shown".to_owned();
            reader.problem(start_of_key(file, "acme"), message);
        }
        (None, None) if settings.tls.client_ca.is_some() && settings.acme.names.is_empty() => {
            let message = "`tls.client_ca` needs `tls.certificate` and `tls.key`, or [acme]";
            reader.problem(at, message.to_owned());
        }
        (None, None)
            if !settings.listen.ip().is_loopback()
                && !settings.insecure_http
                && settings.acme.names.is_empty() =>
        {
            let message = reachable_without_tls(settings.listen);
            match file.contains_key("listen") {
                true => reader.problem(start_of_key(file, "listen"), message),
                false => reader.problem_nowhere(message),
            }
        }
        _ => {}
    }
}

fn reachable_without_tls(listen: SocketAddr) -> String {
    format!(
        "other machines can reach {listen}, and without TLS passwords and images would cross the network readable and \
         changeable. Give [tls] a certificate and a key, or have one issued with [acme]; or, on a network that is trusted anyway or behind a proxy that \
         ends TLS, say --insecure-http or insecure_http = true"
    )
}

/// The most users that are counted by name: each has three time series.
const MAX_COUNTED_USERS: usize = 1000;
/// The most issuers of identity tokens: each is asked for its keys every hour.
const MAX_ISSUERS: usize = 64;

fn access(settings: &Settings, file: &dyn TableLike, reader: &mut Reader<'_>) {
    let access = &settings.access;
    let key = |name| {
        file.get("access").and_then(Item::as_table_like).map_or(0, |access| start_of_key(access, name))
    };
    let speaks_tls = settings.tls.certificate.is_some() || !settings.acme.names.is_empty();
    if access.tokens && access.url.is_none() && !speaks_tls && !settings.listen.ip().is_loopback() {
        let message = "`access.tokens` without [tls] needs `access.url`, the address that clients know: they send their \
                       password there";
        reader.problem(key("tokens"), message.to_owned());
    }
    if access.counted_users.len() > MAX_COUNTED_USERS {
        let message = format!("at most {MAX_COUNTED_USERS} users can be counted by name");
        reader.problem(key("counted_users"), message);
    }
    if !access.certificate.is_empty() && settings.tls.client_ca.is_none() {
        let message = "[[access.certificate]] needs `tls.client_ca`, the authorities of these certificates";
        reader.problem(key("certificate"), message.to_owned());
    }
    if access.certificate.len() > MAX_IDENTITIES {
        reader.problem(
            key("certificate"),
            format!("there are at most {MAX_IDENTITIES} of [[access.certificate]]"),
        );
    }
    if access.oidc.len() > MAX_ISSUERS || access.oidc.iter().any(|issuer| issuer.claims.len() > MAX_CLAIMS) {
        let message = format!(
            "there are at most {MAX_ISSUERS} of [[access.oidc]], each with at most {MAX_CLAIMS} claims"
        );
        reader.problem(key("oidc"), message);
    }
    for certificate in access.certificate.iter().filter(|certificate| certificate.identity().is_none()) {
        let message = format!(
            "the [[access.certificate]] of {} needs exactly one of `common_name`, `dns_name`, `email` and `uri`",
            certificate.user
        );
        reader.problem(key("certificate"), message);
    }
    let Err(error) = deltaport_trust::Rules::new(settings.access.for_rules()) else { return };
    reader.problem(key("rule"), error.to_string());
}

impl Certificate {
    /// Whose it is; `None` unless exactly one name is given.
    pub(crate) fn identity(&self) -> Option<Identity> {
        let names = [
            self.common_name.clone().map(Name::Common),
            self.dns_name.clone().map(Name::Dns),
            self.email.clone().map(Name::Email),
            self.uri.clone().map(Name::Uri),
        ];
        let mut names = names.into_iter().flatten();
        let name = names.next()?;
        names.next().is_none().then(|| Identity { name, user: self.user.as_str().into() })
    }
}

impl Access {
    /// What the rules are made of.
    pub fn for_rules(&self) -> deltaport_trust::Access {
        deltaport_trust::Access {
            logins: self.htpasswd.is_some()
                || self.tokens
                || !self.certificate.is_empty()
                || !self.oidc.is_empty(),
            trust_loopback: self.trust_loopback,
            groups: self.groups.clone(),
            rules: self.rule.iter().map(Rule::grant).collect(),
        }
    }
}

impl Rule {
    fn grant(&self) -> deltaport_trust::Rule {
        deltaport_trust::Rule {
            repositories: self.repositories.clone(),
            allow: self.allow.iter().copied().collect(),
            users: self.users.clone(),
            groups: self.groups.clone(),
            logged_in: self.logged_in,
            anonymous: self.anonymous,
            local: self.local,
        }
    }
}

fn upstreams(settings: &Settings, file: &dyn TableLike, reader: &mut Reader<'_>) {
    let mut hosts = BTreeMap::new();
    let mut own_hosts = BTreeMap::new();
    let mut default = None;
    for (index, upstream) in settings.upstream.iter().enumerate() {
        let at = place_of_upstream(file, index);
        if let Some(earlier) = hosts.insert(&upstream.host, index) {
            let message = format!(
                "upstreams {} and {} have the same `host`, {}",
                earlier + 1,
                index + 1,
                upstream.host
            );
            reader.problem(at, message);
        }
        for own in &upstream.hosts {
            if let Some(earlier) = own_hosts.insert(own, index) {
                let message = format!(
                    "upstreams {} and {} both have {own} among their `hosts`",
                    earlier + 1,
                    index + 1
                );
                reader.problem(at, message);
            }
        }
        for rule in upstream.tags.iter().filter(|rule| rule.immutable == rule.max_age.is_some()) {
            let tags: Vec<String> = rule.tags.iter().map(ToString::to_string).collect();
            let message = format!(
                "the [[upstream.tags]] for {} needs either `max_age` or `immutable = true`",
                tags.join(", ")
            );
            reader.problem(at, message);
        }
        if upstream.default && default.replace(index).is_some() {
            reader.problem(at, "only one upstream can be the `default`".to_owned());
        }
        if let Some(problem) = login(upstream) {
            reader.problem(at, problem);
        }
        if let Some(problem) = certificates(upstream) {
            reader.problem(at, problem.to_owned());
        }
    }
}

fn mirrors(settings: &Settings, file: &dyn TableLike, reader: &mut Reader<'_>) {
    let at = start_of_key(file, "mirror");
    let mut names = BTreeSet::new();
    for mirror in &settings.mirror {
        let name = &mirror.name;
        if !names.insert(name) {
            reader.problem(at, format!("two of [[mirror]] have the `name` {name}"));
        }
        if mirror.tags.is_empty() {
            reader.problem(at, format!("the [[mirror]] {name} wants no `tags`; [\"*\"] is all of them"));
        }
        if mirror.schedule.is_some() && !mirror.every.0.is_zero() {
            let message = format!("the [[mirror]] {name} has `every` and `schedule`: give one of them");
            reader.problem(at, message);
        }
        if mirror.layout().is_some() != mirror.repository.is_some() {
            let message = format!(
                "the [[mirror]] {name} needs `repository` with a layout as its `source`, and only then"
            );
            reader.problem(at, message);
        }
        let host_of = |place: &str| match layout(place) {
            Some(_) => None,
            None => source(place).map(|(host, _)| host.to_owned()),
        };
        let places = [("source", host_of(&mirror.source)), ("to", mirror.to.as_deref().and_then(host_of))];
        for (key, host) in places.into_iter().filter_map(|(key, host)| Some((key, host?))) {
            let public = || PUBLIC.iter().any(|(known, _)| *known == host);
            let configured = settings.upstream.iter().any(|upstream| upstream.host == host);
            let known = configured || settings.mirrors_public() && public();
            if !known {
                let message = format!(
                    "the `{key}` of the [[mirror]] {name} is at {host}, and there is no [[upstream]] with that `host`"
                );
                reader.problem(at, message);
            }
        }
    }
}

/// What is wrong with how an upstream is told who we are: there may be one way.
fn login(upstream: &Upstream) -> Option<String> {
    let sources = [
        ("password_file", upstream.password_file.is_some()),
        ("password_env", upstream.password_env.is_some()),
        ("credentials_file", upstream.credentials_file.is_some()),
        ("credential_helper", upstream.credential_helper.is_some()),
    ];
    let given: Vec<&str> = sources.into_iter().filter_map(|(name, given)| given.then_some(name)).collect();
    match (given.as_slice(), upstream.username.is_some()) {
        ([], true) => Some("`username` needs `password_file` or `password_env` beside it".to_owned()),
        ([name @ ("password_file" | "password_env")], false) => {
            Some(format!("`{name}` needs `username` beside it"))
        }
        ([name @ ("credentials_file" | "credential_helper")], true) => {
            Some(format!("`{name}` knows the user name, so `username` must not be given"))
        }
        ([one, other, ..], _) => Some(format!("`{one}` and `{other}` exclude each other: give one of them")),
        _ => None,
    }
}

fn certificates(upstream: &Upstream) -> Option<&'static str> {
    let https = upstream.url.starts_with("https://");
    match (&upstream.client_certificate, &upstream.client_key) {
        (Some(_), None) => Some("`client_certificate` needs `client_key` beside it"),
        (None, Some(_)) => Some("`client_key` needs `client_certificate` beside it"),
        (Some(_), Some(_)) if !https => Some("`client_certificate` is for https, and `url` is not https"),
        _ if upstream.ca.is_some() && !https => Some("`ca` is for https, and `url` is not https"),
        _ => None,
    }
}

/// Where an upstream stands in the file.
fn place_of_upstream(file: &dyn TableLike, index: usize) -> usize {
    let table = match file.get("upstream") {
        Some(Item::ArrayOfTables(array)) => array.get(index).map(|table| table as &dyn TableLike),
        Some(Item::Value(toml_edit::Value::Array(array))) => {
            array.get(index).and_then(toml_edit::Value::as_inline_table).map(|table| table as &dyn TableLike)
        }
        _ => None,
    };
    table.and_then(start_of).unwrap_or_else(|| start_of_key(file, "upstream"))
}
