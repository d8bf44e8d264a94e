//! ResourceQuotas and LimitRanges. Mirrors `DescribeResourceQuotas`' and `DescribeLimitRanges`' single siblings
//! (kubectl `pkg/describe/describe.go`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::page::Page;
use crate::json::{Json, scalar};

pub(super) fn quota(page: &mut Page, object: &Value) {
    page.field("Name", object.text("metadata.name"));
    page.field("Namespace", object.text("metadata.namespace"));
    scopes(page, 0, object);
    page.line(0, "Resource\tUsed\tHard");
    page.line(0, "--------\t----\t----");
    let (hard, used) = (object.map("status.hard"), object.map("status.used"));
    for (name, bound) in hard {
        let used = used.get(name).map_or_else(|| "0".to_owned(), scalar);
        page.line(0, format!("{name}\t{used}\t{}", scalar(bound)));
    }
}

/// Which pods a quota counts.
pub(super) fn scopes(page: &mut Page, level: usize, quota: &Value) {
    let mut scopes: Vec<String> = quota.list("spec.scopes").iter().map(scalar).collect();
    scopes.sort();
    if !scopes.is_empty() {
        page.line(level, format!("Scopes:\t{}", scopes.join(", ")));
        let mark = if level == 0 { " * " } else { "* " };
        scopes.iter().filter_map(|scope| about(scope)).for_each(|text| page.line(level, format!("{mark}{text}")));
    }
}

fn about(scope: &str) -> Option<&'static str> {
    Some(match scope {
        "Terminating" => {
            "Matches all pods that have an active deadline. These pods have a limited lifespan on a node before being actively terminated by the system."
        }
        "NotTerminating" => {
            "Matches all pods that do not have an active deadline. These pods usually include long running pods whose container command is not expected to terminate."
        }
        "BestEffort" => {
            "Matches all pods that do not have resource requirements set. These pods have a best effort quality of service."
        }
        "NotBestEffort" => {
            "Matches all pods that have at least one resource requirement set. These pods have a burstable or guaranteed quality of service."
        }
        _ => return None,
    })
}

pub(super) fn limit_range(page: &mut Page, object: &Value) {
    page.field("Name", object.text("metadata.name"));
    page.field("Namespace", object.text("metadata.namespace"));
    head(page, "");
    items(page, "", object);
}

/// All of a namespace.
pub(super) fn limit_ranges(page: &mut Page, ranges: &[Value]) {
    if ranges.is_empty() {
        return page.line(0, "\nNo LimitRange resource.");
    }
    page.line(0, "\nResource Limits");
    head(page, " ");
    ranges.iter().for_each(|range| items(page, " ", range));
}

fn head(page: &mut Page, indent: &str) {
    for line in [
        "Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio",
        "----\t--------\t---\t---\t---------------\t-------------\t-----------------------",
    ] {
        page.line(0, format!("{indent}{line}"));
    }
}

fn items(page: &mut Page, indent: &str, object: &Value) {
    const LISTS: [&str; 5] = ["min", "max", "defaultRequest", "default", "maxLimitRequestRatio"];
    for item in object.list("spec.limits") {
        let names: BTreeSet<&String> = LISTS.iter().flat_map(|list| item.map(list)).map(|(name, _)| name).collect();
        for name in names {
            let cell = |list: &&str| item.map(list).get(name).map_or_else(|| "-".to_owned(), scalar);
            let cells: Vec<String> = LISTS.iter().map(cell).collect();
            page.line(0, format!("{indent}{}\t{name}\t{}", item.text("type"), cells.join("\t")));
        }
    }
}
