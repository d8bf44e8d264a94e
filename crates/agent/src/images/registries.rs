//! Where an image's registry is asked: mirrors first, then the registry itself.
//!
//! `<data-dir>/registries.yaml`, the counterpart of containerd's `hosts.toml`:
//!
//! ```yaml
//! registries:
//!   docker.io:
//!     mirrors: ["http://127.0.0.1:5000", "https://mirror.example.com"]
//!     upstream: false        # never ask docker.io itself; default true
//!     username: someone      # sent to the registry itself, never to a mirror
//!     password: secret       # keep the file at mode 0600
//! ```
//!
//! Plain `http` is taken for loopback addresses only. A registry that stands here is "configured": under
//! `imagePullPolicy: Always` it is asked even for images that were imported. Nothing here opens a connection.

use std::{collections::BTreeMap, fmt, fs, io, net::IpAddr, os::unix::fs::PermissionsExt, path::Path};

use serde::Deserialize;

use super::Error;

/// Most mirrors of one registry.
const MAX_MIRRORS: usize = 16;
/// Most bytes of `registries.yaml`.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// All that is configured.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registries {
    #[serde(default)]
    registries: BTreeMap<String, Registry>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    #[serde(default)]
    mirrors: Vec<String>,
    upstream: Option<bool>,
    username: Option<String>,
    password: Option<String>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("mirrors", &self.mirrors)
            .field("upstream", &self.upstream)
            .finish_non_exhaustive()
    }
}

/// One place to ask.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Host, with a port where it has one.
    pub host: String,
    /// `http`, not `https`.
    pub plain: bool,
    /// User name and password.
    pub login: Option<(String, String)>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.url(), if self.login.is_some() { " with login" } else { "" })
    }
}

impl Endpoint {
    /// `https://registry.example.com:5000`.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.plain { "http" } else { "https" }, self.host)
    }

    /// Host and port to connect to.
    pub fn address(&self) -> (String, u16) {
        let (host, port) = split_port(&self.host);
        (host.trim_matches(['[', ']']).to_owned(), port.unwrap_or(if self.plain { 80 } else { 443 }))
    }

    /// `http[s]://HOST[:PORT]`.
    fn parse(url: &str) -> Result<Endpoint, Error> {
        let wrong = |problem: &str| Error::Registries(format!("registry mirror {url:?}: {problem}"));
        let (plain, host) = match url.split_once("://") {
            Some(("http", host)) => (true, host),
            Some(("https", host)) => (false, host),
            _ => return Err(wrong("write http://HOST:PORT or https://HOST[:PORT]")),
        };
        let host = host.strip_suffix('/').unwrap_or(host);
        if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) {
            return Err(wrong("only a host and a port are taken, no path and no user"));
        }
        if plain && !is_loopback(host) {
            return Err(wrong("plain http is taken for loopback addresses only; use https"));
        }
        Ok(Endpoint { host: host.to_owned(), plain, login: None })
    }

    /// The registry itself.
    fn upstream(registry: &str) -> Endpoint {
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        Endpoint { host: host.to_owned(), plain: is_loopback(host), login: None }
    }
}

impl Registries {
    /// Reads the file; none is fine.
    pub fn read(path: &Path) -> Result<Registries, Error> {
        let wrong = |problem: String| Error::Registries(format!("{}: {problem}", path.display()));
        match fs::metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Registries::default()),
            Ok(found) if found.len() > MAX_FILE_BYTES => {
                return Err(wrong(format!("larger than {MAX_FILE_BYTES} bytes")));
            }
            _ => {}
        }
        let text = fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let read = if text.trim().is_empty() {
            Registries::default()
        } else {
            serde_yaml::from_str(&text).map_err(|e| wrong(e.to_string()))?
        };
        read.check().map_err(|e| wrong(e.to_string()))?;
        let open_to_others = fs::metadata(path).map_err(|e| wrong(e.to_string()))?.permissions().mode() & 0o077 != 0;
        if open_to_others && read.registries.values().any(|registry| registry.password.is_some()) {
            return Err(wrong("holds a password and can be read by others; run `chmod 600` on it".to_owned()));
        }
        Ok(read)
    }

    /// Adds a mirror, written `docker.io=http://127.0.0.1:5000`.
    pub fn add_mirror(&mut self, setting: &str) -> Result<(), Error> {
        let Some((registry, url)) = setting.split_once('=') else {
            return Err(Error::Registries(format!(
                "registry mirror {setting:?}: write HOST=URL, for example docker.io=http://127.0.0.1:5000"
            )));
        };
        Endpoint::parse(url)?;
        self.registries.entry(registry.to_owned()).or_default().mirrors.push(url.to_owned());
        self.check()
    }

    fn check(&self) -> Result<(), Error> {
        for (name, registry) in &self.registries {
            if registry.mirrors.len() > MAX_MIRRORS {
                return Err(Error::Registries(format!("{name} has more than {MAX_MIRRORS} mirrors")));
            }
            if registry.username.is_some() != registry.password.is_some() {
                return Err(Error::Registries(format!("{name} needs both username and password, or neither")));
            }
            if registry.mirrors.is_empty() && registry.upstream == Some(false) {
                return Err(Error::Registries(format!(
                    "{name} has no mirror and upstream: false, so there is nothing to ask"
                )));
            }
            registry.mirrors.iter().try_for_each(|url| Endpoint::parse(url).map(drop))?;
        }
        Ok(())
    }

    /// True when someone said where to ask for this registry's images.
    pub(super) fn configured(&self, registry: &str) -> bool {
        self.registries.contains_key(registry)
    }

    /// Where to ask, in this order.
    pub(super) fn endpoints(&self, registry: &str) -> Result<Vec<Endpoint>, Error> {
        let upstream = Endpoint::upstream(registry);
        let Some(set) = self.registries.get(registry) else { return Ok(vec![upstream]) };
        let mut endpoints = set.mirrors.iter().map(|url| Endpoint::parse(url)).collect::<Result<Vec<_>, _>>()?;
        if set.upstream.unwrap_or(true) {
            endpoints.push(Endpoint { login: set.username.clone().zip(set.password.clone()), ..upstream });
        }
        Ok(endpoints)
    }
}

fn split_port(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (host, None),
        },
        _ => (host, None),
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
    let name = split_port(host).0.trim_matches(['[', ']']);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn read(text: &str) -> Result<Registries, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registries.yaml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Registries::read(&path)
            .map_err(|e| Error::Registries(e.to_string().replace(folder.path().to_str().unwrap(), "")))
    }

    #[test]
    fn mirrors_come_first_and_only_the_registry_itself_gets_the_login() {
        let mut set = read("registries:\n  docker.io:\n    mirrors: [\"http://127.0.0.1:5000/\", \"https://m.example.com\"]\n    username: a\n    password: b\n  only.example.com:\n    mirrors: [\"http://[::1]:80\"]\n    upstream: false\n").unwrap();
        set.add_mirror("localhost:9=http://localhost:5001").unwrap();
        let mut seen = String::new();
        for registry in ["docker.io", "only.example.com", "localhost:9", "other.example.com:5000", "127.0.0.1:5000"] {
            seen += &format!(
                "{registry} (configured: {}) -> {:?}\n",
                set.configured(registry),
                set.endpoints(registry).unwrap()
            );
        }
        expect![[r#"
            docker.io (configured: true) -> [http://127.0.0.1:5000, https://m.example.com, https://registry-1.docker.io with login]
            only.example.com (configured: true) -> [http://[::1]:80]
            localhost:9 (configured: true) -> [http://localhost:5001, http://localhost:9]
            other.example.com:5000 (configured: false) -> [https://other.example.com:5000]
            127.0.0.1:5000 (configured: false) -> [http://127.0.0.1:5000]
        "#]]
        .assert_eq(&seen);
        assert_eq!(Endpoint::parse("http://[::1]").unwrap().address(), ("::1".to_owned(), 80));
        assert_eq!(Endpoint::upstream("docker.io").address(), ("registry-1.docker.io".to_owned(), 443));
    }

    #[test]
    fn a_password_must_not_be_open_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registries.yaml");
        fs::write(&path, "registries:\n  a.io:\n    username: x\n    password: y\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Registries::read(&path).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Registries::read(&path).unwrap();
    }

    #[test]
    fn wrong_settings_say_what_to_write() {
        let mut seen = String::new();
        for text in [
            "registries:\n  a.io:\n    mirors: []\n",
            "registries:\n  a.io:\n    mirrors: [\"http://10.0.0.1:5000\"]\n",
            "registries:\n  a.io:\n    mirrors: [\"m.io\"]\n",
            "registries:\n  a.io:\n    mirrors: [\"https://m.io/path\"]\n",
            "registries:\n  a.io:\n    upstream: false\n",
            "registries:\n  a.io:\n    username: x\n",
        ] {
            seen += &format!("{}\n", read(text).unwrap_err());
        }
        seen += &format!("{}\n", Registries::default().add_mirror("http://127.0.0.1:5000").unwrap_err());
        expect![[r#"
            /registries.yaml: registries.a.io: unknown field `mirors`, expected one of `mirrors`, `upstream`, `username`, `password` at line 3 column 5
            /registries.yaml: registry mirror "http://10.0.0.1:5000": plain http is taken for loopback addresses only; use https
            /registries.yaml: registry mirror "m.io": write http://HOST:PORT or https://HOST[:PORT]
            /registries.yaml: registry mirror "https://m.io/path": only a host and a port are taken, no path and no user
            /registries.yaml: a.io has no mirror and upstream: false, so there is nothing to ask
            /registries.yaml: a.io needs both username and password, or neither
            registry mirror "http://127.0.0.1:5000": write HOST=URL, for example docker.io=http://127.0.0.1:5000
        "#]].assert_eq(&seen);
    }
}
