//! JSON with the members in the order in which Kubernetes' Go types declare them: kubectl prints so what it makes itself, where objects
//! that it only passes on have theirs by name.

use api::schema::table::{Field, Leaf, TypeId, Wrap};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;

/// A value and what it is declared as.
pub struct Declared<'a> {
    value: &'a Value,
    wrap: Wrap,
    id: Option<TypeId>,
}

impl<'a> Declared<'a> {
    /// An object of a built-in kind; another keeps its order.
    pub fn object(value: &'a Value) -> Declared<'a> {
        Declared { value, wrap: Wrap::One, id: crate::change::type_id(value) }
    }

    fn of(value: &'a Value, field: Option<&Field>) -> Declared<'a> {
        let id = match field.map(|field| field.leaf) {
            Some(Leaf::Struct(id)) => Some(id),
            _ => None,
        };
        Declared { value, wrap: field.map_or(Wrap::One, |field| field.wrap), id }
    }
}

/// `kind` and `apiVersion`, then what is declared in place, then what a struct takes in from another.
fn order(field: &Field) -> (u8, u32) {
    let place = match field.inlined {
        "TypeMeta" => 0,
        "" => 1,
        _ => 2,
    };
    (place, field.line)
}

impl Serialize for Declared<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let table = api::schema::table();
        match (self.value, self.wrap, self.id) {
            (Value::Object(map), Wrap::One, Some(id)) => {
                let kind = table.get(id);
                let mut members: Vec<(&String, &Value, Option<&Field>)> =
                    map.iter().map(|(name, value)| (name, value, kind.field(name))).collect();
                members.sort_by_key(|(_, _, field)| field.map_or((3, 0), order));
                let mut object = serializer.serialize_map(Some(members.len()))?;
                for (name, value, field) in members {
                    object.serialize_entry(name, &Declared::of(value, field))?;
                }
                object.end()
            }
            (Value::Object(map), Wrap::Map, id) => {
                let mut object = serializer.serialize_map(Some(map.len()))?;
                for (name, value) in map {
                    object.serialize_entry(name, &Declared { value, wrap: Wrap::One, id })?;
                }
                object.end()
            }
            (Value::Array(items), _, id) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for value in items {
                    list.serialize_element(&Declared { value, wrap: Wrap::One, id })?;
                }
                list.end()
            }
            (value, _, _) => value.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_as_declared() {
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"creationTimestamp": null, "name": "i", "namespace": "n"},
            "spec": {"rules": [{"http": {"paths": [{"backend": {}, "path": "/", "pathType": "Exact"}]}, "host": "h"}]},
        });
        assert_eq!(
            serde_json::to_string(&Declared::object(&object)).unwrap(),
            r#"{"kind":"Ingress","apiVersion":"networking.k8s.io/v1","metadata":{"name":"i","namespace":"n","creationTimestamp":null},"spec":{"rules":[{"host":"h","http":{"paths":[{"path":"/","pathType":"Exact","backend":{}}]}}]}}"#
        );
    }
}
