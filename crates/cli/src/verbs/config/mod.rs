//! `config`: the kubeconfig. Mirrors kubectl `pkg/cmd/config`.
//!
//! Files are changed as YAML, so that what is not understood here stays in them.

mod change;
mod ordered;

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use change::Credentials;
use ordered::Ordered;

use crate::discovery::closest;
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::kubeconfig;
use crate::print::tabwriter::{GET, align};
use crate::print::{self, Format, Output, json_text, yaml};
use crate::session::Session;

/// Look at the kubeconfig and change it.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Print it; secrets are hidden.
    View {
        /// With secrets.
        #[arg(long)]
        raw: bool,
        /// Only what the current context uses.
        #[arg(long)]
        minify: bool,
        /// With certificates and keys themselves instead of their files' names.
        #[arg(long)]
        flatten: bool,
        /// The files as one; false takes the one that --kubeconfig names.
        #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL")]
        merge: bool,
        #[command(flatten)]
        output: Output,
    },
    /// List the contexts.
    GetContexts {
        /// Only these.
        names: Vec<String>,
        /// Print no line of headers.
        #[arg(long)]
        no_headers: bool,
        /// name: only names.
        #[arg(long, short)]
        output: Option<String>,
    },
    /// Print the current context.
    CurrentContext,
    /// Make a context the current one.
    #[command(alias = "use")]
    UseContext {
        /// Its name.
        name: String,
    },
    /// Change a context, or add one: its --cluster, --user and --namespace.
    SetContext {
        /// Its name.
        name: Option<String>,
        /// Change the current context.
        #[arg(long)]
        current: bool,
    },
    /// Change a cluster, or add one: its --server, --certificate-authority, --tls-server-name.
    SetCluster {
        /// Its name.
        name: String,
        /// Keep the certificate itself instead of its file's name.
        #[arg(long)]
        embed_certs: bool,
        /// Proxy to reach it by.
        #[arg(long, value_name = "URL")]
        proxy_url: Option<String>,
    },
    /// Change a user, or add one: its --client-certificate, --client-key, --token.
    SetCredentials(Credentials),
    /// Set a value: clusters.NAME.server, users.NAME.token, contexts.NAME.namespace, current-context.
    Set {
        /// Where: names with dots between them.
        property: String,
        /// The value.
        value: String,
        /// The value of a certificate or key is its bytes, not base64.
        #[arg(long)]
        set_raw_bytes: bool,
    },
    /// Remove a value, or an entry: contexts.NAME.
    Unset {
        /// Where: names with dots between them.
        property: String,
    },
    /// Remove a cluster.
    DeleteCluster {
        /// Its name.
        name: String,
    },
    /// Remove a context.
    DeleteContext {
        /// Its name.
        name: String,
    },
    /// Remove a user.
    DeleteUser {
        /// Its name.
        name: String,
    },
    /// Give a context another name.
    RenameContext {
        /// Its name.
        name: String,
        /// The new one.
        new_name: String,
    },
    /// List the clusters.
    GetClusters,
    /// List the users.
    GetUsers,
}

/// Looks or changes.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    match options.what {
        What::View { merge: false, .. } if session.global.kubeconfig.is_none() => {
            Err(Error::told("if merge==false a precise file must be specified"))
        }
        What::View { raw, minify, flatten, output, .. } => view(session, raw, minify, flatten, &output),
        What::GetContexts { names, no_headers, output } => contexts(session, &names, no_headers, output.as_deref()),
        What::CurrentContext => {
            let config = merged(session)?;
            match current(session, &config) {
                name if name.is_empty() => Err(Error::told("current-context is not set")),
                name => session.say(name),
            }
        }
        What::UseContext { name } => use_context(session, &name),
        What::SetContext { name, current } => set_context(session, name, current),
        What::SetCluster { name, embed_certs, proxy_url } => change::cluster(session, &name, embed_certs, proxy_url),
        What::SetCredentials(credentials) => change::credentials(session, &credentials),
        What::Set { property, value, set_raw_bytes } => change::set(session, &property, &value, set_raw_bytes),
        What::Unset { property } => change::unset(session, &property),
        What::DeleteCluster { name } => change::delete(session, "clusters", &name),
        What::DeleteContext { name } => change::delete(session, "contexts", &name),
        What::DeleteUser { name } => change::delete(session, "users", &name),
        What::RenameContext { name, new_name } => change::rename(session, &name, &new_name),
        What::GetClusters => names(session, "clusters"),
        What::GetUsers => names(session, "users"),
    }
}

fn current(session: &Session, config: &Value) -> String {
    session.global.context.clone().unwrap_or_else(|| config.text("current-context").to_owned())
}

/// The files as one: who comes first wins.
fn merged(session: &Session) -> Result<Value> {
    let mut whole = json!({"apiVersion": "v1", "kind": "Config", "clusters": [], "contexts": [], "users": [], "current-context": "", "preferences": {}});
    for path in kubeconfig::files(&session.global, &session.io.environment) {
        if !path.exists() {
            continue;
        }
        let next = kubeconfig::read(&path)?;
        for list in ["clusters", "contexts", "users"] {
            for entry in next.list(list) {
                let known = whole.list(list).iter().any(|known| known.text("name") == entry.text("name"));
                if let (Some(entries), false) = (whole[list].as_array_mut(), known) {
                    entries.push(entry.clone());
                }
            }
        }
        if whole.text("current-context").is_empty() {
            whole["current-context"] = next.text("current-context").into();
        }
    }
    Ok(whole)
}

fn view(session: &mut Session, raw: bool, minify: bool, flatten: bool, output: &Output) -> Result<()> {
    let format = output.format()?;
    let mut config = merged(session)?;
    if minify {
        minified(session, &mut config)?;
    }
    if flatten {
        change::embed_all(&mut config)?;
    }
    // Who asks for what files hold is shown it.
    if !raw && !flatten {
        redact(&mut config);
    }
    for list in ["clusters", "contexts", "users"] {
        if config.list(list).is_empty() {
            config[list] = Value::Null;
        }
    }
    match format {
        Format::Human { .. } => session.print(yaml::text(&config)),
        Format::Json => session.say(json_text(&Ordered(&config))),
        // It is no object of an API, and has no name.
        Format::Name => session.say("config/<unknown>"),
        format => session.print(print::object(&format, &config, true)?),
    }
}

fn minified(session: &Session, config: &mut Value) -> Result<()> {
    let name = current(session, config);
    let found = config.list("contexts").iter().find(|context| context.text("name") == name).cloned();
    let context = found.ok_or_else(|| Error::told("cannot locate context ".to_owned() + &name))?;
    let keep = |config: &mut Value, list: &str, name: &str| {
        if let Some(entries) = config[list].as_array_mut() {
            entries.retain(|entry| entry.text("name") == name);
        }
    };
    keep(config, "contexts", &name);
    keep(config, "clusters", context.text("context.cluster"));
    keep(config, "users", context.text("context.user"));
    config["current-context"] = name.into();
    Ok(())
}

fn redact(config: &mut Value) {
    let hide = |place: &mut Value, field: &str, word: &str| {
        if place.get(field).is_some_and(|value| !value.is_null()) {
            place[field] = word.into();
        }
    };
    for cluster in config["clusters"].as_array_mut().into_iter().flatten() {
        hide(&mut cluster["cluster"], "certificate-authority-data", "DATA+OMITTED");
    }
    for user in config["users"].as_array_mut().into_iter().flatten() {
        let user = &mut user["user"];
        hide(user, "client-certificate-data", "DATA+OMITTED");
        hide(user, "client-key-data", "DATA+OMITTED");
        hide(user, "token", "REDACTED");
        hide(user, "password", "REDACTED");
    }
}

fn contexts(session: &mut Session, only: &[String], no_headers: bool, output: Option<&str>) -> Result<()> {
    if let Some(other) = output.filter(|output| !matches!(*output, "" | "name")) {
        return Err(Error::told(format!(
            "--output {other} is not available in kubectl config get-contexts; resetting to default output format"
        )));
    }
    let config = merged(session)?;
    let current = current(session, &config);
    let mut entries: Vec<&Value> = config.list("contexts").iter().collect();
    entries.sort_by_key(|context| context.text("name"));
    let mut missing = Vec::new();
    if !only.is_empty() {
        let all = std::mem::take(&mut entries);
        for name in only {
            match all.iter().find(|context| context.text("name") == name) {
                Some(context) => entries.push(context),
                None => missing.push(format!("context {name} not found")),
            }
        }
    }
    let missing = Error::aggregate(missing);
    if output == Some("name") {
        entries.iter().try_for_each(|context| session.say(context.text("name")))?;
        return missing;
    }
    let mut text = String::new();
    if !no_headers {
        text += "CURRENT\tNAME\tCLUSTER\tAUTHINFO\tNAMESPACE\n";
    }
    for context in entries {
        let mark = if context.text("name") == current { "*" } else { "" };
        let [cluster, user, namespace] =
            ["cluster", "user", "namespace"].map(|field| context.at("context").text(field));
        text += &format!("{mark}\t{}\t{cluster}\t{user}\t{namespace}\n", context.text("name"));
    }
    session.print(align(&text, GET))?;
    missing
}

fn names(session: &mut Session, list: &str) -> Result<()> {
    let config = merged(session)?;
    let mut names: Vec<&str> = config.list(list).iter().map(|entry| entry.text("name")).collect();
    names.sort_unstable();
    session.say("NAME")?;
    names.iter().try_for_each(|name| session.say(name))
}

/// The file that a change goes to: the one with the entry, or the first.
fn file_with(session: &Session, fits: impl Fn(&Value) -> bool) -> Result<(PathBuf, Value)> {
    let files = kubeconfig::files(&session.global, &session.io.environment);
    for path in files.iter().filter(|path| path.exists()) {
        let config = kubeconfig::read(path)?;
        if fits(&config) {
            return Ok((path.clone(), config));
        }
    }
    let first = files
        .into_iter()
        .next()
        .ok_or_else(|| Error::told("there is no place for a kubeconfig").hinted("name one with --kubeconfig"))?;
    let config = if first.exists() { kubeconfig::read(&first)? } else { json!({"apiVersion": "v1", "kind": "Config"}) };
    Ok((first, config))
}

/// Writes beside the file and renames: a kubeconfig is never half written.
fn write(path: &PathBuf, config: &Value) -> Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), PathBuf::from);
    fs::create_dir_all(&folder)?;
    let beside = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(yaml::text(config).as_bytes())?;
    file.sync_all()?;
    Ok(fs::rename(&beside, path)?)
}

fn use_context(session: &mut Session, name: &str) -> Result<()> {
    let config = merged(session)?;
    let names: Vec<&str> = config.list("contexts").iter().map(|context| context.text("name")).collect();
    if !names.contains(&name) {
        let error = Error::told(format!("no context exists with the name: {name:?}"));
        return Err(match (closest(name, names.iter().copied()), names.as_slice()) {
            (Some(near), _) => error.hinted(format!("did you mean {near:?}?")),
            (None, []) => error.hinted("the kubeconfig has no contexts"),
            (None, names) => error.hinted(format!("there are: {}", names.join(", "))),
        });
    }
    let (path, mut config) = file_with(session, |config| !config.text("current-context").is_empty())?;
    config["current-context"] = name.into();
    write(&path, &config)?;
    session.say(format!("Switched to context {name:?}."))
}

fn set_context(session: &mut Session, name: Option<String>, current_one: bool) -> Result<()> {
    let name = match (name, current_one) {
        (Some(name), false) => name,
        (None, true) => {
            let config = merged(session)?;
            match config.text("current-context") {
                "" => return Err(Error::told("no current context is set")),
                name => name.to_owned(),
            }
        }
        _ => return Err(Error::told("you must specify a non-empty context name or --current")),
    };
    let there = |config: &Value| config.list("contexts").iter().any(|context| context.text("name") == name);
    let (path, mut config) = file_with(session, there)?;
    let existed = there(&config);
    if !config["contexts"].is_array() {
        config["contexts"] = json!([]);
    }
    let Some(contexts) = config["contexts"].as_array_mut() else { return Ok(()) };
    if !existed {
        contexts.push(json!({"name": name, "context": {"cluster": "", "user": ""}}));
    }
    if let Some(context) = contexts.iter_mut().find(|context| context.text("name") == name) {
        let user = session.global.user.last().cloned();
        for (field, value) in [
            ("cluster", session.global.cluster.clone()),
            ("user", user),
            ("namespace", session.global.namespace.clone()),
        ] {
            if let Some(value) = value {
                context["context"][field] = value.into();
            }
        }
    }
    write(&path, &config)?;
    session.say(format!("Context {name:?} {}.", if existed { "modified" } else { "created" }))
}
