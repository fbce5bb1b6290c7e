//! Blobs, opened: what is compared instead of the blob itself.

use std::io::{BufReader, Read, Write};

use flate2::bufread::MultiGzDecoder;

use crate::error::Error;
use crate::format::Form;
use crate::outline::{self, Opened};
use crate::stream::{BUFFER, copy};
use crate::token;

/// The largest window that a zstd frame may want, as a power of two: 128 MiB, zstd's own limit.
pub(crate) const MAX_WINDOW_LOG: u32 = 27;

/// Writes a blob in the given form, and says what its outline is if the form has one.
///
/// Fails with [`Error::Unrepresentable`] when the blob does not have that form, and with the errors of its ends.
pub(crate) fn open(form: Form, blob: impl Read, out: &mut impl Write) -> Result<Opened, Error> {
    match form {
        Form::AsIs => copy(&mut { blob }, out)?,
        Form::Gzip => copy_opened(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, blob)), out)?,
        Form::Zstd => copy_opened(zstd_decoder(blob)?, out)?,
        Form::Tokens => token::decode(blob, out, u64::MAX)?, // the writer knows the limit
        Form::GzipMembers => return outline::open_gzip(blob, out),
        Form::ZstdFrames => return outline::open_zstd(blob, out),
    };
    Ok(Opened::default())
}

fn zstd_decoder<'a, R: Read>(blob: R) -> Result<zstd::Decoder<'a, BufReader<R>>, Error> {
    let mut decoder = zstd::Decoder::new(blob)?;
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    Ok(decoder)
}

/// Copies everything that a decompressor makes. Its own complaints are about the blob; those of the reader behind it
/// are passed on.
pub(crate) fn copy_opened(mut decoder: impl Read, out: &mut impl Write) -> Result<u64, Error> {
    let mut buffer = vec![0; BUFFER];
    let mut copied = 0;
    loop {
        let read = match decoder.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(read) => read,
            Err(error) => return Err(complaint(error)),
        };
        out.write_all(&buffer[..read])?;
        copied += read as u64;
    }
}

/// What a decompressor's error means.
fn complaint(error: std::io::Error) -> Error {
    use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    match (error.kind(), Error::from(error)) {
        (InvalidData | InvalidInput | UnexpectedEof | Other, Error::Io(_)) => {
            Error::Unrepresentable("it is not compressed as it seems to be")
        }
        (_, error) => error,
    }
}

/// How a zstd frame begins.
pub(crate) const ZSTD: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

/// How a blob that begins like this seems to be compressed.
pub(crate) fn guess(head: &[u8]) -> Form {
    if head.starts_with(&crate::gzip::MAGIC) {
        Form::Gzip
    } else if head.starts_with(&ZSTD) {
        Form::Zstd
    } else {
        Form::AsIs
    }
}
