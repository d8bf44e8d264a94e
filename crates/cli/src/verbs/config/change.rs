//! What `config` changes in kubeconfigs. Mirrors kubectl `pkg/cmd/config/{set,unset,set_cluster,set_credentials,delete_*,rename_context}.go`.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{file_with, write};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::session::Session;

/// Lists of a kubeconfig with the field that holds an entry's own.
const LISTS: [(&str, &str); 3] = [("clusters", "cluster"), ("contexts", "context"), ("users", "user")];

/// A user.
#[derive(clap::Args)]
pub(super) struct Credentials {
    /// Its name.
    name: String,
    /// Keep certificate and key themselves instead of their files' names.
    #[arg(long)]
    embed_certs: bool,
    /// Program that gives the credentials.
    #[arg(long, value_name = "PROGRAM")]
    exec_command: Option<String>,
    /// API version that the program speaks.
    #[arg(long, value_name = "VERSION")]
    exec_api_version: Option<String>,
    /// Arguments of the program; may be repeated.
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    exec_arg: Vec<String>,
    /// KEY=VALUE for the program's environment, KEY- takes one out; may be repeated.
    #[arg(long)]
    exec_env: Vec<String>,
    /// Never, IfAvailable or Always: whether the program may ask the user.
    #[arg(long, value_name = "MODE")]
    exec_interactive_mode: Option<String>,
    /// The program is told of the cluster.
    #[arg(long)]
    exec_provide_cluster_info: bool,
}

/// The entry of a list, made if it is not there, and the file that has it.
fn entry(session: &Session, list: &str, name: &str) -> Result<(PathBuf, Value)> {
    let is_there = |config: &Value| config.list(list).iter().any(|entry| entry.text("name") == name);
    let (path, mut config) = file_with(session, is_there)?;
    if !config[list].is_array() {
        config[list] = json!([]);
    }
    if !is_there(&config)
        && let Some(entries) = config[list].as_array_mut()
    {
        entries.push(json!({"name": name, inner(list): {}}));
    }
    Ok((path, config))
}

fn inner(list: &str) -> &'static str {
    LISTS.iter().find(|(known, _)| *known == list).map_or("", |(_, field)| field)
}

/// The fields of an entry.
fn fields<'a>(config: &'a mut Value, list: &str, name: &str) -> Result<&'a mut Map<String, Value>> {
    let entries = config[list].as_array_mut().into_iter().flatten();
    let found = entries.into_iter().find(|entry| entry.text("name") == name);
    let place = found.map(|entry| &mut entry[inner(list)]);
    let place = place.ok_or_else(|| Error::told(format!("{list} has no {name}")))?;
    if place.is_null() {
        *place = json!({});
    }
    place.as_object_mut().ok_or_else(|| Error::told(format!("{list}.{name} is no object")))
}

/// A file that is named, or what is in it.
fn take_file(fields: &mut Map<String, Value>, field: &str, flag: &str, path: &str, embed: bool) -> Result<()> {
    let data = format!("{field}-data");
    if embed {
        let wrong = |error| Error::told(format!("could not stat {flag} file {path}: {error}"));
        fields.insert(data, STANDARD.encode(fs::read(path).map_err(wrong)?).into());
        fields.remove(field);
    } else {
        let whole = std::path::absolute(Path::new(path))?;
        fields.insert(field.to_owned(), whole.display().to_string().into());
        fields.remove(&data);
    }
    Ok(())
}

/// Puts what files hold in the place of their names.
pub(super) fn embed_all(config: &mut Value) -> Result<()> {
    const FILES: [(&str, &str, &str); 3] = [
        ("clusters", "cluster", "certificate-authority"),
        ("users", "user", "client-certificate"),
        ("users", "user", "client-key"),
    ];
    for (list, inner, field) in FILES {
        for entry in config[list].as_array_mut().into_iter().flatten() {
            let path = entry[inner].text(field).to_owned();
            if let (Some(fields), false) = (entry[inner].as_object_mut(), path.is_empty()) {
                take_file(fields, field, field, &path, true)?;
            }
        }
    }
    Ok(())
}

pub(super) fn cluster(session: &mut Session, name: &str, embed: bool, proxy: Option<String>) -> Result<()> {
    let global = session.global.clone();
    if global.insecure_skip_tls_verify && global.certificate_authority.is_some() {
        return Err(Error::told("you cannot specify a certificate authority and insecure mode at the same time"));
    }
    if embed && global.certificate_authority.is_none() {
        return Err(Error::told("you must specify a --certificate-authority to embed"));
    }
    let (path, mut config) = entry(session, "clusters", name)?;
    let fields = fields(&mut config, "clusters", name)?;
    if let Some(server) = global.server {
        fields.insert("server".into(), server.into());
        fields.remove("tls-server-name");
    }
    if let Some(name) = global.tls_server_name {
        fields.insert("tls-server-name".into(), name.into());
    }
    if global.insecure_skip_tls_verify {
        fields.insert("insecure-skip-tls-verify".into(), true.into());
        fields.remove("certificate-authority");
        fields.remove("certificate-authority-data");
    }
    if let Some(file) = global.certificate_authority {
        take_file(fields, "certificate-authority", "certificate-authority", &file, embed)?;
        fields.remove("insecure-skip-tls-verify");
    }
    if let Some(proxy) = proxy {
        fields.insert("proxy-url".into(), proxy.into());
    }
    write(&path, &config)?;
    session.say(format!("Cluster {name:?} set."))
}

pub(super) fn credentials(session: &mut Session, options: &Credentials) -> Result<()> {
    let global = session.global.clone();
    let basic = global.username.is_some() || global.password.is_some();
    if global.token.is_some() && basic {
        return Err(Error::told(
            "you cannot specify more than one authentication method at the same time: --token, --username/--password",
        ));
    }
    if options.embed_certs && global.client_certificate.is_none() && global.client_key.is_none() {
        return Err(Error::told("you must specify a --client-certificate or --client-key to embed"));
    }
    let name = options.name.as_str();
    let (path, mut config) = entry(session, "users", name)?;
    let fields = fields(&mut config, "users", name)?;
    for (field, file) in [("client-certificate", &global.client_certificate), ("client-key", &global.client_key)] {
        if let Some(file) = file {
            take_file(fields, field, field, file, options.embed_certs)?;
        }
    }
    // One way to prove who one is takes the place of another.
    if let Some(token) = &global.token {
        ["username", "password"].iter().for_each(|field| drop(fields.remove(*field)));
        fields.insert("token".into(), token.clone().into());
    }
    if basic {
        fields.remove("token");
    }
    for (field, value) in [("username", &global.username), ("password", &global.password)] {
        if let Some(value) = value {
            fields.insert(field.into(), value.clone().into());
        }
    }
    program(fields, options)?;
    write(&path, &config)?;
    session.say(format!("User {name:?} set."))
}

/// The program that gives credentials.
fn program(fields: &mut Map<String, Value>, options: &Credentials) -> Result<()> {
    if let Some(command) = &options.exec_command {
        let exec = fields.entry("exec").or_insert_with(|| json!({"env": null, "provideClusterInfo": false}));
        exec["command"] = command.clone().into();
        exec["args"] = Value::Null;
    }
    let Some(exec) = fields.get_mut("exec") else {
        let given = options.exec_api_version.is_some()
            || options.exec_interactive_mode.is_some()
            || options.exec_provide_cluster_info
            || !options.exec_arg.is_empty()
            || !options.exec_env.is_empty();
        let why = "the user has no program: name one with --exec-command";
        return if given { Err(Error::told(why)) } else { Ok(()) };
    };
    for (field, value) in
        [("apiVersion", &options.exec_api_version), ("interactiveMode", &options.exec_interactive_mode)]
    {
        if let Some(value) = value {
            exec[field] = value.clone().into();
        }
    }
    if options.exec_provide_cluster_info {
        exec["provideClusterInfo"] = true.into();
    }
    if !options.exec_arg.is_empty() {
        exec["args"] = options.exec_arg.clone().into();
    }
    for text in &options.exec_env {
        let (name, value) = match (text.split_once('='), text.strip_suffix('-')) {
            (Some((name, value)), _) => (name, Some(value)),
            (None, Some(name)) => (name, None),
            (None, None) => {
                return Err(Error::told(format!("invalid --exec-env {text:?}: KEY=VALUE or KEY- is wanted")));
            }
        };
        let mut variables = exec.list("env").to_vec();
        variables.retain(|variable| variable.text("name") != name);
        variables.extend(value.map(|value| json!({"name": name, "value": value})));
        exec["env"] = variables.into();
    }
    Ok(())
}

/// A list or a field of the whole, then the name of an entry and the fields in it.
type Steps<'a> = (&'a str, Option<(String, Vec<&'a str>)>);

/// `clusters.NAME.server` in steps; dots in a name are taken as part of it.
fn steps<'a>(config: &Value, property: &'a str) -> Result<Steps<'a>> {
    let Some((list, rest)) = property.split_once('.') else { return Ok((property, None)) };
    if inner(list).is_empty() {
        return Err(Error::told(format!("unable to parse {property} after [] at api.Config")));
    }
    // The longest known name first; otherwise up to the next dot.
    let known = config.list(list).iter().map(|entry| entry.text("name"));
    let known =
        known.filter(|name| rest == *name || rest.starts_with(&format!("{name}."))).max_by_key(|name| name.len());
    let name = known.map_or_else(|| rest.rsplit_once('.').map_or(rest, |(name, _)| name).to_owned(), str::to_owned);
    let fields = rest[name.len()..].trim_start_matches('.');
    Ok((list, Some((name, fields.split('.').filter(|field| !field.is_empty()).collect()))))
}

pub(super) fn set(session: &mut Session, property: &str, value: &str, raw: bool) -> Result<()> {
    if value.is_empty() {
        return Err(Error::told("you cannot use set to unset a property"));
    }
    let (path, config) = place_of(session, property)?;
    let mut changed = config.clone();
    match steps(&config, property)? {
        (field @ ("current-context" | "kind" | "apiVersion"), None) => changed[field] = value.into(),
        (list, Some((name, fields_))) if !fields_.is_empty() => {
            check_field(list, fields_[0])?;
            let is_there = changed.list(list).iter().any(|entry| entry.text("name") == name);
            if !changed[list].is_array() {
                changed[list] = json!([]);
            }
            if let (Some(entries), false) = (changed[list].as_array_mut(), is_there) {
                entries.push(json!({"name": name, inner(list): {}}));
            }
            let mut here = Value::Object(std::mem::take(fields(&mut changed, list, &name)?));
            put(&mut here, &fields_, typed(&fields_, value, raw)?);
            if let Value::Object(map) = here {
                *fields(&mut changed, list, &name)? = map;
            }
        }
        _ => return Err(Error::told(format!("can't set a map to a value: {property}"))),
    }
    write(&path, &changed)?;
    session.say(format!("Property {property:?} set."))
}

fn put(place: &mut Value, fields: &[&str], value: Value) {
    let mut here = place;
    for field in fields {
        here = &mut here[*field];
    }
    *here = value;
}

/// Bytes are kept as base64, switches as booleans.
fn typed(fields: &[&str], value: &str, raw: bool) -> Result<Value> {
    let field = fields.last().copied().unwrap_or_default();
    if field.ends_with("-data") {
        if raw {
            return Ok(STANDARD.encode(value).into());
        }
        let wrong = |error| Error::told(format!("error decoding base64 data: {error}"));
        STANDARD.decode(value).map_err(wrong)?;
        return Ok(value.into());
    }
    if !matches!(field, "insecure-skip-tls-verify" | "disable-compression" | "provideClusterInfo") {
        return Ok(value.into());
    }
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true.into()),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false.into()),
        _ => Err(Error::told(format!("strconv.ParseBool: parsing {value:?}: invalid syntax"))),
    }
}

/// Refuses a field that nobody would read.
fn check_field(list: &str, field: &str) -> Result<()> {
    let known: &[&str] = match list {
        "clusters" => &[
            "server",
            "tls-server-name",
            "insecure-skip-tls-verify",
            "certificate-authority",
            "certificate-authority-data",
            "proxy-url",
            "disable-compression",
            "extensions",
        ],
        "contexts" => &["cluster", "user", "namespace", "extensions"],
        _ => &[
            "client-certificate",
            "client-certificate-data",
            "client-key",
            "client-key-data",
            "token",
            "tokenFile",
            "as",
            "as-uid",
            "as-groups",
            "as-user-extra",
            "username",
            "password",
            "auth-provider",
            "exec",
            "extensions",
        ],
    };
    if known.contains(&field) {
        return Ok(());
    }
    let error = Error::told(format!("can't set a map to a value: {} have no field {field}", list));
    Err(match crate::discovery::closest(field, known.iter().copied()) {
        Some(near) => error.hinted(format!("did you mean {near:?}?")),
        None => error,
    })
}

pub(super) fn unset(session: &mut Session, property: &str) -> Result<()> {
    let (path, config) = place_of(session, property)?;
    let mut changed = config.clone();
    match steps(&config, property)? {
        ("current-context", None) => changed["current-context"] = "".into(),
        (list, None) if !inner(list).is_empty() => changed[list] = json!([]),
        (list, Some((name, fields_))) => {
            let missing = || Error::told(format!("current map key `{name}` is invalid"));
            let is_there = changed.list(list).iter().any(|entry| entry.text("name") == name);
            let Some((last, before)) = fields_.split_last() else {
                let entries = changed[list].as_array_mut().filter(|_| is_there).ok_or_else(missing)?;
                entries.retain(|entry| entry.text("name") != name);
                write(&path, &changed)?;
                return session.say(format!("Property {property:?} unset."));
            };
            if !is_there {
                return Err(missing());
            }
            let mut here = Some(fields(&mut changed, list, &name)?);
            for field in before {
                here = here.and_then(|map| map.get_mut(*field)?.as_object_mut());
            }
            if let Some(map) = here {
                map.remove(*last);
            }
        }
        (field, None) => return Err(Error::told(format!("unable to locate path {field}"))),
    }
    write(&path, &changed)?;
    session.say(format!("Property {property:?} unset."))
}

/// The file that has what a property is about, or the first.
fn place_of(session: &Session, property: &str) -> Result<(PathBuf, Value)> {
    file_with(session, |config| match steps(config, property) {
        Ok((list, Some((name, _)))) => config.list(list).iter().any(|entry| entry.text("name") == name),
        Ok((field, None)) => config.has(field),
        Err(_) => false,
    })
}

pub(super) fn delete(session: &mut Session, list: &str, name: &str) -> Result<()> {
    let is_there = |config: &Value| config.list(list).iter().any(|entry| entry.text("name") == name);
    let (path, mut config) = file_with(session, is_there)?;
    let (what, file) = (inner(list), path.display());
    if !is_there(&config) {
        return Err(Error::told(format!("cannot delete {what} {name}, not in {file}")));
    }
    if list == "contexts" && config.text("current-context") == name {
        session.warn(
            "warning: this removed your active context, use \"kubectl config use-context\" to select a different one",
        )?;
    }
    if let Some(entries) = config[list].as_array_mut() {
        entries.retain(|entry| entry.text("name") != name);
    }
    write(&path, &config)?;
    session.say(format!("deleted {what} {name} from {file}"))
}

pub(super) fn rename(session: &mut Session, name: &str, new_name: &str) -> Result<()> {
    if new_name.is_empty() {
        return Err(Error::told("You must specify a new non-empty context name"));
    }
    let has = |config: &Value, name: &str| config.list("contexts").iter().any(|entry| entry.text("name") == name);
    let (path, mut config) = file_with(session, |config| has(config, name))?;
    let file = path.display();
    if !has(&config, name) {
        return Err(Error::told(format!("cannot rename the context {name:?}, it's not in {file}")));
    }
    if has(&config, new_name) {
        return Err(Error::told(format!(
            "cannot rename the context {name:?}, the context {new_name:?} already exists in {file}"
        )));
    }
    for entry in config["contexts"].as_array_mut().into_iter().flatten() {
        if entry.text("name") == name {
            entry["name"] = new_name.into();
        }
    }
    if config.text("current-context") == name {
        config["current-context"] = new_name.into();
    }
    write(&path, &config)?;
    session.say(format!("Context {name:?} renamed to {new_name:?}."))
}
