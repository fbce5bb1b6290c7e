//! Reading `policy.json`.

use std::collections::BTreeMap;

use super::super::calendar::Period;
use super::super::certificate::Anchors;
use super::super::encoding;
use super::super::image_name::is_registry;
use super::super::json::{self, Fields, JsonError, Value};
use super::super::key::PublicKey;
use super::super::trusted_root::{TrustedRoot, is_trusted_root};
use super::{
    Authority, Fault, Fulcio, LogKey, MAX_KEYS, MAX_POLICY_LEN, MAX_REQUIREMENTS, MAX_SCOPES, Pki,
    PolicyError, Problem, Requirement, Scopes, SignedIdentity,
};

/// The keys of `sigstoreSigned` of which exactly one has to be there.
const SIGNERS: &str = "keyPath, keyPaths, keyData, keyDatas, fulcio and pki";
/// The keys that name the keys of transparency logs.
const LOGS: &str = "rekorPublicKeyPath, rekorPublicKeyPaths, rekorPublicKeyData and rekorPublicKeyDatas";

/// Reads a policy; see [`super::Policy::read`].
pub(super) fn policy<F>(text: &[u8], file: F) -> Result<Scopes, PolicyError>
where
    F: FnMut(&str) -> Result<Vec<u8>, String>,
{
    let at = |place: &str| {
        let place = place.to_owned();
        move |error: JsonError| PolicyError { place, problem: error.into() }
    };
    let mut fields = json::read(text, MAX_POLICY_LEN)
        .and_then(|value| value.object("the policy"))
        .map_err(at("policy"))?;
    let default = fields.need("default").map_err(at("policy"))?;
    let transports = match fields.take("transports") {
        Some(transports) => transports.object("transports").map_err(at("policy"))?.rest(),
        None => BTreeMap::new(),
    };
    fields.end().map_err(at("policy"))?;

    let mut reader = Reader { file, loads: true, notes: Vec::new() };
    let default = reader.requirements("default", default)?;
    let mut docker = BTreeMap::new();
    for (transport, scopes) in transports {
        reader.loads = transport == "docker";
        let place = format!("transports.{transport}");
        let scopes = scopes.object(&place).map_err(at("policy"))?.rest();
        if scopes.len() > MAX_SCOPES {
            return Err(PolicyError {
                place,
                problem: Problem::TooMany { what: "scopes", limit: MAX_SCOPES },
            });
        }
        for (scope, value) in scopes {
            let place = format!("{place}[{scope:?}]");
            let requirements = reader.requirements(&place, value)?;
            if reader.loads {
                if !may_match(&scope) {
                    reader.notes.push(format!(
                        "{place}: no image can be in this scope; a scope begins with a registry, written out as in \
                         docker.io/library/debian, or is *.DOMAIN"
                    ));
                }
                docker.insert(scope, requirements);
            }
        }
    }
    Ok(Scopes { default, docker, notes: reader.notes })
}

/// Whether there can be an image in a scope.
fn may_match(scope: &str) -> bool {
    let registry = scope.split_once('/').map_or(scope, |(registry, _)| registry);
    let domain = scope.strip_prefix("*.");
    scope.is_empty()
        || domain.is_some_and(|domain| is_registry(domain) && !domain.contains(':'))
        || (is_registry(registry) && (registry.contains(['.', ':']) || registry == "localhost"))
}

/// What reads the requirements.
struct Reader<F> {
    file: F,
    /// Whether files are read: not for the transports that images do not come over here.
    loads: bool,
    notes: Vec<String>,
}

impl<F: FnMut(&str) -> Result<Vec<u8>, String>> Reader<F> {
    /// Reads a list of requirements.
    fn requirements(&mut self, place: &str, value: Value) -> Result<Vec<Requirement>, PolicyError> {
        let wrong = |place: String, problem| PolicyError { place, problem };
        let list =
            value.array("the list of requirements").map_err(|error| wrong(place.into(), error.into()))?;
        if list.is_empty() {
            return Err(wrong(place.into(), Problem::Empty));
        }
        if list.len() > MAX_REQUIREMENTS {
            let problem = Problem::TooMany { what: "requirements", limit: MAX_REQUIREMENTS };
            return Err(wrong(place.into(), problem));
        }
        let mut requirements = Vec::with_capacity(list.len());
        for (index, value) in list.into_iter().enumerate() {
            let place = format!("{place}, requirement {}", index + 1);
            match self.requirement(value) {
                Ok(requirement) => {
                    if let Requirement::Unsupported(kind) = requirement {
                        self.notes.push(format!(
                            "{place}: {kind} cannot be checked here, so its images are refused"
                        ));
                    }
                    requirements.push(requirement);
                }
                Err(fault) => return Err(wrong(place, *fault)),
            }
        }
        Ok(requirements)
    }

    fn requirement(&mut self, value: Value) -> Result<Requirement, Fault> {
        let mut fields = value.object("the requirement")?;
        let kind = fields.string("type")?;
        let requirement = match kind.as_str() {
            "insecureAcceptAnything" => Requirement::Nothing,
            "reject" => Requirement::Reject,
            "signedBy" => signed_by(&mut fields)?,
            "signedBaseLayer" => {
                SignedIdentity::read(fields.object("baseLayerIdentity")?)?;
                Requirement::Unsupported("signedBaseLayer")
            }
            "sigstoreSigned" => Requirement::Signed(Box::new(self.signed(&mut fields)?)),
            _ => return Err(Problem::UnknownRequirement(kind).into()),
        };
        fields.end()?;
        Ok(requirement)
    }

    /// Reads `sigstoreSigned`.
    fn signed(&mut self, fields: &mut Fields) -> Result<super::Signed, Fault> {
        let keys = self.sources(fields, ["keyPath", "keyPaths", "keyData", "keyDatas"], SIGNERS)?;
        let fulcio = fields.take("fulcio").map(|value| value.object("fulcio")).transpose()?;
        let pki = fields.take("pki").map(|value| value.object("pki")).transpose()?;
        let logs = self.sources(
            fields,
            ["rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"],
            LOGS,
        )?;
        let authority = match (keys, fulcio, pki) {
            (Some(keys), None, None) => {
                Authority::Keys(keys.into_iter().map(Source::key).collect::<Result<_, Fault>>()?)
            }
            (None, Some(_), None) if logs.is_none() => return Err(Problem::NotOne(LOGS).into()),
            (None, Some(fulcio), None) => Authority::Fulcio(self.fulcio(fulcio)?),
            (None, None, Some(_)) if logs.is_some() => {
                return Err(Problem::Together("pki", "the key of a transparency log").into());
            }
            (None, None, Some(pki)) => Authority::Pki(self.pki(pki)?),
            _ => return Err(Problem::NotOne(SIGNERS).into()),
        };
        let logs = log_keys(logs.unwrap_or_default())?;
        let identity = match fields.take("signedIdentity") {
            Some(value) => SignedIdentity::read(value.object("signedIdentity")?)?,
            None => SignedIdentity::default(),
        };
        Ok(super::Signed { authority, logs, identity })
    }

    fn fulcio(&mut self, mut fields: Fields) -> Result<Fulcio, Fault> {
        let fulcio = Fulcio {
            anchors: self.anchors(
                &mut fields,
                ["caPath", "caData"],
                "caPath and caData",
                Source::authorities,
            )?,
            issuer: fields.string("oidcIssuer")?,
            email: fields.string("subjectEmail")?,
        };
        fields.end()?;
        if fulcio.issuer.is_empty() || fulcio.email.is_empty() {
            return Err(Problem::NotOne("an oidcIssuer and a subjectEmail that are not empty").into());
        }
        Ok(fulcio)
    }

    fn pki(&mut self, mut fields: Fields) -> Result<Pki, Fault> {
        let roots = ["caRootsPath", "caRootsData"];
        let mut anchors = self.anchors(&mut fields, roots, "caRootsPath and caRootsData", |source| {
            Anchors::from_pem(&source.bytes).map_err(|error| source.wrong(error))
        })?;
        let intermediates = ["caIntermediatesPath", "caIntermediatesData"];
        const EITHER: &str = "caIntermediatesPath and caIntermediatesData";
        if let Some(source) = self.source(&mut fields, intermediates, EITHER)? {
            anchors.add_intermediates(&source.bytes).map_err(|error| source.wrong(error))?;
        }
        let email = fields.optional_string("subjectEmail")?.filter(|email| !email.is_empty());
        let hostname = fields.optional_string("subjectHostname")?.filter(|hostname| !hostname.is_empty());
        fields.end()?;
        if email.is_none() && hostname.is_none() {
            return Err(Problem::NotOne("subjectEmail and subjectHostname, or both").into());
        }
        Ok(Pki { anchors, email, hostname })
    }

    /// Reads the authorities behind one of two keys.
    fn anchors(
        &mut self,
        fields: &mut Fields,
        keys: [&'static str; 2],
        either: &'static str,
        read: fn(Source) -> Result<Anchors, Fault>,
    ) -> Result<Anchors, Fault> {
        let source = self.source(fields, keys, either)?.ok_or(Problem::NotOne(either))?;
        if self.loads { read(source) } else { Ok(Anchors::default()) }
    }

    /// What stands behind a key with a path or one with data; nothing when both are missing.
    fn source(
        &mut self,
        fields: &mut Fields,
        [path, data]: [&'static str; 2],
        either: &'static str,
    ) -> Result<Option<Source>, Fault> {
        match (fields.optional_string(path)?, fields.optional_string(data)?) {
            (None, None) => Ok(None),
            (Some(path), None) => self.load(path).map(Some),
            (None, Some(text)) => decode(data, &text).map(Some),
            (Some(_), Some(_)) => Err(Problem::NotAtMostOne(either).into()),
        }
    }

    /// What stands behind four keys, of which one may be there: a path, paths, data, several data.
    fn sources(
        &mut self,
        fields: &mut Fields,
        [path, paths, data, several]: [&'static str; 4],
        either: &'static str,
    ) -> Result<Option<Vec<Source>>, Fault> {
        let mut found = Vec::new();
        if let Some(path) = fields.optional_string(path)? {
            found.push(vec![self.load(path)?]);
        }
        if let Some(list) = strings(fields, paths)? {
            found.push(list.into_iter().map(|path| self.load(path)).collect::<Result<_, _>>()?);
        }
        if let Some(text) = fields.optional_string(data)? {
            found.push(vec![decode(data, &text)?]);
        }
        if let Some(list) = strings(fields, several)? {
            found.push(list.iter().map(|text| decode(several, text)).collect::<Result<_, _>>()?);
        }
        match found.len() {
            0 | 1 => Ok(found.pop().map(|sources| if self.loads { sources } else { Vec::new() })),
            _ => Err(Problem::NotAtMostOne(either).into()),
        }
    }

    fn load(&mut self, path: String) -> Result<Source, Fault> {
        if !self.loads {
            return Ok(Source { what: path, bytes: Vec::new() });
        }
        match (self.file)(&path) {
            Ok(bytes) => Ok(Source { what: path, bytes }),
            Err(reason) => Err(Problem::File { path, reason }.into()),
        }
    }
}

/// Bytes and where they are from.
struct Source {
    what: String,
    bytes: Vec<u8>,
}

impl Source {
    fn key(self) -> Result<PublicKey, Fault> {
        PublicKey::from_pem(&self.bytes).map_err(|error| Problem::Key { what: self.what, error }.into())
    }

    /// The key of a log in PEM, or those of a trusted root that can sign promises.
    fn log_keys(self) -> Result<Vec<LogKey>, Fault> {
        let what = self.what.clone();
        let keys = if is_trusted_root(&self.bytes) {
            let logs = self.trusted_root()?.logs.into_iter();
            let named = logs.map(|log| match PublicKey::from_spki(&log.key) {
                Ok(key) => Ok(LogKey { key, period: log.period }),
                Err(error) => Err(Problem::Key { what: format!("{what}, log {}", log.name()), error }.into()),
            });
            let keys: Vec<LogKey> = named.collect::<Result<_, Fault>>()?;
            // Logs of the second version sign with Ed25519, and promise nothing.
            keys.into_iter().filter(|log| log.key.is_ecdsa()).collect()
        } else {
            let key = self.key()?;
            if key.is_ecdsa() { vec![LogKey { key, period: Period::default() }] } else { Vec::new() }
        };
        if keys.is_empty() { Err(Problem::LogKey(what).into()) } else { Ok(keys) }
    }

    /// The certificates of Fulcio in PEM, or the authorities of a trusted root.
    fn authorities(self) -> Result<Anchors, Fault> {
        if !is_trusted_root(&self.bytes) {
            return Anchors::from_pem(&self.bytes).map_err(|error| self.wrong(error));
        }
        let what = self.what.clone();
        Anchors::from_trusted_root(self.trusted_root()?)
            .map_err(|error| Problem::Certificate { what, error }.into())
    }

    fn trusted_root(self) -> Result<TrustedRoot, Fault> {
        let Self { what, bytes } = self;
        TrustedRoot::read(&bytes).map_err(|error| Problem::TrustedRoot { what, error }.into())
    }

    fn wrong(self, error: super::CertificateError) -> Fault {
        Problem::Certificate { what: self.what, error }.into()
    }
}

/// The keys of logs in all of these.
fn log_keys(sources: Vec<Source>) -> Result<Vec<LogKey>, Fault> {
    let mut keys = Vec::new();
    for source in sources {
        keys.extend(source.log_keys()?);
    }
    if keys.len() > MAX_KEYS {
        return Err(Problem::TooMany { what: "keys of transparency logs", limit: MAX_KEYS }.into());
    }
    Ok(keys)
}

/// Reads `signedBy`, so that a mistake in it is found although nothing can be done with it.
fn signed_by(fields: &mut Fields) -> Result<Requirement, Fault> {
    let key_type = fields.string("keyType")?;
    if !["GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs"].contains(&key_type.as_str()) {
        return Err(Problem::KeyType(key_type).into());
    }
    let path = fields.optional_string("keyPath")?.is_some();
    let paths = strings(fields, "keyPaths")?.is_some();
    let data = match fields.optional_string("keyData")? {
        Some(text) => decode("keyData", &text).map(|_| true)?,
        None => false,
    };
    if [path, paths, data].into_iter().filter(|there| *there).count() != 1 {
        return Err(Problem::NotOne("keyPath, keyPaths and keyData").into());
    }
    if let Some(value) = fields.take("signedIdentity") {
        SignedIdentity::read(value.object("signedIdentity")?)?;
    }
    Ok(Requirement::Unsupported("signedBy (GPG)"))
}

fn decode(what: &str, text: &str) -> Result<Source, Fault> {
    let bytes = encoding::base64(text).ok_or_else(|| Problem::Base64(what.to_owned()))?;
    Ok(Source { what: what.to_owned(), bytes })
}

/// A list of texts, neither empty nor longer than [`MAX_KEYS`].
fn strings(fields: &mut Fields, key: &'static str) -> Result<Option<Vec<String>>, Fault> {
    let Some(value) = fields.take(key) else { return Ok(None) };
    let list = value.array(key)?;
    if list.is_empty() || list.len() > MAX_KEYS {
        return Err(Problem::TooMany { what: "keys (or none at all)", limit: MAX_KEYS }.into());
    }
    Ok(Some(list.into_iter().map(|value| value.string(key)).collect::<Result<_, _>>()?))
}
