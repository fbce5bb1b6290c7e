//! Making: below the budget, with the right delta in the end.

use std::fs::File;
use std::io::Seek;

use deltaport_delta::{Delta, Error, Limits, MIN_MEMORY, Options, Profile, apply, create};

use crate::ceiling::{MIB, Peak};
use crate::common::gnu_gzip;
use crate::layers::{Archive, noise, same, scratch};

/// Makes a delta with this budget and more threads than there is memory for; when it is worth it, applies it.
#[track_caller]
fn make(bases: &mut [File], target: &mut File, memory: u64, profile: Profile) -> Result<Delta, Error> {
    let options = Options { memory, profile, threads: 8, ..Options::default() };
    let (made, peak) = Peak::of(|| create(bases, target, scratch, &options, |_| ()));
    peak.is_within(memory, format_args!("{} MiB", memory / MIB));
    let made = made?;
    bases.iter_mut().for_each(|base| base.rewind().unwrap());
    let mut out = scratch().unwrap();
    apply(bases, &made.bytes[..], &mut out, scratch().unwrap(), &Limits::default()).unwrap();
    assert!(same(&mut out, target), "another blob came back");
    Ok(made)
}

/// A file that another version of is made by changing some bytes in every 64 KiB, from some place on.
fn version(archive: &mut Archive, name: &str, len: u64, version: u8) {
    archive.begin(name, len);
    for n in 0..len / MIB {
        let mut piece = noise(n, 1 << 20);
        for at in (0..piece.len()).step_by(64 << 10) {
            piece[at] = version;
        }
        archive.write(&piece);
    }
}

/// Two bases and a target with large files.
#[track_caller]
fn large_files(memory: u64) {
    let layer = |name: &str, number: u8| {
        let mut archive = Archive::new();
        version(&mut archive, name, 100 * MIB, number);
        archive.finish()
    };
    let made = make(&mut [layer("one", 1), layer("two", 2)], &mut layer("two", 3), memory, Profile::Best);
    assert!(made.unwrap().bytes.len() < 10_000);
}

#[test]
fn large_files_in_the_least_memory() {
    large_files(MIN_MEMORY);
}

#[test]
fn large_files_in_512_mib() {
    large_files(512 * MIB);
}

#[test]
fn large_files_in_1_gib() {
    large_files(1024 * MIB);
}

#[test]
fn many_files() {
    let layer = |version: usize| {
        let piece = noise(7, 1 << 20);
        let mut archive = Archive::new();
        for n in 0..150_000 {
            let at = (n * 37) % (1 << 19);
            let renamed = if n % 10 == 0 { version } else { 0 };
            let changed = if n % 100 == 0 { version } else { 0 };
            let name = format!("a/directory/of/some/length/{}/file-{n}-{renamed}", n % 100);
            archive.add(&name, &piece[at + changed..at + changed + 64 + n % 400]);
        }
        archive.finish()
    };
    let made = make(&mut [layer(0)], &mut layer(1), MIN_MEMORY, Profile::Best);
    assert!(made.unwrap().bytes.len() < 10_000_000);
}

#[test]
fn many_matches() {
    let layer = |swapped: bool| {
        let mut archive = Archive::new();
        archive.begin("file", 16 * MIB);
        for n in 0..16 {
            let mut piece = noise(n, 1 << 20);
            if swapped {
                piece.chunks_exact_mut(512).for_each(|two| two.rotate_left(256));
            }
            archive.write(&piece);
        }
        archive.finish()
    };
    let made = make(&mut [layer(false)], &mut layer(true), MIN_MEMORY, Profile::Fast);
    let made = made.unwrap();
    assert!(made.bytes.len() < 100_000, "what was swapped is found: {:?}", made.header);
}

#[test]
fn a_delta_that_does_not_fit() {
    let mut base = Archive::new();
    version(&mut base, "file", 100 * MIB, 1);
    let mut target = Archive::new();
    version(&mut target, "file", 100 * MIB, 1);
    target.begin("new", 100 * MIB);
    (0..100).for_each(|n| target.write(&noise(1000 + n, 1 << 20)));
    let made = make(&mut [base.finish()], &mut target.finish(), MIN_MEMORY, Profile::Fast);
    assert!(matches!(made, Err(Error::NotWorthIt { allowed }) if allowed < 100 * MIB), "{made:?}");
}

#[test]
fn large_members() {
    let layer = |version: u8| {
        let content = vec![version; 200 << 20];
        let mut archive = Archive::new();
        archive.add("log.gz", &gnu_gzip(&content, 1));
        archive.add("file", &noise(1, 10 << 20));
        archive.finish()
    };
    let (mut base, mut target) = (layer(1), layer(2));
    make(std::slice::from_mut(&mut base), &mut target, MIN_MEMORY, Profile::Best).unwrap();
}

/// An executable whose code calls functions further on, in so many blocks of 1 MiB; `more` bytes are new in each.
fn executable(archive: &mut Archive, blocks: u64, more: usize) {
    let block = (1 << 20) + more as u64;
    let len = blocks * block;
    let text = 0x1000;
    let words = |bytes: &mut Vec<u8>, words: &[u64]| words.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
    let mut head = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // A shared object for x86-64; tables of one segment behind the header, and of two sections behind that.
    head.extend([3, 0, 62, 0, 1, 0, 0, 0]);
    words(&mut head, &[text, 64, 120, 0x38_0040 << 32]);
    head.extend([1, 0, 64, 0, 2, 0, 0, 0]);
    words(&mut head, &[0x5_0000_0001, 0, 0, 0, text + len, text + len, 0x1000]);
    head.extend([0; 64]);
    words(&mut head, &[1 << 32, 6, text, text, len, 0, 16, 0]);
    head.resize(text as usize, 0);
    archive.begin("program", text + len);
    archive.write(&head);
    for n in 0..blocks {
        let mut code = noise(5000 + n, 1 << 20);
        code.splice(0..0, noise(n, more));
        for at in (more..code.len() - 5).step_by(64) {
            let (from, to) = (n * block + at as u64 + 5, (n * 7 + at as u64 * 31) % blocks * block + 4096);
            code[at] = 0xe8;
            code[at + 1..at + 5].copy_from_slice(&(to.wrapping_sub(from) as u32).to_le_bytes());
        }
        archive.write(&code);
    }
}

#[test]
fn executables() {
    let layer = |more| {
        let mut archive = Archive::new();
        executable(&mut archive, 4, more);
        archive.finish()
    };
    let made = make(&mut [layer(0)], &mut layer(16), MIN_MEMORY, Profile::Best).unwrap();
    // Of the 65,536 calls nearly all lead elsewhere; four bytes of each would be 256 KiB.
    assert!(made.bytes.len() < 30_000, "{:?}", made.header);
}
