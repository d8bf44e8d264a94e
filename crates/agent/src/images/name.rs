//! Image names: what `nginx:1.7.9` stands for, and which texts cannot be a name.
//!
//! Mirrors `ParseNormalizedNamed` and the grammar of the distribution project (`reference/normalize.go`,
//! `reference/regexp.go`) and the kubelet's wording (`pkg/kubelet/images/image_manager.go`, `applyDefaultImageTag`).
//! It never asks a registry whether the name exists.

use std::fmt;

use super::Error;

/// Longest repository name, registry included.
const MAX_REPOSITORY: usize = 255;
/// Longest tag.
const MAX_TAG: usize = 128;
/// The registry of names that name none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// What that registry was once called.
const LEGACY_DEFAULT_REGISTRY: &str = "index.docker.io";
/// The folder of that registry's official images.
const OFFICIAL: &str = "library/";

/// A complete image name: registry, repository and at least one of tag and digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Host of the registry, with its port: `docker.io`.
    pub registry: String,
    /// Path within the registry: `library/nginx`.
    pub repository: String,
    /// `1.7.9`; absent when only a digest was given.
    pub tag: Option<String>,
    /// `sha256:…` of a manifest.
    pub digest: Option<String>,
}

impl Name {
    /// Reads a name as people write it; the tag defaults to `latest` when there is neither tag nor digest.
    pub fn parse(text: &str) -> Result<Name, Error> {
        parse(text).map_err(|problem| Error::InvalidName(format!("couldn't parse image name {text:?}: {problem}")))
    }

    /// The name without its digest when it has a tag: what a person calls it, `nginx:1.7.9`.
    pub fn familiar(&self) -> String {
        let mut short = self.to_string();
        if let Some(rest) = short.strip_prefix("docker.io/library/").or_else(|| short.strip_prefix("docker.io/")) {
            short = rest.to_owned();
        }
        short
    }

    /// `registry/repository`, without tag and digest.
    pub fn family(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

const INVALID: &str = "invalid reference format";

fn parse(text: &str) -> Result<Name, String> {
    if is_hex64(text) {
        return Err(format!("invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
        Some(_) => return Err(INVALID.to_owned()),
        None => (text, None),
    };
    let (registry, remote) = split_registry(rest);
    let (repository, tag) = match remote.rsplit_once(':') {
        Some((repository, tag)) if is_tag(tag) => (repository, Some(tag.to_owned())),
        Some(_) => return Err(INVALID.to_owned()),
        None => (remote.as_str(), None),
    };
    if repository.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(format!("{INVALID}: repository name ({repository}) must be lowercase"));
    }
    if !is_host(&registry) || !repository.split('/').all(is_path_component) {
        return Err(INVALID.to_owned());
    }
    if registry.len() + 1 + repository.len() > MAX_REPOSITORY {
        return Err(format!("repository name must not be more than {MAX_REPOSITORY} characters"));
    }
    let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
    Ok(Name { registry, repository: repository.to_owned(), tag, digest })
}

/// The first component is a registry only if it looks like a host: a dot, a port, `localhost` or a capital letter.
fn split_registry(text: &str) -> (String, String) {
    let (registry, remote) = match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.to_ascii_lowercase() != first =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, text),
    };
    let registry = if registry == LEGACY_DEFAULT_REGISTRY { DEFAULT_REGISTRY } else { registry };
    let official = registry == DEFAULT_REGISTRY && !remote.contains('/');
    (registry.to_owned(), if official { format!("{OFFICIAL}{remote}") } else { remote.to_owned() })
}

fn is_hex64(text: &str) -> bool {
    text.len() == 64 && is_lower_hex(text)
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// `sha256:` and 64 hexadecimal digits, or another algorithm and at least 32.
pub(super) fn is_digest(text: &str) -> bool {
    match text.split_once(':') {
        Some(("sha256", hex)) => is_hex64(hex),
        Some((algorithm, hex)) => {
            algorithm.starts_with(|c: char| c.is_ascii_lowercase())
                && algorithm.bytes().all(|b| b.is_ascii_alphanumeric() || b"+._-".contains(&b))
                && hex.len() >= 32
                && is_lower_hex(hex)
        }
        None => false,
    }
}

/// A word character, then up to 127 word characters, dots and dashes.
fn is_tag(text: &str) -> bool {
    text.len() <= MAX_TAG
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Labels of letters, digits and inner dashes, or a bracketed IPv6 address; then an optional port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let address = |h: &str| {
        h.strip_prefix('[').and_then(|h| h.strip_suffix(']')).is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok())
    };
    (address(host) || host.split('.').all(label))
        && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

/// Lowercase letters and digits, joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let mut separator = String::new();
    let mut word_before = false;
    for c in text.chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            let joins = matches!(separator.as_str(), "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
            if !joins || (!separator.is_empty() && !word_before) {
                return false;
            }
            separator.clear();
            word_before = true;
        } else if ".-_".contains(c) {
            separator.push(c);
        } else {
            return false;
        }
    }
    word_before && separator.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn names_people_write() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let with_digest = format!("nginx@{digest}");
        let both = format!("nginx:1.7.9@{digest}");
        let mut seen = String::new();
        for text in [
            "nginx",
            "nginx:1.7.9",
            "docker.io/nginx",
            "index.docker.io/library/nginx:a",
            "someone/app:v1",
            "localhost/app",
            "localhost:5000/app",
            "127.0.0.1:5000/team/app:v_1.2-3",
            "quay.io/a/b/c",
            "[::1]:5000/app:x",
            "a__b/c-d--e.f",
            "Host/app",
            &with_digest,
            &both,
        ] {
            let name = Name::parse(text).unwrap();
            seen += &format!("{text} -> {name} ({})\n", name.familiar());
        }
        expect![[r#"
            nginx -> docker.io/library/nginx:latest (nginx:latest)
            nginx:1.7.9 -> docker.io/library/nginx:1.7.9 (nginx:1.7.9)
            docker.io/nginx -> docker.io/library/nginx:latest (nginx:latest)
            index.docker.io/library/nginx:a -> docker.io/library/nginx:a (nginx:a)
            someone/app:v1 -> docker.io/someone/app:v1 (someone/app:v1)
            localhost/app -> localhost/app:latest (localhost/app:latest)
            localhost:5000/app -> localhost:5000/app:latest (localhost:5000/app:latest)
            127.0.0.1:5000/team/app:v_1.2-3 -> 127.0.0.1:5000/team/app:v_1.2-3 (127.0.0.1:5000/team/app:v_1.2-3)
            quay.io/a/b/c -> quay.io/a/b/c:latest (quay.io/a/b/c:latest)
            [::1]:5000/app:x -> [::1]:5000/app:x ([::1]:5000/app:x)
            a__b/c-d--e.f -> docker.io/a__b/c-d--e.f:latest (a__b/c-d--e.f:latest)
            Host/app -> Host/app:latest (Host/app:latest)
            nginx@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa -> docker.io/library/nginx@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa (nginx@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa)
            nginx:1.7.9@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa -> docker.io/library/nginx:1.7.9@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa (nginx:1.7.9@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa)
        "#]]
        .assert_eq(&seen);
    }

    #[test]
    fn texts_that_are_no_names() {
        let long = "a/".repeat(130) + "a";
        let hex = "b".repeat(64);
        let tag = format!("nginx:{}", "t".repeat(129));
        for text in [
            "",
            ":",
            "nginx:",
            ":v1",
            "nginx:a b",
            "nginx@sha256:12",
            "-nginx",
            "nginx-",
            "a..b",
            "a___b",
            "a/../b",
            "/nginx",
            "nginx/",
            "a//b",
            "../../etc",
            "localhost:port/app",
            "nginx:1:2",
            "ngin\u{e9}x",
            "nginx\n",
            &long,
            &hex,
            &tag,
        ] {
            assert!(
                matches!(Name::parse(text), Err(Error::InvalidName(_))),
                "{text:?} was accepted: {:?}",
                Name::parse(text)
            );
        }
        expect![[r#"
            couldn't parse image name "nginx:": invalid reference format
            couldn't parse image name "Nginx:1": invalid reference format: repository name (library/Nginx) must be lowercase
        "#]]
        .assert_eq(&format!("{}\n{}\n", Name::parse("nginx:").unwrap_err(), Name::parse("Nginx:1").unwrap_err()));
    }
}
