//! Who asks, by bearer token: a ServiceAccount's, or the one that nodes join with.
//!
//! Client certificates are read in [`crate::listen`]. Mirrors upstream's `pkg/serviceaccount/claims.go: Validate` and
//! `pkg/serviceaccount/util.go: UserInfo`: a token counts for as long as what it is bound to is there.

use std::sync::Arc;

use api::{Kind, Snapshot};
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;

use crate::account_secrets::TOKEN;
use crate::authorize::User;
use crate::published::Published;
use crate::tokens::{Claims, ISSUER, Named, TokenKeys};

/// A token outlives the deletion of what it is bound to by so much.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// Knows tokens.
pub struct Authenticator {
    /// The keys that tokens are signed with.
    pub keys: TokenKeys,
    join_secret: String,
    published: Arc<Published>,
}

impl Authenticator {
    /// `join_token` is `fingerprint.secret`.
    pub fn new(keys: TokenKeys, join_token: &str, published: Arc<Published>) -> Authenticator {
        let join_secret = join_token.split_once('.').map_or("", |(_, secret)| secret).to_owned();
        Authenticator { keys, join_secret, published }
    }

    /// The user of a request with an `Authorization: Bearer` header.
    pub fn bearer(&self, headers: &HeaderMap) -> Option<User> {
        let token = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
        self.user(token, &[ISSUER.to_owned()]).ok().map(|(user, _)| user)
    }

    /// The user of a token that is for one of these audiences, and for which of them it is.
    pub fn user(&self, token: &str, audiences: &[String]) -> Result<(User, Vec<String>), String> {
        if self.is_join_secret(token) {
            let groups = vec!["system:nodes".into(), "system:authenticated".into()];
            let user = User { name: "system:nodes:joined".into(), groups, ..User::default() };
            return Ok((user, audiences.to_vec()));
        }
        let claims = self.keys.check(token, audiences)?;
        still_holds(&claims, token, &self.published.snapshot(), Timestamp::now())?;
        let fitting = audiences.iter().filter(|audience| claims.aud.contains(audience)).cloned().collect();
        Ok((user(&claims), fitting))
    }

    /// Takes as long for a wrong token as for the right one.
    fn is_join_secret(&self, token: &str) -> bool {
        let secret = &self.join_secret;
        let differs = token.bytes().zip(secret.bytes()).fold(0u8, |difference, (a, b)| difference | (a ^ b));
        token.len() == secret.len() && differs == 0 && !secret.is_empty()
    }
}

fn user(claims: &Claims) -> User {
    let bound = &claims.kubernetes;
    let groups = [
        "system:serviceaccounts".into(),
        format!("system:serviceaccounts:{}", bound.namespace),
        "system:authenticated".into(),
    ];
    User {
        name: format!("system:serviceaccount:{}:{}", bound.namespace, bound.serviceaccount.name),
        uid: bound.serviceaccount.uid.clone(),
        groups: groups.into(),
        extra: claims.extra(),
    }
}

/// The account, and what the token is bound to, are the very ones that it names, and not deleted long ago. One that does not
/// run out has to stand in its Secret.
pub fn still_holds(claims: &Claims, token: &str, world: &Snapshot, now: Timestamp) -> Result<(), String> {
    let bound = &claims.kubernetes;
    let namespace = bound.namespace.as_str();
    is_there(world, Kind::ServiceAccount, namespace, &bound.serviceaccount, now)?;
    if let Some(secret) = &bound.secret {
        is_there(world, Kind::Secret, namespace, secret, now)?;
        let kept = world.get::<Secret>(namespace, &secret.name).and_then(|it| it.data.as_ref()?.get(TOKEN));
        if claims.is_for_good() && kept.is_none_or(|kept| kept.0 != token.as_bytes()) {
            return Err(format!("the token is not the one in Secret {} any more", secret.name));
        }
    }
    match (&bound.pod, &bound.node) {
        // The node of a pod is only told.
        (Some(pod), _) => is_there(world, Kind::Pod, namespace, pod, now),
        (None, Some(node)) => is_there(world, Kind::Node, "", node, now),
        (None, None) => Ok(()),
    }
}

fn is_there(world: &Snapshot, kind: Kind, namespace: &str, named: &Named, now: Timestamp) -> Result<(), String> {
    let object = world.object(kind, namespace, &named.name);
    let object = object.filter(|object| object.uid() == named.uid);
    let object = object.ok_or_else(|| format!("{kind} {} of the token is not there any more", named.name))?;
    let deleted = object.meta().deletion_timestamp.as_ref().and_then(|time| time.0.checked_add(LEEWAY).ok());
    match deleted {
        Some(until) if until < now => Err(format!("{kind} {} of the token has been deleted", named.name)),
        _ => Ok(()),
    }
}
