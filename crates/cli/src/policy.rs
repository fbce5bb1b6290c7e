//! Reads the policy for images, and the keys and certificates that it names, from files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::Context as _;
use deltaport_trust::signatures::{MAX_PEM_LEN, MAX_POLICY_LEN, Policy};

/// Reads a policy. Paths in it are taken as they are, as podman does.
pub(crate) fn load(path: &Path) -> anyhow::Result<Policy> {
    let text = read(path, MAX_POLICY_LEN).with_context(|| format!("cannot read {}", path.display()))?;
    Policy::read(&text, |named| read(Path::new(named), MAX_PEM_LEN).map_err(|error| error.to_string()))
        .with_context(|| format!("{} cannot be used", path.display()))
}

/// Reads a file, but not more than one byte above the limit that its reader has.
fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
