//! What is refused, and in which words: the transcript `bad-input.txt`.

use std::fs;

use crate::cluster::{Kubectl, Setup};
use crate::transcript;

#[test]
fn is_refused_as_kubernetes_does() {
    let Some(kubectl) = Kubectl::current() else { return };
    let cluster = Setup::simulated(1).start();
    let write = |name: &str, content: String| fs::write(cluster.folder().join(name), content).unwrap();
    write("nginx-deploy.yaml", fs::read_to_string(transcript::folder().join("nginx-deploy.yaml")).unwrap());
    write("pod.json", r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#.into());
    write("configmap.json", r#"{"metadata":{"name":"a"}}"#.into());
    write("empty.json", "{}".into());
    write("large", "x".repeat(1 << 20 | 1));
    write("larger", "x".repeat(10 << 20));
    write("deep.json", format!(r#"{{"metadata":{}1{}}}"#, r#"{"a":"#.repeat(100_000), "}".repeat(100_000)));
    write("other-uid.json", r#"{"preconditions":{"uid":"other"}}"#.into());
    write("other-policy.json", r#"{"propagationPolicy":"Sideways"}"#.into());
    transcript::play("bad-input.txt", &cluster, &kubectl);
}
