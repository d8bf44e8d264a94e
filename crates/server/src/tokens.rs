//! Tokens of ServiceAccounts: signed statements of who asks, for whom, until when.
//!
//! Mirrors upstream's `pkg/serviceaccount/claims.go` (what a token says) and `jwt.go` (how it is signed). Whether what it
//! says still holds is asked in [`crate::authenticate`].

use std::collections::BTreeMap;

use api::Refusal;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PublicKeyData};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Who issues tokens, and for whom they are if nobody says otherwise.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Seconds that a token says it lives that does not run out: more than anybody can ask for.
pub const FOR_GOOD_SECONDS: i64 = 1 << 33;

/// What is said of the issuer to who checks tokens without asking us (OpenID Connect Discovery).
pub fn issuer() -> Value {
    json!({
        "issuer": ISSUER,
        "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

/// The key that tokens are signed with, and its public half.
pub struct TokenKeys {
    signing: EncodingKey,
    checking: DecodingKey,
    /// What tokens call the key.
    id: String,
    /// The point on the curve: 4, and two coordinates.
    point: Vec<u8>,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// For whom it is.
    pub aud: Vec<String>,
    /// Until when, in seconds since the epoch.
    pub exp: i64,
    /// Since when.
    pub iat: i64,
    /// By whom.
    pub iss: String,
    /// Its own id.
    pub jti: String,
    /// Whose it is.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
    /// Not before.
    pub nbf: i64,
    /// The user it stands for.
    pub sub: String,
}

/// The account of a token, and what it lives and dies with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Namespace of all of them.
    pub namespace: String,
    /// The node of the pod, or the object itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Named>,
    /// The pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Named>,
    /// The secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Named>,
    /// The account.
    pub serviceaccount: Named,
}

/// An object by name and uid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Name.
    pub name: String,
    /// Uid: another object of the same name is not meant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

impl TokenKeys {
    /// Signs and checks with this key.
    pub fn of(pair: &KeyPair) -> TokenKeys {
        TokenKeys {
            signing: EncodingKey::from_ec_der(&pair.serialize_der()),
            checking: DecodingKey::from_ec_der(pair.public_key_raw()),
            id: URL_SAFE_NO_PAD.encode(Sha256::digest(pair.subject_public_key_info())),
            point: pair.public_key_raw().to_vec(),
        }
    }

    /// The key that others check tokens with, as a set of JSON Web Keys (upstream: `pkg/serviceaccount/openidmetadata.go`).
    pub fn public(&self) -> Value {
        let (x, y) = self.point[1..].split_at(self.point.len() / 2);
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let key = json!({
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256", "x": text(x), "y": text(y),
        });
        json!({ "keys": [key] })
    }

    /// The token that says this.
    pub fn sign(&self, claims: &Claims) -> Result<String, Refusal> {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.signing).map_err(Refusal::internal)
    }

    /// What a token says, if it is ours, is valid now and is for one of these audiences.
    pub fn check(&self, token: &str, audiences: &[String]) -> Result<Claims, String> {
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(audiences);
        rules.set_issuer(&[ISSUER]);
        rules.validate_nbf = true;
        rules.leeway = 0;
        let checked = jsonwebtoken::decode::<Claims>(token, &self.checking, &rules);
        checked.map(|token| token.claims).map_err(|error| error.to_string())
    }
}

impl Claims {
    /// True for a token that counts while it stands in its Secret.
    pub fn is_for_good(&self) -> bool {
        self.exp - self.iat == FOR_GOOD_SECONDS
    }

    /// What is told of a user beside name and groups.
    pub fn extra(&self) -> BTreeMap<String, Vec<String>> {
        let mut extra = BTreeMap::new();
        let mut tell = |name: &str, value: String| {
            extra.insert(format!("authentication.kubernetes.io/{name}"), vec![value]);
        };
        tell("credential-id", format!("JTI={}", self.jti));
        if let Some(pod) = &self.kubernetes.pod {
            tell("pod-name", pod.name.clone());
            tell("pod-uid", pod.uid.clone());
        }
        if let Some(node) = &self.kubernetes.node {
            tell("node-name", node.name.clone());
            tell("node-uid", node.uid.clone());
        }
        extra
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(now: i64) -> Claims {
        Claims {
            aud: vec![ISSUER.into()],
            exp: now + 600,
            iat: now,
            iss: ISSUER.into(),
            jti: "j".into(),
            kubernetes: Bound {
                namespace: "default".into(),
                node: None,
                pod: Some(Named { name: "p".into(), uid: "u".into() }),
                secret: None,
                serviceaccount: Named { name: "default".into(), uid: "s".into() },
            },
            nbf: now,
            sub: "system:serviceaccount:default:default".into(),
        }
    }

    #[test]
    fn only_our_own_valid_tokens_count() {
        let (keys, others) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let (keys, others) = (TokenKeys::of(&keys), TokenKeys::of(&others));
        let now = jiff::Timestamp::now().as_second();
        let ours = [ISSUER.to_owned()];
        let good = claims(now);
        assert_eq!(keys.check(&keys.sign(&good).unwrap(), &ours), Ok(good.clone()));
        let check = |claims: &Claims| keys.check(&keys.sign(claims).unwrap(), &ours).unwrap_err();
        assert_eq!(check(&Claims { exp: now - 1, ..good.clone() }), "ExpiredSignature");
        assert_eq!(check(&Claims { nbf: now + 60, ..good.clone() }), "ImmatureSignature");
        assert_eq!(check(&Claims { iss: "me".into(), ..good.clone() }), "InvalidIssuer");
        assert_eq!(check(&Claims { aud: vec!["vault".into()], ..good.clone() }), "InvalidAudience");
        assert_eq!(others.check(&keys.sign(&good).unwrap(), &ours).unwrap_err(), "InvalidSignature");
        assert!(keys.check("a.b.c", &ours).is_err() && keys.check("", &ours).is_err());
    }

    #[test]
    fn others_check_tokens_with_what_is_published() {
        let keys = TokenKeys::of(&KeyPair::generate().unwrap());
        let token = keys.sign(&claims(jiff::Timestamp::now().as_second())).unwrap();
        let published = keys.public()["keys"][0].clone();
        let part = |name: &str| published[name].as_str().unwrap().to_owned();
        assert_eq!(jsonwebtoken::decode_header(&token).unwrap().kid, Some(part("kid")));
        let key = DecodingKey::from_ec_components(&part("x"), &part("y")).unwrap();
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(&[ISSUER]);
        assert!(jsonwebtoken::decode::<Claims>(&token, &key, &rules).is_ok());
    }
}
