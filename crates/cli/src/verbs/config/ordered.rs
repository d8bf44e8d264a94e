//! A kubeconfig as JSON, its members in the order in which client-go `tools/clientcmd/api/v1/types.go` declares them.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// Every member that has a place; the others follow by name. Those of programs come before `apiVersion`, which they have too.
const ORDER: [&str; 12] = [
    "command",
    "args",
    "env",
    "kind",
    "apiVersion",
    "preferences",
    "name",
    "clusters",
    "cluster",
    "users",
    "user",
    "contexts",
];
const SERVER_AND_NAMES: [&str; 7] = [
    "server",
    "tls-server-name",
    "insecure-skip-tls-verify",
    "client-certificate",
    "client-certificate-data",
    "client-key",
    "client-key-data",
];

/// A value of a kubeconfig.
pub(super) struct Ordered<'a>(pub &'a Value);

fn place(name: &str) -> usize {
    let mut all = ORDER.iter().chain(&SERVER_AND_NAMES);
    all.position(|known| *known == name).unwrap_or(usize::MAX)
}

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(map) => {
                let mut members: Vec<(&String, &Value)> = map.iter().collect();
                members.sort_by_key(|(name, _)| place(name));
                let mut object = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    object.serialize_entry(name, &Ordered(value))?;
                }
                object.end()
            }
            Value::Array(items) => serializer.collect_seq(items.iter().map(Ordered)),
            other => other.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_as_declared() {
        let config = json!({
            "apiVersion": "v1", "clusters": [{"cluster": {"certificate-authority": "f", "server": "s"}, "name": "c"}],
            "contexts": [{"context": {"cluster": "c", "namespace": "n", "user": "u"}, "name": "x"}], "current-context": "x",
            "kind": "Config", "preferences": {}, "users": null,
        });
        expect_test::expect![[r#"{"kind":"Config","apiVersion":"v1","preferences":{},"clusters":[{"name":"c","cluster":{"server":"s","certificate-authority":"f"}}],"users":null,"contexts":[{"name":"x","context":{"cluster":"c","user":"u","namespace":"n"}}],"current-context":"x"}"#]]
            .assert_eq(&serde_json::to_string(&Ordered(&config)).unwrap());
    }
}
