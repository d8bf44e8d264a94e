//! `-o custom-columns=NAME:.metadata.name,…`.
//!
//! Mirrors kubectl `pkg/cmd/get/customcolumn.go`.

use serde_json::Value;

use crate::errors::{Error, Result};
use crate::print::jsonpath::{Template, printed};
use crate::print::tabwriter::{GET, align};

/// Headers and paths.
#[derive(Debug)]
pub struct Columns {
    columns: Vec<(String, Template)>,
    /// Print the line of headers.
    pub headers: bool,
}

impl Columns {
    /// Understands `HEADER:PATH,HEADER:PATH`.
    pub fn parse(text: &str) -> Result<Columns> {
        let mut columns = Vec::new();
        for part in text.split(',') {
            let Some((header, path)) = part.split_once(':') else {
                return Err(Error::told(format!(
                    "unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"
                )));
            };
            columns.push((header.to_owned(), Template::field(path)?));
        }
        Ok(Columns { columns, headers: true })
    }

    /// Understands a file: a line of headers, a line of paths.
    pub fn parse_file(text: &str) -> Result<Columns> {
        let mut lines = text.lines();
        let mut line = |what: &str| {
            let missing = || {
                Error::told(format!(
                    "invalid template, missing {what} line. Expected format is one line of space separated headers, one line of space separated column specs."
                ))
            };
            lines.next().map(|line| line.split_whitespace().collect::<Vec<&str>>()).ok_or_else(missing)
        };
        let (headers, paths) = (line("header")?, line("spec")?);
        if headers.len() != paths.len() {
            return Err(Error::told(format!(
                "number of headers ({}) and field specifications ({}) don't match",
                headers.len(),
                paths.len()
            )));
        }
        let columns = headers.into_iter().zip(paths);
        let columns =
            columns.map(|(header, path)| Ok((header.to_owned(), Template::field(path)?))).collect::<Result<_>>()?;
        Ok(Columns { columns, headers: true })
    }

    /// The table of some objects.
    pub fn table(&self, objects: &[Value]) -> String {
        let mut text = String::new();
        let headers: Vec<&str> = self.columns.iter().map(|(header, _)| header.as_str()).collect();
        if self.headers {
            text.push_str(&(headers.join("\t") + "\n"));
        }
        for object in objects {
            let cells: Vec<String> = self
                .columns
                .iter()
                .map(|(_, path)| {
                    let values = path.values(object).unwrap_or_default();
                    if values.is_empty() {
                        "<none>".into()
                    } else {
                        values.iter().map(cell).collect::<Vec<_>>().join(",")
                    }
                })
                .collect();
            text.push_str(&(cells.join("\t") + "\n"));
        }
        align(&text, GET)
    }
}

/// Lists and maps are printed as Go prints them.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "<none>".into(),
        Value::Array(_) | Value::Object(_) => go_text(value),
        other => printed(other),
    }
}

/// `fmt.Sprint` of a value: `map[a:1 b:[x y]]`.
pub fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let members: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect();
            format!("map[{}]", members.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let told = |text: &str| {
            Columns::parse_file(text).map_or_else(
                |error| error.inner_message().split('.').next().unwrap_or_default().to_owned(),
                |columns| columns.table(&[serde_json::json!({"a": 1})]),
            )
        };
        assert_eq!(told(""), "invalid template, missing header line");
        assert_eq!(told("A B\n"), "invalid template, missing spec line");
        assert_eq!(told("A B\n.a\n"), "number of headers (2) and field specifications (1) don't match");
        assert_eq!(told("A  B\n.a .b\n"), "A     B\n1     <none>\n");
    }
}
