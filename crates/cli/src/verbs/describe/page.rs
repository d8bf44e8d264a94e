//! The page that `describe` fills: lines with tabs, aligned at the end, and what many kinds share on it.
//!
//! Mirrors kubectl `pkg/describe/describe.go` (`PrefixWriter`, `printLabelsMultiline`, `DescribeEvents`, `DescribePodTemplate`).

use serde_json::Value;

use crate::json::{Json, scalar};
use crate::print::tabwriter::{DESCRIBE, align};
use crate::time;
use crate::verbs::{events::interval, set};

/// Longer annotations get lines of their own.
const LONGEST_ANNOTATION: usize = 140;

/// Lines with tabs.
#[derive(Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// A line, indented by `level` steps.
    pub fn line(&mut self, level: usize, line: impl AsRef<str>) {
        self.text.extend(std::iter::repeat_n("  ", level));
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    /// `Name:<tab>value`.
    pub fn field(&mut self, name: &str, value: impl AsRef<str>) {
        self.line(0, format!("{name}:\t{}", value.as_ref()));
    }

    /// The aligned text.
    pub fn finish(self) -> String {
        align(&self.text, DESCRIBE)
    }

    /// The text with its tabs, as `rollout history` prints a template.
    pub fn unaligned(self) -> String {
        self.text
    }

    /// Pairs of a map, one a line.
    pub fn pairs(&mut self, name: &str, map: &Value) {
        let pairs: Vec<String> = map.map("").iter().map(|(key, value)| format!("{key}={}", scalar(value))).collect();
        self.lines(name, &pairs);
    }

    /// Texts, one a line, under one name.
    pub fn lines(&mut self, name: &str, texts: &[String]) {
        match texts.split_first() {
            None => self.field(name, "<none>"),
            Some((first, rest)) => {
                self.field(name, first);
                rest.iter().for_each(|text| self.line(0, format!("\t{text}")));
            }
        }
    }

    /// Annotations but for the one that `apply` writes.
    pub fn annotations(&mut self, name: &str, annotations: &Value) {
        let shown: Vec<(&String, String)> = annotations
            .map("")
            .iter()
            .filter(|(key, _)| *key != crate::verbs::apply::LAST_APPLIED)
            .map(|(key, value)| (key, scalar(value)))
            .collect();
        if shown.is_empty() {
            return self.field(name, "<none>");
        }
        for (index, (key, value)) in shown.into_iter().enumerate() {
            let start = if index == 0 { format!("{name}:\t") } else { "\t".into() };
            let value = value.trim_end_matches('\n');
            if value.contains('\n') || value.chars().count() + key.chars().count() + 2 > LONGEST_ANNOTATION {
                self.line(0, format!("{start}{key}:"));
                value.split('\n').for_each(|line| self.line(0, format!("\t  {}", shortened(line))));
            } else {
                self.line(0, format!("{start}{key}: {value}"));
            }
        }
    }

    /// Name, namespace, labels and annotations, as most kinds start.
    pub fn start(&mut self, object: &Value) {
        self.field("Name", object.text("metadata.name"));
        if object.has("metadata.namespace") {
            self.field("Namespace", object.text("metadata.namespace"));
        }
        self.pairs("Labels", object.at("metadata.labels"));
        self.annotations("Annotations", object.at("metadata.annotations"));
    }

    /// The controller, if there is one.
    pub fn controlled_by(&mut self, object: &Value) {
        if let Some(owner) = object.list("metadata.ownerReferences").iter().find(|owner| owner.flag("controller")) {
            self.field("Controlled By", format!("{}/{}", owner.text("kind"), owner.text("name")));
        }
    }

    /// The events of an object.
    pub fn events(&mut self, events: &[Value]) {
        if events.is_empty() {
            return self.field("Events", "<none>");
        }
        self.line(0, "Events:");
        self.line(1, "Type\tReason\tAge\tFrom\tMessage");
        self.line(1, "----\t------\t----\t----\t-------");
        for event in events {
            let age = interval(event);
            let component = event.text("source.component");
            let from = if component.is_empty() { event.text("reportingComponent") } else { component };
            let (kind, reason, message) = (event.text("type"), event.text("reason"), event.text("message").trim());
            self.line(1, format!("{kind}\t{reason}\t{age}\t{from}\t{message}"));
        }
    }

    /// The template of pods.
    pub fn template(&mut self, template: &Value) {
        self.line(0, "Pod Template:");
        self.pairs("  Labels", template.at("metadata.labels"));
        if !template.map("metadata.annotations").is_empty() {
            self.annotations("  Annotations", template.at("metadata.annotations"));
        }
        let spec = template.at("spec");
        if !spec.text("serviceAccountName").is_empty() {
            self.field("  Service Account", spec.text("serviceAccountName"));
        }
        if !spec.list("initContainers").is_empty() {
            self.containers("Init Containers", spec.list("initContainers"), &[], "  ", None);
        }
        self.containers("Containers", spec.list("containers"), &[], "  ", None);
        self.volumes(spec.list("volumes"), "  ");
        self.spread(spec.list("topologySpreadConstraints"), "  ");
        if !spec.text("priorityClassName").is_empty() {
            self.field("  Priority Class Name", spec.text("priorityClassName"));
        }
        self.pairs("  Node-Selectors", spec.at("nodeSelector"));
        self.tolerations("  Tolerations", spec.list("tolerations"));
    }

    /// Containers, with their statuses for pods.
    pub fn containers(
        &mut self,
        label: &str,
        containers: &[Value],
        statuses: &[Value],
        space: &str,
        pod: Option<&Value>,
    ) {
        if containers.is_empty() {
            return self.line(0, format!("{space}{label}: <none>"));
        }
        self.line(0, format!("{space}{label}:"));
        for container in containers {
            let status = statuses.iter().find(|status| status.text("name") == container.text("name"));
            self.container(container, status, space, pod);
        }
    }

    fn container(&mut self, container: &Value, status: Option<&Value>, space: &str, pod: Option<&Value>) {
        let indent = if space.is_empty() { "" } else { " " };
        self.line(1, format!("{indent}{}:", container.text("name")));
        if let Some(status) = status {
            self.line(2, format!("Container ID:\t{}", status.text("containerID")));
        }
        self.line(2, format!("Image:\t{}", container.text("image")));
        if let Some(status) = status {
            self.line(2, format!("Image ID:\t{}", status.text("imageID")));
        }
        self.ports("Port", container.list("ports"), "containerPort");
        self.ports("Host Port", container.list("ports"), "hostPort");
        for (name, field) in [("Command", "command"), ("Args", "args")] {
            if !container.list(field).is_empty() {
                self.line(2, format!("{name}:"));
                let words = container.list(field).iter().filter_map(Value::as_str);
                words.flat_map(|word| word.split('\n')).for_each(|line| self.line(3, line));
            }
        }
        if let Some(status) = status {
            self.state("State", status.at("state"));
            if status.has("lastState.terminated") {
                self.state("Last State", status.at("lastState"));
            }
            self.line(2, format!("Ready:\t{}", truth(status.flag("ready"))));
            self.line(2, format!("Restart Count:\t{}", status.number("restartCount")));
        }
        for (name, field) in [("Limits", "resources.limits"), ("Requests", "resources.requests")] {
            if !container.map(field).is_empty() {
                self.line(2, format!("{name}:"));
                let amounts = container.map(field).iter();
                amounts.for_each(|(resource, amount)| self.line(3, format!("{resource}:\t{}", scalar(amount))));
            }
        }
        for (name, field) in
            [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
        {
            if container.has(field) {
                self.line(2, format!("{name}:\t{}", probe(container.at(field))));
            }
        }
        self.environment(container, pod);
        self.mounts(container);
    }

    fn ports(&mut self, name: &str, ports: &[Value], field: &str) {
        let texts: Vec<String> =
            ports.iter().map(|port| format!("{}/{}", port.number(field), protocol(port))).collect();
        match texts.len() {
            0 => self.line(2, format!("{name}:\t<none>")),
            1 => self.line(2, format!("{name}:\t{}", texts[0])),
            _ => self.line(2, format!("{name}s:\t{}", texts.join(", "))),
        }
    }

    fn state(&mut self, name: &str, state: &Value) {
        if state.has("running") {
            self.line(2, format!("{name}:\tRunning"));
            return self.line(3, format!("Started:\t{}", time::long(state.text("running.startedAt"))));
        }
        if !state.has("terminated") {
            self.line(2, format!("{name}:\tWaiting"));
            if !state.text("waiting.reason").is_empty() {
                self.line(3, format!("Reason:\t{}", state.text("waiting.reason")));
            }
            return;
        }
        let ended = state.at("terminated");
        self.line(2, format!("{name}:\tTerminated"));
        for (label, field) in [("Reason", "reason"), ("Message", "message")] {
            if !ended.text(field).is_empty() {
                self.line(3, format!("{label}:\t{}", ended.text(field)));
            }
        }
        self.line(3, format!("Exit Code:\t{}", ended.number("exitCode")));
        if ended.number("signal") > 0 {
            self.line(3, format!("Signal:\t{}", ended.number("signal")));
        }
        self.line(3, format!("Started:\t{}", time::long(ended.text("startedAt"))));
        self.line(3, format!("Finished:\t{}", time::long(ended.text("finishedAt"))));
    }

    fn environment(&mut self, container: &Value, pod: Option<&Value>) {
        let sources = container.list("envFrom");
        if !sources.is_empty() {
            self.line(2, "Environment Variables from:");
        }
        for source in sources {
            let (kind, field) =
                if source.has("secretRef") { ("Secret", "secretRef") } else { ("ConfigMap", "configMapRef") };
            let reference = source.at(field);
            let prefix = match source.text("prefix") {
                "" => String::new(),
                prefix => format!(" with prefix '{prefix}'"),
            };
            self.line(
                3,
                format!("{}\t{kind}{prefix}\tOptional: {}", reference.text("name"), reference.flag("optional")),
            );
        }
        let variables = container.list("env");
        self.line(2, if variables.is_empty() { "Environment:\t<none>" } else { "Environment:" });
        for variable in variables {
            let (name, from) = (variable.text("name"), variable.at("valueFrom"));
            if let Some(key) = from.get("secretKeyRef") {
                self.line(
                    3,
                    format!(
                        "{name}:\t<set to the key '{}' in secret '{}'>\tOptional: {}",
                        key.text("key"),
                        key.text("name"),
                        key.flag("optional")
                    ),
                );
            } else if let Some(key) = from.get("configMapKeyRef") {
                self.line(
                    3,
                    format!(
                        "{name}:\t<set to the key '{}' of config map '{}'>\tOptional: {}",
                        key.text("key"),
                        key.text("name"),
                        key.flag("optional")
                    ),
                );
            } else if let Some(field) = from.get("fieldRef") {
                let value = pod.map_or("", |pod| field_value(pod, field.text("fieldPath")));
                let version = if field.has("apiVersion") { field.text("apiVersion") } else { "v1" };
                self.line(3, format!("{name}:\t{value} ({version}:{})", field.text("fieldPath")));
            } else if let Some(field) = from.get("resourceFieldRef") {
                let value = resource_value(container, field);
                self.line(3, format!("{name}:\t{value} ({})", field.text("resource")));
            } else {
                let mut lines = variable.text("value").split('\n');
                self.line(3, format!("{name}:\t{}", lines.next().unwrap_or_default()));
                lines.for_each(|line| self.line(3, format!("\t{line}")));
            }
        }
    }

    fn mounts(&mut self, container: &Value) {
        let mut mounts: Vec<&Value> = container.list("volumeMounts").iter().collect();
        mounts.sort_by_key(|mount| mount.text("mountPath"));
        self.line(2, if mounts.is_empty() { "Mounts:\t<none>" } else { "Mounts:" });
        for mount in mounts {
            let access = if mount.flag("readOnly") { "ro" } else { "rw" };
            let path = match mount.text("subPath") {
                "" => String::new(),
                path => format!(",path={path:?}"),
            };
            self.line(3, format!("{} from {} ({access}{path})", mount.text("mountPath"), mount.text("name")));
        }
    }

    /// Volumes.
    pub fn volumes(&mut self, volumes: &[Value], space: &str) {
        if volumes.is_empty() {
            return self.line(0, format!("{space}Volumes:\t<none>"));
        }
        self.line(0, format!("{space}Volumes:"));
        let indent = if space.is_empty() { "" } else { " " };
        for volume in volumes {
            self.line(1, format!("{indent}{}:", volume.text("name")));
            self.volume(volume);
        }
    }

    fn volume(&mut self, volume: &Value) {
        let optional = |of: &Value| of.flag("optional").to_string();
        let or_unset = |text: String| if text.is_empty() { "<unset>".to_owned() } else { text };
        let mut rows: Vec<(&str, String)> = Vec::new();
        if let Some(source) = volume.get("hostPath") {
            rows.push(("Type", "HostPath (bare host directory volume)".into()));
            rows.push(("Path", source.text("path").into()));
            rows.push(("HostPathType", source.text("type").into()));
        } else if let Some(source) = volume.get("emptyDir") {
            rows.push(("Type", "EmptyDir (a temporary directory that shares a pod's lifetime)".into()));
            rows.push(("Medium", source.text("medium").into()));
            rows.push(("SizeLimit", or_unset(scalar(source.at("sizeLimit")))));
        } else if let Some(source) = volume.get("configMap") {
            rows.push(("Type", "ConfigMap (a volume populated by a ConfigMap)".into()));
            rows.push(("Name", source.text("name").into()));
            rows.push(("Optional", optional(source)));
        } else if let Some(source) = volume.get("secret") {
            rows.push(("Type", "Secret (a volume populated by a Secret)".into()));
            rows.push(("SecretName", source.text("secretName").into()));
            rows.push(("Optional", optional(source)));
        } else if let Some(source) = volume.get("persistentVolumeClaim") {
            rows.push((
                "Type",
                "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)".into(),
            ));
            rows.push(("ClaimName", source.text("claimName").into()));
            rows.push(("ReadOnly", source.flag("readOnly").to_string()));
        } else if let Some(source) = volume.get("downwardAPI") {
            self.line(2, "Type:\tDownwardAPI (a volume populated by information about the pod)");
            self.line(2, "Items:");
            for item in source.list("items") {
                let from = if item.has("fieldRef") {
                    item.text("fieldRef.fieldPath")
                } else {
                    item.text("resourceFieldRef.resource")
                };
                self.line(3, format!("{from} -> {}", item.text("path")));
            }
        } else if let Some(source) = volume.get("projected") {
            rows.push(("Type", "Projected (a volume that contains injected data from multiple sources)".into()));
            for part in source.list("sources") {
                if let Some(secret) = part.get("secret") {
                    rows.push(("SecretName", secret.text("name").into()));
                    rows.push(("SecretOptionalName", nil_or(secret.at("optional"))));
                } else if part.has("downwardAPI") {
                    rows.push(("DownwardAPI", "true".into()));
                } else if let Some(map) = part.get("configMap") {
                    rows.push(("ConfigMapName", map.text("name").into()));
                    rows.push(("ConfigMapOptional", nil_or(map.at("optional"))));
                } else if let Some(token) = part.get("serviceAccountToken") {
                    rows.push(("TokenExpirationSeconds", token.number("expirationSeconds").to_string()));
                }
            }
        } else {
            self.line(2, "<unknown>");
        }
        rows.iter().for_each(|(name, value)| self.line(2, format!("{name}:\t{value}")));
    }

    /// How pods are spread.
    pub fn spread(&mut self, constraints: &[Value], space: &str) {
        let texts: Vec<String> = constraints
            .iter()
            .map(|constraint| {
                let selector = selector(constraint.at("labelSelector"));
                format!(
                    "{}:{} when max skew {} is exceeded for selector {selector}",
                    constraint.text("topologyKey"),
                    constraint.text("whenUnsatisfiable"),
                    constraint.number("maxSkew")
                )
            })
            .collect();
        if !texts.is_empty() {
            self.lines(&format!("{space}Topology Spread Constraints"), &texts);
        }
    }

    /// Tolerations.
    pub fn tolerations(&mut self, name: &str, tolerations: &[Value]) {
        let mut sorted: Vec<&Value> = tolerations.iter().collect();
        sorted.sort_by_key(|toleration| toleration.text("key"));
        let texts: Vec<String> = sorted
            .into_iter()
            .map(|toleration| {
                let mut text = toleration.text("key").to_owned();
                if !toleration.text("value").is_empty() {
                    text += &format!("={}", toleration.text("value"));
                }
                if !toleration.text("effect").is_empty() {
                    text += &format!(":{}", toleration.text("effect"));
                }
                if toleration.text("operator") == "Exists" && toleration.text("value").is_empty() {
                    text += if text.is_empty() { "op=Exists" } else { " op=Exists" };
                }
                if toleration.has("tolerationSeconds") {
                    text += &format!(" for {}s", toleration.number("tolerationSeconds"));
                }
                text
            })
            .collect();
        self.lines(name, &texts);
    }

    /// Conditions with their reasons.
    pub fn conditions(&mut self, conditions: &[Value]) {
        if conditions.is_empty() {
            return;
        }
        self.line(0, "Conditions:");
        self.line(1, "Type\tStatus\tReason");
        self.line(1, "----\t------\t------");
        for condition in conditions {
            let (kind, status, reason) = (condition.text("type"), condition.text("status"), condition.text("reason"));
            self.line(1, format!("{kind} \t{status}\t{reason}"));
        }
    }
}

fn nil_or(value: &Value) -> String {
    if value.is_null() { "<nil>".into() } else { scalar(value) }
}

fn shortened(line: &str) -> String {
    let longest = LONGEST_ANNOTATION - 2;
    match line.chars().count() > longest {
        true => line.chars().take(longest).collect::<String>() + "...",
        false => line.to_owned(),
    }
}

/// `True` and `False`, as upstream writes them.
pub fn truth(is: bool) -> &'static str {
    if is { "True" } else { "False" }
}

/// A port's protocol, TCP if none is said.
pub fn protocol(port: &Value) -> &str {
    if port.has("protocol") { port.text("protocol") } else { "TCP" }
}

/// A label selector as text.
pub fn selector(selector: &Value) -> String {
    let mut parts: Vec<String> =
        selector.map("matchLabels").iter().map(|(key, value)| format!("{key}={}", scalar(value))).collect();
    for expression in selector.list("matchExpressions") {
        let key = expression.text("key");
        let values = expression.list("values").iter().map(scalar).collect::<Vec<_>>().join(",");
        parts.push(match expression.text("operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    if parts.is_empty() { "<none>".into() } else { parts.join(",") }
}

fn probe(probe: &Value) -> String {
    let number = |field: &str, otherwise: i64| if probe.has(field) { probe.number(field) } else { otherwise };
    let attributes = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3)
    );
    if let Some(exec) = probe.get("exec") {
        let words: Vec<String> = exec.list("command").iter().map(scalar).collect();
        return format!("exec [{}] {attributes}", words.join(" "));
    }
    if let Some(http) = probe.get("httpGet") {
        let scheme = if http.has("scheme") { http.text("scheme").to_lowercase() } else { "http".into() };
        let path = http.text("path");
        let slash = if path.starts_with('/') || path.is_empty() { "" } else { "/" };
        return format!(
            "http-get {scheme}://{}:{}{slash}{path} {attributes}",
            http.text("host"),
            scalar(http.at("port"))
        );
    }
    if let Some(tcp) = probe.get("tcpSocket") {
        return format!("tcp-socket {}:{} {attributes}", tcp.text("host"), scalar(tcp.at("port")));
    }
    if let Some(grpc) = probe.get("grpc") {
        return format!("grpc <pod>:{} {} {attributes}", grpc.number("port"), grpc.text("service"));
    }
    format!("unknown {attributes}")
}

/// Of a pod's fields kubectl knows only these by name.
fn field_value<'p>(pod: &'p Value, path: &str) -> &'p str {
    if matches!(path, "metadata.name" | "metadata.namespace") { pod.text(path) } else { "" }
}

/// What a container sees of its resources; without a limit that is what its node has.
fn resource_value(container: &Value, field: &Value) -> String {
    let resource = field.text("resource");
    let divisor = scalar(field.at("divisor"));
    let value = set::resolve::resource(container, resource, &divisor).unwrap_or_default();
    match (value.as_str(), resource) {
        ("0", "limits.cpu" | "limits.memory") => "node allocatable".to_owned(),
        _ => value,
    }
}
