//! The outputs of real encoders, for tests.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use deltaport_oci::Digest;

use super::Encode;

const INDEX: &str = include_str!("../../tests/vectors/index.tsv");

/// What a real encoder made of an input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vector {
    /// The name of the input.
    pub(crate) input: &'static str,
    /// The version of the encoder.
    pub(crate) version: &'static str,
    /// Its level or options, as `index.tsv` has them.
    pub(crate) options: &'static str,
    /// The length of its output in bytes.
    pub(crate) len: usize,
    /// The SHA-256 of its output, in hexadecimal digits.
    pub(crate) sha256: &'static str,
}

/// All vectors of a family; at least one.
pub(crate) fn family(name: &str) -> Vec<Vector> {
    let rows = INDEX.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
    let found: Vec<_> = rows
        .filter(|row| row[1] == name)
        .map(|row| Vector {
            input: row[0],
            version: row[2],
            options: row[3],
            len: row[4].parse().unwrap(),
            sha256: row[5],
        })
        .collect();
    assert!(!found.is_empty(), "no vectors of {name}");
    found
}

impl Vector {
    /// The bytes of the input.
    pub(crate) fn content(&self) -> Vec<u8> {
        match self.input {
            "big.bin" => big(),
            name => read(name),
        }
    }

    /// Fails, naming the vector, unless `output` is what the real encoder wrote.
    #[track_caller]
    pub(crate) fn assert_is(&self, output: &[u8]) {
        let (len, digest) = (output.len(), Digest::sha256(output));
        assert!(len == self.len && digest.hex() == self.sha256, "{self:?}: {len} bytes, {digest}");
    }
}

/// Everything that `encoder` writes for `content` when it is cut into pieces of `piece` bytes.
pub(crate) fn encode(encoder: &mut dyn Encode, content: &[u8], piece: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in content.chunks(piece) {
        encoder.write(piece, &mut out);
    }
    encoder.finish(&mut out);
    out
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/vectors/inputs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// See `tests/vectors/README.md`.
fn big() -> Vec<u8> {
    let mixed = read("mixed.bin");
    let mut big = Vec::with_capacity(mixed.len() * 9);
    for k in 0..9_u8 {
        let mut piece = mixed.clone();
        piece.rotate_left(usize::from(k) * 200_003 % mixed.len());
        if k % 3 != 0 {
            piece.iter_mut().for_each(|byte| *byte ^= k);
        }
        big.extend_from_slice(&piece);
    }
    big
}

#[test]
fn the_large_input_is_the_one_that_was_used() {
    assert_eq!(
        Digest::sha256(&big()).hex(),
        "a7d7204b7166b62c682f7277649912d235784859b2296746a04776bdebf36e5b"
    );
}
