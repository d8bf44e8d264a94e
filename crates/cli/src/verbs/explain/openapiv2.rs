//! The layout that `explain` had before kubectl 1.27, by `--output=plaintext-openapiv2`: all types are `Object` there.
//! Mirrors kubectl `pkg/explain` (model_printer.go, fields_printer.go, typename.go, formatter.go).

use serde_json::Value;

use super::{DEEPEST, Explainer};
use crate::discovery::Resource;
use crate::errors::Result;
use crate::json::Json;

/// Lines end here.
const WIDTH: usize = 80;
/// What stands before a field, and before a description.
const FIELD: usize = 3;
const DESCRIPTION: usize = 5;

impl<'a> Explainer<'a> {
    pub(super) fn explain_as_before(
        &mut self,
        resource: &Resource,
        schema: &'a Value,
        fields: &[String],
        recursive: bool,
    ) -> Result<()> {
        let (owner, field) = self.find(schema, fields)?;
        self.text = format!("KIND:     {}\nVERSION:  {}\n\n", resource.kind, resource.api_version());
        let holder = self.holder(owner);
        let has_fields = !holder.map("properties").is_empty();
        if let Some(name) = field {
            let what = if has_fields { "RESOURCE:" } else { "FIELD:   " };
            self.text += &format!("{what} {name} <{}>\n\n", self.plain_type(owner));
        }
        self.text += "DESCRIPTION:\n";
        let descriptions: Vec<&str> = self.descriptions(owner).into_iter().filter(|text| !text.is_empty()).collect();
        for (index, text) in descriptions.iter().enumerate() {
            self.text += if index == 0 { "" } else { "\n" };
            self.paragraphs(text);
        }
        if descriptions.is_empty() {
            self.paragraphs("<empty>");
        }
        if has_fields {
            self.text += "\nFIELDS:\n";
            self.plain_list(holder, FIELD, recursive, &mut Vec::new());
        }
        Ok(())
    }

    /// What is said of a field, of its type, and of the type of its items.
    fn descriptions(&self, schema: &'a Value) -> Vec<&'a str> {
        let mut texts = Vec::new();
        let mut here = schema;
        for _ in 0..DEEPEST {
            let resolved = self.resolve(here);
            texts.push(here.text("description"));
            if !std::ptr::eq(resolved, here) {
                texts.push(resolved.text("description"));
            }
            if resolved.has("items") {
                here = resolved.at("items");
            } else if resolved["additionalProperties"].is_object() {
                here = &resolved["additionalProperties"];
            } else {
                break;
            }
        }
        texts
    }

    fn plain_type(&self, schema: &'a Value) -> String {
        let schema = self.resolve(schema);
        if schema.has("items") {
            return format!("[]{}", self.plain_type(schema.at("items")));
        }
        if schema["additionalProperties"].is_object() {
            return format!("map[string]{}", self.plain_type(&schema["additionalProperties"]));
        }
        match schema.text("type") {
            "" if schema.has("oneOf") || schema.flag("x-kubernetes-int-or-string") => "string".into(),
            "object" if schema.map("properties").is_empty() => "map[string]".into(),
            "" | "object" => "Object".into(),
            name => name.to_owned(),
        }
    }

    fn plain_list(&mut self, holder: &'a Value, indent: usize, recursive: bool, inside: &mut Vec<*const Value>) {
        for (name, schema) in holder.map("properties") {
            let required = !recursive && holder.list("required").iter().any(|one| one.as_str() == Some(name));
            let mark = if required { " -required-" } else { "" };
            self.text += &format!("{:indent$}{name}\t<{}>{mark}\n", "", self.plain_type(schema));
            if !recursive {
                let own = schema.text("description");
                self.paragraphs(if own.is_empty() { self.resolve(schema).text("description") } else { own });
                self.text.push('\n');
                continue;
            }
            let next = self.holder(schema);
            let place: *const Value = next;
            if !inside.contains(&place) && inside.len() < DEEPEST {
                inside.push(place);
                self.plain_list(next, indent + FIELD, true, inside);
                inside.pop();
            }
        }
    }

    fn paragraphs(&mut self, text: &str) {
        for line in filled(text, WIDTH - DESCRIPTION) {
            match line.is_empty() {
                true => self.text.push('\n'),
                false => self.text += &format!("{:DESCRIPTION$}{line}\n", ""),
            }
        }
    }
}

/// Fills lines with words. Lines of the text are joined but for empty ones, for code, for items of lists and after a colon.
fn filled(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    let mut last = "";
    for source in text.split('\n') {
        let is_code = source.starts_with("    ");
        let is_gap = source.trim().is_empty() && !(lines.is_empty() && line.is_empty());
        if is_code || is_gap || last.ends_with(':') || is_item(source.trim()) {
            lines.extend((!line.is_empty()).then(|| std::mem::take(&mut line)));
            last = "";
        }
        if is_code || is_gap {
            lines.push(if is_code { source.to_owned() } else { String::new() });
            continue;
        }
        for word in source.split_whitespace() {
            last = word;
            if !line.is_empty() && width < line.chars().count() + 1 + word.chars().count() {
                lines.push(std::mem::take(&mut line));
            }
            line += if line.is_empty() { "" } else { " " };
            line += word;
        }
    }
    lines.extend((!line.is_empty()).then_some(line));
    lines
}

/// `- one`, `* one`, `1. one`.
fn is_item(line: &str) -> bool {
    let Some((mark, _)) = line.split_once(char::is_whitespace) else { return false };
    let number = mark.strip_suffix('.').unwrap_or(mark);
    matches!(mark, "-" | "*") || !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filled_lines() {
        let text = "one two\nthree\n\nfour:\nfive\n- six\n- seven eight nine\n    as  it is\nten";
        expect_test::expect![[r#"
            one two|three||four:|five|- six|- seven|eight nine|    as  it is|ten"#]]
        .assert_eq(&filled(text, 10).join("|"));
    }
}
