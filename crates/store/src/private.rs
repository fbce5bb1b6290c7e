//! Small files that only this user may read: secrets, and what is known of other people's keys. They are replaced whole,
//! and need no open store: commands read and change them while a server runs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::FlockOperation;

use crate::disk::{make_directory, remove_if_there, sync_parent};
use crate::layout::Layout;

/// The most bytes of a private file.
pub const MAX_PRIVATE_LEN: u64 = 8 << 20;

/// One small file of a data directory, with mode 0600.
#[derive(Clone, Debug)]
pub struct PrivateFile {
    path: PathBuf,
    new: PathBuf,
    lock: PathBuf,
}

/// What tells that a file may have changed: another one means another content, nearly always. A file that is not there
/// has none.
pub type Stamp = Option<(SystemTime, u64, u64)>;

impl PrivateFile {
    /// The file `name` of the data directory `root`. Nothing is opened or made. `name` is one of our own, without
    /// slashes.
    pub fn new(root: &Path, name: &str) -> Self {
        let layout = Layout::new(root);
        Self { path: layout.private(name), new: layout.new_private(name), lock: layout.private_lock() }
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What tells that it may have changed.
    pub fn stamp(&self) -> Stamp {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = fs::metadata(&self.path).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    }

    /// The content; `None` when it is not there. Fails when it has more than [`MAX_PRIVATE_LEN`] bytes.
    pub fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut content = Vec::new();
        let read = file.take(MAX_PRIVATE_LEN + 1).read_to_end(&mut content)?;
        if read as u64 > MAX_PRIVATE_LEN {
            return Err(io::Error::other(format!("it has more than {MAX_PRIVATE_LEN} bytes")));
        }
        Ok(Some(content))
    }

    /// Replaces the content. Durable when it returns; whoever reads meanwhile sees the old or the new.
    pub fn replace(&self, content: &[u8]) -> io::Result<()> {
        self.make_home()?;
        // What a crash left behind may have another mode, so that the file is always a new one.
        remove_if_there(&self.new)?;
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&self.new)?;
        file.write_all(content)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&self.new, &self.path)?;
        sync_parent(&self.path)
    }

    /// Changes the content: `change` is given what is there, and says what takes the place of it, if anything does. Others
    /// who change a private file of this data directory wait meanwhile.
    pub fn update<E: From<io::Error>>(
        &self,
        change: impl FnOnce(Option<Vec<u8>>) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<(), E> {
        self.make_home()?;
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(&self.lock)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(io::Error::from)?;
        match change(self.read()?)? {
            Some(new) => Ok(self.replace(&new)?),
            None => Ok(()),
        }
    }

    fn make_home(&self) -> io::Result<()> {
        make_home(&self.path)
    }
}

/// Where whoever has a data directory open takes commands of this machine: a socket in a directory that nobody but this
/// user may enter.
#[derive(Clone, Debug)]
pub struct CommandSocket {
    path: PathBuf,
}

impl CommandSocket {
    /// The socket of the data directory `root`. Nothing is opened or made.
    pub fn new(root: &Path) -> Self {
        Self { path: Layout::new(root).commands() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes room for it: makes its directory, and removes what a process left there that was killed. Only for who has
    /// the store open.
    pub fn clear(&self) -> io::Result<()> {
        make_home(&self.path)?;
        remove_if_there(&self.path).map(drop)
    }
}

/// Makes the directory that a private file is in.
fn make_home(file: &Path) -> io::Result<()> {
    let home = file.parent().unwrap_or(Path::new("."));
    if home.is_dir() {
        return Ok(());
    }
    if let Some(root) = home.parent() {
        make_directory(root)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(home) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_parent(home),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_replaced_is_there_and_nobody_elses_to_read() {
        let home = tempfile::tempdir().unwrap();
        let file = PrivateFile::new(&home.path().join("data"), "keys");
        assert_eq!((file.read().unwrap(), file.stamp()), (None, None));
        file.replace(b"one").unwrap();
        let first = file.stamp();
        assert_eq!(file.read().unwrap().as_deref(), Some(&b"one"[..]));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(file.path()), mode(file.path().parent().unwrap())), (0o600, 0o700));

        // What a crash left behind does not make it readable.
        fs::write(&file.new, "left over").unwrap();
        fs::set_permissions(&file.new, fs::Permissions::from_mode(0o644)).unwrap();
        file.update(|old| Ok::<_, io::Error>(Some([old.unwrap(), b" two".to_vec()].concat()))).unwrap();
        assert_eq!(file.read().unwrap().as_deref(), Some(&b"one two"[..]));
        assert_ne!(file.stamp(), first);
        assert_eq!(mode(file.path()), 0o600);
        assert!(file.update(|_| Err(io::Error::other("no"))).is_err());
        assert_eq!(file.read().unwrap().as_deref(), Some(&b"one two"[..]));
    }

    #[test]
    fn changes_at_the_same_time_are_all_there() {
        let home = tempfile::tempdir().unwrap();
        let file = PrivateFile::new(home.path(), "list");
        std::thread::scope(|scope| {
            for n in 0..8_u8 {
                let file = &file;
                scope.spawn(move || {
                    file.update(|old| Ok::<_, io::Error>(Some([old.unwrap_or_default(), vec![n]].concat())))
                        .unwrap();
                });
            }
        });
        let mut all = file.read().unwrap().unwrap();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
