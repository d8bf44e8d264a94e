//! A refused request, as Kubernetes says it: code, reason, message, details. Becomes the `Status` body of the answer.
//!
//! Wording follows upstream's `apimachinery/pkg/api/errors`, because clients print it and branch on `reason`.

use serde_json::{Value, json};

use crate::kinds::KindInfo;
use crate::object::{Key, Kind};

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, such as `NotFound`.
    pub reason: &'static str,
    /// The sentence a person reads.
    pub message: String,
    /// Group of the resource concerned.
    pub group: &'static str,
    /// Resource (or kind, for `Invalid`) concerned, empty if none.
    pub kind: String,
    /// Name of the object concerned, empty if none.
    pub name: String,
    /// Uid of the object concerned, empty if unknown.
    pub uid: String,
    /// Single problems.
    pub causes: Vec<Cause>,
    /// Seconds after which to try again.
    pub retry_after_seconds: Option<u32>,
    /// `metadata.continue` of an expired list.
    pub continue_token: Option<String>,
}

/// One problem among several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable reason, such as `FieldValueInvalid`.
    pub reason: String,
    /// The sentence.
    pub message: String,
    /// Path of the field, empty if none.
    pub field: String,
}

impl Refusal {
    /// A refusal about no object in particular.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Refusal {
        Refusal {
            code,
            reason,
            message: message.into(),
            group: "",
            kind: String::new(),
            name: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: None,
            continue_token: None,
        }
    }

    fn about(self, kind: Kind, name: &str) -> Refusal {
        self.about_resource(kind.info(), name)
    }

    fn about_resource(mut self, info: &'static KindInfo, name: &str) -> Refusal {
        self.group = info.group;
        self.kind = info.plural.to_owned();
        self.name = name.to_owned();
        self
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal::new(400, "BadRequest", message)
    }

    /// 401: nobody knows who asks.
    pub fn unauthorized() -> Refusal {
        Refusal::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403 for an action on a kind; `why` ends the sentence.
    pub fn forbidden(kind: Kind, name: &str, why: impl std::fmt::Display) -> Refusal {
        Refusal::forbidden_resource(kind.info(), name, why)
    }

    /// As [`Refusal::forbidden`], of what is served but not stored.
    pub fn forbidden_resource(info: &'static KindInfo, name: &str, why: impl std::fmt::Display) -> Refusal {
        let resource = info.resource();
        let message = if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} \"{name}\" is forbidden: {why}")
        };
        Refusal::new(403, "Forbidden", message).about_resource(info, name)
    }

    /// 404: no such object.
    pub fn not_found(kind: Kind, name: &str) -> Refusal {
        let message = format!("{} \"{name}\" not found", kind.info().resource());
        Refusal::new(404, "NotFound", message).about(kind, name)
    }

    /// 404: no such path.
    pub fn no_such_path() -> Refusal {
        Refusal::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 405: the path does not know the verb.
    pub fn method_not_allowed() -> Refusal {
        Refusal::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 409: the name is taken.
    pub fn already_exists(kind: Kind, name: &str) -> Refusal {
        let message = format!("{} \"{name}\" already exists", kind.info().resource());
        Refusal::new(409, "AlreadyExists", message).about(kind, name)
    }

    /// 409: what was decided on is no longer so.
    pub fn conflict(kind: Kind, name: &str, why: impl std::fmt::Display) -> Refusal {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.info().resource());
        Refusal::new(409, "Conflict", message).about(kind, name)
    }

    /// 409: the object was changed since it was read.
    pub fn modified(kind: Kind, name: &str) -> Refusal {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Refusal::conflict(kind, name, why)
    }

    /// 410: the resource version is older than what is kept.
    pub fn expired(message: impl Into<String>) -> Refusal {
        Refusal::new(410, "Expired", message)
    }

    /// 422: fields are wrong. One cause a field; `Deployment.apps "web" is invalid: …`.
    pub fn invalid(kind: Kind, name: &str, causes: Vec<Cause>) -> Refusal {
        let texts: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let list = if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) };
        let message = format!("{} \"{name}\" is invalid: {list}", kind.info().qualified_kind());
        let mut refusal = Refusal::new(422, "Invalid", message).about(kind, name);
        refusal.kind = kind.info().kind.to_owned();
        refusal.causes = causes;
        refusal
    }

    /// 413: the body is larger than is taken.
    pub fn too_large(limit_bytes: usize) -> Refusal {
        let message = format!("Request entity too large: limit is {limit_bytes}");
        Refusal::new(413, "RequestEntityTooLarge", message)
    }

    /// 415: the body's media type is not read here.
    pub fn unsupported_media_type(message: impl Into<String>) -> Refusal {
        Refusal::new(415, "UnsupportedMediaType", message)
    }

    /// 429: too much at once.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Refusal {
        let mut refusal = Refusal::new(429, "TooManyRequests", message);
        refusal.retry_after_seconds = Some(retry_after_seconds);
        refusal
    }

    /// 500: our own fault.
    pub fn internal(message: impl std::fmt::Display) -> Refusal {
        Refusal::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// 503: not now.
    pub fn unavailable(message: impl Into<String>) -> Refusal {
        Refusal::new(503, "ServiceUnavailable", message)
    }

    /// The `Status` object.
    pub fn to_value(&self) -> Value {
        let mut details = serde_json::Map::new();
        for (field, text) in [("name", &*self.name), ("group", self.group), ("kind", &*self.kind), ("uid", &*self.uid)]
        {
            if !text.is_empty() {
                details.insert(field.into(), text.into());
            }
        }
        if !self.causes.is_empty() {
            details.insert("causes".into(), self.causes.iter().map(Cause::to_value).collect());
        }
        if let Some(seconds) = self.retry_after_seconds {
            details.insert("retryAfterSeconds".into(), seconds.into());
        }
        let metadata = self.continue_token.as_ref().map_or_else(|| json!({}), |token| json!({ "continue": token }));
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata,
            "status": "Failure", "message": self.message, "reason": self.reason, "code": self.code,
        });
        // A path that is not known has empty ones: kubectl looks into them.
        if !details.is_empty() || self.code == 404 {
            status["details"] = Value::Object(details);
        }
        status
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        let mut cause = json!({ "reason": self.reason, "message": self.message });
        if !self.field.is_empty() {
            cause["field"] = self.field.as_str().into();
        }
        cause
    }
}

/// The `Status` of what was made but is no object, such as a binding.
pub fn created() -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 })
}

/// The `Status` of a deletion that is done.
pub fn deleted(key: &Key, uid: &str) -> Value {
    let info = key.kind.info();
    let mut details = json!({ "name": key.name, "kind": info.plural, "uid": uid });
    if !info.group.is_empty() {
        details["group"] = info.group.into();
    }
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}
