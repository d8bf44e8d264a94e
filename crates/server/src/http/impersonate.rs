//! `kubectl --as`: a request made for somebody else, with that user's rights and no others.
//!
//! Upstream: `apiserver/pkg/endpoints/filters/impersonation.go`. The right to impersonate is not given by rules here:
//! members of `system:masters` have it.

use api::Refusal;
use http::HeaderMap;

use crate::authorize::User;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
/// Prefix of every header of this kind; those not named above are refused rather than ignored.
const PREFIX: &str = "impersonate-";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Whose rights count for a request of `user`.
pub fn acting(user: User, headers: &HeaderMap) -> Result<User, Refusal> {
    let asked: Vec<&str> =
        headers.keys().map(http::HeaderName::as_str).filter(|name| name.starts_with(PREFIX)).collect();
    if let Some(other) = asked.iter().find(|name| **name != USER && **name != GROUP) {
        return Err(Refusal::bad_request(format!("the header {other} is not supported")));
    }
    if asked.is_empty() {
        return Ok(user);
    }
    let name = values(headers, USER).next().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Refusal::bad_request("requested groups without impersonating a user"))?;
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
    Ok(User { name: name.to_owned(), groups, ..User::default() })
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
        assert_eq!(
            act(User::system(), &[(USER, "jane"), ("impersonate-uid", "7")]),
            Err("400 the header impersonate-uid is not supported".into())
        );
    }
}
