//! `/openapi/v2` and `/openapi/v3`: what `kubectl explain`, `apply` and `edit` read first.
//!
//! The documents are made by `api::schema::openapi`, once, when first asked for. Mirrors kube-openapi `pkg/handler` and `pkg/handler3`: an
//! answer to a URL that names the document's hash may be kept for ever, any other is checked again by its `ETag`.

use api::Refusal;
use api::schema::openapi::{
    Document, V2_MEDIA_TYPE, openapi_v2_json, openapi_v2_protobuf, openapi_v3, openapi_v3_index,
};
use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::query::Query;
use super::reply;

const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const CHECK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache, private");

/// The version 2 document: protobuf for the clients that name it, else JSON.
pub async fn v2(headers: &HeaderMap) -> Result<Response, Refusal> {
    let protobuf = header(headers, ACCEPT).contains("com.github.proto-openapi.spec.v2");
    let (make, media): (fn() -> &'static Document, _) = if protobuf {
        (openapi_v2_protobuf, HeaderValue::from_static(V2_MEDIA_TYPE))
    } else {
        (openapi_v2_json, reply::JSON)
    };
    answer(aside(make).await?, media, "", headers)
}

/// Where the version 3 documents are.
pub async fn v3_index() -> Result<Response, Refusal> {
    Ok(reply::json(&aside(openapi_v3_index).await?))
}

/// The version 3 document of `api/v1` or `apis/GROUP/VERSION`.
pub async fn v3(path: &str, query: &Query, headers: &HeaderMap) -> Result<Response, Refusal> {
    let api_version = match path.split_once('/') {
        Some(("api", version)) if !version.contains('/') => version,
        Some(("apis", group_version)) => group_version,
        _ => return Err(Refusal::no_such_path()),
    }
    .to_owned();
    let document = aside(move || openapi_v3(&api_version)).await?.ok_or_else(Refusal::no_such_path)?;
    answer(document, reply::JSON, query.text("hash"), headers)
}

/// Making a document takes milliseconds, which other requests should not wait for.
async fn aside<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(make).await.map_err(Refusal::internal)
}

fn answer(document: &Document, media: HeaderValue, hash: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let tag = format!("\"{}\"", document.hash);
    let mut response = if header(headers, IF_NONE_MATCH) == tag {
        let mut unchanged = Response::new(Body::empty());
        *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
        unchanged
    } else if header(headers, ACCEPT_ENCODING).contains("gzip") {
        let mut packed = reply::with_type(StatusCode::OK, media, Body::from(document.gzip.clone()));
        packed.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        packed
    } else {
        reply::with_type(StatusCode::OK, media, Body::from(document.plain()))
    };
    let caching = if hash == document.hash { FOR_EVER } else { CHECK_AGAIN };
    response.headers_mut().insert(CACHE_CONTROL, caching);
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    response.headers_mut().insert(ETAG, HeaderValue::from_str(&tag).map_err(Refusal::internal)?);
    Ok(response)
}

fn header(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[tokio::test]
    async fn a_named_hash_may_be_kept_and_a_known_tag_is_not_sent_again() {
        let hash = openapi_v3("apps/v1").unwrap().hash.clone();
        let query = Query::parse(Some(&format!("hash={hash}")));
        let first = v3("apis/apps/v1", &query, &headers(&[(ACCEPT_ENCODING, "gzip")])).await.unwrap();
        assert_eq!(first.headers()[CACHE_CONTROL], FOR_EVER);
        assert_eq!(first.headers()[CONTENT_ENCODING], "gzip");
        let tag = first.headers()[ETAG].to_str().unwrap().to_owned();
        let again = v3("apis/apps/v1", &Query::default(), &headers(&[(IF_NONE_MATCH, &tag)])).await.unwrap();
        assert_eq!((again.status(), &again.headers()[CACHE_CONTROL]), (StatusCode::NOT_MODIFIED, &CHECK_AGAIN));
        assert!(v3("apis/nothing/v1", &Query::default(), &HeaderMap::new()).await.is_err());
    }

    #[tokio::test]
    async fn old_clients_get_protobuf() {
        let asked = headers(&[(ACCEPT, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")]);
        let response = v2(&asked).await.unwrap();
        assert_eq!(response.headers()[http::header::CONTENT_TYPE], V2_MEDIA_TYPE);
        let response = v2(&HeaderMap::new()).await.unwrap();
        assert_eq!(response.headers()[http::header::CONTENT_TYPE], reply::JSON);
    }
}
