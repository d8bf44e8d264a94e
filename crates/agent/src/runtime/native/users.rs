//! Who a container runs as: numbers, and names from the image's own `/etc/passwd` and `/etc/group`. Pure.
//!
//! Mirrors containerd's `WithUser` and `WithAdditionalGIDs` (`pkg/oci/spec_opts.go`).

use crate::runtime::{RuntimeError, Security};

/// What an image knows about users.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// Text of `/etc/passwd`.
    pub passwd: String,
    /// Text of `/etc/group`.
    pub group: String,
}

/// A user, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups: the pod's, then those the image lists the user in.
    pub groups: Vec<u32>,
    /// Home folder.
    pub home: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Accounts {
    fn users(&self) -> impl Iterator<Item = Account<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, uid, gid) = (fields.next()?, fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            Some(Account { name, uid, gid, home: fields.nth(1).unwrap_or("/") })
        })
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, gid) = (fields.next()?, fields.nth(1)?.parse().ok()?);
            Some((name, gid, fields.next().unwrap_or("")))
        })
    }
}

/// Resolves the user of a container from its security context and the image's `USER`.
///
/// `implicit_groups`: also take the groups the image lists the user in; false where the node cannot set any.
pub fn resolve(
    security: &Security,
    image_user: &str,
    accounts: &Accounts,
    implicit_groups: bool,
) -> Result<Identity, RuntimeError> {
    let (user, group) = image_user.split_once(':').map_or((image_user, None), |(user, group)| (user, Some(group)));
    let (account, uid) = match security.run_as_user {
        Some(uid) => {
            let uid = number("runAsUser", uid)?;
            (accounts.users().find(|account| account.uid == uid), uid)
        }
        None => find_user(accounts, if user.is_empty() { "0" } else { user })?,
    };
    refuse_root(security, user, uid)?;
    let gid = match (security.run_as_group, security.run_as_user, group) {
        (Some(gid), ..) => number("runAsGroup", gid)?,
        (None, None, Some(group)) if !group.is_empty() => find_group(accounts, group)?,
        _ => account.as_ref().map_or(0, |account| account.gid),
    };
    let mut groups = security
        .supplemental_groups
        .iter()
        .map(|gid| number("supplementalGroups", *gid))
        .collect::<Result<Vec<u32>, _>>()?;
    if let (true, Some(account)) = (implicit_groups, &account) {
        let member = |members: &str| members.split(',').any(|name| name == account.name);
        groups.extend(accounts.groups().filter(|(_, _, members)| member(members)).map(|(_, gid, _)| gid));
    }
    let mut known = std::collections::BTreeSet::from([gid]);
    groups.retain(|gid| known.insert(*gid));
    Ok(Identity { uid, gid, groups, home: account.map_or("/", |account| account.home).to_owned() })
}

fn find_user<'a>(accounts: &'a Accounts, user: &str) -> Result<(Option<Account<'a>>, u32), RuntimeError> {
    let named = accounts.users().find(|account| account.name == user);
    match (named, user.parse::<u32>()) {
        (Some(account), _) => {
            let uid = account.uid;
            Ok((Some(account), uid))
        }
        (None, Ok(uid)) => Ok((accounts.users().find(|account| account.uid == uid), uid)),
        (None, Err(_)) => Err(RuntimeError::ContainerConfig(format!(
            "unable to find user {user}: no matching entries in passwd file"
        ))),
    }
}

fn find_group(accounts: &Accounts, group: &str) -> Result<u32, RuntimeError> {
    let named = accounts.groups().find(|(name, ..)| *name == group).map(|(_, gid, _)| gid);
    let missing =
        || RuntimeError::ContainerConfig(format!("unable to find group {group}: no matching entries in group file"));
    named.or_else(|| group.parse().ok()).ok_or_else(missing)
}

/// The kubelet's check (`verifyRunAsNonRoot`), in its words.
fn refuse_root(security: &Security, image_user: &str, uid: u32) -> Result<(), RuntimeError> {
    if !security.run_as_non_root {
        return Ok(());
    }
    let refused = |why: String| Err(RuntimeError::ContainerConfig(why));
    match security.run_as_user {
        Some(0) => refused("container's runAsUser breaks non-root policy".into()),
        Some(_) => Ok(()),
        None if uid == 0 => refused("container has runAsNonRoot and image will run as root".into()),
        None if image_user.parse::<u32>().is_err() => refused(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root"
        )),
        None => Ok(()),
    }
}

fn number(field: &str, id: i64) -> Result<u32, RuntimeError> {
    u32::try_from(id).map_err(|_| RuntimeError::ContainerConfig(format!("{field} {id} is not an id")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:Web:/var/www:/bin/false\nbroken\n".into(),
            group: "root:x:0:\nweb:x:102:\nlog:x:7:web,other\nweb2:x:102:web\n".into(),
        }
    }

    fn id(security: Security, user: &str) -> Result<Identity, String> {
        resolve(&security, user, &accounts(), true).map_err(|e| e.to_string())
    }

    fn identity(uid: u32, gid: u32, groups: &[u32], home: &str) -> Result<Identity, String> {
        Ok(Identity { uid, gid, groups: groups.to_vec(), home: home.into() })
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(id(Security::default(), ""), identity(0, 0, &[], "/root"));
        assert_eq!(id(Security::default(), "web"), identity(101, 102, &[7], "/var/www"));
        assert_eq!(id(Security::default(), "101"), identity(101, 102, &[7], "/var/www"));
        assert_eq!(id(Security::default(), "web:log"), identity(101, 7, &[102], "/var/www"));
        assert_eq!(id(Security::default(), "5000:6000"), identity(5000, 6000, &[], "/"));
        assert_eq!(
            id(Security::default(), "nobody").unwrap_err(),
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert!(id(Security::default(), "web:nogroup").is_err());
    }

    #[test]
    fn the_pod_overrides_the_image() {
        let security = Security {
            run_as_user: Some(2000),
            run_as_group: Some(3000),
            supplemental_groups: vec![4000, 3000],
            ..Security::default()
        };
        assert_eq!(id(security, "web:log"), identity(2000, 3000, &[4000], "/"));
        assert_eq!(id(Security { run_as_user: Some(2000), ..Security::default() }, "web"), identity(2000, 0, &[], "/"));
        assert!(id(Security { run_as_user: Some(-1), ..Security::default() }, "").is_err());
    }

    #[test]
    fn non_root_is_checked() {
        let strict = || Security { run_as_non_root: true, ..Security::default() };
        assert!(id(strict(), "").is_err());
        assert!(id(strict(), "web").unwrap_err().contains("non-numeric user (web)"));
        assert!(id(strict(), "101").is_ok());
        assert!(id(Security { run_as_user: Some(0), ..strict() }, "101").is_err());
    }
}
