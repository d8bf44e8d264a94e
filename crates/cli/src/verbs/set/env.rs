//! `set env`. Mirrors kubectl `pkg/cmd/set/set_env.go` and `env/env_{parse,resolve}.go`.

use std::io::Read;

use serde_json::{Value, json};

use super::resolve::Source;
use super::{Change, Common, pod_spec};
use crate::change::Record;
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Ask};
use crate::session::Session;

/// The most that is read from standard input.
const LARGEST_BYTES: u64 = 1 << 20;

/// Set, take away or list environment variables of containers.
///
/// Examples:
///   kapstan set env deployment/web STORAGE_DIR=/local
///   kapstan set env deployment/web STORAGE_DIR-
///   kapstan set env deployment/web --list
///   kapstan set env deployment/web --from=configmap/settings --prefix=WEB_
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Options {
    /// TYPE NAME or TYPE/NAME, then KEY=VALUE... or KEY-...; - reads lines from standard input.
    words: Vec<String>,
    /// Label selector: supports '=', '==', '!=', 'in', 'notin', such as -l key1=value1,key2=value2.
    #[arg(long, short = 'l', value_name = "SELECTOR", allow_hyphen_values = true)]
    selector: Option<String>,
    #[command(flatten)]
    common: Common,
    /// Names of the containers; * stands for any letters.
    #[arg(long, short, default_value = "*", value_name = "NAMES")]
    containers: String,
    /// A variable, KEY=VALUE; may be repeated.
    #[arg(long, short = 'e', value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// The config map or secret whose keys become variables, such as configmap/settings.
    #[arg(long, value_name = "TYPE/NAME")]
    from: Option<String>,
    /// What the names of variables begin with.
    #[arg(long, default_value = "")]
    prefix: String,
    /// Only these keys of --from.
    #[arg(long, value_delimiter = ',')]
    keys: Vec<String>,
    /// Print the variables, with the changes; nothing is changed.
    #[arg(long)]
    list: bool,
    /// With --list: look up the values of secrets, config maps, fields and resources.
    #[arg(long)]
    resolve: bool,
    /// Give new values to variables that there are; false refuses.
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    overwrite: bool,
}

/// Variables to set and names to take away.
#[derive(Debug, Default)]
struct Variables {
    set: Vec<Value>,
    remove: Vec<String>,
}

/// Sets them.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    options.common.check(session, options.selector.as_ref())?;
    let (words, pairs) = split(&options.words)?;
    if words.is_empty() && options.common.files.is_empty() {
        return Err(Error::told("one or more resources must be specified as <resource> <name> or <resource>/<name>"));
    }
    if options.list && options.common.output.output.is_some() {
        return Err(Error::told("--list and --output may not be specified together"));
    }
    if !options.keys.is_empty() && options.from.is_none() {
        return Err(Error::told("when specifying --keys, a configmap or secret must be provided with --from"));
    }
    let specs: Vec<String> = options.env.iter().chain(&pairs).cloned().collect();
    let mut variables = parse(session, &specs)?;
    if let Some(from) = &options.from {
        variables.set.extend(imported(session, from, &options.keys).await?);
    }
    for variable in &mut variables.set {
        variable["name"] = format!("{}{}", options.prefix, variable.text("name")).into();
    }
    let found = options.common.find(session, &words, options.selector.as_ref()).await?;
    for item in &found {
        let mut object = item.object.clone();
        if pod_spec::of(&mut object).is_some_and(|spec| pod_spec::containers(spec, &options.containers).is_empty()) {
            let (kind, name) = (&item.resource.kind, &item.name);
            session.warn(format!(
                "Warning: {kind}/{name} does not have any containers matching {:?}",
                options.containers
            ))?;
        }
    }
    if options.list {
        return list(session, &options, &found, &variables).await;
    }
    let change =
        Change { done: "env updated", failed: "failed to patch env update to pod template:", silent_if_same: true };
    let edit = |object: &mut Value| edit(object, &options, &variables);
    options.common.apply(session, &found, &Record::default(), &change, edit).await
}

/// Splits `TYPE NAME KEY=VALUE KEY-`.
fn split(words: &[String]) -> Result<(Vec<String>, Vec<String>)> {
    let is_variable = |word: &String| word.find('=').is_some_and(|at| at > 0) || word.ends_with('-');
    let first = words.iter().position(is_variable).unwrap_or(words.len());
    let (objects, pairs) = words.split_at(first);
    match pairs.iter().all(is_variable) {
        true => Ok((objects.to_vec(), pairs.to_vec())),
        false => {
            Err(Error::told(format!("all resources must be specified before environment changes: {}", words.join(" "))))
        }
    }
}

fn parse(session: &mut Session, specs: &[String]) -> Result<Variables> {
    let mut variables = Variables::default();
    for spec in specs {
        if spec == "-" {
            let mut text = String::new();
            Read::take(&mut session.io.stdin, LARGEST_BYTES).read_to_string(&mut text)?;
            variables.set.extend(from_lines(&text));
        } else if let Some((name, value)) = spec.split_once('=') {
            check_name(name)?;
            variables.set.push(json!({"name": name, "value": value}));
        } else if let Some(name) = spec.strip_suffix('-') {
            variables.remove.push(name.to_owned());
        } else {
            return Err(Error::told(format!("unknown environment variable: {spec}")));
        }
    }
    let both = variables.remove.iter().any(|name| variables.set.iter().any(|known| known.text("name") == name));
    match both {
        true => Err(Error::told("can not both modify and remove the same environment variable in the same command")),
        false => Ok(variables),
    }
}

/// `KEY=VALUE` lines; what follows a `#` is a comment.
fn from_lines(text: &str) -> Vec<Value> {
    let plain = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    plain.filter_map(|line| line.split_once('=')).map(|(name, value)| json!({"name": name, "value": value})).collect()
}

/// What is wrong with the name of a variable. Mirrors apimachinery `IsEnvVarName`, which kubectl keeps to; servers take more.
pub fn wrong_name(name: &str) -> Option<&'static str> {
    let is_inner = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_');
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) || !name.chars().all(is_inner) {
        return Some(
            "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for validation is '[-._a-zA-Z][-._a-zA-Z0-9]*')",
        );
    }
    match name {
        "." => Some("must not be '.'"),
        ".." => Some("must not be '..'"),
        _ if name.starts_with("..") => Some("must not start with '..'"),
        _ => None,
    }
}

fn check_name(name: &str) -> Result<()> {
    match wrong_name(name) {
        None => Ok(()),
        Some(why) => Err(Error::told(format!("{name:?} is not a valid key name: {why}"))),
    }
}

async fn imported(session: &mut Session, from: &str, keys: &[String]) -> Result<Vec<Value>> {
    let ask = Ask { words: vec![from.to_owned()], live: true, ..Ask::default() };
    let mut variables = Vec::new();
    for source in objects::find_all(session, &ask).await? {
        let reference = match source.resource.kind.as_str() {
            "ConfigMap" => "configMapKeyRef",
            "Secret" => "secretKeyRef",
            _ => return Err(Error::told("unsupported resource specified in --from")),
        };
        for key in source.object.map("data").keys().filter(|key| keys.is_empty() || keys.contains(key)) {
            let name = variable_name(key);
            if name != *key {
                session.warn(format!("Warning: key {key} transferred to {name}"))?;
            }
            variables.push(json!({"name": name, "valueFrom": {reference: {"key": key, "name": source.name}}}));
        }
    }
    Ok(variables)
}

fn variable_name(key: &str) -> String {
    key.chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || letter == '_' { letter } else { '_' })
        .collect::<String>()
        .to_uppercase()
}

fn edit(object: &mut Value, options: &Options, variables: &Variables) -> Result<(), String> {
    let missing = pod_spec::missing(object);
    let spec = pod_spec::of(object).ok_or(missing)?;
    for container in pod_spec::containers(spec, &options.containers) {
        if !options.overwrite {
            refuse_overwrites(container, &variables.set)?;
        }
        let merged = merged(container.list("env"), variables);
        match (merged.is_empty(), container.as_object_mut()) {
            (true, Some(container)) => drop(container.remove("env")),
            _ => container["env"] = merged.into(),
        }
    }
    Ok(())
}

fn refuse_overwrites(container: &Value, set: &[Value]) -> Result<(), String> {
    for variable in set {
        let known = container.list("env").iter().find(|known| known.text("name") == variable.text("name"));
        if let Some(known) = known.filter(|known| known.text("value") != variable.text("value")) {
            let (name, value) = (known.text("name"), known.text("value"));
            return Err(format!("'{name}' already has a value ({value}), and --overwrite is false"));
        }
    }
    Ok(())
}

/// The old variables with the new ones in their places, then those that are new.
fn merged(existing: &[Value], variables: &Variables) -> Vec<Value> {
    let mut covered: Vec<&str> = variables.remove.iter().map(String::as_str).collect();
    let mut merged = Vec::new();
    for known in existing {
        let name = known.text("name");
        if covered.contains(&name) {
            continue;
        }
        match variables.set.iter().find(|variable| variable.text("name") == name) {
            Some(newer) => {
                covered.push(name);
                merged.push(newer.clone());
            }
            None => merged.push(known.clone()),
        }
    }
    for variable in &variables.set {
        if !covered.contains(&variable.text("name")) {
            covered.push(variable.text("name"));
            merged.push(variable.clone());
        }
    }
    merged
}

/// Prints the variables as they would be. As with kubectl, what cannot be changed is not listed, and no failure ends it.
async fn list(session: &mut Session, options: &Options, found: &[objects::Found], variables: &Variables) -> Result<()> {
    let mut source = match options.resolve {
        true => Some(Source::new(session.client()?, session.namespace()?)),
        false => None,
    };
    for item in found {
        let mut object = item.object.clone();
        let Some(spec) = pod_spec::of(&mut object) else { continue };
        for container in pod_spec::containers(spec, &options.containers) {
            if !options.overwrite && refuse_overwrites(container, &variables.set).is_err() {
                break;
            }
            container["env"] = merged(container.list("env"), variables).into();
            session.say(format!("# {} {}, container {}", item.resource.kind, item.name, container.text("name")))?;
            let (lines, failures) = match &mut source {
                Some(source) => source.lines(&item.object, container).await,
                None => (container.list("env").iter().map(shown).collect(), Vec::new()),
            };
            lines.iter().try_for_each(|line| session.say(line))?;
            failures.iter().try_for_each(|failure| session.warn(failure))?;
        }
    }
    Ok(())
}

/// `NAME=VALUE`, or where the value comes from.
pub fn shown(variable: &Value) -> String {
    let name = variable.text("name");
    let from = variable.at("valueFrom");
    if from.is_null() {
        return format!("{name}={}", variable.text("value"));
    }
    let source = if from.has("configMapKeyRef") {
        format!("configmap {}, key {}", from.text("configMapKeyRef.name"), from.text("configMapKeyRef.key"))
    } else if from.has("secretKeyRef") {
        format!("secret {}, key {}", from.text("secretKeyRef.name"), from.text("secretKeyRef.key"))
    } else if from.has("fieldRef") {
        format!("field path {}", from.text("fieldRef.fieldPath"))
    } else if from.has("resourceFieldRef") {
        let container = from.text("resourceFieldRef.containerName");
        let slash = if container.is_empty() { "" } else { "/" };
        format!("resource field {container}{slash}{}", from.text("resourceFieldRef.resource"))
    } else {
        "invalid valueFrom".into()
    };
    format!("# {name} from {source}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_variables() {
        for (name, fits) in
            [("A", true), ("my.env-name", true), ("_", true), ("1", false), ("a b", false), ("", false), ("..x", false)]
        {
            assert_eq!(wrong_name(name).is_none(), fits, "{name}");
        }
    }

    #[test]
    fn variables_keep_their_places() {
        let existing = [
            json!({"name": "A", "value": "1"}),
            json!({"name": "B", "value": "2"}),
            json!({"name": "C", "value": "3"}),
        ];
        let variables = Variables {
            set: vec![json!({"name": "D", "value": "4"}), json!({"name": "B", "value": "5"})],
            remove: vec!["A".into()],
        };
        let merged: Vec<String> = merged(&existing, &variables).iter().map(shown).collect();
        assert_eq!(merged, ["B=5", "C=3", "D=4"]);
    }
}
