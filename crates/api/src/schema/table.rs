//! The table of every field of every built-in kind, read once from `schema/types.txt`.
//!
//! The text is written by `xtask/schema` from Kubernetes' Go types. One line is a package (`package DEFINITION GROUP/VERSION`), a
//! type (`type NAME [kind] [atomic]`) or a field of the type above it:
//!
//! ```text
//! - NAME SHAPE PROTOBUF-NUMBER [ATTRIBUTE…]
//! - inline TYPE PROTOBUF-NUMBER
//! ```
//!
//! A shape is a leaf (`int32`, `time`, …), a type (of the same package, or with its whole definition name), `[]` or `{}` before
//! either (list, map), or `{}[]string`. Attributes are what Go tags and comments say: `required`, `omitempty`, `pointer`,
//! `patch=`, `mergekey=`, `list=`, `keys=`, `atomic`, `granular`, `default=`, `enum=`, `go=`.

use std::collections::HashMap;
use std::sync::LazyLock;

const TEXT: &str = include_str!("../../schema/types.txt");

/// A type of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(u16);

/// What a value is, apart from being in a list or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// Text.
    String,
    /// `true` or `false`.
    Bool,
    /// 32-bit integer.
    Int32,
    /// 64-bit integer.
    Int64,
    /// Floating point number.
    Double,
    /// Bytes, as base64 in JSON.
    Bytes,
    /// RFC 3339 time, whole seconds.
    Time,
    /// RFC 3339 time with microseconds.
    MicroTime,
    /// `500m`, `1Gi`.
    Quantity,
    /// A port or a percentage.
    IntOrString,
    /// An object whose fields nobody here knows.
    FieldSet,
    /// An embedded object of any kind.
    Raw,
    /// Any JSON value.
    Json,
    /// A JSON schema or a boolean.
    SchemaOrBool,
    /// A JSON schema or a list of them.
    SchemaOrArray,
    /// A JSON schema or a list of names.
    SchemaOrStrings,
    /// A struct.
    Struct(TypeId),
}

/// How a field holds its leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    /// One of them.
    One,
    /// A list.
    List,
    /// A map with text keys.
    Map,
    /// A map of lists.
    MapOfLists,
}

/// How server-side apply treats a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// As one value.
    Atomic,
    /// Items are their own identity.
    Set,
    /// Items are identified by [`Field::list_keys`].
    Map,
}

/// One field of a type.
#[derive(Clone, Debug)]
pub struct Field {
    /// JSON name.
    pub name: &'static str,
    /// List, map or single value.
    pub wrap: Wrap,
    /// What it holds.
    pub leaf: Leaf,
    /// Protobuf number within its message, 0 if it has none.
    pub number: u32,
    /// Neither optional nor left out when empty.
    pub required: bool,
    /// Go leaves it out of JSON when it is empty, zero or false.
    pub omit_empty: bool,
    /// Strategic merge patch merges this list.
    pub merge: bool,
    /// Strategic merge patch replaces this struct as a whole.
    pub replace: bool,
    /// Strategic merge patch honours `$retainKeys` here.
    pub retain_keys: bool,
    /// The field that identifies an item of a merged list, empty for lists of scalars.
    pub merge_key: &'static str,
    /// How server-side apply treats the list.
    pub list_type: Option<ListType>,
    /// Fields that identify an item of a list of [`ListType::Map`], comma separated.
    pub list_keys: &'static str,
    /// Server-side apply treats the struct or map as one value.
    pub atomic: bool,
    /// Default as JSON, empty if none is declared.
    pub default: &'static str,
    /// Allowed values, comma separated, empty if any.
    pub allowed: &'static str,
    /// Go's name of the field's type where it cannot be told from the shape.
    pub go_type: &'static str,
    /// Place in the list of descriptions.
    pub line: u32,
    /// Name of the inlined struct it came from, whose protobuf message is nested; empty for the type's own fields.
    pub inlined: &'static str,
}

/// One type.
#[derive(Clone, Debug)]
pub struct Type {
    /// Go's name, the last part of the definition name.
    pub name: &'static str,
    /// Has `apiVersion` and `kind`.
    pub is_kind: bool,
    /// Server-side apply treats it as one value.
    pub atomic: bool,
    /// Place in the list of descriptions.
    pub line: u32,
    package: u16,
    fields: Vec<Field>,
    inlines: Vec<(u32, TypeId)>,
}

#[derive(Debug)]
struct Package {
    definition: &'static str,
    api_version: &'static str,
}

/// All types.
#[derive(Debug)]
pub struct Table {
    packages: Vec<Package>,
    types: Vec<Type>,
    ids: HashMap<(u16, &'static str), TypeId>,
}

/// The table; the first call reads it (about a millisecond).
pub fn table() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| Table::read(TEXT));
    &TABLE
}

impl Table {
    fn read(text: &'static str) -> Table {
        let mut table = Table::names(text);
        table.read_fields(text);
        table.flatten_inlines();
        table
    }

    /// First pass: packages and types, so that fields can refer to any of them.
    fn names(text: &'static str) -> Table {
        let mut table = Table { packages: Vec::new(), types: Vec::new(), ids: HashMap::new() };
        let mut line_number = 0;
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "package" => {
                    let (definition, api_version) = rest.split_once(' ').unwrap_or((rest, ""));
                    table.packages.push(Package { definition, api_version });
                }
                "type" => {
                    let mut words = rest.split(' ');
                    let name = words.next().unwrap_or_default();
                    let (mut is_kind, mut atomic) = (false, false);
                    words.for_each(|word| match word {
                        "kind" => is_kind = true,
                        _ => atomic = true,
                    });
                    let package = (table.packages.len() - 1) as u16;
                    table.ids.insert((package, name), TypeId(table.types.len() as u16));
                    let line = line_number;
                    table.types.push(Type { name, is_kind, atomic, line, package, fields: vec![], inlines: vec![] });
                }
                _ => {}
            }
            line_number += u32::from(matches!(word, "type" | "-"));
        }
        table
    }

    fn read_fields(&mut self, text: &'static str) {
        let mut current = 0;
        let mut line_number = 0;
        for line in text.lines() {
            if line.starts_with("type ") {
                current += 1;
                line_number += 1;
            } else if let Some(rest) = line.strip_prefix("- ") {
                self.read_field(current - 1, rest, line_number);
                line_number += 1;
            }
        }
    }

    fn read_field(&mut self, owner: usize, line: &'static str, line_number: u32) {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default();
        let (name, shape, number) = (word(), word(), word());
        let number = number.parse().expect("xtask/schema writes numbers");
        let (wrap, leaf) = self.shape(self.types[owner].package, shape);
        if name == "inline" {
            if let Leaf::Struct(id) = leaf {
                self.types[owner].inlines.push((number, id));
            }
            return;
        }
        let mut field = Field {
            name,
            wrap,
            leaf,
            number,
            required: false,
            omit_empty: false,
            merge: false,
            replace: false,
            retain_keys: false,
            merge_key: "",
            list_type: None,
            list_keys: "",
            atomic: false,
            default: "",
            allowed: "",
            go_type: "",
            line: line_number,
            inlined: "",
        };
        words.for_each(|attribute| field.set(attribute));
        self.types[owner].fields.push(field);
    }

    fn shape(&self, package: u16, text: &'static str) -> (Wrap, Leaf) {
        let (wrap, rest) = if let Some(rest) = text.strip_prefix("{}[]") {
            (Wrap::MapOfLists, rest)
        } else if let Some(rest) = text.strip_prefix("{}") {
            (Wrap::Map, rest)
        } else if let Some(rest) = text.strip_prefix("[]") {
            (Wrap::List, rest)
        } else {
            (Wrap::One, text)
        };
        let leaf = match rest {
            "string" => Leaf::String,
            "bool" => Leaf::Bool,
            "int32" => Leaf::Int32,
            "int64" => Leaf::Int64,
            "double" => Leaf::Double,
            "bytes" => Leaf::Bytes,
            "time" => Leaf::Time,
            "microtime" => Leaf::MicroTime,
            "quantity" => Leaf::Quantity,
            "intorstring" => Leaf::IntOrString,
            "fields" => Leaf::FieldSet,
            "raw" => Leaf::Raw,
            "json" => Leaf::Json,
            "schemaorbool" => Leaf::SchemaOrBool,
            "schemaorarray" => Leaf::SchemaOrArray,
            "schemaorstrings" => Leaf::SchemaOrStrings,
            name => Leaf::Struct(self.reference(package, name).expect("xtask/schema writes every type it refers to")),
        };
        (wrap, leaf)
    }

    fn reference(&self, package: u16, name: &'static str) -> Option<TypeId> {
        if name.contains('.') { self.definition(name) } else { self.ids.get(&(package, name)).copied() }
    }

    /// Fields of inlined structs become fields of the struct they are inlined in, as in JSON.
    fn flatten_inlines(&mut self) {
        for index in 0..self.types.len() {
            let mut pending: Vec<TypeId> = self.types[index].inlines.iter().map(|(_, id)| *id).collect();
            let mut gained = Vec::new();
            while let Some(id) = pending.pop() {
                let inlined = &self.types[id.0 as usize];
                let own = inlined.fields.iter().filter(|field| field.inlined.is_empty());
                gained.extend(own.map(|field| Field { inlined: inlined.name, ..field.clone() }));
                pending.extend(inlined.inlines.iter().map(|(_, id)| *id));
            }
            self.types[index].fields.extend(gained);
            self.types[index].fields.sort_by_key(|field| field.name);
        }
    }

    /// The type with this OpenAPI definition name, such as `io.k8s.api.apps.v1.Deployment`.
    pub fn definition(&self, name: &str) -> Option<TypeId> {
        let (definition, name) = name.rsplit_once('.')?;
        let package = self.packages.iter().position(|package| package.definition == definition)?;
        self.find(package as u16, name)
    }

    fn find(&self, package: u16, name: &str) -> Option<TypeId> {
        self.ids.get(&(package, name)).copied()
    }

    /// The type of a kind; `api_version` is `apps/v1`, or `v1` for the core group.
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<TypeId> {
        let of_version = self.packages.iter().enumerate().filter(|(_, package)| package.api_version == api_version);
        of_version.filter_map(|(package, _)| self.find(package as u16, kind)).find(|id| self.get(*id).is_kind)
    }

    /// A type.
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// Every type.
    pub fn ids(&self) -> impl Iterator<Item = TypeId> + use<> {
        (0..self.types.len() as u16).map(TypeId)
    }

    /// `io.k8s.api.apps.v1.Deployment`.
    pub fn definition_name(&self, id: TypeId) -> String {
        let found = self.get(id);
        format!("{}.{}", self.packages[found.package as usize].definition, found.name)
    }

    /// `apps/v1`.
    pub fn api_version(&self, id: TypeId) -> &'static str {
        self.packages[self.get(id).package as usize].api_version
    }

    /// How Go prints the type: `v1.Deployment`.
    pub fn go_name(&self, id: TypeId) -> String {
        let found = self.get(id);
        let package = self.packages[found.package as usize].definition;
        format!("{}.{}", package.rsplit('.').next().unwrap_or_default(), found.name)
    }
}

impl Type {
    /// Fields as JSON sees them, by name.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The field with this JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let found = self.fields.binary_search_by(|field| field.name.cmp(name)).ok()?;
        Some(&self.fields[found])
    }

    /// The field with this protobuf number.
    pub fn numbered(&self, number: u32) -> Option<&Field> {
        self.fields.iter().find(|field| field.number == number && field.inlined.is_empty() && number != 0)
    }

    /// The inlined struct whose message has this protobuf number.
    pub fn inline(&self, number: u32) -> Option<TypeId> {
        self.inlines.iter().find(|(found, _)| *found == number && number != 0).map(|(_, id)| *id)
    }
}

impl Field {
    fn set(&mut self, attribute: &'static str) {
        let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        match name {
            "required" => self.required = true,
            "omitempty" => self.omit_empty = true,
            "patch" => {
                self.merge = value.split(',').any(|part| part == "merge");
                self.replace = value == "replace";
                self.retain_keys = value.split(',').any(|part| part == "retainKeys");
            }
            "mergekey" => self.merge_key = value,
            "list" => {
                self.list_type = match value {
                    "map" => Some(ListType::Map),
                    "set" => Some(ListType::Set),
                    _ => Some(ListType::Atomic),
                }
            }
            "keys" => self.list_keys = value,
            "atomic" => self.atomic = true,
            "default" => self.default = value,
            "enum" => self.allowed = value,
            "go" => self.go_type = value,
            _ => {}
        }
    }
}
