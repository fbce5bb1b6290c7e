//! k3s, Talos and OpenShift: one YAML document or several, from which each writes the files of its container runtime.
//!
//! The runtime of k3s and Talos is containerd, which says with `ns` whose image it means. That of OpenShift is CRI-O,
//! for which the path says it.

use super::{File, Mirror};

pub(super) fn k3s(mirror: &Mirror) -> Vec<File> {
    const CA: &str = "/etc/rancher/k3s/deltaport-ca.crt";
    let mut about = mirror.about("k3s");
    about.extend([
        "On every node, then: systemctl restart k3s (on agents: k3s-agent). RKE2 reads the same in"
            .to_owned(),
        "/etc/rancher/rke2/registries.yaml. The registries themselves are asked last, unless k3s runs with"
            .to_owned(),
        "--disable-default-registry-endpoint.".to_owned(),
    ]);
    let mut body = "mirrors:\n".to_owned();
    let own = (!mirror.url.secure).then(|| mirror.url.authority());
    for name in mirror.sources.iter().map(|source| source.name.as_str()).chain(own.as_deref()) {
        body += &format!("  \"{name}\":\n    endpoint:\n      - \"{}\"\n", mirror.url);
    }
    if mirror.ca.is_some() {
        body += &format!("configs:\n  \"{}\":\n    tls:\n      ca_file: \"{CA}\"\n", mirror.url.authority());
    }
    let mut files = vec![File::new("/etc/rancher/k3s/registries.yaml", about, body)];
    files.extend(mirror.ca.as_ref().map(|pem| File::authority(CA.to_owned(), pem)));
    files
}

pub(super) fn talos(mirror: &Mirror) -> Vec<File> {
    let mut about = mirror.about("talos");
    about.extend([
        "For Talos 1.12 and later. For every node: talosctl patch machineconfig --nodes NODE --patch".to_owned(),
        "@deltaport-talos.yaml. Nothing has to be restarted. With `skipFallback: true` below the endpoints, that".to_owned(),
        "registry itself is never asked.".to_owned(),
    ]);
    let own = (!mirror.url.secure).then(|| mirror.url.authority());
    let names = mirror.sources.iter().map(|source| source.name.as_str()).chain(own.as_deref());
    let mut documents: Vec<String> = names
        .map(|name| {
            format!(
                "apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: \"{name}\"\nendpoints:\n  - url: \"{}\"\n",
                mirror.url
            )
        })
        .collect();
    if let Some(pem) = &mirror.ca {
        documents.push(format!(
            "apiVersion: v1alpha1\nkind: RegistryTLSConfig\nname: \"{}\"\nca: |\n{}",
            mirror.url.authority(),
            indented(pem, 2)
        ));
    }
    vec![File::new("deltaport-talos.yaml", about, documents.join("---\n"))]
}

pub(super) fn openshift(mirror: &Mirror) -> Vec<File> {
    let mut about = mirror.about("openshift");
    about.extend([
        "Then: oc apply -f deltaport-openshift.yaml. The nodes are drained and restarted one after the other.".to_owned(),
        "With `mirrorSourcePolicy: NeverContactSource`, that registry itself is never asked.".to_owned(),
    ]);
    let authority = mirror.url.authority();
    let mut documents = vec![
        set(mirror, "ImageTagMirrorSet", "imageTagMirrors"),
        set(mirror, "ImageDigestMirrorSet", "imageDigestMirrors"),
    ];
    if let Some(pem) = &mirror.ca {
        about.extend([
            "The nodes trust the authority in the ConfigMap when the settings for images name it. If they name another".to_owned(),
            "one already, add the key to that one; else:".to_owned(),
            "  oc patch image.config.openshift.io/cluster --type merge \\".to_owned(),
            "    -p '{\"spec\":{\"additionalTrustedCA\":{\"name\":\"deltaport-ca\"}}}'".to_owned(),
        ]);
        documents.push(format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: deltaport-ca\n  namespace: openshift-config\ndata:\n  \
             \"{}\": |\n{}",
            // No colon may be in a key.
            authority.replace(':', ".."),
            indented(pem, 4)
        ));
    }
    if !mirror.url.secure {
        about.extend([
            "Plain HTTP has to be allowed; what was listed there before has to be in this list too:"
                .to_owned(),
            "  oc patch image.config.openshift.io/cluster --type merge \\".to_owned(),
            format!(
                "    -p '{{\"spec\":{{\"registrySources\":{{\"insecureRegistries\":[\"{authority}\"]}}}}}}'"
            ),
        ]);
    }
    vec![File::new("deltaport-openshift.yaml", about, documents.join("---\n"))]
}

/// One of the two kinds of objects, which are alike but for their names.
fn set(mirror: &Mirror, kind: &str, list: &str) -> String {
    let mut text = format!(
        "apiVersion: config.openshift.io/v1\nkind: {kind}\nmetadata:\n  name: deltaport\nspec:\n  {list}:\n"
    );
    for source in &mirror.sources {
        text += &format!(
            "    - source: \"{}\"\n      mirrors:\n        - \"{}/{}\"\n      mirrorSourcePolicy: AllowContactingSource\n",
            source.name,
            mirror.url.authority(),
            source.path
        );
    }
    text
}

/// Text as a block of YAML.
fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}
