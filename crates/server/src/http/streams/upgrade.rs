//! From a request to a connection: which way, which protocol, and the answer that makes the connection ours.
//!
//! Mirrors apimachinery's `pkg/util/httpstream/{httpstream,spdy/upgrade}.go`.

use api::Refusal;
use axum::body::Body;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Request};
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

const SPDY: &str = "SPDY/3.1";
const WEBSOCKET: &str = "websocket";
const PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// Bytes of one message of a WebSocket.
const MESSAGE_MAX: usize = 16 << 20;

/// A request for a connection whose terms are agreed on.
pub struct Upgrade {
    way: Way,
    protocol: &'static str,
}

enum Way {
    WebSocket(Box<WebSocketUpgrade>),
    Spdy(OnUpgrade),
}

/// A connection that is ours.
pub enum Carrier {
    /// A WebSocket that speaks a protocol.
    WebSocket(Box<WebSocket>, &'static str),
    /// Bytes in SPDY frames.
    Spdy(Box<TokioIo<Upgraded>>),
}

impl Upgrade {
    /// Whether a client asks for a WebSocket where it could do without.
    pub fn is_websocket(headers: &HeaderMap) -> bool {
        wants(headers, WEBSOCKET)
    }

    /// Understands a request; the first protocol that the client speaks too is agreed on.
    pub async fn agree(
        request: Request,
        over_websocket: &[&'static str],
        over_spdy: &[&'static str],
    ) -> Result<Upgrade, Refusal> {
        let (mut parts, _) = request.into_parts();
        if wants(&parts.headers, WEBSOCKET) {
            let protocol = choose(&parts.headers, &header::SEC_WEBSOCKET_PROTOCOL, over_websocket)?;
            let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
            let upgrade = upgrade.map_err(|rejection| Refusal::bad_request(rejection.body_text()))?;
            let upgrade = upgrade.protocols([protocol]).max_message_size(MESSAGE_MAX).max_frame_size(MESSAGE_MAX);
            return Ok(Upgrade { way: Way::WebSocket(Box::new(upgrade)), protocol });
        }
        if wants(&parts.headers, SPDY) {
            let protocol = choose(&parts.headers, &PROTOCOL, over_spdy)?;
            if let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() {
                return Ok(Upgrade { way: Way::Spdy(upgrade), protocol });
            }
        }
        Err(Refusal::bad_request("Upgrade request required"))
    }

    /// The protocol agreed on.
    pub fn protocol(&self) -> &'static str {
        self.protocol
    }

    /// Answers, and carries what comes then.
    pub fn accept<F: Future<Output = ()> + Send + 'static>(
        self,
        carry: impl FnOnce(Carrier) -> F + Send + 'static,
    ) -> Response {
        let protocol = self.protocol;
        match self.way {
            Way::WebSocket(upgrade) => {
                upgrade.on_upgrade(move |socket| carry(Carrier::WebSocket(Box::new(socket), protocol)))
            }
            Way::Spdy(upgrade) => {
                tokio::spawn(async move {
                    match upgrade.await {
                        Ok(upgraded) => carry(Carrier::Spdy(Box::new(TokioIo::new(upgraded)))).await,
                        Err(error) => tracing::debug!(%error, "a client left before its streams were open"),
                    }
                });
                switching(protocol)
            }
        }
    }
}

fn wants(headers: &HeaderMap, way: &str) -> bool {
    listed(headers, &header::UPGRADE).iter().any(|one| one.eq_ignore_ascii_case(way))
}

fn switching(protocol: &'static str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
    headers.insert(PROTOCOL, HeaderValue::from_static(protocol));
    response
}

/// Upstream: `httpstream.Handshake`.
fn choose(headers: &HeaderMap, name: &HeaderName, ours: &[&'static str]) -> Result<&'static str, Refusal> {
    let theirs = listed(headers, name);
    ours.iter().copied().find(|one| theirs.contains(one)).ok_or_else(|| {
        let (theirs, ours) = (theirs.join(" "), ours.join(" "));
        let why = format!("unable to negotiate protocol: client supports [{theirs}], server accepts [{ours}]");
        Refusal::new(403, "Forbidden", format!("unable to upgrade: {why}"))
    })
}

/// The values of a header that is a list, over several lines or in one.
fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|value| !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(protocols: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for protocol in protocols {
            headers.append(PROTOCOL, HeaderValue::from_static(protocol));
        }
        headers
    }

    #[test]
    fn the_best_protocol_of_both_is_chosen() {
        let ours = ["v5", "v4"];
        assert_eq!(choose(&offer(&["v1", "v4, v5"]), &PROTOCOL, &ours), Ok("v5"));
        assert_eq!(choose(&offer(&["v4"]), &PROTOCOL, &ours), Ok("v4"));
        let refusal = choose(&offer(&["v1", "v2"]), &PROTOCOL, &ours).unwrap_err();
        let why = "unable to upgrade: unable to negotiate protocol: client supports [v1 v2], server accepts [v5 v4]";
        assert_eq!((refusal.code, refusal.message.as_str()), (403, why));
    }
}
