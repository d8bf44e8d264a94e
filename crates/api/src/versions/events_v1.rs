//! Events as events.k8s.io/v1 shows them: kept as the core group's, under other names.
//!
//! Mirrors `pkg/apis/events/v1/conversion.go`. What this version asks of an event is stricter than what the core group's asks, which
//! takes whatever old clients write.

use k8s_openapi::api::core::v1::Event;
use serde::Serialize;
use serde_json::Value;

use crate::kinds::{Body, Typed};
use crate::validate::{Errors, Path};

/// Names of fields: in the core group, and here.
const NAMES: [(&str, &str); 7] = [
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("involvedObject", "regarding"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
];

/// A core event as this version has it.
pub(super) fn to_v1(mut event: Value) -> Value {
    let Some(fields) = event.as_object_mut() else { return event };
    for (core, ours) in NAMES {
        fields.remove(core).map(|value| fields.insert(ours.to_owned(), value));
    }
    // The one field that is always told.
    fields.entry("eventTime").or_insert(Value::Null);
    event["apiVersion"] = "events.k8s.io/v1".into();
    event
}

/// An event of this version as the core group has it.
pub(super) fn to_core(mut event: Value) -> Value {
    let Some(fields) = event.as_object_mut() else { return event };
    for (core, ours) in NAMES {
        fields.remove(ours).map(|value| fields.insert(core.to_owned(), value));
    }
    // The core group cannot do without.
    fields.entry("involvedObject").or_insert_with(|| Value::Object(Default::default()));
    if fields.get("apiVersion").is_some_and(|version| version != "") {
        event["apiVersion"] = "v1".into();
    }
    event
}

/// What is wrong with an event that is made or changed by this version.
pub(super) fn judge(old: Option<&Body>, new: &Body) -> Errors {
    let mut errors = Errors::default();
    match (Event::of(new), old.and_then(Event::of)) {
        (Some(new), Some(old)) => changed(&mut errors, new, old),
        (Some(new), None) => made(&mut errors, new),
        _ => {}
    }
    errors
}

/// Upstream: the strict half of `ValidateEventCreate`.
fn made(errors: &mut Errors, event: &Event) {
    series(errors, event);
    if event.event_time.is_none() {
        errors.required(&Path::root("eventTime"), "");
    }
    let type_ = event.type_.as_deref().unwrap_or_default();
    if !matches!(type_, "Normal" | "Warning") {
        errors.invalid(&Path::root("type"), "", format!("has invalid value: {type_}"));
    }
    let source = event.source.as_ref();
    let given = [
        ("firstTimestamp", event.first_timestamp.is_some()),
        ("lastTimestamp", event.last_timestamp.is_some()),
        ("count", event.count.unwrap_or(0) != 0),
        ("source", source.is_some_and(|source| source.component.is_some() || source.host.is_some())),
    ];
    for (field, _) in given.iter().filter(|(_, given)| *given) {
        errors.invalid(&Path::root(field), "", "needs to be unset");
    }
}

/// Upstream: the strict half of `ValidateEventUpdate`. Only the series of an event goes on.
fn changed(errors: &mut Errors, new: &Event, old: &Event) {
    if new.series != old.series {
        series(errors, new);
    }
    let at = Path::root;
    errors.immutable(&at("involvedObject"), &new.involved_object, &old.involved_object);
    errors.immutable(&at("firstTimestamp"), &new.first_timestamp, &old.first_timestamp);
    errors.immutable(&at("lastTimestamp"), &new.last_timestamp, &old.last_timestamp);
    errors.immutable(&at("eventTime"), &new.event_time, &old.event_time);
    errors.immutable(&at("related"), &new.related, &old.related);
    kept(errors, "reason", &new.reason, &old.reason);
    kept(errors, "message", &new.message, &old.message);
    kept(errors, "source", &new.source, &old.source);
    kept(errors, "count", &new.count, &old.count);
    kept(errors, "type", &new.type_, &old.type_);
    kept(errors, "action", &new.action, &old.action);
    kept(errors, "reportingController", &new.reporting_component, &old.reporting_component);
    kept(errors, "reportingInstance", &new.reporting_instance, &old.reporting_instance);
}

/// What is left out is the same as what is empty.
fn kept<T: Default + PartialEq + Serialize>(errors: &mut Errors, field: &str, new: &Option<T>, old: &Option<T>) {
    let empty = T::default();
    errors.immutable(&Path::root(field), new.as_ref().unwrap_or(&empty), old.as_ref().unwrap_or(&empty));
}

fn series(errors: &mut Errors, event: &Event) {
    let Some(series) = &event.series else { return };
    if series.count.unwrap_or(0) < 2 {
        errors.invalid(&Path::root("series.count"), "", "should be at least 2");
    }
    if series.last_observed_time.is_none() {
        errors.required(&Path::root("series.lastObservedTime"), "");
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::Kind;

    fn event() -> Value {
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": "e", "namespace": "d" },
            "eventTime": "2026-01-01T00:00:00.000001Z", "reportingController": "c.io/c", "reportingInstance": "c-1",
            "action": "Starting", "reason": "Started", "regarding": { "kind": "Pod", "name": "p", "namespace": "d" },
            "note": "Started p", "type": "Normal", "series": { "count": 2, "lastObservedTime": "2026-01-01T00:00:00.000002Z" },
        })
    }

    #[test]
    fn there_and_back() {
        let core = to_core(event());
        expect![[r#"{"action":"Starting","apiVersion":"v1","eventTime":"2026-01-01T00:00:00.000001Z","involvedObject":{"kind":"Pod","name":"p","namespace":"d"},"kind":"Event","message":"Started p","metadata":{"name":"e","namespace":"d"},"reason":"Started","reportingComponent":"c.io/c","reportingInstance":"c-1","series":{"count":2,"lastObservedTime":"2026-01-01T00:00:00.000002Z"},"type":"Normal"}"#]]
            .assert_eq(&core.to_string());
        assert_eq!(to_v1(core), event());
    }

    #[test]
    fn as_old_clients_made_it() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e" }, "involvedObject": { "name": "p" }, "count": 2,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:01Z", "source": { "component": "kubelet" },
        });
        expect![[r#"{"apiVersion":"events.k8s.io/v1","deprecatedCount":2,"deprecatedFirstTimestamp":"2026-01-01T00:00:00Z","deprecatedLastTimestamp":"2026-01-01T00:00:01Z","deprecatedSource":{"component":"kubelet"},"eventTime":null,"kind":"Event","metadata":{"name":"e"},"regarding":{"name":"p"}}"#]]
            .assert_eq(&to_v1(core).to_string());
    }

    #[test]
    fn what_is_refused() {
        let body = |event: Value| Kind::Event.decode(to_core(event)).unwrap();
        let told = |old: Option<Value>, new: Value| {
            let errors = judge(old.map(body).as_ref(), &body(new)).0;
            errors.iter().map(|error| format!("{error}\n")).collect::<String>()
        };
        let with = |field: &str, value: Value| {
            let mut event = event();
            event[field] = value;
            event
        };
        let table = [
            told(None, event()),
            told(None, with("eventTime", json!(null))),
            told(None, with("type", json!("Odd"))),
            told(None, with("deprecatedSource", json!({ "host": "n" }))),
            told(None, with("series", json!({ "count": 1 }))),
            told(
                Some(event()),
                with("series", json!({ "count": 3, "lastObservedTime": "2026-01-01T00:00:00.000003Z" })),
            ),
            told(Some(event()), with("deprecatedSource", json!({}))),
            told(Some(event()), with("note", json!("other"))),
        ];
        expect![[r#"
            eventTime: Required value
            type: Invalid value: "": has invalid value: Odd
            source: Invalid value: "": needs to be unset
            series.count: Invalid value: "": should be at least 2
            series.lastObservedTime: Required value
            message: Invalid value: "other": field is immutable
        "#]]
        .assert_eq(&table.concat());
    }
}
