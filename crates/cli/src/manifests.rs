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
        match text(bytes) {
            Ok(text) => {
                let (found, error) = parse(&source, &text);
                manifests.extend(found);
                errors.extend(error);
            }
            Err(why) => errors.push(Error::told(format!("error parsing {source}: {why}"))),
        }
    }
    Ok((manifests, errors))
}

/// The text in a file: UTF-8, or UTF-16 with a mark in front, as editors of Windows write it (`FileVisitor` of cli-runtime takes both).
pub fn text(bytes: Vec<u8>) -> std::result::Result<String, String> {
    let read: fn([u8; 2]) -> u16 = match bytes.as_slice() {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => {
            let wrong = |error: std::string::FromUtf8Error| {
                let line =
                    1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|it| **it == b'\n').count();
                format!("line {line} is not text in UTF-8")
            };
            return String::from_utf8(bytes).map_err(wrong);
        }
    };
    let units = bytes[2..].chunks(2).map(|pair| read([pair[0], pair.get(1).copied().unwrap_or_default()]));
    String::from_utf16(&units.collect::<Vec<u16>>()).map_err(|_| "it is not text in UTF-16".to_owned())
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
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        for object in items(document) {
            if !object.is_object() {
                let error = format!(
                    "error validating {source:?}: error validating data: invalid object to validate; if you choose to ignore these errors, turn validation off with --validate=false"
                );
                return (manifests, Some(Error::told(error).hinted("an object starts with apiVersion and kind")));
            }
            manifests.push(manifest(object));
        }
    }
    (manifests, error)
}

/// The items of a list, or the document itself. Those of a `PodList` need not say that they are Pods.
fn items(mut document: Value) -> Vec<Value> {
    let kind = document.text("kind").to_owned();
    let Some(kind) = kind.strip_suffix("List").filter(|_| document["items"].is_array()) else { return vec![document] };
    let mut items = objects::items(&mut document);
    for item in items.iter_mut().filter(|item| !kind.is_empty() && item.is_object() && !item.has("kind")) {
        item["kind"] = kind.into();
        item["apiVersion"] = document["apiVersion"].clone();
    }
    items
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
    // What is no JSON may still be YAML: keys without quotes, a comma before the end.
    let as_json = text.trim_start().starts_with('{').then(|| json(text));
    if let Some(Ok(values)) = as_json {
        return (values, None);
    }
    let mut values = Vec::new();
    for document in yaml::documents(text) {
        match document {
            Ok(value) => values.push(value),
            Err(error) => {
                let why = match as_json {
                    Some(Err(why)) if values.is_empty() => why,
                    _ => format!("error converting YAML to JSON: yaml: {error}"),
                };
                return (values, Some(Error::told(format!("error parsing {source}: {why}"))));
            }
        }
    }
    (values, None)
}

/// Every value of a text in JSON, or what is wrong with it.
fn json(text: &str) -> std::result::Result<Vec<Value>, String> {
    let told =
        |error: serde_json::Error| if error.is_eof() { "unexpected EOF".into() } else { format!("json: {error}") };
    serde_json::Deserializer::from_str(text).into_iter::<Value>().collect::<serde_json::Result<_>>().map_err(told)
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

    #[test]
    fn what_is_no_json_may_be_yaml() {
        expect![[r#"
            {"kind":"A"}
            {"kind":"A"}
            error: error parsing some.yaml: json: expected `,` or `}` at line 1 column 14
            error: error parsing some.yaml: unexpected EOF
            {"kind":"A"}
            error: error parsing some.yaml: error converting YAML to JSON: yaml: did not find expected node content at line 4 column 1, while parsing a flow node"#]].assert_eq(
            &[
                r#"{"kind": "A",}"#,
                "{kind: A}",
                r#"{"kind": "A" "b": 1}"#,
                r#"{"kind": "A""#,
                "{kind: A}\n---\n{kind: ",
            ]
            .map(told)
            .join("\n"),
        );
    }

    #[test]
    fn what_is_no_object_is_told() {
        let texts =
            ["foo", "[1]", "kind: List\nitems: [{kind: A}, 5]", "apiVersion: v1\nkind: PodList\nitems: [{a: b}]"];
        expect![[r#"
            error: error validating "some.yaml": error validating data: invalid object to validate; if you choose to ignore these errors, turn validation off with --validate=false
            error: error validating "some.yaml": error validating data: invalid object to validate; if you choose to ignore these errors, turn validation off with --validate=false
            {"kind":"A"}
            error: error validating "some.yaml": error validating data: invalid object to validate; if you choose to ignore these errors, turn validation off with --validate=false
            {"a":"b","apiVersion":"v1","kind":"Pod"}"#]].assert_eq(&texts.map(told).join("\n"));
    }

    #[test]
    fn text_in_utf_16_is_text() {
        let utf_16 = |swap: fn(u16) -> [u8; 2]| "\u{feff}a: ö😀".encode_utf16().flat_map(swap).collect::<Vec<u8>>();
        let files =
            [utf_16(u16::to_le_bytes), utf_16(u16::to_be_bytes), b"a:\n- \xff".to_vec(), b"\xff\xfe\0\xd8".to_vec()];
        let told = |bytes: Vec<u8>| text(bytes).unwrap_or_else(|why| format!("wrong: {why}"));
        expect![[r#"
            a: ö😀
            a: ö😀
            wrong: line 2 is not text in UTF-8
            wrong: it is not text in UTF-16"#]]
        .assert_eq(&files.map(told).join("\n"));
    }
}
