//! What the variables of a container stand for. Mirrors kubectl `pkg/cmd/set/env/env_resolve.go`.

use std::collections::{BTreeMap, HashMap};

use api::quantity::Amount;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::env::shown;
use crate::client::Client;
use crate::json::Json;

/// Where values are looked up: each Secret and ConfigMap is asked for once.
pub struct Source {
    client: Client,
    namespace: String,
    known: HashMap<String, Value>,
}

impl Source {
    /// Nothing is asked for yet.
    pub fn new(client: Client, namespace: String) -> Source {
        Source { client, namespace, known: HashMap::new() }
    }

    /// The lines of a container's variables, and why some values are not to be had.
    pub async fn lines(&mut self, object: &Value, container: &Value) -> (Vec<String>, Vec<String>) {
        let mut lines = Vec::new();
        let mut failures: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for variable in container.list("env") {
            let name = variable.text("name");
            if !variable.has("valueFrom") {
                lines.push(shown(variable));
                continue;
            }
            match self.value(variable.at("valueFrom"), object, container).await {
                Ok(value) => lines.push(format!("{name}={value}")),
                Err(why) => {
                    lines.push(shown(variable));
                    failures.entry(why).or_default().push(name);
                }
            }
        }
        let told = |(why, mut names): (String, Vec<&str>)| {
            names.sort_unstable();
            format!("error retrieving reference for {}: {why}", names.join(", "))
        };
        let mut failures: Vec<String> = failures.into_iter().map(told).collect();
        failures.sort();
        (lines, failures)
    }

    async fn value(&mut self, from: &Value, object: &Value, container: &Value) -> Result<String, String> {
        if from.has("secretKeyRef") {
            let (name, key) = (from.text("secretKeyRef.name"), from.text("secretKeyRef.key"));
            let secret = self.object("secrets", name).await?;
            let missing = || format!("key {key} not found in secret {name}");
            let data = secret.map("data").get(key).and_then(Value::as_str).ok_or_else(missing)?;
            let bytes = STANDARD.decode(data).map_err(|error| error.to_string())?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        } else if from.has("configMapKeyRef") {
            let (name, key) = (from.text("configMapKeyRef.name"), from.text("configMapKeyRef.key"));
            let config_map = self.object("configmaps", name).await?;
            let value = config_map.map("data").get(key).and_then(Value::as_str);
            value.map(str::to_owned).ok_or_else(|| format!("key {key} not found in config map {name}"))
        } else if from.has("fieldRef") {
            field(object, from.text("fieldRef.fieldPath"))
        } else if from.has("resourceFieldRef") {
            resource(container, from.text("resourceFieldRef.resource"), from.text("resourceFieldRef.divisor"))
        } else {
            Err("invalid valueFrom".into())
        }
    }

    async fn object(&mut self, plural: &str, name: &str) -> Result<Value, String> {
        let path = format!("/api/v1/namespaces/{}/{plural}/{}", self.namespace, crate::client::escape(name));
        if let Some(known) = self.known.get(&path) {
            return Ok(known.clone());
        }
        let found = self.client.get(&path, &[]).await.map_err(|error| error.inner_message())?;
        self.known.insert(path, found.clone());
        Ok(found)
    }
}

/// A field of the object itself, not of the pods made of it: what kubectl looks at.
fn field(object: &Value, path: &str) -> Result<String, String> {
    let metadata = object.at("metadata");
    let subscripted = path.strip_suffix("']").and_then(|path| path.split_once("['")).filter(|(map, _)| !map.is_empty());
    if let Some((map, key)) = subscripted {
        let (field, checked) = match map {
            "metadata.annotations" => ("annotations", key.to_lowercase()),
            "metadata.labels" => ("labels", key.to_owned()),
            _ => return Err(format!("fieldPath {path:?} does not support subscript")),
        };
        let wrong = api::names::qualified_name(&checked);
        return match wrong.is_empty() {
            true => Ok(metadata.map(field).get(key).and_then(Value::as_str).unwrap_or_default().to_owned()),
            false => Err(format!("invalid key subscript in {path}: {}", wrong.join(";"))),
        };
    }
    let all = |field: &str| {
        let pairs = metadata.map(field).iter().map(|(key, value)| format!("{key}={value}"));
        pairs.collect::<Vec<_>>().join("\n")
    };
    match path {
        "metadata.annotations" => Ok(all("annotations")),
        "metadata.labels" => Ok(all("labels")),
        "metadata.name" | "metadata.namespace" | "metadata.uid" => Ok(object.text(path).to_owned()),
        _ => Err(format!("unsupported fieldPath: {path}")),
    }
}

/// An amount of the container, in multiples of `divisor`, rounded up.
pub(in crate::verbs) fn resource(container: &Value, name: &str, divisor: &str) -> Result<String, String> {
    let unsupported = || format!("Unsupported container resource : {name}");
    let (list, resource) = name.split_once('.').ok_or_else(unsupported)?;
    let known = matches!(resource, "cpu" | "memory" | "ephemeral-storage") || resource.starts_with("hugepages-");
    if !known || !matches!(list, "limits" | "requests") {
        return Err(unsupported());
    }
    let amount = |text: &str| Amount::parse(text).unwrap_or_default();
    let asked = container.at("resources").map(list).get(resource).and_then(Value::as_str).unwrap_or_default();
    let divisor = Some(amount(divisor)).filter(|divisor| !divisor.is_zero()).unwrap_or(Amount::whole(1));
    let (asked, divisor) = match resource {
        "cpu" => (amount(asked).milli(), divisor.milli()),
        _ => (amount(asked).value(), divisor.value()),
    };
    Ok(asked.div_euclid(divisor).saturating_add(i64::from(asked.rem_euclid(divisor) != 0)).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_and_resources() {
        let object = json!({"metadata": {"name": "web", "labels": {"b": "2", "a": "1"}, "annotations": {"k": "v"}}});
        let container = json!({"resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}});
        let fields = ["metadata.name", "metadata.labels", "metadata.labels['a']", "metadata.annotations['k']"];
        let wrong = ["metadata.labels['-']", "spec.x['a']", "status.podIP"];
        let resources = [("limits.cpu", ""), ("limits.cpu", "1m"), ("limits.memory", "1Mi"), ("requests.cpu", "0")];
        let unknown = [("limits.gpu", ""), ("cpu", "")];
        let of = |outcome: Result<String, String>| outcome.unwrap_or_else(|why| format!("error: {why}"));
        let mut told: Vec<String> = fields
            .iter()
            .chain(&wrong)
            .map(|path| of(field(&object, path)))
            .map(|text| text.replace('\n', " "))
            .collect();
        told.extend(resources.iter().chain(&unknown).map(|(name, by)| of(resource(&container, name, by))));
        expect_test::expect![[r#"
            web
            a="1" b="2"
            1
            v
            error: invalid key subscript in metadata.labels['-']: name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            error: fieldPath "spec.x['a']" does not support subscript
            error: unsupported fieldPath: status.podIP
            2
            1500
            64
            0
            error: Unsupported container resource : limits.gpu
            error: Unsupported container resource : cpu"#]]
        .assert_eq(&told.join("\n"));
    }
}
