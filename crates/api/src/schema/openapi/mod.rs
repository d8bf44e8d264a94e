//! The OpenAPI documents that clients ask the server for: `kubectl explain`, `apply` and `edit` read merge keys and descriptions
//! from them, and which query parameters a PATCH takes.
//!
//! Version 3 is one JSON document a group version (mirrors kube-openapi `pkg/handler3`); version 2 is one protobuf document for all,
//! for clients older than 1.27. Built when first asked for, kept gzipped. Nothing here serves HTTP.

mod definitions;
mod gnostic;
mod paths;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::sync::{LazyLock, OnceLock};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::kinds::KindInfo;
use crate::versions;

/// The version the documents say they describe.
const VERSION: &str = "v1.36.1";

/// How a document words its schemas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// Swagger 2.0.
    V2,
    /// OpenAPI 3.0.
    V3,
}

/// A finished document.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its bytes, gzipped: send them as they are with `Content-Encoding: gzip`.
    pub gzip: Bytes,
    /// Changes when the content does; made for `ETag`.
    pub hash: String,
}

impl Document {
    fn new(plain: &[u8]) -> Document {
        let mut hasher = DefaultHasher::new();
        plain.hash(&mut hasher);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).expect("writing to memory");
        let gzip = Bytes::from(encoder.finish().expect("writing to memory"));
        Document { gzip, hash: format!("{:016X}", hasher.finish()) }
    }

    /// The bytes for a client that does not take gzip.
    pub fn plain(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        GzDecoder::new(&*self.gzip).read_to_end(&mut plain).expect("reading what was gzipped here");
        plain
    }
}

/// Group versions (`apps/v1`, `v1`) of the served kinds, each with its document once it was asked for.
static DOCUMENTS: LazyLock<BTreeMap<String, OnceLock<Document>>> =
    LazyLock::new(|| versions::rows().map(|info| (info.api_version(), OnceLock::new())).collect());

/// `/openapi/v3`: where the documents are.
pub fn openapi_v3_index() -> Value {
    let paths = DOCUMENTS.keys().filter_map(|api_version| {
        let path = path_of(api_version);
        let hash = &openapi_v3(api_version)?.hash;
        let url = format!("/openapi/v3/{path}?hash={hash}");
        Some((path, json!({ "serverRelativeURL": url })))
    });
    json!({ "paths": paths.collect::<serde_json::Map<_, _>>() })
}

/// `api/v1` or `apis/GROUP/VERSION`: the place of a group version below `/openapi/v3/`.
fn path_of(api_version: &str) -> String {
    if api_version.contains('/') { format!("apis/{api_version}") } else { format!("api/{api_version}") }
}

/// `/openapi/v3/api/v1`, `/openapi/v3/apis/apps/v1`: the JSON document of a group version (`v1`, `apps/v1`).
pub fn openapi_v3(api_version: &str) -> Option<&'static Document> {
    let place = DOCUMENTS.get(api_version)?;
    Some(place.get_or_init(|| {
        let rows: Vec<&KindInfo> = versions::rows().filter(|info| info.api_version() == api_version).collect();
        let document = json!({
            "openapi": "3.0.0",
            "info": { "title": "Kubernetes", "version": VERSION },
            "paths": paths::v3(&rows),
            "components": { "schemas": definitions::of_rows(&rows, Dialect::V3) },
        });
        Document::new(document.to_string().as_bytes())
    }))
}

/// `/openapi/v2` for `Accept: application/com.github.proto-openapi.spec.v2@v1.0+protobuf`; the answer's `Content-Type` is
/// [`V2_MEDIA_TYPE`].
pub fn openapi_v2_protobuf() -> &'static Document {
    static DOCUMENT: OnceLock<Document> = OnceLock::new();
    DOCUMENT.get_or_init(|| Document::new(&gnostic::encode(&v2())))
}

/// The `Content-Type` of the version 2 document; Go cannot parse the form with `@` that clients send.
pub const V2_MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `/openapi/v2` as JSON.
pub fn openapi_v2_json() -> &'static Document {
    static DOCUMENT: OnceLock<Document> = OnceLock::new();
    DOCUMENT.get_or_init(|| Document::new(v2().to_string().as_bytes()))
}

fn v2() -> Value {
    let rows: Vec<&KindInfo> = versions::rows().collect();
    json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": VERSION },
        "paths": paths::v2(&rows),
        "definitions": definitions::of_rows(&rows, Dialect::V2),
    })
}

#[cfg(test)]
mod tests;
