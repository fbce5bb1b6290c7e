//! `deltaport delta` on real files: what a script can rely on. How small deltas are, and that every form of layer is
//! given back, is tested with the engine.

use std::path::{Path, PathBuf};

use deltaport_oci::{Algorithm, Digest};
use deltaport_testkit::sample::{self, Content, Image, Random};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{Ended, delta};

/// A directory with layers in it, where the commands run.
struct Place(TempDir);

impl Place {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let place = Self(TempDir::with_prefix("deltaport-").unwrap());
        for (name, bytes) in files {
            place.write(name, bytes);
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The names of everything in a directory, hidden or not.
    fn names(&self, directory: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(directory)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs `deltaport delta` with these words.
    fn delta(&self, words: &str) -> Ended {
        delta(words, self.0.path(), "")
    }

    /// The same, for what has to go well.
    #[track_caller]
    fn good(&self, words: &str) -> Ended {
        self.delta(words).good()
    }

    /// Writes an OCI image layout of images by tag.
    fn layout(&self, directory: &str, images: &[(&str, &Content)], blobs: &[&Image]) {
        let blob = |content: &Content| {
            let (algorithm, hex) = (content.digest.algorithm(), content.digest.hex());
            self.write(&format!("{directory}/blobs/{algorithm}/{hex}"), &content.bytes);
        };
        for image in blobs {
            blob(&image.manifest);
            image.blobs().for_each(blob);
        }
        let mut entries = Vec::new();
        for (tag, manifest) in images {
            blob(manifest);
            let mut entry = manifest.descriptor();
            entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
            entries.push(entry);
        }
        self.write(&format!("{directory}/oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
        let index = json!({ "schemaVersion": 2, "manifests": entries });
        self.write(&format!("{directory}/index.json"), index.to_string().as_bytes());
    }
}

/// An archive and the one of the next version.
fn two_versions() -> [Vec<u8>; 2] {
    let old = sample::files(1, 30, 1500);
    let new = sample::changed(&old, 2, 10);
    [sample::tar(&old), sample::tar(&new)]
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// A place with `old.tar.gz`, `new.tar.gz` and the delta between them, `delta`.
fn with_a_delta() -> Place {
    let [old, new] = two_versions();
    let place = Place::new(&[("old.tar.gz", &sample::gzip(&old)), ("new.tar.gz", &sample::gzip(&new))]);
    place.good("create --base old.tar.gz --target new.tar.gz --out delta");
    place
}

fn digest(bytes: &[u8]) -> String {
    Digest::sha256(bytes).to_string()
}

#[test]
fn a_layer_comes_back_however_old_and_new_are_compressed() {
    let [old, new] = two_versions();
    let place = Place::new(&[
        ("old.tar", &old),
        ("old.tar.gz", &sample::gzip(&old)),
        ("old.tar.zst", &zstd(&old)),
        ("new.tar", &new),
        ("new.tar.gz", &sample::gzip(&new)),
    ]);
    for (old, new, profile) in [
        ("old.tar", "new.tar", "fast"),
        ("old.tar.gz", "new.tar", "best"),
        ("old.tar.zst", "new.tar", "fast"),
        ("old.tar.gz", "new.tar.gz", "best"),
    ] {
        let made = place
            .good(&format!("create --base {old} --target {new} --out delta --profile {profile} --json"))
            .json();
        assert_eq!(made["outcome"], "made");
        assert_eq!(made["recipe"].is_string(), made["kind"] == "plain", "{made}");
        assert_eq!(made["size"], place.read("delta").len());
        let report = place.good(&format!("apply --base {old} --delta delta --out restored --json"));
        assert_eq!(report.json()["digest"], digest(&place.read(new)), "{old} {new}");
        assert!(place.read("restored") == place.read(new), "{old} {new}");
        let text = place.good(&format!("apply --base {old} --delta delta --out restored"));
        assert!(text.stdout.contains(&digest(&place.read(new))), "{}", text.stdout);
    }
    // Neither unfinished files nor scratch files stay.
    assert_eq!(place.names(".").len(), 5 + 2, "{:?}", place.names("."));
}

#[test]
fn the_number_of_threads_does_not_change_a_delta() {
    let place = with_a_delta();
    for options in ["--threads 1", "--threads 3 --profile best"] {
        place.good(&format!("create --base old.tar.gz --target new.tar.gz --out again {options}"));
        assert!(place.read("again") == place.read("delta"), "{options}");
    }
}

#[test]
fn bases_are_found_by_digest() {
    // Of one size, so that the size cannot tell.
    let [one, two, other] = [1, 2, 3].map(|seed| sample::bytes(seed, 60_000));
    let place = Place::new(&[("one", &one), ("two", &two), ("other", &other), ("short", b"x")]);
    let target = [&two[..30_000], &one[10_000..], b"more"].concat();
    place.write("new", &target);
    place.good("create --base one --base two --target new --out delta");
    let told = place.good("inspect delta --json").json();
    assert_eq!(told["bases"][0]["digest"], digest(&one));
    assert_eq!(told["bases"][1]["digest"], digest(&two));
    for bases in
        ["--base one --base two", "--base two --base one", "--base other --base two --base short --base one"]
    {
        place.good(&format!("apply {bases} --delta delta --out restored"));
        assert!(place.read("restored") == target, "{bases}");
        std::fs::remove_file(place.path("restored")).unwrap();
    }
    let missing = place.delta("apply --base other --base one --delta delta --out restored");
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains(&format!("  {}, 60000 bytes", digest(&two))), "{}", missing.stderr);
    assert!(!missing.stderr.contains(&format!("  {}", digest(&one))), "{}", missing.stderr);
    assert!(missing.stderr.contains(&format!("other is {}", digest(&other))), "{}", missing.stderr);
    assert!(!place.path("restored").exists());
}

#[test]
fn a_wrong_base_is_named() {
    let place = with_a_delta();
    let mut wrong = place.read("old.tar.gz");
    let right = digest(&wrong);
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    place.write("wrong", &wrong);
    let ended = place.delta("apply --base wrong --delta delta --out restored");
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
    let expected = format!("wrong is {}, and the delta needs {right}", digest(&wrong));
    assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    assert!(!place.path("restored").exists());
}

#[test]
fn a_damaged_delta_leaves_what_was_there() {
    let place = with_a_delta();
    let (delta, mut random) = (place.read("delta"), Random::new(7));
    let mut damages = vec![Vec::new(), delta[..40].to_vec(), delta[..delta.len() - 1].to_vec()];
    damages.push([&delta[..], b"x"].concat());
    damages.push(place.read("old.tar.gz"));
    for _ in 0..10 {
        let mut flipped = delta.clone();
        flipped[usize::try_from(random.below(delta.len() as u64)).unwrap()] ^= 1 << random.below(8);
        damages.push(flipped);
    }
    for (number, damage) in damages.iter().enumerate() {
        place.write("damaged", damage);
        let older = number % 2 == 1;
        if older {
            place.write("restored", b"an older one");
        }
        let before = place.names(".");
        let ended = place.delta("apply --base old.tar.gz --delta damaged --out restored");
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{number}: {ended:?}");
        assert!(ended.stderr.starts_with("deltaport: "), "{number}: {}", ended.stderr);
        assert_eq!(place.names("."), before, "{number}");
        if older {
            assert_eq!(place.read("restored"), b"an older one");
            std::fs::remove_file(place.path("restored")).unwrap();
        }
    }
    place.write("damaged", &delta[..delta.len() - 1]);
    let cut = place.delta("inspect damaged");
    assert_eq!(cut.code, 1);
    assert!(cut.stderr.contains(&format!("{} of {} bytes", delta.len() - 1, delta.len())), "{}", cut.stderr);
}

#[test]
fn a_delta_replaces_an_older_file_when_it_is_good() {
    let place = with_a_delta();
    place.write("restored", b"an older one");
    place.good("apply --base old.tar.gz --delta delta --out restored");
    assert!(place.read("restored") == place.read("new.tar.gz"));
    // Even the base itself.
    place.good("apply --base old.tar.gz --delta delta --out old.tar.gz");
    assert!(place.read("old.tar.gz") == place.read("new.tar.gz"));
}

#[test]
fn not_worth_it_has_a_status_of_its_own() {
    let place = Place::new(&[("old", &sample::bytes(1, 50_000)), ("new", &sample::bytes(2, 50_000))]);
    place.write("delta", b"an older one");
    let ended = place.delta("create --base old --target new --out delta");
    assert_eq!((ended.code, ended.stderr.as_str()), (4, ""));
    assert!(ended.stdout.contains("not worth it") && ended.stdout.contains("send the layer"), "{ended:?}");
    let ended = place.delta("create --base old --target new --out delta --json");
    assert_eq!((ended.code, &ended.json()["outcome"]), (4, &json!("not-worth-it")));
    assert_eq!(ended.json()["target"]["digest"], digest(&sample::bytes(2, 50_000)));
    assert_eq!(place.read("delta"), b"an older one");
}

#[test]
fn a_target_that_is_a_base_needs_next_to_nothing() {
    let place = with_a_delta();
    place.good("create --base new.tar.gz --target new.tar.gz --out same");
    assert!(place.read("same").len() < 500, "{}", place.read("same").len());
    place.good("apply --base new.tar.gz --delta same --out restored");
    assert!(place.read("restored") == place.read("new.tar.gz"));
}

#[test]
fn inspect_accounts_for_every_byte() {
    let place = with_a_delta();
    let told = place.good("inspect delta --json").json();
    let size = place.read("delta").len();
    assert_eq!(told["size"], size);
    let sections = told["sections"].as_object().unwrap();
    assert_eq!(sections.values().map(|size| size.as_u64().unwrap()).sum::<u64>(), size as u64);
    let (old, new) = (place.read("old.tar.gz"), place.read("new.tar.gz"));
    assert_eq!(told["target"], json!({ "digest": digest(&new), "size": new.len() }));
    assert_eq!(told["bases"][0]["digest"], digest(&old));
    assert_eq!(told["bases"][0]["size"], old.len());
    assert!(told["bases"][0]["form"].is_string() && told["kind"].is_string());
    assert!(told["recipe"].is_string() || told["kind"] != "plain");
    let text = place.good("inspect delta").stdout;
    for part in
        [digest(&new), digest(&old), told["kind"].as_str().unwrap().to_owned(), format!("{size} bytes")]
    {
        assert!(text.contains(&part), "{part}\n{text}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_the_name_of_the_file() {
    let place = with_a_delta();
    place.layout("image", &[("1", &Image::small(1).manifest)], &[&Image::small(1)]);
    let many = "--base old.tar.gz ".repeat(17);
    let create = "create --base old.tar.gz --target new.tar.gz";
    for (words, says) in [
        ("create --base missing --target new.tar.gz --out x".to_owned(), "cannot open missing"),
        ("create --base old.tar.gz --target missing --out x".to_owned(), "cannot open missing"),
        ("create --base image --target new.tar.gz --out x".to_owned(), "oci:image"),
        (format!("create {many} --target new.tar.gz --out x"), "at most 16"),
        (format!("{create} --out none/x"), "no directory none"),
        (format!("{create} --out image"), "image is a directory"),
        (format!("{create} --out /dev/null"), "not a regular file"),
        ("create --base oci:none --target new.tar.gz --out x".to_owned(), "none is no OCI image layout"),
        ("create --base oci:image:2 --target oci:image --out x".to_owned(), "the tags are: 1"),
        ("apply --base missing --delta delta --out x".to_owned(), "cannot open missing"),
        ("apply --base old.tar.gz --delta missing --out x".to_owned(), "cannot open missing"),
        ("apply --base old.tar.gz --delta new.tar.gz --out x".to_owned(), "new.tar.gz cannot be used"),
        ("inspect new.tar.gz".to_owned(), "not a layer delta"),
    ] {
        let ended = place.delta(&words);
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{words}");
        assert!(ended.stderr.contains(says), "{words}: {}", ended.stderr);
        assert!(!place.path("x").exists(), "{words}");
    }
    for words in [
        "create --target new.tar.gz --out x",
        "create --base old.tar.gz --target new.tar.gz --out x --memory much",
        "create --base old.tar.gz --target new.tar.gz --out x --threads 0",
        "create --base old.tar.gz --target new.tar.gz --out x --profile slow",
        "apply --base old.tar.gz --out x",
        "inspect",
    ] {
        assert_eq!(place.delta(words).code, 2, "{words}");
    }
    assert!(place.good("create --help").stdout.contains("with 4 when it is not worth it"));
}

/// An image of three layers and its next version: the lowest stays, one is changed, one shares nothing, one is added.
fn two_images(architecture: &str, seed: u64) -> [Image; 2] {
    let base = sample::layer(seed, 20_000);
    let archive = |files: &[sample::File]| Content::new(sample::LAYER_TAR, sample::tar(files));
    let noise = |seed| Content::new(sample::LAYER_TAR, sample::bytes(seed, 30_000));
    let old = sample::files(seed + 1, 30, 2000);
    let new = sample::changed(&old, seed + 2, 5);
    [
        Image::of(architecture, vec![base.clone(), archive(&old), noise(seed + 3)]),
        Image::of(architecture, vec![base, archive(&new), noise(seed + 4), sample::layer(seed + 5, 400)]),
    ]
}

fn outcomes(report: &Value) -> Vec<&str> {
    report["layers"].as_array().unwrap().iter().map(|layer| layer["outcome"].as_str().unwrap()).collect()
}

#[test]
fn an_image_gets_a_delta_for_each_layer_that_is_new() {
    let place = Place::new(&[]);
    let [old, new] = two_images("amd64", 10);
    place.layout("old", &[("1", &old.manifest)], &[&old]);
    place.layout("new", &[("2", &new.manifest)], &[&new]);
    let report = place.good("create --base oci:old --target oci:new --out deltas --json").json();
    assert_eq!(outcomes(&report), ["held", "made", "not-worth-it", "no-base"]);
    let target = &new.layers[1];
    assert_eq!(
        report["layers"][1]["target"],
        json!({ "digest": target.digest.to_string(), "size": target.bytes.len() })
    );
    let delta = format!("deltas/{}.delta", target.digest.hex());
    assert_eq!(place.names("deltas"), [format!("{}.delta", target.digest.hex())]);
    place.good(&format!("apply --base oci:old:1 --delta {delta} --out restored"));
    assert!(place.read("restored") == target.bytes);
    let text = place.good("create --base oci:old --target oci:new --out deltas").stdout;
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.contains("the old image has this layer") && text.contains("send the layer"), "{text}");
    // Back and to itself: nothing is new, and that is well.
    let report = place.good("create --base oci:new --target oci:new --out none --json").json();
    assert_eq!(outcomes(&report), ["held"; 4]);
    // Only a layer that shares nothing is new.
    let noise = Image::of("amd64", vec![old.layers[0].clone(), new.layers[2].clone()]);
    place.layout("noise", &[("3", &noise.manifest)], &[&noise]);
    let ended = place.delta("create --base oci:old --target oci:noise --out deltas --json");
    assert_eq!((ended.code, outcomes(&ended.json())), (4, vec!["held", "not-worth-it"]));
}

#[test]
fn platforms_and_tags_are_told_apart() {
    let place = Place::new(&[]);
    let [old_amd, new_amd] = two_images("amd64", 20);
    let [old_arm, new_arm] = two_images("arm64", 30);
    let old = sample::index(&[&old_amd.manifest, &old_arm.manifest], json!({}));
    let new = sample::index(&[&new_amd.manifest, &new_arm.manifest], json!({}));
    let all = [&old_amd, &old_arm, &new_amd, &new_arm];
    place.layout("both", &[("1", &old), ("2", &new), ("arm", &new_arm.manifest)], &all);
    let ended = place.delta("create --base oci:both --target oci:both:2 --out deltas");
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("1, 2, arm"), "{}", ended.stderr);
    let report = place.good("create --base oci:both:1 --target oci:both:2 --out deltas --json").json();
    let layers = report["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 8);
    for (layer, old) in [(&layers[1], &old_amd), (&layers[5], &old_arm)] {
        assert_eq!(layer["outcome"], "made");
        for base in layer["bases"].as_array().unwrap() {
            let own = old.layers.iter().any(|layer| base["digest"] == layer.digest.to_string());
            assert!(own, "{layer}");
        }
    }
    // The configuration names the platform of an image without an index.
    let report = place.good("create --base oci:both:1 --target oci:both:arm --out arm --json").json();
    assert_eq!(outcomes(&report), ["held", "made", "not-worth-it", "no-base"]);
}

#[test]
fn files_and_images_may_be_mixed() {
    let place = Place::new(&[]);
    let [old, new] = two_images("amd64", 40);
    place.layout("old", &[("1", &old.manifest)], &[&old]);
    place.layout("new", &[("2", &new.manifest)], &[&new]);
    place.write("old.layer", &old.layers[1].bytes);
    place.write("new.layer", &new.layers[1].bytes);
    place.good("create --base oci:old --target new.layer --out delta");
    place.good("apply --base oci:old --delta delta --out restored");
    assert!(place.read("restored") == new.layers[1].bytes);
    place.good("create --base old.layer --target oci:new --out deltas");
    let delta = format!("deltas/{}.delta", new.layers[1].digest.hex());
    place.good(&format!("apply --base old.layer --delta {delta} --out restored"));
    assert!(place.read("restored") == new.layers[1].bytes);
}

#[test]
fn digests_of_the_layout_are_those_of_its_deltas() {
    let place = Place::new(&[]);
    let images = two_images("amd64", 50).map(|image| {
        let layers = image.layers.iter().map(|layer| layer.renamed(Algorithm::Sha512)).collect();
        Image::of("amd64", layers)
    });
    let [old, new] = &images;
    place.layout("old", &[("1", &old.manifest)], &[old]);
    place.layout("new", &[("2", &new.manifest)], &[new]);
    let report = place.good("create --base oci:old --target oci:new --out deltas --json").json();
    assert_eq!(report["layers"][1]["target"]["digest"], new.layers[1].digest.to_string());
    let delta = format!("deltas/{}.delta", new.layers[1].digest.hex());
    place.good(&format!("apply --base oci:old --delta {delta} --out restored"));
    assert!(place.read("restored") == new.layers[1].bytes);
}

#[test]
fn a_damaged_layout_is_told() {
    let place = Place::new(&[]);
    let [old, new] = two_images("amd64", 60);
    place.layout("old", &[("1", &old.manifest)], &[&old]);
    place.layout("new", &[("2", &new.manifest)], &[&new]);
    let target = blob("new", &new.layers[1]);
    let good = place.read(&target);
    let base = blob("old", &old.layers[1]);
    for damaged in [&target, &base] {
        let intact = place.read(damaged);
        let mut bytes = intact.clone();
        bytes[100] ^= 1;
        place.write(damaged, &bytes);
        let ended = place.delta("create --base oci:old --target oci:new --out deltas");
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.stderr.contains("is damaged") && ended.stderr.contains(damaged), "{}", ended.stderr);
        place.write(damaged, &intact);
    }
    std::fs::remove_file(place.path(&target)).unwrap();
    let ended = place.delta("create --base oci:old --target oci:new --out deltas");
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("is not in the layout"), "{}", ended.stderr);
    assert!(!Path::new(&place.path("deltas")).exists() || place.names("deltas").is_empty());
    // An old layer that is not there is no base.
    place.write(&target, &good);
    std::fs::remove_file(place.path(&blob("old", &old.layers[2]))).unwrap();
    let report = place.good("create --base oci:old --target oci:new --out deltas --json").json();
    assert_eq!(outcomes(&report)[1], "made");
    let mut manifest = place.read(&blob("old", &old.manifest));
    manifest.push(b' ');
    place.write(&blob("old", &old.manifest), &manifest);
    let ended = place.delta("create --base oci:old --target oci:new --out deltas");
    assert!(ended.code == 1 && ended.stderr.contains("is damaged"), "{}", ended.stderr);
}

/// The path of a blob below the place.
fn blob(layout: &str, content: &Content) -> String {
    format!("{layout}/blobs/{}/{}", content.digest.algorithm(), content.digest.hex())
}
