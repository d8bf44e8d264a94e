//! Objects from files: YAML (many documents), JSON, folders, standard input.
//!
//! Mirrors cli-runtime `pkg/resource/visitor.go`. What URLs name is fetched by `web.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::errors::{Error, Result};
use crate::json::Json;
use crate::session::Session;
use crate::web;

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

/// Reads the files that `-f` names.
pub async fn read(session: &mut Session, names: &[String], recursive: bool) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for name in names {
        if name == "-" {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut std::io::Read::take(&mut session.io.stdin, LARGEST_BYTES), &mut text)?;
            manifests.extend(parse("STDIN", &text)?);
            continue;
        }
        if web::is_url(name) {
            let most = usize::try_from(LARGEST_BYTES).unwrap_or(usize::MAX);
            manifests.extend(parse(name, &web::read(name, most).await?)?);
            continue;
        }
        let path = Path::new(name);
        if !path.exists() {
            return Err(Error::told(format!("the path {name:?} does not exist")));
        }
        for file in files(path, recursive, true)? {
            let text = fs::read_to_string(&file)?;
            // Of what is in the folder `.` only the name is told.
            let shown = file.strip_prefix(".").unwrap_or(&file);
            manifests.extend(parse(&shown.display().to_string(), &text)?);
        }
    }
    Ok(manifests)
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

/// Understands a text of YAML or JSON documents; lists become their items.
pub fn parse(source: &str, text: &str) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for document in documents(source, text)? {
        if document.is_null() {
            continue;
        }
        if !document.is_object() {
            let message = "json: cannot unmarshal ".to_owned()
                + kind_of(&document)
                + " into Go value of type unstructured.detector";
            return Err(Error::told(format!("error validating {source:?}: error validating data: {message}")));
        }
        let list = document.text("kind").ends_with("List") && document["items"].is_array();
        match list {
            true => manifests.extend(
                document
                    .list("items")
                    .iter()
                    .map(|object| Manifest { source: source.to_owned(), object: object.clone() }),
            ),
            false => manifests.push(Manifest { source: source.to_owned(), object: document }),
        }
    }
    Ok(manifests)
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
    let trimmed = text.trim_start();
    if trimmed.starts_with('{') {
        let stream = serde_json::Deserializer::from_str(trimmed).into_iter::<Value>();
        if let Ok(values) = stream.collect::<std::result::Result<Vec<Value>, _>>() {
            return Ok(values);
        }
    }
    let wrong = |error: serde_yaml::Error| {
        Error::told(format!("error parsing {source}: error converting YAML to JSON: yaml: {error}"))
    };
    serde_yaml::Deserializer::from_str(text).map(|document| Value::deserialize(document).map_err(wrong)).collect()
}
