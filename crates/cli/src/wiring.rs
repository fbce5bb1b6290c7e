//! The only place where parts are constructed: settings become options, options become parts.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use deltaport_client::{ClientCertificate, CredentialSource, Credentials, IssuerKeys, Upstream};
use deltaport_oci::platform::Filter;
use deltaport_registry::Registry;
use deltaport_registry::issuers::{Issuers, KeySource, Provider};
use deltaport_registry::mirror::select::NewestBy;
use deltaport_registry::mirror::timetable::Windows;
use deltaport_registry::mirror::{Begin, Clock, Hours, Repositories, Rule, Selection, TimeZone, zone};
use deltaport_registry::tokens::{AccessTokens, RobotTokens};
use deltaport_registry::upstream::{Lifetime, Stale, TagPolicy, TagRule};
use deltaport_server::{AuditLog, BindError, Server};
use deltaport_store::{ByteStore, Faults, NamesOptions, Secrets, Store};
use deltaport_trust::tokens::Issuer;
use deltaport_trust::{Passwords, Rules};

use crate::args::{Access, Place};
use crate::settings::{self, AcmeChallenge, Overrides, Settings, Size, Validate};
use crate::{places, policy};

/// No file that settings name may have more bytes.
const MAX_FILE_LEN: u64 = 8 << 20;

/// The directory that holds everything.
pub(crate) fn data_directory(settings: &Settings) -> anyhow::Result<PathBuf> {
    data_or_default(settings.data.as_ref())
}

/// The directory that a command other than `serve` works on.
pub(crate) fn stored_data(place: &Place) -> anyhow::Result<PathBuf> {
    match &place.config {
        Some(config) => {
            let settings = Settings::load(Some(config), &Overrides::default())?;
            data_directory(&settings)
        }
        None => data_or_default(place.data.as_ref()),
    }
}

/// Where the names are that a command other than `serve` works on.
pub(crate) fn stored_names(place: &Place) -> anyhow::Result<NamesOptions> {
    match &place.config {
        Some(config) => places::names(&Settings::load(Some(config), &Overrides::default())?),
        None => Ok(NamesOptions::Directory),
    }
}

/// Where the bytes are that it works on.
pub(crate) fn stored_bytes(place: &Place) -> anyhow::Result<ByteStore> {
    match &place.config {
        Some(config) => places::bytes(&Settings::load(Some(config), &Overrides::default())?),
        None => Ok(ByteStore::Directory),
    }
}

fn data_or_default(data: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    match data {
        Some(data) => Ok(data.clone()),
        None => directories::ProjectDirs::from("", "", "deltaport")
            .map(|directories| directories.data_dir().to_owned())
            .context("there is no home directory to keep the data in; say where with --data DIRECTORY"),
    }
}

/// Opens the store.
pub(crate) async fn store(settings: &Settings, data: &Path) -> anyhow::Result<Store> {
    let options = store_options(settings, data)?;
    Store::open(options).await.with_context(|| format!("cannot keep data in {}", data.display()))
}

/// Where everything is kept, and how.
pub(crate) fn store_options(settings: &Settings, data: &Path) -> anyhow::Result<deltaport_store::Options> {
    Ok(deltaport_store::Options {
        root: data.to_owned(),
        bytes: places::bytes(settings)?,
        keep_free: settings.limits.free_disk.0,
        manifest_cache: bytes(settings.cache.manifests),
        grace: settings.collect.grace.0,
        upload_expiry: settings.collect.upload_expiry.0,
        partial_expiry: settings.collect.partial_expiry.0,
        names: places::names(settings)?,
        faults: Faults::none(),
    })
}

/// The secrets that are kept with names. `runtime` has to go on for as long as they are used.
pub(crate) fn secrets(
    options: &deltaport_store::Options,
    runtime: &tokio::runtime::Handle,
) -> anyhow::Result<Secrets> {
    Ok(match &options.names {
        NamesOptions::Directory | NamesOptions::File(_) => Secrets::in_directory(&options.root),
        NamesOptions::Postgres(postgres) => Secrets::in_postgres(postgres, runtime.clone())?,
    })
}

/// Puts the registry together.
pub(crate) fn registry(settings: &Settings, store: Store) -> anyhow::Result<Registry> {
    let limits = &settings.limits;
    let options = deltaport_registry::Options {
        limits: deltaport_registry::Limits {
            manifest_bytes: bytes(limits.manifest_size),
            json_depth: count(limits.json_depth),
            references: count(limits.manifest_references),
            blob_bytes: limits.blob_size.0,
            page: count(limits.page_size),
            uploads_per_caller: count(limits.uploads_per_caller),
            tags_per_put: count(limits.tags_per_push),
        },
        validate: validate(&settings.validate),
        validate_in: settings
            .repository
            .iter()
            .map(|repository| (repository.names.clone(), validate(&repository.validate)))
            .collect(),
        collect: deltaport_registry::Collect { interval: settings.collect.interval.0 },
        space: deltaport_registry::Space {
            cached: Some(settings.space.cached.0).filter(|cap| *cap > 0),
            free: settings.space.free_disk.0,
            pins: settings.space.pins.clone(),
        },
        upstreams: upstreams(settings)?,
        mirrors: mirrors(settings)?,
        clock: Clock::default(),
        fill: deltaport_registry::Fill {
            concurrent: count(settings.fill.concurrent),
            bandwidth: Some(settings.fill.bandwidth.0).filter(|rate| *rate > 0),
            ahead: settings.fill.ahead,
            patience: settings.fill.patience.0,
            delta_wait: settings.fill.delta_wait.0,
            delta_deadline: settings.fill.delta_deadline.0,
        },
        delta: deltaport_registry::Delta {
            memory: settings.delta.memory.0,
            scratch: settings.delta.scratch.0,
            jobs: count(settings.delta.jobs),
            maximum_layer: settings.delta.maximum_layer.0,
            history: count(settings.delta.history),
        },
        replicas: deltaport_registry::Replicas::default(),
    };
    let registry = Registry::new(options, store, rules(settings)?);
    registry.check_mirrors().map_err(|why| anyhow!(why))?;
    let trust = policy::trust(&settings.trust)?;
    policy::tell(trust.as_ref());
    registry.set_trust(trust);
    Ok(registry)
}

/// What is to be here of upstreams without being asked for.
fn mirrors(settings: &Settings) -> anyhow::Result<Vec<Rule>> {
    let zone = zone(&settings.timezone).map_err(|why| anyhow!(why))?;
    settings.mirror.iter().map(|rule| mirror(rule, &zone)).collect()
}

fn mirror(mirror: &settings::Mirror, zone: &TimeZone) -> anyhow::Result<Rule> {
    let (layout, named) = (mirror.layout(), mirror.repository.clone());
    let (host, repositories) = match (&layout, named) {
        (Some(_), Some(repository)) => ("", Repositories::One(repository)),
        _ => mirror.place().context("the source of a mirror has no host")?,
    };
    let tags = Selection {
        patterns: mirror.tags.clone(),
        except: mirror.except.clone(),
        range: mirror.semver.as_deref().map(str::parse).transpose()?,
        newest: Some(count(mirror.newest)).filter(|newest| *newest > 0),
        newest_by: match mirror.newest_by {
            settings::NewestBy::Version => NewestBy::Version,
            settings::NewestBy::Created => NewestBy::Created,
        },
    };
    Ok(Rule {
        layout,
        to: mirror.destination(),
        prune: mirror.prune.then(|| mirror.prune_cap.parse()).transpose()?,
        platforms: Filter::new(mirror.platforms.clone()),
        begin: match (&mirror.schedule, mirror.every.0) {
            (Some(schedule), _) => Begin::At(schedule.parse()?),
            (None, every) if every.is_zero() => Begin::Never,
            (None, every) => Begin::Every(every),
        },
        hours: Hours { windows: Windows::new(mirror.windows.clone()), zone: zone.clone() },
        bandwidth: Some(mirror.bandwidth.0).filter(|rate| *rate > 0),
        ..Rule::new(&mirror.name, host, repositories, tags)
    })
}

fn validate(validate: &Validate) -> deltaport_registry::Validate {
    match validate {
        Validate::None => deltaport_registry::Validate::None,
        Validate::All => deltaport_registry::Validate::All,
        Validate::Platforms(patterns) => {
            deltaport_registry::Validate::Platforms(Filter::new(patterns.clone()))
        }
    }
}

/// The registries whose content is served here. Of two for the same host the first counts.
fn upstreams(settings: &Settings) -> anyhow::Result<Vec<deltaport_registry::Upstream>> {
    let mut upstreams: Vec<_> = settings.upstream.iter().map(upstream).collect::<anyhow::Result<_>>()?;
    if settings.mirrors_public() {
        for (host, url) in deltaport_registry::upstream::PUBLIC {
            // Without certificate authorities none of them can be asked, and everything else works.
            let client = Upstream::lazy(&deltaport_client::Options::new(host, url))?;
            upstreams.push(deltaport_registry::Upstream::new(client));
        }
    }
    Ok(upstreams)
}

/// A registry whose content is served here.
fn upstream(upstream: &settings::Upstream) -> anyhow::Result<deltaport_registry::Upstream> {
    Ok(deltaport_registry::Upstream {
        client: client(upstream)?,
        default: upstream.default,
        hosts: upstream.hosts.iter().cloned().collect(),
        repositories: upstream.repositories.clone(),
        platforms: Filter::new(upstream.platforms.clone()).with_platformless(upstream.platformless),
        policy: TagPolicy {
            max_age: upstream.max_age.0,
            rules: upstream.tags.iter().map(tag_rule).collect(),
            stale: match upstream.stale {
                settings::Stale::Forever => Stale::Forever,
                settings::Stale::For(limit) => Stale::For(limit.0),
            },
            negative_age: upstream.negative_age.0,
        },
        deltas: match upstream.deltas {
            settings::Deltas::Auto => deltaport_registry::Deltas::Auto,
            settings::Deltas::Always => deltaport_registry::Deltas::Always,
            settings::Deltas::Never => deltaport_registry::Deltas::Never,
        },
        metered: upstream.metered,
    })
}

fn tag_rule(rule: &settings::TagRule) -> TagRule {
    let lifetime = match rule.max_age {
        Some(age) if !rule.immutable => Lifetime::MaxAge(age.0),
        _ => Lifetime::Immutable,
    };
    TagRule { tags: rule.tags.clone(), lifetime }
}

/// Makes the access rules.
pub(crate) fn rules(settings: &Settings) -> anyhow::Result<Rules> {
    Ok(Rules::new(settings.access.for_rules())?)
}

/// The files with the certificate: those of the operator, or the one that is asked for.
fn tls(settings: &Settings, data: &Path) -> Option<deltaport_server::Tls> {
    let (certificate, key, awaited) = match (&settings.tls.certificate, &settings.tls.key) {
        (Some(certificate), Some(key)) => (certificate.clone(), key.clone(), false),
        _ if settings.acme.names.is_empty() => return None,
        _ => {
            let both = deltaport_acme::certificate(&acme_state(data));
            (both.clone(), both, true)
        }
    };
    let client_ca = settings.tls.client_ca.clone();
    Some(deltaport_server::Tls { certificate, key, awaited, client_ca })
}

/// Where the account at an authority, and what it issued, are kept.
fn acme_state(data: &Path) -> PathBuf {
    data.join("acme")
}

/// From whom which certificate is asked for, if one is.
pub(crate) fn acme(settings: &Settings, data: &Path) -> anyhow::Result<Option<deltaport_acme::Options>> {
    let acme = &settings.acme;
    if acme.names.is_empty() {
        return Ok(None);
    }
    Ok(Some(deltaport_acme::Options {
        directory: acme.directory.clone(),
        names: acme.names.clone(),
        contact: acme.contact.clone(),
        challenge: match acme.challenge {
            AcmeChallenge::TlsAlpn01 => deltaport_acme::Challenge::TlsAlpn01,
            AcmeChallenge::Http01 => deltaport_acme::Challenge::Http01,
        },
        ca: acme.ca.as_deref().map(read).transpose()?.map(String::into_bytes),
        state: acme_state(data),
    }))
}

/// Makes the server listen. What it is issued is kept below `data`.
pub(crate) async fn server(
    settings: &Settings,
    data: &Path,
    secrets: Secrets,
    registry: Registry,
    audit: Option<AuditLog>,
) -> anyhow::Result<Server> {
    let robots = RobotTokens::new(&secrets);
    let access_tokens = if settings.access.tokens {
        let service = service(settings);
        let open = move || AccessTokens::open(&secrets, &service);
        Some(tokio::task::spawn_blocking(open).await.context("the keys for tokens could not be read")?)
    } else {
        None
    };
    let limits = &settings.limits;
    let stall = limits.stall_timeout.0;
    let options = deltaport_server::Options {
        listen: settings.listen,
        tls: tls(settings, data),
        challenges: match (settings.acme.names.is_empty(), settings.acme.challenge) {
            (false, AcmeChallenge::Http01) => settings.acme.listen,
            _ => None,
        },
        trusted_proxies: settings.trusted_proxies.clone(),
        insecure_http: settings.insecure_http,
        passwords: settings.access.htpasswd.clone(),
        access_tokens,
        robots: Some(robots),
        issuers: issuers(settings, data)?,
        url: settings.access.url.clone(),
        certificates: settings
            .access
            .certificate
            .iter()
            .filter_map(settings::Certificate::identity)
            .collect(),
        counted_users: settings.access.counted_users.clone(),
        audit,
        redirect: places::redirect(settings),
        limits: deltaport_server::Limits {
            header_bytes: bytes(limits.header_size),
            connections: count(limits.connections),
            header_timeout: limits.header_timeout.0,
            idle_timeout: limits.idle_timeout.0,
            progress_interval: stall,
            // Standing still is too slow even where no rate is demanded.
            progress_bytes: limits.minimum_rate.0.saturating_mul(stall.as_secs()).max(1),
            shutdown_grace: settings.shutdown_grace.0,
            password_checks: count(limits.password_checks),
            ..deltaport_server::Limits::DEFAULT
        },
    };
    Server::bind(options, registry).await.map_err(explain)
}

/// What access tokens are issued by and for: what clients call this registry, where that is known.
fn service(settings: &Settings) -> String {
    let host = settings.access.url.as_deref().and_then(|url| url.split_once("://")).map(|(_, host)| host);
    host.map_or("deltaport", |host| host.trim_end_matches('/')).to_owned()
}

/// The CI systems whose tokens are believed, if there are any.
fn issuers(settings: &Settings, data: &Path) -> anyhow::Result<Option<Issuers>> {
    let providers = settings.access.oidc.iter().map(provider).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Some(providers)
        .filter(|providers| !providers.is_empty())
        .map(|providers| Issuers::open(data, providers)))
}

fn provider(issuer: &settings::Issuer) -> anyhow::Result<Provider> {
    let keys = match &issuer.keys {
        Some(path) => KeySource::File(path.clone()),
        None => {
            let ca = issuer.ca.as_deref().map(read).transpose()?.map(String::into_bytes);
            KeySource::Fetched(Box::new(IssuerKeys::new(&issuer.issuer, ca)?))
        }
    };
    let claims = issuer.claims.clone();
    let (audience, user) = (issuer.audience.clone(), issuer.user.as_str().into());
    let believed = Issuer { issuer: issuer.issuer.clone(), audience, claims, user };
    Ok(Provider { issuer: believed, keys, max_age: issuer.max_age.0 })
}

/// The programs that may log in, for a command other than `serve`. `runtime` has to go on for as long as this is used.
pub(crate) fn robots(place: &Place, runtime: &tokio::runtime::Runtime) -> anyhow::Result<RobotTokens> {
    let secrets = match stored_names(place)? {
        NamesOptions::Directory | NamesOptions::File(_) => Secrets::in_directory(&stored_data(place)?),
        NamesOptions::Postgres(options) => Secrets::in_postgres(&options, runtime.handle().clone())?,
    };
    Ok(RobotTokens::new(&secrets))
}

/// Opens the audit log, if there is to be one.
pub(crate) fn audit(settings: &Settings) -> anyhow::Result<Option<AuditLog>> {
    let open = |path: &PathBuf| {
        AuditLog::open(path).with_context(|| format!("cannot write the audit log {}", path.display()))
    };
    settings.audit.file.as_ref().map(open).transpose()
}

/// What to do about an address that cannot be listened on.
fn explain(error: BindError) -> anyhow::Error {
    let BindError::Listen { address, source } = &error else { return error.into() };
    let port = address.port();
    let advice = match source.kind() {
        ErrorKind::AddrInUse => format!(
            "something else listens there. `ss -ltnp 'sport = :{port}'` shows what; often it is another deltaport or \
             registry. Stop it, or take another port: `deltaport serve --listen {}:{}`",
            address.ip(),
            port.checked_add(1).unwrap_or(5000)
        ),
        ErrorKind::PermissionDenied => format!(
            "ports below 1024 are for root. Take a higher one, or allow it: `setcap cap_net_bind_service=+ep \
             $(command -v deltaport)`, or AmbientCapabilities=CAP_NET_BIND_SERVICE in a systemd unit (port {port})"
        ),
        ErrorKind::AddrNotAvailable => {
            "this machine does not have that address. `ip address` shows its own".to_owned()
        }
        _ => return error.into(),
    };
    anyhow!("cannot listen on {address}: {advice}")
}

/// Prepares to ask another registry; nothing is dialled.
fn client(upstream: &settings::Upstream) -> anyhow::Result<Upstream> {
    let mut options = deltaport_client::Options::new(&upstream.host, &upstream.url);
    options.credentials = credentials(upstream)?;
    if let Some(source) = &options.credentials {
        source.check().map_err(|why| anyhow!("upstream {}: {why}", upstream.host))?;
    }
    if let (Some(chain), Some(key)) = (&upstream.client_certificate, &upstream.client_key) {
        options.certificate = Some(ClientCertificate { chain: chain.clone(), key: key.clone() });
    }
    options.ca = upstream.ca.as_deref().map(read).transpose()?.map(String::into_bytes);
    options.token_hosts = upstream.token_hosts.iter().cloned().collect();
    options.redirect_hosts = upstream.redirect_hosts.iter().cloned().collect();
    Ok(Upstream::new(&options)?)
}

/// Where an upstream's password comes from. The environment never changes; files and programs are asked when it is
/// needed.
fn credentials(upstream: &settings::Upstream) -> anyhow::Result<Option<CredentialSource>> {
    let username = upstream.username.clone().unwrap_or_default();
    if let Some(path) = &upstream.password_file {
        return Ok(Some(CredentialSource::PasswordFile { username, path: path.clone() }));
    }
    if let Some(name) = &upstream.password_env {
        let password = std::env::var(name).ok().filter(|password| !password.is_empty());
        let password =
            password.with_context(|| format!("upstream {}: the environment has no {name}", upstream.host))?;
        return Ok(Some(CredentialSource::Given(Credentials { username, password })));
    }
    let file = upstream.credentials_file.clone().map(CredentialSource::ConfigFile);
    Ok(file.or_else(|| upstream.credential_helper.clone().map(CredentialSource::Helper)))
}

/// Prepares to ask the registry `host` at `url` that a command names; nothing is dialled. Without `given` credentials,
/// those that docker or podman keeps are used.
pub(crate) fn client_for(
    host: &str,
    url: String,
    access: &Access,
    given: Option<Credentials>,
) -> anyhow::Result<Upstream> {
    let mut options = deltaport_client::Options::new(host, url);
    options.credentials = match (given, &access.authfile) {
        (Some(given), _) => Some(CredentialSource::Given(given)),
        (None, Some(file)) => Some(CredentialSource::ConfigFile(file.clone())),
        (None, None) => logins().map(CredentialSource::ConfigFile),
    };
    if let Some(source) = &options.credentials {
        source.check().map_err(|why| anyhow!("cannot log in to {host}: {why}"))?;
    }
    options.ca = access.ca.as_deref().map(read).transpose()?.map(String::into_bytes);
    options.token_hosts.clone_from(&access.token_hosts);
    options.redirect_hosts.clone_from(&access.redirect_hosts);
    Ok(Upstream::new(&options)?)
}

/// The file of logins that docker or podman keeps, if there is one.
fn logins() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return Some(file);
    }
    let home = || directories::BaseDirs::new().map(|directories| directories.home_dir().join(".docker"));
    let docker = variable("DOCKER_CONFIG").or_else(home).map(|directory| directory.join("config.json"));
    let podman = variable("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json"));
    [docker, podman].into_iter().flatten().find(|file| file.is_file())
}

/// What is wrong with the files that settings name, as far as looking at them tells. Nothing is kept of them.
pub(crate) fn files_that_cannot_be_used(settings: &Settings) -> Vec<anyhow::Error> {
    let mut errors = Vec::new();
    if let Some(path) = &settings.access.htpasswd {
        errors.extend(passwords(path).err());
    }
    let files = [&settings.tls.certificate, &settings.tls.key, &settings.tls.client_ca, &settings.acme.ca];
    for path in files.into_iter().flatten() {
        errors.extend(read(path).err());
    }
    errors.extend(places::files_that_cannot_be_used(settings));
    errors.extend(policy::trust(&settings.trust).err());
    errors.extend(settings.access.oidc.iter().filter_map(|issuer| provider(issuer).err()));
    errors.extend(settings.upstream.iter().filter_map(|upstream| client(upstream).err()));
    errors
}

fn passwords(path: &Path) -> anyhow::Result<Passwords> {
    Passwords::parse(&read(path)?).with_context(|| format!("cannot use {}", path.display()))
}

/// Reads a small text file.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(MAX_FILE_LEN + 1).read_to_string(&mut text)?;
        match text.len() > usize::try_from(MAX_FILE_LEN).unwrap_or(usize::MAX) {
            true => Err(io::Error::other(format!("it has more than {MAX_FILE_LEN} bytes"))),
            false => Ok(text),
        }
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

/// A size in memory. The table of keys allows none that a 64-bit machine could not have; a smaller one gets its most.
fn bytes(size: Size) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}

fn count(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
