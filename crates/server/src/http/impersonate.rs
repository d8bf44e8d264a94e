//! `kubectl --as`: a request made for somebody else, with that user's rights and no others.
//!
//! Upstream: `apiserver/pkg/endpoints/filters/impersonation.go`. The right to impersonate is not given by rules here:
//! members of `system:masters` have it.

use std::collections::BTreeMap;

use api::Refusal;
use http::HeaderMap;

use crate::authorize::User;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
/// What follows names what else is known of the user.
const EXTRA: &str = "impersonate-extra-";
/// Prefix of every header of this kind; those not named above are refused rather than ignored.
const PREFIX: &str = "impersonate-";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Whose rights count for a request of `user`.
pub fn acting(user: User, headers: &HeaderMap) -> Result<User, Refusal> {
    let asked: Vec<&str> =
        headers.keys().map(http::HeaderName::as_str).filter(|name| name.starts_with(PREFIX)).collect();
    let known = |name: &str| [USER, GROUP, UID].contains(&name) || name.starts_with(EXTRA);
    if let Some(other) = asked.iter().find(|name| !known(name)) {
        return Err(Refusal::bad_request(format!("the header {other} is not supported")));
    }
    if asked.is_empty() {
        return Ok(user);
    }
    let name = values(headers, USER).next().filter(|name| !name.is_empty());
    let name = name
        .ok_or_else(|| Refusal::bad_request(format!("requested {} without impersonating a user", without(&asked))))?;
    if !user.is_master() {
        return Err(Refusal::new(
            403,
            "Forbidden",
            format!(
                "users \"{name}\" is forbidden: User \"{}\" cannot impersonate resource \"users\" in API group \"\" at \
                 the cluster scope",
                user.name
            ),
        ));
    }
    let mut groups: Vec<String> = values(headers, GROUP).map(str::to_owned).collect();
    if let (true, Some((namespace, _))) =
        (groups.is_empty(), name.strip_prefix(SERVICE_ACCOUNT).and_then(|account| account.split_once(':')))
    {
        groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    groups.push(if name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" }.into());
    let uid = values(headers, UID).next().unwrap_or_default().to_owned();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for key in asked.iter().filter(|name| name.starts_with(EXTRA)) {
        extra.entry(unescaped(&key[EXTRA.len()..])).or_default().extend(values(headers, key).map(str::to_owned));
    }
    Ok(User { name: name.to_owned(), uid, groups, extra })
}

/// What was asked for without a user, in upstream's words.
fn without(asked: &[&str]) -> &'static str {
    match () {
        () if asked.contains(&GROUP) => "groups",
        () if asked.contains(&UID) => "uid",
        () => "userExtra",
    }
}

/// A key as it was before it became part of a header's name (upstream: `unescapeExtraKey`); as it is if it was not made so.
fn unescaped(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |digit: u8| char::from(digit).to_digit(16);
                let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return key.to_owned() };
                ((high * 16 + low) as u8, after)
            }
            (b'%', _) => return key.to_owned(),
            (byte, after) => (byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(user: User, headers: &[(&'static str, &'static str)]) -> Result<User, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, http::HeaderValue::from_static(value));
        }
        acting(user, &map).map_err(|refusal| format!("{} {}", refusal.code, refusal.message))
    }

    fn user(name: &str, groups: &[&str]) -> User {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        User { name: name.into(), groups, ..User::default() }
    }

    #[test]
    fn the_administrator_acts_as_anybody() {
        assert_eq!(act(User::system(), &[]), Ok(User::system()));
        assert_eq!(act(User::system(), &[(USER, "jane")]), Ok(user("jane", &["system:authenticated"])));
        assert_eq!(
            act(User::system(), &[(USER, "jane"), (GROUP, "a"), (GROUP, "b")]),
            Ok(user("jane", &["a", "b", "system:authenticated"]))
        );
        assert_eq!(
            act(User::system(), &[(USER, "system:serviceaccount:prod:web")]),
            Ok(user(
                "system:serviceaccount:prod:web",
                &["system:serviceaccounts", "system:serviceaccounts:prod", "system:authenticated"]
            ))
        );
    }

    #[test]
    fn what_is_known_of_the_user_is_kept() {
        let headers = [
            (USER, "jane"),
            (UID, "7"),
            ("impersonate-extra-scopes", "a"),
            ("impersonate-extra-scopes", "b"),
            ("impersonate-extra-acme.com%2fproject", "x"),
            ("impersonate-extra-100%", "y"),
        ];
        let jane = act(User::system(), &headers).unwrap();
        assert_eq!(jane.uid, "7");
        let extra: Vec<String> = jane.extra.iter().map(|(key, values)| format!("{key}={values:?}")).collect();
        assert_eq!(extra, [r#"100%=["y"]"#, r#"acme.com/project=["x"]"#, r#"scopes=["a", "b"]"#]);
    }

    #[test]
    fn nobody_else_does_and_nothing_is_ignored() {
        assert_eq!(
            act(user("bob", &["system:authenticated"]), &[(USER, "jane")]),
            Err("403 users \"jane\" is forbidden: User \"bob\" cannot impersonate resource \"users\" in API group \"\" at the \
                 cluster scope"
                .into())
        );
        assert_eq!(
            act(User::system(), &[(GROUP, "a")]),
            Err("400 requested groups without impersonating a user".into())
        );
        assert_eq!(act(User::system(), &[(UID, "7")]), Err("400 requested uid without impersonating a user".into()));
        assert_eq!(
            act(User::system(), &[(USER, "jane"), ("impersonate-shoe", "7")]),
            Err("400 the header impersonate-shoe is not supported".into())
        );
    }
}
