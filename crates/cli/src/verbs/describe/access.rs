//! `describe` of roles and bindings, and the rules that `auth can-i --list` shows as well.
//! Mirrors kubectl `pkg/describe/describe.go` and `pkg/util/rbac/rbac.go` (`CompactRules`), component-helpers `auth/rbac/validation`.

use serde_json::Value;

use super::page::Page;
use crate::json::Json;

/// One thing that is allowed: a resource of a group, perhaps of one name, or a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rule {
    group: Option<String>,
    resource: Option<String>,
    name: Option<String>,
    path: Option<String>,
    verbs: Vec<String>,
}

impl Rule {
    /// What upstream sorts by: the rule as Go prints it.
    fn order(&self) -> String {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        format!(
            "Verbs:[{}],APIGroups:[{}],Resources:[{}],ResourceNames:[{}],NonResourceURLs:[{}],",
            self.verbs.join(" "),
            text(&self.group),
            text(&self.resource),
            text(&self.name),
            text(&self.path)
        )
    }

    /// `pods.apps/log`.
    fn subject(&self) -> String {
        let (resource, group) =
            (self.resource.as_deref().unwrap_or_default(), self.group.as_deref().unwrap_or_default());
        let (resource, sub) =
            resource.split_once('/').map_or((resource, None), |(resource, sub)| (resource, Some(sub)));
        let dot = if group.is_empty() { "" } else { "." };
        format!("{resource}{dot}{group}{}", sub.map(|sub| format!("/{sub}")).unwrap_or_default())
    }
}

fn words(values: &[Value]) -> impl Iterator<Item = String> + '_ {
    values.iter().filter_map(|value| value.as_str()).map(str::to_owned)
}

/// Rows of a table of rules: resource, paths, names, verbs; one for each resource, name and path.
pub fn rows(rules: &[Value]) -> Vec<String> {
    let mut found: Vec<Rule> = Vec::new();
    for rule in rules {
        let verbs = rule.list("verbs");
        for group in words(rule.list("apiGroups")) {
            for resource in words(rule.list("resources")) {
                let names: Vec<String> = words(rule.list("resourceNames")).collect();
                let names = if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
                for name in names {
                    let one =
                        Rule { group: Some(group.clone()), resource: Some(resource.clone()), name, ..Rule::default() };
                    add(&mut found, one, verbs);
                }
            }
        }
        // What is allowed on paths is not put together.
        for path in words(rule.list("nonResourceURLs")) {
            found.extend(words(verbs).map(|verb| Rule {
                path: Some(path.clone()),
                verbs: vec![verb],
                ..Rule::default()
            }));
        }
    }
    found.sort_by_key(Rule::order);
    let list = |part: &Option<String>| part.clone().unwrap_or_default();
    let row = |rule: &Rule| {
        format!("{}\t[{}]\t[{}]\t[{}]", rule.subject(), list(&rule.path), list(&rule.name), rule.verbs.join(" "))
    };
    found.iter().map(row).collect()
}

/// Adds verbs to what is there for the same resource and name.
fn add(found: &mut Vec<Rule>, one: Rule, verbs: &[Value]) {
    let is_same = |known: &&mut Rule| Rule { verbs: Vec::new(), ..(**known).clone() } == one;
    let place = match found.iter_mut().find(is_same) {
        Some(known) => known,
        None => {
            found.push(one);
            found.last_mut().expect("it was just added")
        }
    };
    place.verbs.extend(words(verbs));
}

fn start(page: &mut Page, object: &Value) {
    page.field("Name", object.text("metadata.name"));
    page.pairs("Labels", object.at("metadata.labels"));
    page.annotations("Annotations", object.at("metadata.annotations"));
}

pub(super) fn role(page: &mut Page, object: &Value) {
    start(page, object);
    page.line(0, "PolicyRule:");
    page.line(1, "Resources\tNon-Resource URLs\tResource Names\tVerbs");
    page.line(1, "---------\t-----------------\t--------------\t-----");
    rows(object.list("rules")).iter().for_each(|row| page.line(1, row));
}

pub(super) fn binding(page: &mut Page, object: &Value) {
    start(page, object);
    page.line(0, "Role:");
    page.line(1, format!("Kind:\t{}", object.text("roleRef.kind")));
    page.line(1, format!("Name:\t{}", object.text("roleRef.name")));
    page.line(0, "Subjects:");
    page.line(1, "Kind\tName\tNamespace");
    page.line(1, "----\t----\t---------");
    for subject in object.list("subjects") {
        page.line(1, format!("{}\t{}\t{}", subject.text("kind"), subject.text("name"), subject.text("namespace")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_one_a_row() {
        let rules = json!([
            {"apiGroups": ["", "apps"], "resources": ["pods/log", "pods"], "verbs": ["get", "list"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["watch"]},
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"], "verbs": ["get"]},
            {"nonResourceURLs": ["/metrics", "/x"], "verbs": ["get", "post"]},
        ]);
        expect_test::expect![[r#"
            pods	[]	[]	[get list watch]
            pods/log	[]	[]	[get list]
            pods.apps/log	[]	[]	[get list]
            pods.apps	[]	[]	[get list]
            	[/metrics]	[]	[get]
            	[/x]	[]	[get]
            secrets	[]	[a]	[get]
            secrets	[]	[b]	[get]
            	[/metrics]	[]	[post]
            	[/x]	[]	[post]"#]]
        .assert_eq(&rows(rules.as_array().unwrap()).join("\n"));
    }
}
