//! `explain`: the fields of a type. Mirrors kubectl `pkg/explain/v2` (templates/plaintext.tmpl); the layout that it had before is in
//! `openapiv2.rs`.

mod openapiv2;

use serde_json::Value;

use crate::discovery::Resource;
use crate::errors::{Error, Result};
use crate::json::{Json, scalar};
use crate::session::Session;

/// Texts are wrapped at this column.
const WIDTH: usize = 76;
/// Values of an enumeration that a recursive listing names.
const SHOWN_VALUES: usize = 4;
/// Types that hold themselves are not followed further.
const DEEPEST: usize = 16;

/// Describe the fields of a type: `kapstan explain deployment.spec.strategy`.
#[derive(clap::Args)]
pub struct Options {
    /// TYPE[.FIELD]...
    path: Option<String>,
    /// All fields of fields too, without their descriptions.
    #[arg(long)]
    recursive: bool,
    /// Of this API version, such as apps/v1.
    #[arg(long)]
    api_version: Option<String>,
    /// plaintext, or plaintext-openapiv2: the layout before kubectl 1.27.
    #[arg(long, short, default_value = "plaintext")]
    output: String,
}

/// Explains.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let Some(path) = &options.path else {
        return Err(Error::told(format!(
            "You must specify the type of resource to explain. Use \"{} api-resources\" for a complete list of supported resources.\n",
            session.program
        )));
    };
    if !matches!(options.output.as_str(), "plaintext" | "plaintext-openapiv2") {
        let error = Error::told(format!("unrecognized format: {}", options.output));
        return Err(error.hinted("there are plaintext and plaintext-openapiv2"));
    }
    let client = session.client()?;
    let discovery = client.discovery().await?;
    let (resource, fields) = named(&discovery, path, options.api_version.as_deref())?;
    let root = if resource.group.is_empty() { "api" } else { "apis" };
    let document = client.get(&format!("/openapi/v3/{root}/{}", resource.api_version()), &[]).await?;
    let schemas = document.at("components").map("schemas");
    let is_ours = |schema: &&Value| {
        schema.list("x-kubernetes-group-version-kind").iter().any(|one| {
            one.text("group") == resource.group
                && one.text("version") == resource.version
                && one.text("kind") == resource.kind
        })
    };
    let Some(schema) = schemas.values().find(is_ours) else {
        return Err(Error::told(format!(
            "couldn't find resource for {:?}",
            format!("{}, Kind={}", resource.api_version(), resource.kind)
        )));
    };
    let mut text = String::new();
    if !resource.group.is_empty() {
        text += &format!("GROUP:      {}\n", resource.group);
    }
    text += &format!("KIND:       {}\nVERSION:    {}\n\n", resource.kind, resource.version);
    let mut explainer = Explainer { schemas: &document, text };
    let outcome = match options.output.as_str() {
        "plaintext" => explainer.explain(schema, &fields, options.recursive),
        _ => {
            explainer.text.clear();
            explainer.explain_as_before(&resource, schema, &fields, options.recursive)
        }
    };
    session.print(std::mem::take(&mut explainer.text))?;
    outcome
}

fn named(
    discovery: &crate::discovery::Discovery,
    path: &str,
    api_version: Option<&str>,
) -> Result<(Resource, Vec<String>)> {
    let parts: Vec<&str> = path.split('.').filter(|part| !part.is_empty()).collect();
    // `deployments.apps` before `deployments` and its field `apps`.
    let longest = (1..=parts.len()).rev().find_map(|count| {
        let resource = discovery.find(&parts[..count].join("."))?;
        (count == 1 || !resource.group.is_empty()).then_some((resource, count))
    });
    let unknown = || Error::bare(format!("the server doesn't have a resource type {:?}", parts.first().unwrap_or(&"")));
    let (resource, used) = longest.ok_or_else(unknown)?;
    let fields = parts[used..].iter().map(|part| (*part).to_owned()).collect();
    match api_version {
        None => Ok((resource.clone(), fields)),
        Some(version) => {
            let other = discovery.kind(version, &resource.kind);
            let none =
                || Error::told(format!("couldn't find resource for \"{version}, Resource={}\"", resource.plural));
            Ok((other.ok_or_else(none)?.clone(), fields))
        }
    }
}

struct Explainer<'a> {
    schemas: &'a Value,
    text: String,
}

impl<'a> Explainer<'a> {
    /// The schema that a reference means, or the schema itself.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let mut here = schema;
        for _ in 0..DEEPEST {
            let reference = here.text("$ref");
            let inner = here.list("allOf").first();
            if let Some(name) = reference.strip_prefix("#/components/schemas/") {
                here = self.schemas.at("components").map("schemas").get(name).unwrap_or(here);
            } else if let (Some(inner), true) = (inner, here.map("properties").is_empty()) {
                here = inner;
            } else {
                break;
            }
        }
        here
    }

    /// What holds the fields of a schema: of a list, its items.
    fn holder(&self, schema: &'a Value) -> &'a Value {
        let mut here = self.resolve(schema);
        for _ in 0..DEEPEST {
            if here.has("items") {
                here = self.resolve(here.at("items"));
            } else if here["additionalProperties"].is_object() {
                here = self.resolve(&here["additionalProperties"]);
            } else {
                break;
            }
        }
        here
    }

    fn type_name(&self, schema: &Value) -> String {
        let reference = schema.list("allOf").first().map_or(schema.text("$ref"), |inner| inner.text("$ref"));
        if !reference.is_empty() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            let meant = self.schemas.at("components").map("schemas").get(name);
            // A name for a text or a number is no type of its own.
            return match meant.map(|schema| schema.text("type")).filter(|kind| !matches!(*kind, "" | "object")) {
                Some(plain) => plain.to_owned(),
                None => name.rsplit('.').next().unwrap_or_default().to_owned(),
            };
        }
        if schema.has("items") {
            return format!("[]{}", self.type_name(schema.at("items")));
        }
        if schema["additionalProperties"].is_object() {
            return format!("map[string]{}", self.type_name(&schema["additionalProperties"]));
        }
        match schema.text("type") {
            "" if schema.has("oneOf") || schema.flag("x-kubernetes-int-or-string") => "IntOrString".into(),
            "" | "object" => "Object".into(),
            name => name.to_owned(),
        }
    }

    /// The schema that the fields lead to, and the last one's name.
    fn find<'b>(&self, schema: &'a Value, fields: &'b [String]) -> Result<(&'a Value, Option<&'b str>)> {
        let mut owner = schema;
        let mut field = None;
        for name in fields {
            let holder = self.holder(owner);
            let Some(next) = holder.map("properties").get(name.as_str()) else {
                let near = crate::discovery::closest(name, holder.map("properties").keys().map(String::as_str));
                let error = Error::told(format!("field {name:?} does not exist"));
                return Err(match near {
                    Some(near) => error.hinted(format!("did you mean {near:?}?")),
                    None => error,
                });
            };
            field = Some(name.as_str());
            owner = next;
        }
        Ok((owner, field))
    }

    fn explain(&mut self, schema: &'a Value, fields: &[String], recursive: bool) -> Result<()> {
        let (owner, field) = self.find(schema, fields)?;
        if let Some(name) = field {
            self.text += &format!("FIELD: {name} <{}>\n", self.type_name(owner));
            let values = owner.list("enum");
            if !values.is_empty() {
                self.text += "ENUM:\n";
                values.iter().for_each(|value| self.text += &format!("    {}\n", scalar(value)));
            }
            self.text += "\n\n";
            if !values.is_empty() {
                self.text.pop();
            }
        }
        self.text += "DESCRIPTION:\n";
        let own = owner.text("description");
        let of_type = self.holder(owner).text("description");
        let both = match (own.is_empty(), own == of_type || of_type.is_empty()) {
            (true, _) => of_type.to_owned(),
            (false, true) => own.to_owned(),
            (false, false) => format!("{own}\n{of_type}"),
        };
        let both = if both.is_empty() { "<empty>".to_owned() } else { both };
        for line in wrapped(&both, WIDTH) {
            self.text += &format!("    {line}\n");
        }
        self.text += "    \n";
        let holder = self.holder(owner);
        if !holder.map("properties").is_empty() {
            self.text += "FIELDS:\n";
            self.list(holder, 1, recursive, &mut Vec::new());
        }
        self.text += "\n";
        Ok(())
    }

    fn list(&mut self, holder: &'a Value, level: usize, recursive: bool, inside: &mut Vec<*const Value>) {
        let indent = "  ".repeat(level);
        for (name, schema) in holder.map("properties") {
            let required = holder.list("required").iter().any(|one| one.as_str() == Some(name));
            let mark = if required { " -required-" } else { "" };
            self.text += &format!("{indent}{name}\t<{}>{mark}\n", self.type_name(schema));
            let quoted = |text: String| if text.is_empty() { "\"\"".to_owned() } else { text };
            let values: Vec<String> = schema.list("enum").iter().map(scalar).map(quoted).collect();
            if !values.is_empty() {
                let many = recursive && values.len() > SHOWN_VALUES;
                let shown = if many { values[..SHOWN_VALUES].join(", ") + ", ...." } else { values.join(", ") };
                self.text += &format!("{indent}enum: {shown}\n");
            }
            if !recursive {
                let description = if schema.has("description") {
                    schema.text("description")
                } else {
                    self.resolve(schema).text("description")
                };
                let description = if description.is_empty() { "<no description>" } else { description };
                for line in wrapped(description, WIDTH) {
                    self.text += &format!("{indent}  {line}\n");
                }
                self.text.push('\n');
                continue;
            }
            let next = self.holder(schema);
            let place: *const Value = next;
            if !inside.contains(&place) && inside.len() < DEEPEST {
                inside.push(place);
                self.list(next, level + 1, true, inside);
                inside.pop();
            }
        }
    }
}

/// Wraps every line of a text between words; spaces stay as they are but where a line ends.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let (mut line, mut length) = (String::new(), 0);
        let mut rest = paragraph;
        while !rest.is_empty() {
            let start = rest.find(|letter: char| !letter.is_whitespace()).unwrap_or(rest.len());
            let (spaces, words) = rest.split_at(start);
            let (word, after) = words.split_at(words.find(char::is_whitespace).unwrap_or(words.len()));
            let (gap, long) = (spaces.chars().count(), word.chars().count());
            if length + gap + long <= width || length + gap == 0 {
                line += spaces;
                length += gap;
            } else {
                lines.push(std::mem::take(&mut line));
                length = 0;
            }
            line += word;
            length += long;
            rest = after;
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped(" - one two\n\nabcdefghij k", 6), [" - one", "two", "", "abcdefghij", "k"]);
    }
}
