//! Files that say their name when something is wrong with them, and files that appear whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use deltaport_delta::Blob;
use deltaport_oci::{Algorithm, Hasher};

use crate::output::rounded;

/// How much is read at once to hash a file.
const BUFFER: usize = 256 << 10;

/// A file whose errors begin with its name: the delta engine knows none.
#[derive(Debug)]
pub(super) struct Named {
    file: File,
    name: Arc<str>,
}

impl Named {
    fn new(file: File, name: &str) -> Self {
        Self { file, name: name.into() }
    }

    /// Opens a regular file to read it. Nothing else can be read twice.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let kind = fs::metadata(path).with_context(|| format!("cannot open {name}"))?.file_type();
        if kind.is_dir() {
            bail!("{name} is a directory; an OCI image layout is given as oci:{name}");
        }
        if !kind.is_file() {
            bail!("{name} is not a regular file; write what it gives into one first");
        }
        Ok(Self::new(File::open(path).with_context(|| format!("cannot open {name}"))?, &name))
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.named(self.file.metadata())?.len())
    }

    /// Where the next byte is read.
    pub(super) fn position(&mut self) -> io::Result<u64> {
        self.stream_position()
    }

    fn named<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        outcome.map_err(|error| match error.kind() {
            // Tried again by whoever reads or writes.
            io::ErrorKind::Interrupted => error,
            kind => io::Error::new(kind, format!("{}: {error}", self.name)),
        })
    }
}

impl Read for Named {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let outcome = self.file.read(buffer);
        self.named(outcome)
    }
}

impl Write for Named {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let outcome = self.file.write(bytes);
        self.named(outcome)
    }

    fn flush(&mut self) -> io::Result<()> {
        let outcome = self.file.flush();
        self.named(outcome)
    }
}

impl Seek for Named {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let outcome = self.file.seek(to);
        self.named(outcome)
    }
}

/// Reads what is left of a file and says what it was.
pub(super) fn blob(file: &mut Named, algorithm: Algorithm) -> io::Result<Blob> {
    let (mut hasher, mut size, mut buffer) = (Hasher::new(algorithm), 0, vec![0; BUFFER]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Blob { digest: hasher.finish(), size }),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Where a result will be.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    directory: PathBuf,
}

impl Place {
    /// Fails when no regular file can be at `path`: what is there now would be replaced, and should not be a device.
    pub(super) fn of(path: &Path) -> anyhow::Result<Self> {
        if path.file_name().is_none() {
            bail!("{} names no file; give the path of the file that is to be written", path.display());
        }
        match fs::metadata(path) {
            Ok(there) if there.is_dir() => {
                bail!("{} is a directory; give the path of the file that is to be written", path.display())
            }
            Ok(there) if !there.is_file() => {
                bail!("{} is not a regular file, and would be replaced; choose another", path.display())
            }
            _ => {}
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !directory.is_dir() {
            bail!("there is no directory {}; make it first", directory.display());
        }
        Ok(Self { path: path.to_owned(), directory: directory.to_owned() })
    }

    /// The path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An empty file without a name. It is where the result will be, since that has the space; the system's temporary
    /// directory may be in memory.
    pub(super) fn scratch(&self) -> io::Result<Named> {
        let name = format!("a scratch file in {}", self.directory.display());
        match tempfile::tempfile_in(&self.directory) {
            Ok(file) => Ok(Named::new(file, &name)),
            Err(error) => Err(io::Error::new(error.kind(), format!("{name}: {error}"))),
        }
    }

    /// Fails when fewer than `wanted` bytes are free.
    pub(super) fn has_room(&self, wanted: u64) -> anyhow::Result<()> {
        // A file system that does not tell says so later, by being full.
        let Ok(about) = rustix::fs::statvfs(&self.directory) else { return Ok(()) };
        let free = about.f_bavail.saturating_mul(about.f_frsize);
        if free < wanted {
            bail!(
                "{} has {} free, and {} are needed there; make room, or choose another directory",
                self.directory.display(),
                rounded(free),
                rounded(wanted)
            );
        }
        Ok(())
    }

    /// Has a file written that appears at the path when `fill` has succeeded, and then on the disk; else, what was there
    /// before stays.
    pub(super) fn write<T>(&self, fill: impl FnOnce(&mut Named) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let name = self.path.display().to_string();
        let mut prefix = OsStr::new(".").to_owned();
        prefix.push(self.path.file_name().unwrap_or_default());
        prefix.push(".");
        let temporary = tempfile::Builder::new()
            .prefix(&prefix)
            .permissions(Permissions::from_mode(0o666)) // less what the umask forbids, as any new file
            .tempfile_in(&self.directory)
            .with_context(|| format!("cannot write to {}", self.directory.display()))?;
        let (file, temporary) = temporary.into_parts();
        let mut file = Named::new(file, &name);
        let filled = fill(&mut file)?;
        file.file.sync_all().with_context(|| format!("cannot write {name}"))?;
        temporary.persist(&self.path).with_context(|| format!("cannot replace {name}"))?;
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .with_context(|| format!("{name} is there, but may not survive a power cut"))?;
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        let place = Place::of(&path).unwrap();
        let half = |file: &mut Named| {
            file.write_all(b"half")?;
            bail!("no more")
        };
        assert!(place.write::<()>(half).is_err());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        place.write(|file| Ok(file.write_all(b"whole")?)).unwrap();
        assert!(place.write::<()>(half).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn only_a_regular_file_is_replaced() {
        for path in ["/dev/null", "/", ".", "..", "missing/out"] {
            assert!(Place::of(Path::new(path)).is_err(), "{path}");
        }
        assert_eq!(Place::of(Path::new("new")).unwrap().directory, Path::new("."));
    }

    #[test]
    fn errors_name_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("in");
        fs::write(&path, "x").unwrap();
        let mut file = Named::open(&path).unwrap();
        let error = file.write(b"y").unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()), "{error}");
        let error = Named::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("oci:"), "{error}");
    }

    #[test]
    fn room_is_asked_for_before_it_is_needed() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::of(&directory.path().join("out")).unwrap();
        assert!(place.has_room(0).is_ok() && place.has_room(u64::MAX).is_err());
    }
}
