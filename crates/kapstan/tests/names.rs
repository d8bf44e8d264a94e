//! Names: what pods with real containers find by the name server of their node.

use crate::cluster::{Cluster, PATIENCE, eventually};
use crate::containers::{Tools, node, staged, told, tools};

const WEB: &str = r#"apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec: {selector: {app: web}, ports: [{name: http, port: 8080, targetPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {type: ExternalName, externalName: front.default.svc.cluster.local}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: web
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: nginx
        image: "nginx:1.7.9"
        command: [sh, -c, "hostname > /usr/share/nginx/html/index.html; exec nginx -g 'daemon off;'"]
        ports: [{containerPort: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: beside}
spec:
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  terminationGracePeriodSeconds: 1
  containers: [{name: sleep, image: "nginx:1.7.9", command: [sleep, "1000"]}]
"#;

#[test]
fn pods_of_a_stateful_set_find_each_other() {
    if !staged("names::pods_of_a_stateful_set_find_each_other") {
        return;
    }
    let Some(tools) = tools() else { return };
    let mut cluster = node(&tools);
    let shown = told(&cluster, &tools, "kubectl get service -n kube-system");
    assert!(shown.contains("kube-dns   ClusterIP   10.96.0.10   <none>        53/UDP,53/TCP"), "{shown}");
    std::fs::write(cluster.folder().join("web.yaml"), WEB).unwrap();
    told(&cluster, &tools, "kubectl apply -f web.yaml");
    told(&cluster, &tools, "kubectl rollout status sts/web --timeout=60s");
    told(&cluster, &tools, "kubectl wait --for=condition=Ready pod/beside --timeout=60s");

    let address = told(&cluster, &tools, "kubectl get pod web-0 -o jsonpath={.status.podIP}");
    let hosts = inside(&cluster, &tools, "web-0", "cat /etc/hosts").unwrap();
    assert!(hosts.ends_with(&format!("{address}\tweb-0.web.default.svc.cluster.local\tweb-0\n")), "{hosts}");
    let conf = inside(&cluster, &tools, "web-0", "cat /etc/resolv.conf").unwrap();
    let begins = "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local";
    assert!(conf.starts_with(begins) && conf.ends_with("\noptions ndots:5\n"), "{conf}");

    // An endpoint is told of by two watches; what the second one knows, the first may know a moment later.
    answers(&cluster, &tools, "web-0", "wget -qO- http://web-1.web/", "web-1\n");
    answers(&cluster, &tools, "web-1", "wget -qO- http://web-0.web.default.svc.cluster.local./", "web-0\n");
    for pod in ["web-0", "beside"] {
        for place in ["front", "front.default", "other", "FRONT.default.svc.cluster.local"] {
            let line = format!("wget -qO- http://{place}:8080/");
            let served = || match inside(&cluster, &tools, pod, &line)?.as_str() {
                "web-0\n" | "web-1\n" => Ok(()),
                other => Err(other.to_owned()),
            };
            eventually(PATIENCE, served).unwrap_or_else(|error| panic!("{pod}: {line}: {error}"));
        }
    }
    let front = told(&cluster, &tools, "kubectl get service front -o jsonpath={.spec.clusterIP}");
    let found = inside(&cluster, &tools, "web-0", "nslookup front.default.svc.cluster.local").unwrap();
    assert!(found.contains("10.96.0.10") && found.contains(&front), "{found}");
    let found = inside(&cluster, &tools, "web-0", &format!("nslookup {address}")).unwrap();
    assert!(found.contains("web-0.web.default.svc.cluster.local"), "{found}");
    for missing in ["web-2.web.default.svc.cluster.local", "example.com"] {
        inside(&cluster, &tools, "web-0", &format!("nslookup {missing}")).unwrap_err();
    }

    // The API, which listens at an address that pods do not reach, is found by its Service.
    let endpoints =
        told(&cluster, &tools, "kubectl get endpoints kubernetes -o jsonpath={.subsets[*].addresses[*].ip}");
    assert_eq!(endpoints, "10.244.0.1");
    let connect = "nc -w 2 kubernetes.default 443";
    eventually(PATIENCE, || inside(&cluster, &tools, "web-0", connect)).unwrap();

    // The next server answers at other ports, which the rules then lead to; containers notice nothing.
    cluster.kill();
    cluster.restart();
    answers(&cluster, &tools, "web-0", "wget -qO- http://web-1.web/", "web-1\n");
    eventually(PATIENCE, || inside(&cluster, &tools, "web-0", connect)).unwrap();
    // A name goes with its pod.
    told(&cluster, &tools, "kubectl scale sts/web --replicas=1");
    told(&cluster, &tools, "kubectl wait --for=delete pod/web-1 --timeout=60s");
    let gone =
        || inside(&cluster, &tools, "web-0", "nslookup web-1.web.default.svc.cluster.local").err().ok_or("still there");
    eventually(PATIENCE, gone).unwrap();
    told(&cluster, &tools, "kubectl delete -f web.yaml");
    told(&cluster, &tools, "kubectl wait --for=delete pod --all --timeout=60s || true");
}

fn answers(cluster: &Cluster, tools: &Tools, pod: &str, line: &str, expected: &str) {
    let answered = || {
        let answer = inside(cluster, tools, pod, line)?;
        if answer == expected { Ok(()) } else { Err(answer) }
    };
    eventually(PATIENCE, answered).unwrap_or_else(|error| panic!("{pod}: {line}: {error}"));
}

/// What a command in a pod printed; all of it as an error if it failed.
fn inside(cluster: &Cluster, tools: &Tools, pod: &str, line: &str) -> Result<String, String> {
    let output = cluster.shell(&tools.kubectl, &format!("kubectl exec {pod} -- {line}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(text + &String::from_utf8_lossy(&output.stderr)) }
}
