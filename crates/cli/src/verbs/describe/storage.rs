//! `describe` of config maps, secrets and service accounts.

use base64::Engine;
use serde_json::Value;

use super::page::Page;
use crate::json::{Json, scalar};

pub(super) fn config_map(page: &mut Page, object: &Value) {
    page.start(object);
    page.line(0, "\nData\n====");
    for (key, value) in object.map("data") {
        page.line(0, format!("{key}:\n----\n{}\n", scalar(value)));
    }
    page.line(0, "\nBinaryData\n====");
    for (key, value) in object.map("binaryData") {
        page.line(0, format!("{key}: {} bytes", decoded_length(value)));
    }
    page.line(0, "");
}

pub(super) fn secret(page: &mut Page, object: &Value) {
    page.start(object);
    page.line(0, format!("\nType:\t{}", object.text("type")));
    page.line(0, "\nData\n====");
    for (key, value) in object.map("data") {
        let token = key == "token" && object.text("type") == "kubernetes.io/service-account-token";
        match token {
            true => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(scalar(value)).unwrap_or_default();
                page.line(0, format!("{key}:\t{}", String::from_utf8_lossy(&bytes)));
            }
            false => page.line(0, format!("{key}:\t{} bytes", decoded_length(value))),
        }
    }
}

fn decoded_length(value: &Value) -> usize {
    base64::engine::general_purpose::STANDARD.decode(scalar(value)).map_or(0, |bytes| bytes.len())
}

pub(super) fn service_account(page: &mut Page, object: &Value) {
    page.start(object);
    let names = |field: &str| object.list(field).iter().map(|one| one.text("name").to_owned()).collect::<Vec<_>>();
    page.lines("Image pull secrets", &names("imagePullSecrets"));
    page.lines("Mountable secrets", &names("secrets"));
    page.lines("Tokens", &[]);
}
