//! Objects from files: YAML (many documents), JSON, folders, standard input.
//!
//! Mirrors cli-runtime `pkg/resource/visitor.go`. What URLs name is fetched by `web.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::errors::{Error, Result};
use crate::json::Json;
use crate::session::Session;
use crate::{objects, web, yaml};

/// The largest manifest that is read.
const LARGEST_BYTES: u64 = 64 << 20;

/// An object and where it was read.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The file's path, or `STDIN`.
    pub source: String,
    /// The object as it was written.
    pub object: Value,
}

/// Reads the files that `-f` names. What cannot be read is told beside what can: one bad file does not hold up the others
/// (`ContinueOnError` of cli-runtime's builder).
pub async fn read(session: &mut Session, names: &[String], recursive: bool) -> Result<(Vec<Manifest>, Vec<Error>)> {
    let mut texts = Vec::new();
    for name in names {
        if name == "-" {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut std::io::Read::take(&mut session.io.stdin, LARGEST_BYTES), &mut bytes)?;
            texts.push(("STDIN".to_owned(), bytes));
        } else if web::is_url(name) {
            let most = usize::try_from(LARGEST_BYTES).unwrap_or(usize::MAX);
            texts.push((name.clone(), web::read(name, most).await?.into_bytes()));
        } else {
            let path = Path::new(name);
            if !path.exists() {
                return Err(Error::told(format!("the path {name:?} does not exist")));
            }
            for file in files(path, recursive, true)? {
                // Of what is in the folder `.` only the name is told.
                let shown = file.strip_prefix(".").unwrap_or(&file).display().to_string();
                texts.push((shown, fs::read(&file)?));
            }
        }
    }
    let (mut manifests, mut errors) = (Vec::new(), Vec::new());
    for (source, bytes) in texts {
        match String::from_utf8(bytes) {
            Ok(text) => {
                let (found, error) = parse(&source, &text);
                manifests.extend(found);
                errors.extend(error);
            }
            Err(_) => errors.push(Error::told(format!("error parsing {source}: it is not text in UTF-8"))),
        }
    }
    Ok((manifests, errors))
}

fn files(path: &Path, recursive: bool, named: bool) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        let fits = path.extension().is_some_and(|end| end == "json" || end == "yaml" || end == "yml");
        return Ok(if named || fits { vec![path.to_owned()] } else { Vec::new() });
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        if !entry.is_dir() || recursive {
            found.extend(files(&entry, recursive, false)?);
        }
    }
    if named && found.is_empty() {
        return Err(Error::told(format!(
            "error reading [{}]: recognized file extensions are [.json .yaml .yml]",
            path.display()
        )));
    }
    Ok(found)
}

/// Understands a text of YAML or JSON documents up to the first that is wrong; lists become their items.
fn parse(source: &str, text: &str) -> (Vec<Manifest>, Option<Error>) {
    let manifest = |object| Manifest { source: source.to_owned(), object };
    let (documents, error) = up_to_the_first_wrong(source, text);
    let mut manifests = Vec::new();
    for mut document in documents.into_iter().filter(|document| !document.is_null()) {
        if !document.is_object() {
            let message = "json: cannot unmarshal ".to_owned()
                + kind_of(&document)
                + " into Go value of type unstructured.detector";
            let error = Error::told(format!("error validating {source:?}: error validating data: {message}"));
            return (manifests, Some(error));
        }
        match document.text("kind").ends_with("List") && document["items"].is_array() {
            true => manifests.extend(objects::items(&mut document).into_iter().map(manifest)),
            false => manifests.push(manifest(document)),
        }
    }
    (manifests, error)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        _ => "number",
    }
}

/// Every document of a text.
pub fn documents(source: &str, text: &str) -> Result<Vec<Value>> {
    match up_to_the_first_wrong(source, text) {
        (documents, None) => Ok(documents),
        (_, Some(error)) => Err(error),
    }
}

fn up_to_the_first_wrong(source: &str, text: &str) -> (Vec<Value>, Option<Error>) {
    // Editors of Windows write a mark in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') {
        let stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        if let Ok(values) = stream.collect::<std::result::Result<Vec<Value>, _>>() {
            return (values, None);
        }
    }
    let mut values = Vec::new();
    for document in yaml::documents(text) {
        match document {
            Ok(value) => values.push(value),
            Err(error) => {
                let error = format!("error parsing {source}: error converting YAML to JSON: yaml: {error}");
                return (values, Some(Error::told(error)));
            }
        }
    }
    (values, None)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn told(text: &str) -> String {
        let (manifests, error) = parse("some.yaml", text);
        let mut lines: Vec<String> = manifests.iter().map(|manifest| manifest.object.to_string()).collect();
        lines.extend(error.map(|error| error.message()));
        lines.join("\n")
    }

    #[test]
    fn what_stands_before_a_wrong_document_is_read() {
        expect![[r#"
            {"items":1,"kind":"A"}
            {"kind":"B"}
            {"kind":"B"}
            error: error parsing some.yaml: error converting YAML to JSON: yaml: did not find expected node content at line 7 column 1, while parsing a flow node"#]]
        .assert_eq(&told(
            "{kind: A, items: 1}\n---\nkind: BList\nitems: [{kind: B}, {kind: B}]\n---\nx: [\n---\nkind: C\n",
        ));
    }

    #[test]
    fn a_mark_of_the_byte_order_is_no_text() {
        expect![[r#"
            {"kind":"A"}
            {"kind":"A"}"#]]
        .assert_eq(&[told("\u{feff}kind: A\n"), told("\u{feff}{\"kind\": \"A\"}")].join("\n"));
    }
}
