//! podman, buildah, skopeo and CRI-O: registries.conf (containers-registries.conf(5)).
//!
//! These choose one place for an image when they read its manifest, and stay with it. They do not say whose image they
//! mean (few versions can), so that the path says it.

use super::{File, Mirror};

const FILE: &str = "/etc/containers/registries.conf.d/deltaport.conf";

pub(super) fn podman(mirror: &Mirror) -> Vec<File> {
    let advice = [
        "Nothing has to be restarted. For one user alone it goes into ~/.config/containers/registries.conf.d/.",
        "buildah and skopeo read it too.",
    ];
    files(mirror, "podman", &advice)
}

pub(super) fn crio(mirror: &Mirror) -> Vec<File> {
    files(mirror, "crio", &["On every node, then: systemctl reload crio"])
}

fn files(mirror: &Mirror, client: &str, advice: &[&str]) -> Vec<File> {
    let mut about = mirror.about(client);
    about.extend(advice.iter().map(|line| (*line).to_owned()));
    about.push("With `blocked = true` below a location, that registry itself is never asked.".to_owned());
    let mut files = vec![File::new(FILE, about, registries(mirror))];
    if let Some(pem) = &mirror.ca {
        let path = format!("/etc/containers/certs.d/{}/ca.crt", mirror.url.authority());
        files.push(File::authority(path, pem));
    }
    files
}

fn registries(mirror: &Mirror) -> String {
    let authority = mirror.url.authority();
    let insecure = |is_plain: bool| if is_plain { "insecure = true\n" } else { "" };
    let mut text = String::new();
    for source in &mirror.sources {
        text += &format!(
            "\n[[registry]]\nlocation = \"{}\"\n{}\n[[registry.mirror]]\nlocation = \"{authority}/{}\"\n{}\
             pull-from-mirror = \"all\"\n",
            source.name,
            insecure(source.url.starts_with("http:")),
            source.path,
            insecure(!mirror.url.secure),
        );
    }
    if !mirror.url.secure {
        text += &format!(
            "\n# What is the mirror's own.\n[[registry]]\nlocation = \"{authority}\"\ninsecure = true\n"
        );
    }
    text
}
