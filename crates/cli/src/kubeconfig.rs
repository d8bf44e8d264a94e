//! Which cluster is meant: `--kubeconfig`, `$KUBECONFIG`, `~/.kube/config`, then the local server's; and flags on top.
//!
//! Mirrors client-go `tools/clientcmd` (`ClientConfigLoadingRules`, `ConfirmUsable`). Files are merged: who comes first wins.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kube::config::{AuthInfo, Cluster, Context, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext};
use serde_json::{Value, json};

use crate::errors::{Error, Result};
use crate::json::Json;
use crate::print::in_go;
use crate::session::Global;
use crate::{manifests, yaml};

/// A kubeconfig and what was chosen in it.
pub struct Place {
    /// The merged files, with the flags applied.
    pub config: Kubeconfig,
    /// The context in use.
    pub context: String,
}

/// The files that are looked at, in order.
pub fn files(global: &Global, environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
    if let Some(file) = &global.kubeconfig {
        return vec![file.into()];
    }
    if let Some(list) = environment.get("KUBECONFIG").filter(|list| !list.is_empty()) {
        return std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()).collect();
    }
    let home = environment.get("HOME").map(|home| Path::new(home).join(".kube/config"));
    let mut candidates: Vec<PathBuf> = home.iter().cloned().collect();
    // Who names a server says who they are, too: the rights of this machine's administrator are not lent.
    if global.server.is_none() {
        candidates.extend(local_server(environment));
    }
    let found = candidates.into_iter().find(|path| path.exists());
    found.or(home).into_iter().collect()
}

/// Where a server on this machine leaves its administrator's kubeconfig.
fn local_server(environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let folder = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = folder("XDG_DATA_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/share")));
    let folders = [folder("KAPSTAN_DATA_DIR"), Some("/var/lib/kapstan".into()), user.map(|data| data.join("kapstan"))];
    folders.into_iter().flatten().map(|folder| folder.join("admin.kubeconfig")).collect()
}

/// Reads and merges the files.
pub fn load(global: &Global, environment: &BTreeMap<String, String>) -> Result<Kubeconfig> {
    let mut merged: Option<Kubeconfig> = None;
    for path in files(global, environment) {
        if !path.exists() {
            if global.kubeconfig.is_some() {
                return Err(Error::told(format!("stat {}: no such file or directory", path.display())));
            }
            continue;
        }
        read(&path)?;
        let unusable = |error: kube::config::KubeconfigError| not_loaded(&path, &one_line(&root_cause(&error)));
        let next = Kubeconfig::read_from(&path).map_err(unusable)?;
        merged = Some(match merged {
            Some(first) => first.merge(next).map_err(unusable)?,
            None => next,
        });
    }
    Ok(merged.unwrap_or_default())
}

/// A file as it is; an empty one says nothing.
pub fn read(path: &Path) -> Result<Value> {
    let bytes =
        fs::read(path).map_err(|error| not_loaded(path, &format!("read {}: {}", path.display(), in_go(&error))))?;
    let text = manifests::text(bytes).map_err(|why| not_loaded(path, &why))?;
    let config = yaml::documents(&text).next().transpose();
    let config = config.map_err(|error| not_loaded(path, &format!("yaml: {error}")))?.unwrap_or_default();
    match (&config, config.text("kind")) {
        (Value::Null, _) => Ok(json!({})),
        (Value::Object(_), "" | "Config") => Ok(config),
        (Value::Object(_), kind) => Err(not_loaded(path, &format!("it is a {kind}, not a Config"))),
        _ => Err(not_loaded(path, "it does not have the fields of a Config: clusters, users, contexts")),
    }
}

fn not_loaded(path: &Path, why: &str) -> Error {
    Error::told(format!("error loading config file \"{}\": {why}", path.display()))
}

/// An error without the picture of the file that the reader draws.
fn one_line(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    line.trim_start_matches("failed to parse kubeconfig YAML: ").trim_start_matches("error: ").to_owned()
}

/// The last cause of an error: what really went wrong.
pub fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// The kubeconfig with the flags applied.
pub fn place(global: &Global, environment: &BTreeMap<String, String>) -> Result<Place> {
    let mut config = load(global, environment)?;
    let chosen = global.context.clone().or_else(|| config.current_context.clone()).unwrap_or_default();
    let known = config.contexts.iter().find(|context| context.name == chosen).and_then(|named| named.context.clone());
    if known.is_none() && !chosen.is_empty() && (global.context.is_some() || global.server.is_none()) {
        let names: Vec<&str> = config.contexts.iter().map(|context| context.name.as_str()).collect();
        let error = Error::told(format!("context \"{chosen}\" does not exist"));
        return Err(error.hinted(format!("the kubeconfig has these contexts: {}", names.join(", "))));
    }
    let mut context = known.unwrap_or_default();
    if let Some(cluster) = &global.cluster {
        context.cluster.clone_from(cluster);
    }
    if let Some(user) = global.user.last() {
        context.user = Some(user.clone());
    }
    let mut cluster = cluster(&config, &context, global)?;
    let user = user(&config, &context, global)?;
    cluster.server = Some(address(&cluster, &user)?);
    config.clusters = vec![NamedCluster { name: "chosen".into(), cluster: Some(cluster), other: BTreeMap::new() }];
    config.auth_infos = vec![NamedAuthInfo { name: "chosen".into(), auth_info: Some(user), other: BTreeMap::new() }];
    let chosen_context = Context { cluster: "chosen".into(), user: Some("chosen".into()), ..context };
    config.contexts =
        vec![NamedContext { name: "chosen".into(), context: Some(chosen_context), other: BTreeMap::new() }];
    config.current_context = Some("chosen".into());
    Ok(Place { config, context: chosen })
}

fn cluster(config: &Kubeconfig, context: &Context, global: &Global) -> Result<Cluster> {
    let known = config.clusters.iter().find(|named| named.name == context.cluster);
    let mut cluster = match known {
        Some(named) => named.cluster.clone().unwrap_or_default(),
        None if global.cluster.is_some() => {
            return Err(Error::told(format!("cluster \"{}\" does not exist", context.cluster)));
        }
        None => Cluster::default(),
    };
    if global.server.as_ref().is_some_and(|server| !server.is_empty()) {
        cluster.server.clone_from(&global.server);
    }
    if global.insecure_skip_tls_verify {
        cluster.insecure_skip_tls_verify = Some(true);
        cluster.certificate_authority = None;
        cluster.certificate_authority_data = None;
    }
    if global.certificate_authority.is_some() {
        cluster.certificate_authority.clone_from(&global.certificate_authority);
        cluster.certificate_authority_data = None;
    }
    if global.tls_server_name.is_some() {
        cluster.tls_server_name.clone_from(&global.tls_server_name);
    }
    if cluster.server.as_ref().is_none_or(String::is_empty) {
        let hint = "no kubeconfig was found: start `kapstan server`, or name one with --kubeconfig or KUBECONFIG";
        let text = "The connection to the server localhost:8080 was refused - did you specify the right host or port?";
        return Err(Error::bare(text).hinted(hint));
    }
    Ok(cluster)
}

/// The server's URL. What names only a host and a port is asked over TLS if something of TLS is known (client-go `rest.DefaultServerURL`).
fn address(cluster: &Cluster, user: &AuthInfo) -> Result<String> {
    let server = cluster.server.clone().unwrap_or_default();
    let over_tls = cluster.certificate_authority.is_some()
        || cluster.certificate_authority_data.is_some()
        || cluster.insecure_skip_tls_verify == Some(true)
        || user.client_certificate.is_some()
        || user.client_certificate_data.is_some();
    let url = match server.contains("://") {
        true => server.clone(),
        false => format!("{}://{server}", if over_tls { "https" } else { "http" }),
    };
    match url.parse::<http::Uri>() {
        Ok(parsed) if parsed.host().is_some_and(|host| !host.is_empty()) => Ok(url),
        _ => Err(Error::told(format!("host must be a URL or a host:port pair: {server:?}"))),
    }
}

fn user(config: &Kubeconfig, context: &Context, global: &Global) -> Result<AuthInfo> {
    let known = config.auth_infos.iter().find(|named| Some(&named.name) == context.user.as_ref());
    let mut user = match known {
        Some(named) => named.auth_info.clone().unwrap_or_default(),
        None if !global.user.is_empty() => {
            return Err(Error::told(format!("auth info \"{}\" does not exist", context.user.as_deref().unwrap_or(""))));
        }
        None => AuthInfo::default(),
    };
    if let Some(token) = &global.token {
        user.token = Some(token.clone().into());
        user.token_file = None;
    }
    if global.username.is_some() {
        user.username.clone_from(&global.username);
    }
    if let Some(password) = &global.password {
        user.password = Some(password.clone().into());
    }
    if global.client_certificate.is_some() {
        user.client_certificate.clone_from(&global.client_certificate);
        user.client_certificate_data = None;
    }
    if global.client_key.is_some() {
        user.client_key.clone_from(&global.client_key);
        user.client_key_data = None;
    }
    if global.act_as.is_some() {
        user.impersonate.clone_from(&global.act_as);
    }
    if !global.act_as_group.is_empty() {
        user.impersonate_groups = Some(global.act_as_group.clone());
    }
    Ok(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_administrator_is_nobody_on_a_server_that_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let admin = folder.path().join("admin.kubeconfig");
        std::fs::write(&admin, "{}").expect("a file");
        let environment = BTreeMap::from([("KAPSTAN_DATA_DIR".to_owned(), folder.path().display().to_string())]);
        let found = |server: Option<&str>| {
            files(&Global { server: server.map(str::to_owned), ..Global::default() }, &environment)
        };
        assert_eq!(found(None), [admin]);
        assert!(found(Some("https://127.0.0.1:6443")).is_empty());
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_told_in_one_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        let told = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("a file");
            let global = Global { kubeconfig: Some(path.display().to_string()), ..Global::default() };
            let told = load(&global, &BTreeMap::new()).map_or_else(|error| error.message(), |_| "good".to_owned());
            told.replace(&path.display().to_string(), "FILE") + "\n"
        };
        let files: [&[u8]; 9] = [
            b"",
            b"kind: Config\n",
            b"foo",
            b"a: b: c",
            b"kind: Pod",
            b"clusters: 5",
            b"clusters:\n- cluster: {server: x}\n",
            b"a:\n- \xff",
            b"\xff\xfe\0",
        ];
        expect_test::expect![[r#"
            good
            good
            error: error loading config file "FILE": it does not have the fields of a Config: clusters, users, contexts
            error: error loading config file "FILE": yaml: mapping values are not allowed in this context at line 1 column 5
            error: error loading config file "FILE": it is a Pod, not a Config
            error: error loading config file "FILE": line 1 column 11: expected sequence start
            error: error loading config file "FILE": line 2 column 3: missing field `name`
            error: error loading config file "FILE": line 2 is not text in UTF-8
            error: error loading config file "FILE": yaml: control characters are not allowed
        "#]].assert_eq(&files.map(told).concat());
    }

    #[test]
    fn a_server_may_be_named_without_its_scheme() {
        let at = |server: &str, over_tls: bool| {
            let cluster = Cluster {
                server: Some(server.to_owned()),
                insecure_skip_tls_verify: Some(over_tls),
                ..Cluster::default()
            };
            address(&cluster, &AuthInfo::default()).unwrap_or_else(|error| error.message()) + "\n"
        };
        let lines = [
            at("https://localhost:6443/x", false),
            at("localhost:6443", true),
            at("localhost:6443", false),
            at("[::1]:6443", true),
            at("http://", true),
            at("a b", true),
        ];
        expect_test::expect![[r#"
            https://localhost:6443/x
            https://localhost:6443
            http://localhost:6443
            https://[::1]:6443
            error: host must be a URL or a host:port pair: "http://"
            error: host must be a URL or a host:port pair: "a b"
        "#]]
        .assert_eq(&lines.concat());
    }
}
