//! What form of answer a client takes.

use api::Refusal;
use http::HeaderMap;
use http::header::ACCEPT;

/// The forms this server writes, in the client's order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The plain object or list.
    Json,
    /// `meta.k8s.io` `Table`, version v1 or v1beta1.
    Table(&'static str),
    /// `PartialObjectMetadata` or its list.
    Metadata(&'static str),
    /// Aggregated discovery, version v2 or v2beta1.
    AggregatedDiscovery(&'static str),
}

/// The forms in the `Accept` header, most wanted first; no header means JSON.
pub fn accept(headers: &HeaderMap) -> Vec<Form> {
    let text: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let text = text.join(",");
    if text.trim().is_empty() {
        return vec![Form::Json];
    }
    let mut wanted: Vec<(f32, Form)> = text.split(',').filter_map(parse).collect();
    wanted.sort_by(|a, b| b.0.total_cmp(&a.0));
    wanted.into_iter().map(|(_, form)| form).collect()
}

/// Fine if a client takes what has no other form, as a review has none.
pub fn plain(headers: &HeaderMap) -> Result<(), Refusal> {
    let forms = accept(headers);
    match forms.is_empty() || forms.contains(&Form::Json) {
        true => Ok(()),
        false => Err(not_acceptable("application/json")),
    }
}

/// The refusal of a client that takes nothing of what there is.
pub fn not_acceptable(there_is: &str) -> Refusal {
    Refusal::new(406, "NotAcceptable", format!("only the following media types are accepted: {there_is}"))
}

fn parse(entry: &str) -> Option<(f32, Form)> {
    let mut parts = entry.split(';').map(str::trim);
    let media = parts.next()?;
    let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
    let get = |name: &str| parameters.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| *value);
    let weight = get("q").parse().unwrap_or(1.0);
    if !matches!(media, "application/json" | "application/*" | "*/*" | "text/plain") {
        return None;
    }
    let beta = |stable: &'static str, beta: &'static str| if get("v") == beta { beta } else { stable };
    let form = match get("as") {
        "" => Form::Json,
        "Table" => Form::Table(beta("v1", "v1beta1")),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Form::Metadata(beta("v1", "v1beta1")),
        "APIGroupDiscoveryList" => Form::AggregatedDiscovery(beta("v2", "v2beta1")),
        _ => return None,
    };
    Some((weight, form))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_one_form_only_is_taken_or_not() {
        let taken = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, text.parse().unwrap());
            plain(&headers).map_err(|refusal| refusal.code)
        };
        assert_eq!(plain(&HeaderMap::new()), Ok(()));
        assert_eq!(taken("application/vnd.kubernetes.protobuf, */*"), Ok(()));
        assert_eq!(taken("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"), Ok(()));
        assert_eq!(taken("application/json;as=Table;v=v1;g=meta.k8s.io"), Err(406));
    }

    #[test]
    fn kubectl_get() {
        let mut headers = HeaderMap::new();
        let text = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        headers.insert(ACCEPT, text.parse().unwrap());
        assert_eq!(accept(&headers), [Form::Table("v1"), Form::Table("v1beta1"), Form::Json]);
    }

    #[test]
    fn protobuf_first_json_second() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, "application/vnd.kubernetes.protobuf,application/json".parse().unwrap());
        assert_eq!(accept(&headers), [Form::Json]);
        headers.insert(ACCEPT, "application/vnd.kubernetes.protobuf".parse().unwrap());
        assert_eq!(accept(&headers), []);
    }
}
