//! The 512 bytes of a tar header, and the records of extended headers.

/// The size of a block, in bytes.
pub(super) const BLOCK: u64 = 512;

/// What a header says of what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// A pax header for the next member (`x`, and Solaris' `X`).
    Local,
    /// A pax header for all members that follow (`g`).
    Global,
    /// The long name of the next member (GNU, `L`).
    LongName,
    /// The long link target of the next member (GNU, `K`).
    LongLink,
    /// A hard link. Some writers give it the size of its target and no content, some give it content.
    Link,
    /// A symbolic link, device, directory or pipe: no content, whatever the size says.
    Bodiless,
    /// Anything else has content.
    File,
}

/// A header block whose checksum is right.
#[derive(Debug)]
pub(super) struct Block([u8; BLOCK as usize]);

impl Block {
    /// Takes the block if it is a header: if its checksum is right, summed as unsigned bytes or, as some old writers
    /// did, as signed ones.
    pub(super) fn new(bytes: [u8; BLOCK as usize]) -> Option<Self> {
        if bytes[0] == 0 && bytes[156] == 0 {
            return None; // a block of zeros, or as good as one: a member has a name or a type
        }
        let written = number(&bytes[148..156])?;
        let summed = |value: fn(u8) -> i64| {
            let outside = bytes[..148].iter().chain(&bytes[156..]).map(|byte| value(*byte)).sum::<i64>();
            outside + 8 * i64::from(b' ')
        };
        let written = i64::try_from(written).ok()?;
        let right = summed(i64::from) == written || summed(|byte| i64::from(byte.cast_signed())) == written;
        right.then_some(Self(bytes))
    }

    /// The size field; none if it is not a number.
    pub(super) fn size(&self) -> Option<u64> {
        number(&self.0[124..136])
    }

    pub(super) fn kind(&self) -> Type {
        match self.0[156] {
            b'x' | b'X' => Type::Local,
            b'g' => Type::Global,
            b'L' => Type::LongName,
            b'K' => Type::LongLink,
            b'1' => Type::Link,
            b'2'..=b'6' => Type::Bodiless,
            _ => Type::File,
        }
    }

    /// The path: `name`, after `prefix` in a header of POSIX's form.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = cut_at_nul(&self.0[..100]);
        let prefix = match &self.0[257..265] {
            b"ustar\x0000" => cut_at_nul(&self.0[345..500]),
            _ => &[],
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, name].join(&b'/') }
    }

    /// Whether the next block continues the map of an old GNU sparse file.
    pub(super) fn sparse_map_continues(&self) -> bool {
        self.0[156] == b'S' && self.0[482] != 0
    }
}

/// Whether the block after this one continues the map of an old GNU sparse file, too.
pub(super) fn sparse_map_continues(map: &[u8; BLOCK as usize]) -> bool {
    map[504] != 0
}

/// Reads a number field: octal digits between spaces and NULs, or GNU's base 256 (high bit set, big endian).
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (first, rest) = (field[0] & 0x7f, &field[1..]);
        return rest.iter().try_fold(u64::from(first), |sum, byte| {
            (sum >> 56 == 0).then_some(sum << 8 | u64::from(*byte)) // 0xff in front means negative: too large as well
        });
    }
    let start = field.iter().position(|byte| *byte != b' ').unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_u64, |sum, byte| match byte {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// The bytes before the first NUL.
pub(super) fn cut_at_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// What extended headers said that matters for where things are and what they are called.
#[derive(Debug, Default)]
pub(super) struct Records {
    path: Option<Vec<u8>>,
    /// The name of a sparse file, whose `path` is made up.
    sparse_name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
}

impl Records {
    /// Takes the records of an extended header, `LENGTH KEY=VALUE\n` each, up to the first one that is malformed.
    pub(super) fn read(&mut self, mut data: &[u8]) {
        while let Some((key, value, rest)) = record(data) {
            match key {
                b"path" => self.path = set(value),
                b"GNU.sparse.name" => self.sparse_name = set(value),
                b"size" => self.size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()),
                _ => {}
            }
            data = rest;
        }
    }

    /// The path that the member is to have.
    pub(super) fn name(&self) -> Option<&[u8]> {
        self.sparse_name.as_deref().or(self.path.as_deref())
    }
}

/// A value that may be empty, which takes back what was said before.
fn set(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

/// Splits the first record off: its key, its value, and what follows.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let len: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    let (record, rest) = data.split_at_checked(len)?;
    let text = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|byte| *byte == b'=')?;
    Some((&text[..equals], &text[equals + 1..], rest))
}
