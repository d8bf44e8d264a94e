//! Answers.

use api::Refusal;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use serde_json::Value;

/// The media type of nearly everything.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// 200 with a JSON value.
pub fn json(value: &Value) -> Response {
    bytes(StatusCode::OK, Bytes::from(value.to_string()))
}

/// JSON bytes as they are.
pub fn bytes(code: StatusCode, body: Bytes) -> Response {
    with_type(code, JSON, Body::from(body))
}

/// Plain text.
pub fn text(text: &str) -> Response {
    with_type(StatusCode::OK, HeaderValue::from_static("text/plain; charset=utf-8"), Body::from(text.to_owned()))
}

/// Any body with its media type.
pub fn with_type(code: StatusCode, media: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

/// A refusal as a `Status`.
pub fn refusal(refusal: &Refusal) -> Response {
    let code = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = bytes(code, Bytes::from(refusal.to_value().to_string()));
    if let Some(seconds) = refusal.retry_after_seconds {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Adds `Warning: 299` headers.
pub fn warn(response: &mut Response, warnings: &[String]) {
    for warning in warnings {
        let text = format!("299 - \"{}\"", warning.replace('\\', "\\\\").replace('"', "\\\""));
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
