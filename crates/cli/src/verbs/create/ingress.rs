//! `create ingress`. Mirrors kubectl `create_ingress.go`.

use serde_json::{Value, json};

use super::{Making, make, metadata};
use crate::errors::{Error, Result};
use crate::session::Session;

/// Create an ingress.
///
/// Examples:
///   kapstan create ingress simple --rule="foo.com/bar=svc1:8080,tls=my-cert"
///   kapstan create ingress catch-all --class=otheringress --rule="/path=svc:port"
///   kapstan create ingress prefixes --rule="foo.com/path*=svc:8080" --rule="bar.com/admin*=svc2:http"
///   kapstan create ingress rest --default-backend=defaultsvc:http
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct IngressOptions {
    /// Its name.
    name: String,
    /// Class of the ingress.
    #[arg(long, default_value = "")]
    class: String,
    /// HOST/PATH=SERVICE:PORT[,tls[=SECRET]]; a path that ends with * is a prefix. May be repeated.
    #[arg(long)]
    rule: Vec<String>,
    /// SERVICE:PORT for what no rule is about.
    #[arg(long, default_value = "")]
    default_backend: String,
    /// KEY=VALUE of an annotation; may be repeated.
    #[arg(long)]
    annotation: Vec<String>,
    #[command(flatten)]
    making: Making,
}

/// A rule in parts.
struct Rule<'a> {
    host: &'a str,
    path: String,
    service: &'a str,
    /// What stands behind the comma, if one does: `tls` or `tls=SECRET`.
    tls: Option<&'a str>,
}

impl Rule<'_> {
    fn parse(text: &str) -> Result<Rule<'_>> {
        let invalid = || {
            let form = "host/path=svcname:svcport[,tls[=secret]]";
            Error::told(format!("rule {text} is invalid and should be in format {form}"))
        };
        if !is_rule(text) {
            return Err(invalid());
        }
        let mut parts = text.split(',');
        let (target, tls) = (parts.next().unwrap_or_default(), parts.next());
        let (host, rest) = target.split_once('/').ok_or_else(invalid)?;
        let mut sides = rest.split('=');
        let (path, service) = (sides.next().unwrap_or_default(), sides.next().ok_or_else(invalid)?);
        service.split_once(':').ok_or_else(invalid)?;
        Ok(Rule { host, path: format!("/{path}"), service, tls: tls.filter(|_| parts.next().is_none()) })
    }

    fn http_path(&self) -> Value {
        let (path, path_type) = match self.path.strip_suffix('*') {
            Some(start) => (start, "Prefix"),
            None => (self.path.as_str(), "Exact"),
        };
        json!({"backend": backend(self.service), "path": path, "pathType": path_type})
    }
}

/// Upstream's `ruleRegex`: what follows a port is not looked at.
fn is_rule(text: &str) -> bool {
    let word = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    let rest = text.trim_start_matches(|letter: char| word(letter) || matches!(letter, '*' | '.'));
    let Some(rest) = rest.strip_prefix('/') else { return false };
    rest.match_indices('=').any(|(at, _)| {
        let service = &rest[at + 1..];
        let port = service.trim_start_matches(word);
        port.len() < service.len() && port.strip_prefix(':').is_some_and(|port| port.starts_with(word))
    })
}

/// `SERVICE:PORT`, the port by number or name.
fn backend(text: &str) -> Value {
    let mut parts = text.split(':');
    let (name, port) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let port = port.parse::<i32>().map_or_else(|_| json!({"name": port}), |number| json!({"number": number}));
    json!({"service": {"name": name, "port": port}})
}

pub(super) async fn ingress(session: &mut Session, options: IngressOptions) -> Result<()> {
    if options.default_backend.is_empty() && options.rule.is_empty() {
        return Err(Error::told(
            "not enough information provided: every ingress has to either specify a default-backend (which catches all traffic) or a list of rules (which catch specific paths)",
        ));
    }
    let parsed: Vec<Rule> = options.rule.iter().map(|text| Rule::parse(text)).collect::<Result<_>>()?;
    let mut object = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": metadata(&options.name),
        "spec": {},
        "status": {"loadBalancer": {}},
    });
    for text in &options.annotation {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Error::told(format!("annotation {text} is invalid and should be in format key=[value]")))?;
        object["metadata"]["annotations"][key] = value.into();
    }
    if !options.class.is_empty() {
        object["spec"]["ingressClassName"] = options.class.into();
    }
    if !options.default_backend.is_empty() {
        if options.default_backend.split(':').count() != 2 {
            return Err(Error::told("default-backend should be in format servicename:serviceport"));
        }
        object["spec"]["defaultBackend"] = backend(&options.default_backend);
    }
    for (name, list) in [("tls", certificates(&parsed)), ("rules", rules(&parsed))] {
        if !list.is_empty() {
            object["spec"][name] = list.into();
        }
    }
    make(session, &options.making, object, true).await
}

/// One rule a host, with the paths of all that name it.
fn rules(parsed: &[Rule]) -> Vec<Value> {
    let mut rules: Vec<(&str, Vec<Value>)> = Vec::new();
    for rule in parsed {
        match rules.iter_mut().find(|(host, _)| *host == rule.host) {
            Some((_, paths)) => paths.push(rule.http_path()),
            None => rules.push((rule.host, vec![rule.http_path()])),
        }
    }
    let told = |(host, paths): (&str, Vec<Value>)| match host {
        "" => json!({"http": {"paths": paths}}),
        host => json!({"host": host, "http": {"paths": paths}}),
    };
    rules.into_iter().map(told).collect()
}

/// One entry a secret, with the hosts that it is for; a host counts once.
fn certificates(parsed: &[Rule]) -> Vec<Value> {
    let mut entries: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for rule in parsed {
        let Some(tls) = rule.tls.filter(|_| !seen.contains(&rule.host)) else { continue };
        seen.push(rule.host);
        let secret = tls.split('=').nth(1).unwrap_or_default();
        match entries.iter_mut().find(|(known, _)| *known == secret) {
            Some((_, hosts)) => hosts.push(rule.host),
            None if rule.host.is_empty() && secret.is_empty() => {}
            None => entries.push((secret, Some(rule.host).filter(|host| !host.is_empty()).into_iter().collect())),
        }
    }
    let told = |(secret, hosts): (&str, Vec<&str>)| {
        let mut entry = json!({});
        if !hosts.is_empty() {
            entry["hosts"] = hosts.into();
        }
        if !secret.is_empty() {
            entry["secretName"] = secret.into();
        }
        entry
    };
    entries.into_iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_a_form() {
        for text in ["foo.com/bar=svc1:8080,tls=my-cert", "/=s:p", "*.foo/a/b*=s:80,tls", "/a=b=c:1"] {
            assert!(is_rule(text), "{text}");
        }
        for text in ["foo", "foo=s:80", "foo/=s", "foo/=:80", "foo/=s:", "a b/=s:80"] {
            assert!(!is_rule(text), "{text}");
        }
    }
}
