//! Printing objects in the form that `-o` names.
//!
//! Mirrors cli-runtime `pkg/genericclioptions/print_flags.go` and `pkg/printers`.

pub mod columns;
mod declared;
pub mod jsonpath;
pub mod table;
pub mod tabwriter;
pub mod template;
pub mod yaml;

use std::fs;

use clap::Args;
use serde_json::{Value, json};

use declared::Declared;

use crate::errors::{Error, Result};
use crate::json::Json;
use crate::session::Session;

/// `-o` of verbs that change objects.
#[derive(Args, Clone, Debug, Default)]
pub struct Output {
    /// Output format: json, yaml, name, go-template=…, go-template-file=…, jsonpath=…, jsonpath-as-json=…, jsonpath-file=….
    #[arg(long, short, value_name = "FORMAT")]
    pub output: Option<String>,
    /// Template for -o go-template or jsonpath.
    #[arg(long, value_name = "TEMPLATE")]
    pub template: Option<String>,
    /// Print metadata.managedFields too, with json and yaml.
    #[arg(long)]
    pub show_managed_fields: bool,
    /// Print nothing for fields that a template does not find; false is an error.
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set, hide_short_help = true, value_name = "BOOL")]
    pub allow_missing_template_keys: bool,
}

/// A form of output.
pub enum Format {
    /// Tables, or sentences such as `pod/web created`.
    Human {
        /// With the columns that matter less.
        wide: bool,
    },
    /// `-o name`.
    Name,
    /// `-o json`.
    Json,
    /// `-o yaml`.
    Yaml,
    /// `-o jsonpath=…`.
    JsonPath(jsonpath::Template),
    /// `-o jsonpath-as-json=…`.
    JsonPathAsJson(jsonpath::Template),
    /// `-o go-template=…`.
    GoTemplate(template::Template),
    /// `-o custom-columns=…`.
    Columns(columns::Columns),
}

/// The forms of `-o` of verbs that change objects.
pub const PLAIN_FORMATS: &str =
    "go-template,go-template-file,json,jsonpath,jsonpath-as-json,jsonpath-file,name,template,templatefile,yaml";
/// The forms of `-o` of `get`.
pub const GET_FORMATS: &str = "custom-columns,custom-columns-file,go-template,go-template-file,json,jsonpath,jsonpath-as-json,jsonpath-file,name,template,templatefile,wide,yaml";

impl Output {
    /// Understands `-o`, for a verb that changes objects.
    pub fn format(&self) -> Result<Format> {
        self.parse(false)
    }

    /// Understands `-o` of `get`: tables too.
    pub fn get_format(&self) -> Result<Format> {
        self.parse(true)
    }

    fn parse(&self, tables: bool) -> Result<Format> {
        let text = match (&self.output, &self.template) {
            (Some(text), _) => text.as_str(),
            (None, Some(_)) => "go-template",
            (None, None) => "",
        };
        let (name, argument) = text.split_once('=').map_or((text, None), |(name, rest)| (name, Some(rest.to_owned())));
        let argument = argument.or_else(|| self.template.clone());
        let needed = |what: &str| {
            argument
                .clone()
                .filter(|text| !text.is_empty())
                .ok_or_else(|| Error::told(format!("{what} format specified but no {what} given")))
        };
        let file = |what: &str| -> Result<String> {
            let path = match what {
                "--template" => needed("template")?,
                _ => needed("custom-columns")
                    .map_err(|_| Error::told("custom-columns format specified but no custom columns given"))?,
            };
            let why = |error: std::io::Error| format!("error reading {what} {path}, open {path}: {}", in_go(&error));
            fs::read_to_string(&path).map_err(|error| Error::told(why(error)))
        };
        let missing = self.allow_missing_template_keys;
        Ok(match name {
            "" => Format::Human { wide: false },
            "wide" if tables => Format::Human { wide: true },
            "name" => Format::Name,
            "json" => Format::Json,
            "yaml" => Format::Yaml,
            "jsonpath" => Format::JsonPath(jsonpath::Template::parse(&template_text(argument, "jsonpath")?, missing)?),
            "jsonpath-file" => {
                Format::JsonPath(jsonpath::Template::parse(file("--template")?.trim_end_matches('\n'), missing)?)
            }
            "jsonpath-as-json" => Format::JsonPathAsJson(jsonpath::Template::parse(
                &template_text(argument, "jsonpath-as-json")?,
                missing,
            )?),
            "go-template" | "template" => {
                Format::GoTemplate(template::Template::parse(&template_text(argument, name)?, missing)?)
            }
            "go-template-file" | "templatefile" => {
                Format::GoTemplate(template::Template::parse(&file("--template")?, missing)?)
            }
            "custom-columns" if tables => {
                let none = || Error::told("custom-columns format specified but no custom columns given");
                let columns = argument.filter(|text| !text.is_empty()).ok_or_else(none)?;
                Format::Columns(columns::Columns::parse(&columns)?)
            }
            "custom-columns-file" if tables => Format::Columns(columns::Columns::parse_file(&file("template")?)?),
            _ => {
                let allowed = if tables { GET_FORMATS } else { PLAIN_FORMATS };
                return Err(Error::told(format!(
                    "unable to match a printer suitable for the output format {text:?}, allowed formats are: {allowed}"
                )));
            }
        })
    }
}

/// An error of the system in Go's words.
pub(crate) fn in_go(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => "no such file or directory".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        ErrorKind::IsADirectory => "is a directory".into(),
        _ => error.to_string(),
    }
}

fn template_text(argument: Option<String>, _name: &str) -> Result<String> {
    argument
        .filter(|text| !text.is_empty())
        .ok_or_else(|| Error::told("template format specified but no template given"))
}

/// An object as `format` shows it; nothing for the forms that are made of many objects.
pub fn object(format: &Format, object: &Value, managed_fields: bool) -> Result<String> {
    let shown = || if managed_fields { object.clone() } else { without_managed_fields(object) };
    Ok(match format {
        Format::Json => format!("{}\n", json_text(&shown())),
        Format::Yaml => yaml::text(&shown()),
        Format::Name => names(object),
        Format::JsonPath(template) => template.run(object)?,
        Format::JsonPathAsJson(template) => format!("{}\n", json_text(&Value::Array(template.values(object)?))),
        Format::GoTemplate(template) => template.run(object)?,
        Format::Columns(columns) => columns.table(&flat(object)),
        Format::Human { .. } => names(object),
    })
}

fn names(object: &Value) -> String {
    flat(object).iter().map(|item| format!("{}\n", name(item))).collect()
}

/// The items of a list, or the object itself.
pub fn flat(object: &Value) -> Vec<Value> {
    match object["items"].as_array() {
        Some(items) if object.text("kind").ends_with("List") => items.clone(),
        _ => vec![object.clone()],
    }
}

/// `deployment.apps/web`.
pub fn name(object: &Value) -> String {
    let kind = object.text("kind").to_lowercase();
    let group = object.text("apiVersion").split_once('/').map_or("", |(group, _)| group);
    let dot = if group.is_empty() { "" } else { "." };
    format!("{kind}{dot}{group}/{}", object.text("metadata.name"))
}

/// As [`done`], by a verb that prints each object by itself: no `---` stands between them.
pub fn done_apart(session: &mut Session, output: &Output, changed: &Value, operation: &str) -> Result<()> {
    session.documents = 0;
    done(session, output, changed, operation)
}

/// As [`made`], by a verb that prints each object by itself.
pub fn made_apart(session: &mut Session, output: &Output, changed: &Value, operation: &str) -> Result<()> {
    session.documents = 0;
    made(session, output, changed, operation)
}

/// Prints what was done with an object: `deployment.apps/web scaled`, or the object in the form of `-o`.
pub fn done(session: &mut Session, output: &Output, changed: &Value, operation: &str) -> Result<()> {
    session.pass_on_warnings()?;
    match output.format()? {
        Format::Human { .. } => {
            let line = format!("{} {operation}", name(changed));
            session.say(line)
        }
        format => {
            let text = object(&format, changed, output.show_managed_fields)?;
            if matches!(format, Format::Yaml) && std::mem::replace(&mut session.documents, 1) > 0 {
                session.print("---\n")?;
            }
            session.print(text)
        }
    }
}

/// As [`done`], for what kubectl knows by type: what a generator made, `set`, `taint`, `rollout`.
pub fn made(session: &mut Session, output: &Output, made: &Value, operation: &str) -> Result<()> {
    match output.format()? {
        Format::Json => {
            session.pass_on_warnings()?;
            let object = if output.show_managed_fields { made.clone() } else { without_managed_fields(made) };
            session.say(json_text(&Declared::object(&object)))
        }
        _ => done(session, output, made, operation),
    }
}

/// JSON as kubectl prints it: four spaces, what means something in HTML and JavaScript escaped.
pub fn json_text(value: &impl serde::Serialize) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    value.serialize(&mut serializer).expect("a value is always JSON");
    html_escaped(&String::from_utf8(bytes).expect("JSON is UTF-8"))
}

/// As Go's encoder does it.
pub fn html_escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '&' | '<' | '>' | '\u{2028}' | '\u{2029}' => text += &format!("\\u{:04x}", u32::from(letter)),
            letter => text.push(letter),
        }
    }
    text
}

fn without_managed_fields(object: &Value) -> Value {
    let mut object = object.clone();
    let strip = |item: &mut Value| {
        if let Some(meta) = item["metadata"].as_object_mut() {
            meta.remove("managedFields");
        }
    };
    if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(strip);
    }
    if object.get("metadata").is_some() {
        strip(&mut object);
    }
    object
}

/// Several objects as one: kubectl's `List`.
pub fn list(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items, "metadata": {"resourceVersion": ""}})
}
