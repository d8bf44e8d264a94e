//! Fills Secrets of the type `kubernetes.io/service-account-token`: with a token of the account that they name, and with
//! what it takes to use it. A Secret whose account is not there, or not any more, is deleted.
//!
//! Beside the turns, because a decision has no key to sign with. Mirrors upstream's
//! `pkg/controller/serviceaccount/tokens_controller.go`. Such a token does not run out: it counts while it stands in its
//! Secret ([`crate::authenticate`]).

use std::time::Duration;

use api::{Key, Kind, Refusal, Snapshot, Typed};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use tokio::sync::watch;

use crate::door::{DeleteOptions, Ids, Part, Requester};
use crate::http::Gate;
use crate::tokens::{Bound, Claims, FOR_GOOD_SECONDS, ISSUER, Named, TokenKeys};
use crate::turn::Action;
use crate::writer;

/// The type of the Secrets that are filled.
pub const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";
/// The annotations that name the account of a Secret, and its uid.
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// The keys of such a Secret.
pub const TOKEN: &str = "token";
const NAMESPACE: &str = "namespace";
const ROOT_CA: &str = "ca.crt";
/// Where the certificate of the cluster's authority is kept.
const ROOT_CA_HOME: (&str, &str) = ("kube-system", "kube-root-ca.crt");
/// Upstream's name of who fills them.
const FILLER: &str = "system:serviceaccount:kube-system:tokens-controller";

/// Pause after what the server had no time for. What it refused waits for a change.
const RETRY: Duration = Duration::from_secs(1);

/// Fills Secrets until the server stops.
pub async fn keep_filling(gate: Gate, mut stopping: watch::Receiver<bool>) {
    let mut secrets = gate.published.follow(Kind::Secret);
    let mut accounts = gate.published.follow(Kind::ServiceAccount);
    loop {
        drop((secrets.borrow_and_update(), accounts.borrow_and_update()));
        let world = gate.published.snapshot();
        let all: Vec<Due> = world.list::<Secret>(None).filter_map(|secret| due(secret, &world)).collect();
        let mut again = false;
        for due in all {
            if let Err(refusal) = carry_out(&gate, due).await {
                tracing::debug!(refusal.message, "a Secret for a token was not brought up to date");
                again |= refusal.code == 429 || refusal.code >= 500;
            }
        }
        let ended = tokio::select! {
            changed = secrets.changed() => changed.is_err(),
            changed = accounts.changed() => changed.is_err(),
            () = tokio::time::sleep(RETRY), if again => false,
            _ = stopping.wait_for(|stopping| *stopping) => true,
        };
        if ended {
            return;
        }
    }
}

/// What is to be done about a Secret.
#[derive(Debug, PartialEq)]
enum Due {
    /// To be written; if an account is given, with a token of it.
    Fill(Box<Secret>, Option<Named>),
    /// To be deleted: this one, of this uid.
    Delete(Key, String),
}

/// What is to be done about a Secret that is for a token, if anything is.
fn due(secret: &Secret, world: &Snapshot) -> Option<Due> {
    let meta = &secret.metadata;
    if secret.type_.as_deref() != Some(TOKEN_TYPE) || meta.deletion_timestamp.is_some() {
        return None;
    }
    let annotation = |name: &str| meta.annotations.as_ref()?.get(name).map(String::as_str);
    let (namespace, uid) = (meta.namespace.as_deref()?, annotation(ACCOUNT_UID).unwrap_or(""));
    let account = world.get::<ServiceAccount>(namespace, annotation(ACCOUNT_NAME)?);
    let account = account.filter(|account| uid.is_empty() || account.metadata.uid.as_deref() == Some(uid));
    let Some(account) = account else {
        let key = Key::new(Kind::Secret, namespace, meta.name.clone()?);
        return Some(Due::Delete(key, meta.uid.clone()?));
    };
    let named = Named { name: account.metadata.name.clone()?, uid: account.metadata.uid.clone()? };
    let root_ca = world.get::<ConfigMap>(ROOT_CA_HOME.0, ROOT_CA_HOME.1);
    let root_ca = root_ca.and_then(|map| map.data.as_ref()?.get(ROOT_CA));
    let is_empty =
        |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).is_none_or(|value| value.0.is_empty());
    let mut right = secret.clone();
    let data = right.data.get_or_insert_default();
    if let Some(root_ca) = root_ca {
        data.insert(ROOT_CA.into(), ByteString(root_ca.as_bytes().to_vec()));
    }
    if is_empty(NAMESPACE) {
        data.insert(NAMESPACE.into(), ByteString(namespace.as_bytes().to_vec()));
    }
    if right == *secret && !is_empty(TOKEN) {
        return None;
    }
    right.metadata.annotations.get_or_insert_default().insert(ACCOUNT_UID.into(), named.uid.clone());
    Some(Due::Fill(Box::new(right), is_empty(TOKEN).then_some(named)))
}

async fn carry_out(gate: &Gate, due: Due) -> Result<(), Refusal> {
    let action = match due {
        Due::Delete(key, uid) => Action::Delete(key, DeleteOptions { uid: Some(uid), ..DeleteOptions::default() }),
        Due::Fill(mut secret, account) => {
            if let Some(account) = account {
                let token = sign(&gate.authenticator.keys, &secret, account, writer::clock())?;
                secret.data.get_or_insert_default().insert(TOKEN.into(), ByteString(token.into_bytes()));
            }
            let meta = &secret.metadata;
            let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
            // Written on the version that was looked at: whoever was quicker brings us back here.
            Action::Update(Key::new(Kind::Secret, namespace, name), Part::Main, secret.into_body())
        }
    };
    gate.submit(action, Requester::new(FILLER, "kapstan"), false).await.map(drop)
}

/// A token of the account that is bound to the Secret.
fn sign(keys: &TokenKeys, secret: &Secret, account: Named, now: Timestamp) -> Result<String, Refusal> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let meta = &secret.metadata;
    let (namespace, since) = (text(&meta.namespace), now.as_second());
    keys.sign(&Claims {
        aud: vec![ISSUER.to_owned()],
        exp: since + FOR_GOOD_SECONDS,
        iat: since,
        iss: ISSUER.to_owned(),
        jti: Ids::from_os().uid(),
        nbf: since,
        sub: format!("system:serviceaccount:{namespace}:{}", account.name),
        kubernetes: Bound {
            namespace,
            node: None,
            pod: None,
            secret: Some(Named { name: text(&meta.name), uid: text(&meta.uid) }),
            serviceaccount: account,
        },
    })
}

#[cfg(test)]
mod tests {
    use api::Object;
    use expect_test::expect;
    use rcgen::KeyPair;
    use serde_json::{Value, json};

    use super::*;
    use crate::authenticate::still_holds;

    fn world(objects: &[(Kind, Value)]) -> Snapshot {
        let mut world = Snapshot::default();
        for (kind, value) in objects {
            world.put(Object::written(kind.decode(value.clone()).unwrap(), world.revision() + 1));
        }
        world
    }

    fn account(uid: &str) -> (Kind, Value) {
        (Kind::ServiceAccount, json!({ "metadata": { "namespace": "n", "name": "bot", "uid": uid } }))
    }

    fn root_ca() -> (Kind, Value) {
        let meta = json!({ "namespace": "kube-system", "name": "kube-root-ca.crt" });
        (Kind::ConfigMap, json!({ "metadata": meta, "data": { "ca.crt": "PEM" } }))
    }

    fn secret(kind: &str, uid: Option<&str>, data: Value) -> Value {
        let mut annotations = json!({ "kubernetes.io/service-account.name": "bot" });
        if let Some(uid) = uid {
            annotations["kubernetes.io/service-account.uid"] = uid.into();
        }
        json!({ "metadata": { "namespace": "n", "name": "s", "uid": "s1", "annotations": annotations }, "type": kind, "data": data })
    }

    fn told(due: Option<Due>) -> String {
        match due {
            None => "nothing".into(),
            Some(Due::Delete(key, uid)) => format!("delete {key} {uid}"),
            Some(Due::Fill(secret, account)) => {
                let data = secret.data.into_iter().flatten();
                let data: Vec<String> =
                    data.map(|(key, value)| format!("{key}={}", String::from_utf8(value.0).unwrap())).collect();
                let uid = secret.metadata.annotations.unwrap().remove(ACCOUNT_UID);
                let token = account.map_or("", |_| " and a token");
                format!("fill in {}{token}, of account {}", data.join(" "), uid.unwrap())
            }
        }
    }

    /// Upstream: the Secrets of TestTokenCreation.
    #[test]
    fn secrets_for_tokens_are_filled_and_go_with_their_account() {
        let full = json!({ "token": "dA==", "ca.crt": "UEVN", "namespace": "bg==" });
        let without = |key: &str| {
            let mut data = full.clone();
            data.as_object_mut().unwrap().remove(key);
            data
        };
        let there = [account("a1"), root_ca()];
        let (both, only_account, no_account) = (&there[..], &there[..1], &there[1..]);
        let mut table = String::new();
        for (what, there, secret) in [
            ("new", both, secret(TOKEN_TYPE, None, Value::Null)),
            ("new, of this account", both, secret(TOKEN_TYPE, Some("a1"), Value::Null)),
            ("full", both, secret(TOKEN_TYPE, Some("a1"), full.clone())),
            ("without token", both, secret(TOKEN_TYPE, Some("a1"), without("token"))),
            ("without certificate", both, secret(TOKEN_TYPE, Some("a1"), without("ca.crt"))),
            ("without namespace", both, secret(TOKEN_TYPE, Some("a1"), without("namespace"))),
            ("no certificate is known", only_account, secret(TOKEN_TYPE, Some("a1"), without("ca.crt"))),
            ("of another account", both, secret(TOKEN_TYPE, Some("a0"), full.clone())),
            ("no account is there", no_account, secret(TOKEN_TYPE, None, Value::Null)),
            ("of another type", no_account, secret("Opaque", None, Value::Null)),
        ] {
            let Ok(secret) = serde_json::from_value(secret) else { unreachable!() };
            table += &format!("{what}: {}\n", told(due(&secret, &world(there))));
        }
        expect![[r#"
            new: fill in ca.crt=PEM namespace=n and a token, of account a1
            new, of this account: fill in ca.crt=PEM namespace=n and a token, of account a1
            full: nothing
            without token: fill in ca.crt=PEM namespace=n and a token, of account a1
            without certificate: fill in ca.crt=PEM namespace=n token=t, of account a1
            without namespace: fill in ca.crt=PEM namespace=n token=t, of account a1
            no certificate is known: nothing
            of another account: delete Secret n/s s1
            no account is there: delete Secret n/s s1
            of another type: nothing
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn a_token_counts_while_it_stands_in_its_secret() {
        let keys = TokenKeys::of(&KeyPair::generate().unwrap());
        let now = Timestamp::now();
        let empty: Secret = serde_json::from_value(secret(TOKEN_TYPE, None, Value::Null)).unwrap();
        let bot = Named { name: "bot".into(), uid: "a1".into() };
        let token = sign(&keys, &empty, bot, now).unwrap();
        let claims = keys.check(&token, &[ISSUER.to_owned()]).unwrap();
        assert_eq!(claims.sub, "system:serviceaccount:n:bot");
        let holds = |data: Option<&str>, uid: &str| {
            let data = data.map(|token| json!({ "token": ByteString(token.as_bytes().to_vec()) }));
            let there = [account(uid), (Kind::Secret, secret(TOKEN_TYPE, None, data.unwrap_or_default()))];
            still_holds(&claims, &token, &world(&there), now)
        };
        assert_eq!(holds(Some(token.as_str()), "a1"), Ok(()));
        assert_eq!(holds(Some("another"), "a1"), Err("the token is not the one in Secret s any more".into()));
        assert_eq!(holds(None, "a1"), Err("the token is not the one in Secret s any more".into()));
        assert_eq!(
            holds(Some(token.as_str()), "a2"),
            Err("ServiceAccount bot of the token is not there any more".into())
        );
    }
}
