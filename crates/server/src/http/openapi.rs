//! temporary
use super::reply;
use api::Refusal;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode};
pub fn v2() -> Result<Response, Refusal> {
    let media = HeaderValue::from_static("application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    Ok(reply::with_type(StatusCode::OK, media, Body::empty()))
}
pub fn v3_index() -> Response {
    reply::refusal(&Refusal::no_such_path())
}
pub fn v3(_path: &str, _headers: &HeaderMap) -> Result<Response, Refusal> {
    Err(Refusal::no_such_path())
}
