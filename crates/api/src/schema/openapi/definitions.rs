//! Types of the table as OpenAPI schemas: what `components/schemas` (version 3) and `definitions` (version 2) hold.
//!
//! Mirrors kube-openapi `pkg/generators/openapi.go` and the `OpenAPISchemaType` methods of types that encode themselves.

use std::collections::BTreeSet;
use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};

use super::Dialect;
use crate::kinds::KindInfo;
use crate::schema::table::{Field, Leaf, ListType, TypeId, Wrap, table};
use crate::schema::type_of_row;

const DESCRIPTIONS: &[u8] = include_bytes!("../../../schema/descriptions.gz");

/// The body of every PATCH.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// The schemas of these kinds, their lists, their subresources, and all they refer to.
pub(super) fn of_rows(rows: &[&KindInfo], dialect: Dialect) -> Value {
    let writer = Writer { dialect, descriptions: descriptions() };
    let mut wanted = Wanted::default();
    for info in rows {
        wanted.add(type_of_row(info));
        wanted.extend(list_of(info));
        info.subresources.iter().for_each(|subresource| wanted.extend(subresource_type(subresource)));
    }
    for name in ["DeleteOptions", "Status"] {
        wanted.extend(table().kind("v1", name));
    }
    let mut schemas = Map::new();
    for id in &wanted.types {
        schemas.insert(table().definition_name(*id), writer.schema(*id));
    }
    for leaf in &wanted.leaves {
        if let Some((name, schema)) = writer.leaf_definition(*leaf) {
            schemas.insert(name.to_owned(), schema);
        }
    }
    let about = "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.";
    schemas.insert(PATCH.to_owned(), json!({ "description": about, "type": "object" }));
    Value::Object(schemas)
}

/// `DeploymentList` for `Deployment`.
pub(super) fn list_of(info: &KindInfo) -> Option<TypeId> {
    table().kind(&info.api_version(), &format!("{}List", info.kind))
}

/// What a subresource reads and writes, where it is not the kind itself.
pub(super) fn subresource_type(name: &str) -> Option<TypeId> {
    let (api_version, kind) = match name {
        "scale" => ("autoscaling/v1", "Scale"),
        "binding" => ("v1", "Binding"),
        "eviction" => ("policy/v1", "Eviction"),
        "token" => ("authentication.k8s.io/v1", "TokenRequest"),
        _ => return None,
    };
    table().kind(api_version, kind)
}

fn descriptions() -> Vec<String> {
    let mut text = String::new();
    GzDecoder::new(DESCRIPTIONS).read_to_string(&mut text).expect("xtask/schema writes gzipped text");
    let unescaped =
        |line: &str| line.split("\\\\").map(|part| part.replace("\\n", "\n")).collect::<Vec<_>>().join("\\");
    text.lines().map(unescaped).collect()
}

/// Types to write, and the leaves among their fields that have definitions of their own.
#[derive(Default)]
struct Wanted {
    types: BTreeSet<TypeId>,
    leaves: Vec<Leaf>,
}

impl Wanted {
    fn extend(&mut self, id: Option<TypeId>) {
        id.into_iter().for_each(|id| self.add(id));
    }

    fn add(&mut self, id: TypeId) {
        if !self.types.insert(id) {
            return;
        }
        for field in table().get(id).fields() {
            match field.leaf {
                Leaf::Struct(below) => self.add(below),
                leaf if !self.leaves.contains(&leaf) => self.leaves.push(leaf),
                _ => {}
            }
        }
        if table().get(id).name == "CustomResourceDefinition" {
            self.extend(table().definition("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"));
        }
    }
}

struct Writer {
    dialect: Dialect,
    descriptions: Vec<String>,
}

impl Writer {
    fn schema(&self, id: TypeId) -> Value {
        let known = table().get(id);
        let fields = known.fields();
        let mut schema = json!({ "type": "object" });
        self.describe(&mut schema, known.line);
        if !fields.is_empty() {
            let properties: Map<String, Value> =
                fields.iter().map(|field| (field.name.to_owned(), self.property(field))).collect();
            schema["properties"] = properties.into();
        }
        let required: Vec<&str> = fields.iter().filter(|field| field.required).map(|field| field.name).collect();
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        if known.is_kind {
            schema["x-kubernetes-group-version-kind"] = json!([group_version_kind(id)]);
        }
        if known.atomic {
            schema["x-kubernetes-map-type"] = "atomic".into();
        }
        schema
    }

    fn describe(&self, schema: &mut Value, line: u32) {
        if let Some(text) = self.descriptions.get(line as usize).filter(|text| !text.is_empty()) {
            schema["description"] = text.as_str().into();
        }
    }

    fn property(&self, field: &Field) -> Value {
        let mut property = match field.wrap {
            Wrap::One => self.value(field.leaf),
            Wrap::List => json!({ "type": "array", "items": self.value(field.leaf) }),
            Wrap::Map => json!({ "type": "object", "additionalProperties": self.value(field.leaf) }),
            Wrap::MapOfLists => {
                let list = json!({ "type": "array", "items": self.value(field.leaf) });
                json!({ "type": "object", "additionalProperties": list })
            }
        };
        self.describe(&mut property, field.line);
        if let Ok(default) = serde_json::from_str::<Value>(field.default) {
            property["default"] = default;
        }
        if !field.allowed.is_empty() && field.wrap == Wrap::One {
            property["enum"] = field.allowed.split(',').collect();
        }
        extend_with_strategies(&mut property, field);
        property
    }

    fn value(&self, leaf: Leaf) -> Value {
        match leaf {
            Leaf::String => json!({ "type": "string" }),
            Leaf::Bool => json!({ "type": "boolean" }),
            Leaf::Int32 => json!({ "type": "integer", "format": "int32" }),
            Leaf::Int64 => json!({ "type": "integer", "format": "int64" }),
            Leaf::Double => json!({ "type": "number", "format": "double" }),
            Leaf::Bytes => json!({ "type": "string", "format": "byte" }),
            Leaf::Struct(id) => self.reference(&table().definition_name(id)),
            other => self.leaf_definition(other).map(|(name, _)| self.reference(name)).unwrap_or_default(),
        }
    }

    /// A `$ref` may stand beside nothing else in version 3, so it is wrapped there.
    fn reference(&self, name: &str) -> Value {
        match self.dialect {
            Dialect::V2 => json!({ "$ref": format!("#/definitions/{name}") }),
            Dialect::V3 => json!({ "allOf": [{ "$ref": format!("#/components/schemas/{name}") }] }),
        }
    }

    /// Types that encode themselves, as they look in JSON.
    fn leaf_definition(&self, leaf: Leaf) -> Option<(&'static str, Value)> {
        let v3 = self.dialect == Dialect::V3;
        let time = || json!({ "type": "string", "format": "date-time" });
        Some(match leaf {
            Leaf::Time => ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", time()),
            Leaf::MicroTime => ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", time()),
            Leaf::Quantity if v3 => (
                "io.k8s.apimachinery.pkg.api.resource.Quantity",
                json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] }),
            ),
            Leaf::Quantity => ("io.k8s.apimachinery.pkg.api.resource.Quantity", json!({ "type": "string" })),
            Leaf::IntOrString if v3 => (
                "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
                json!({ "oneOf": [{ "type": "integer" }, { "type": "string" }], "format": "int-or-string" }),
            ),
            Leaf::IntOrString => (
                "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
                json!({ "type": "string", "format": "int-or-string" }),
            ),
            Leaf::FieldSet => ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", json!({ "type": "object" })),
            Leaf::Raw => ("io.k8s.apimachinery.pkg.runtime.RawExtension", json!({ "type": "object" })),
            Leaf::Json => ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", json!({})),
            Leaf::SchemaOrBool => {
                ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool", json!({}))
            }
            Leaf::SchemaOrArray => {
                ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray", json!({}))
            }
            Leaf::SchemaOrStrings => {
                ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray", json!({}))
            }
            _ => return None,
        })
    }
}

fn extend_with_strategies(property: &mut Value, field: &Field) {
    let strategies = [("merge", field.merge), ("replace", field.replace), ("retainKeys", field.retain_keys)];
    let strategies: Vec<&str> = strategies.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    if !strategies.is_empty() {
        property["x-kubernetes-patch-strategy"] = strategies.join(",").into();
    }
    if !field.merge_key.is_empty() {
        property["x-kubernetes-patch-merge-key"] = field.merge_key.into();
    }
    if let Some(list_type) = field.list_type {
        let name = match list_type {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map => "map",
        };
        property["x-kubernetes-list-type"] = name.into();
    }
    if !field.list_keys.is_empty() {
        property["x-kubernetes-list-map-keys"] = field.list_keys.split(',').collect();
    }
    if field.atomic {
        property["x-kubernetes-map-type"] = "atomic".into();
    }
}

/// `{"group": "apps", "kind": "Deployment", "version": "v1"}`.
pub(super) fn group_version_kind(id: TypeId) -> Value {
    let api_version = table().api_version(id);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    json!({ "group": group, "kind": table().get(id).name, "version": version })
}
