//! Lists: of tags (end-8a, 8b) and of repositories.

use deltaport_testkit::http::Request;
use deltaport_testkit::sample::{empty_config, manifest};
use serde_json::json;

use crate::harness::{Registry, requirements};
use crate::steps::{expect_error, next_page, strings};

/// In the order of their bytes: digits, capitals, the underscore, small letters.
const TAGS: [&str; 8] = ["1.10", "1.9", "10", "9", "A", "Z", "_", "a"];

async fn push_tags(registry: &Registry) {
    let manifest = manifest(&empty_config(), &[], json!({}));
    registry.push_blob(&empty_config()).await;
    for tag in TAGS.iter().rev() {
        registry.push_manifest(tag, &manifest).await;
    }
}

/// The tags that the response to this query lists, and the next page that it names.
async fn page(registry: &Registry, target: &str) -> (Vec<String>, Option<String>) {
    let response = registry.send(Request::get(target)).await;
    assert_eq!(response.status, 200, "{target}: {}", response.text());
    (strings(&response.json()["tags"]), next_page(&response))
}

requirements! {
    /// A repository that does not exist has no list.
    async fn tags_of_an_unknown_repository(registry: &Registry) {
        expect_error(&registry.get("tags/list").await, 404, "NAME_UNKNOWN");
    }

    /// All of them, sorted by bytes.
    async fn tags_are_sorted(registry: &Registry) {
        push_tags(registry).await;
        assert_eq!(registry.tags().await, TAGS);
    }

    /// Page after page, by the links, without a tag lost or doubled.
    async fn tags_come_in_pages(registry: &Registry) {
        push_tags(registry).await;
        for n in [1, 3, 4, 8, 100] {
            let mut target = Some(registry.path(format_args!("tags/list?n={n}")));
            let mut all = Vec::new();
            while let Some(current) = target {
                let (tags, next) = page(registry, &current).await;
                assert!(tags.len() <= n && (next.is_none() || tags.len() == n), "{n}: {tags:?}");
                all.extend(tags);
                target = next;
            }
            assert_eq!(all, TAGS, "n={n}");
        }
    }

    /// Behind a tag, whether it exists or not, also without `n`.
    async fn tags_behind_another(registry: &Registry) {
        push_tags(registry).await;
        for (query, expected) in [
            ("last=9", &TAGS[4..]),
            ("last=5", &TAGS[3..]),
            ("n=2&last=9", &TAGS[4..6]),
            ("last=a", &[]),
            ("last=zzz", &[]),
        ] {
            let (tags, _) = page(registry, &registry.path(format_args!("tags/list?{query}"))).await;
            assert_eq!(tags, expected, "{query}");
        }
    }

    /// None are asked for, none come, and no link promises more.
    async fn a_page_of_nothing(registry: &Registry) {
        push_tags(registry).await;
        let (tags, next) = page(registry, &registry.path("tags/list?n=0")).await;
        assert_eq!((tags.len(), next), (0, None));
    }

    /// A number that is none is refused; one that is huge asks for no memory (CVE-2023-2253).
    async fn odd_page_sizes(registry: &Registry) {
        push_tags(registry).await;
        for n in ["-1", "many", "1.5"] {
            let response = registry.get(format_args!("tags/list?n={n}")).await;
            assert_eq!(response.status, 400, "n={n}: {}", response.text());
        }
        for n in ["999999", "4294967296", "18446744073709551615"] {
            let response = registry.get(format_args!("tags/list?n={n}")).await;
            if response.status != 400 {
                assert_eq!(strings(&response.json()["tags"]), TAGS, "n={n}");
            }
        }
    }

    /// The repositories in pages, those of this test among them.
    async fn repositories_are_listed(registry: &Registry) {
        let names = ["a", "b", "c"].map(|name| registry.other(name));
        for registry in &names {
            push_tags(registry).await;
        }
        let mut target = Some("/v2/_catalog?n=2".to_owned());
        let mut all = Vec::new();
        while let Some(current) = target {
            let response = registry.send(Request::get(&current)).await;
            assert_eq!(response.status, 200, "{}", response.text());
            all.extend(strings(&response.json()["repositories"]));
            target = next_page(&response);
        }
        assert!(all.is_sorted(), "{all:?}");
        for registry in &names {
            assert_eq!(all.iter().filter(|name| **name == registry.repository).count(), 1, "{all:?}");
        }
    }
}
