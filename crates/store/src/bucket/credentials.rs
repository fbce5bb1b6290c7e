//! Credentials out of a file in the form of `~/.aws/credentials`. The other ways are the library's.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use object_store::CredentialProvider;
use object_store::aws::{AmazonS3Builder, AwsCredential};

use super::Credentials;
use crate::error::Result;

/// The most bytes of such a file.
const LONGEST: u64 = 1 << 20;

/// A builder that has the credentials and nothing else.
pub(super) fn apply(credentials: &Credentials) -> Result<AmazonS3Builder> {
    Ok(match credentials {
        Credentials::Environment => AmazonS3Builder::from_env(),
        Credentials::Key { id, secret } => {
            AmazonS3Builder::new().with_access_key_id(id).with_secret_access_key(secret)
        }
        Credentials::File { path, profile } => {
            let file = Profile { path: path.clone(), profile: profile.clone(), read: Mutex::default() };
            AmazonS3Builder::new().with_credentials(Arc::new(file))
        }
    })
}

/// A profile of a file, which is read again when the file has changed.
struct Profile {
    path: PathBuf,
    profile: String,
    read: Mutex<Option<(SystemTime, Arc<AwsCredential>)>>,
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile")
            .field("path", &self.path)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

impl Profile {
    /// Looks at a small local file; that takes less time than going to another thread.
    fn current(&self) -> io::Result<Arc<AwsCredential>> {
        let metadata = std::fs::metadata(&self.path)?;
        let modified = metadata.modified()?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, credential)) = &*read
            && *at == modified
        {
            return Ok(Arc::clone(credential));
        }
        if metadata.len() > LONGEST {
            return Err(io::Error::other(format!("it has more than {LONGEST} bytes")));
        }
        let text = std::fs::read_to_string(&self.path)?;
        let credential = parse(&text, &self.profile).ok_or_else(|| {
            let profile = &self.profile;
            io::Error::other(format!(
                "[{profile}] with aws_access_key_id and aws_secret_access_key is not in it"
            ))
        })?;
        let credential = Arc::new(credential);
        *read = Some((modified, Arc::clone(&credential)));
        Ok(credential)
    }
}

impl CredentialProvider for Profile {
    type Credential = AwsCredential;

    fn get_credential<'a, 'b>(&'a self) -> BoxFuture<'b, object_store::Result<Arc<AwsCredential>>>
    where
        'a: 'b,
        Self: 'b,
    {
        let current = self.current().map_err(|error| object_store::Error::Unauthenticated {
            path: self.path.display().to_string(),
            source: error.into(),
        });
        Box::pin(std::future::ready(current))
    }
}

/// The credentials of a profile.
fn parse(text: &str, profile: &str) -> Option<AwsCredential> {
    let (mut within, mut id, mut secret, mut token) = (false, None, None, None);
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            within = name.trim() == profile;
        } else if let Some((key, value)) = line.split_once('=').filter(|_| within) {
            let value = Some(value.trim().to_owned());
            match key.trim() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(AwsCredential { key_id: id?, secret_key: secret?, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_again_when_it_changes() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("credentials");
        let profile = Profile { path: path.clone(), profile: "hub".to_owned(), read: Mutex::default() };
        assert!(profile.get_credential().await.is_err(), "there is no file");
        let write = |id: &str| {
            let text = format!(
                "# ours\n[default]\naws_access_key_id=no\n\n[hub]\naws_access_key_id = {id}\naws_secret_access_key = a=b\n"
            );
            std::fs::write(&path, text).unwrap();
        };
        write("one");
        let first = profile.get_credential().await.unwrap();
        assert_eq!((&*first.key_id, &*first.secret_key, &first.token), ("one", "a=b", &None));
        write("two");
        let later = std::fs::File::options().write(true).open(&path).unwrap();
        later.set_modified(SystemTime::now() + std::time::Duration::from_secs(5)).unwrap();
        assert_eq!(profile.get_credential().await.unwrap().key_id, "two");
        std::fs::write(&path, "[default]\naws_access_key_id=only\n").unwrap();
        assert!(profile.get_credential().await.is_err());
    }
}
