//! Streams into pods: exec, attach, port-forward and cp, by kubectl over WebSockets, by kubectl 1.20 over SPDY and by our own
//! command, on real containers.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Output, Stdio};

use sha2::{Digest, Sha256};

use crate::cluster::{Cluster, Kubectl, PATIENCE, Setup, eventually, kapstan, skipped};
use crate::containers::{Tools, staged, tools};

const PODS: &str = "apiVersion: v1
kind: Pod
metadata: {name: box, labels: {app: box}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox
    imagePullPolicy: Never
    workingDir: /work
    env: [{name: COLOUR, value: green}]
    ports: [{name: echo, containerPort: 7777}]
    command: [sh, -c, 'mkdir -p /tmp; nc -ll -p 7777 -e cat & httpd -p 7780 -h /etc; sleep 1000']
  - {name: side, image: busybox, imagePullPolicy: Never, command: [sleep, '1000']}
---
apiVersion: v1
kind: Pod
metadata: {name: bare}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: bare
    image: busybox
    imagePullPolicy: Never
    command: [sh, -c, 'rm -f /bin/tar; sleep 1000']
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: box}, ports: [{port: 70, targetPort: echo}]}
---
apiVersion: v1
kind: Service
metadata: {name: files}
spec: {selector: {app: box}, ports: [{name: http, port: 80, targetPort: 7780}]}
";

/// Connections at once.
const MANY: usize = 4;

/// A node with the pods of these tests.
fn boxes(tools: &Tools) -> Cluster {
    let cluster = Setup::node().start();
    let data_dir = cluster.data_dir();
    let imported =
        kapstan(&["image", "import", &tools.images.to_string_lossy(), "--data-dir", &data_dir.to_string_lossy()]);
    assert!(imported.status.success(), "{imported:?}");
    fs::write(cluster.folder().join("pods.yaml"), PODS).unwrap();
    let up = "kubectl apply -f pods.yaml && kubectl wait --for=condition=Ready pod/box pod/bare --timeout=60s";
    assert!(cluster.shell(&tools.kubectl, up).status.success());
    cluster
}

/// What a line prints, on which stream, and its exit code. Hints are ours alone.
fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let err: String = err.lines().filter(|line| !line.starts_with("hint: ")).map(|line| format!("!{line}\n")).collect();
    format!("{out}{err}={}", output.status.code().unwrap_or(-1))
}

/// Every kubectl that there is, and our own command.
fn clients() -> Vec<Kubectl> {
    [Kubectl::current(), Kubectl::old(), Some(Kubectl::ours())].into_iter().flatten().collect()
}

#[test]
fn people_get_into_containers() {
    if !staged("streams::people_get_into_containers") {
        return;
    }
    let Some(tools) = tools() else { return };
    let cluster = boxes(&tools);
    for client in clients() {
        println!("--- {}", client.version);
        commands(&cluster, &client);
        terminals(&cluster, &client);
        copies(&cluster, &client);
        ports(&cluster, &client);
        passed_on(&cluster, &client);
        attached(&cluster, &client);
    }
    assert!(cluster.shell(&tools.kubectl, "kubectl delete --now -f pods.yaml").status.success());
}

fn commands(cluster: &Cluster, client: &Kubectl) {
    let say = |line: &str| said(&cluster.shell(client, line));
    let line = "kubectl exec box -c main -- sh -c 'echo out $COLOUR $(pwd); echo err >&2; exit 3'";
    assert_eq!(say(line), "out green /work\n!err\n!command terminated with exit code 3\n=3");
    assert_eq!(say("kubectl exec box -c side -- hostname"), "box\n=0");
    assert_eq!(say("printf 'a\\nb\\n' | kubectl exec -i box -c main -- wc -l"), "2\n=0");
    // More than any buffer holds, both ways.
    let much = "head -c 3000000 /dev/zero | kubectl exec -i box -c main -- cat | wc -c";
    assert_eq!(say(much).trim_end(), "3000000\n=0");
    assert_eq!(say("kubectl exec box -c main -- false"), "!command terminated with exit code 1\n=1");
    let missing = say("kubectl exec box -c main -- nothere");
    assert!(missing.contains("exec: \"nothere\": executable file not found in $PATH"), "{missing}");
    let defaulted = say("kubectl exec box -- true");
    assert!(defaulted.contains("Default") && defaulted.contains("main"), "{defaulted}");
    assert!(defaulted.ends_with("=0"), "{defaulted}");
    let nobody = say("kubectl exec nobody -- true");
    assert_eq!(nobody, "!Error from server (NotFound): pods \"nobody\" not found\n=1");
}

/// On a terminal: its size is known inside, and its exit code outside.
fn terminals(cluster: &Cluster, client: &Kubectl) {
    let typed = "printf 'stty size; tty; echo $TERM; exit 5\\n'";
    let inside = "stty rows 33 cols 111; kubectl exec -it box -c main -- sh";
    let shown = cluster.shell(client, &format!("({typed}; sleep 0.5) | script -qec '{inside}' /dev/null"));
    if shown.status.code() == Some(127) {
        return skipped("no pseudo-terminal: `script` of util-linux is missing");
    }
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("33 111\r\n/dev/pts/"), "{text}");
    assert!(text.contains("xterm\r\n"), "{text}");
    assert!(text.contains("command terminated with exit code 5"), "{text}");
    assert_eq!(shown.status.code(), Some(5), "{text}");
}

fn copies(cluster: &Cluster, client: &Kubectl) {
    let version = client.version;
    let say = |line: &str| said(&cluster.shell(client, line));
    let folder = cluster.folder().join(format!("from-{version}"));
    fs::create_dir_all(folder.join("deep/er")).unwrap();
    let much: Vec<u8> = (0..2_000_000u32).map(|number| (number % 251) as u8).collect();
    fs::write(folder.join("deep/er/much"), &much).unwrap();
    fs::write(folder.join("one"), "one\n").unwrap();
    assert_eq!(say(&format!("kubectl cp from-{version}/one box:/tmp/one-{version} -c main")), "=0");
    assert_eq!(say(&format!("kubectl exec box -c main -- cat /tmp/one-{version}")), "one\n=0");
    assert_eq!(say(&format!("kubectl cp from-{version} default/box:/tmp -c main")), "=0");
    let there = say(&format!("kubectl exec box -c main -- sh -c 'cd /tmp/from-{version}; find . -type f | sort'"));
    assert_eq!(there, "./deep/er/much\n./one\n=0");
    let back = say(&format!("kubectl cp box:/tmp/from-{version} back-{version} -c main"));
    assert!(back.ends_with("=0"), "{back}");
    assert_eq!(fs::read(cluster.folder().join(format!("back-{version}/deep/er/much"))).unwrap(), much);
    let missing = say("kubectl cp nothing box:/tmp/x -c main");
    assert!(missing.contains("nothing doesn't exist in local filesystem"), "{missing}");
    let no_tar = say(&format!("kubectl cp from-{version}/one bare:/one"));
    assert!(no_tar.contains("\"tar\": executable file not found in $PATH") && no_tar.ends_with("=1"), "{no_tar}");
}

fn ports(cluster: &Cluster, client: &Kubectl) {
    for (what, remote) in [("pod/box", "7777"), ("service/echo", "70")] {
        let port = free_port();
        let forwarding = cluster.watch(client, &["port-forward", what, &format!("{port}:{remote}")]);
        let lines = forwarding.until(|lines| !lines.is_empty());
        assert_eq!(lines[0], format!("Forwarding from 127.0.0.1:{port} -> 7777"));
        for round in 0..3 {
            let sent = format!("hello {round}");
            assert_eq!(eventually(PATIENCE, || echo(port, &sent)).unwrap(), sent);
        }
        forwarding.until(|lines| lines.contains(&format!("Handling connection for {port}")));
    }
    // Many at once; with kubectl they share one connection to the server.
    let much = "dd if=/dev/urandom of=/etc/much bs=1000 count=500 2>/dev/null; sha256sum /etc/much";
    let sum = said(&cluster.shell(client, &format!("kubectl exec box -c main -- sh -c '{much}' | cut -d' ' -f1")));
    let port = free_port();
    let forwarding = cluster.watch(client, &["port-forward", "pod/box", &format!("{port}:7780")]);
    forwarding.until(|lines| !lines.is_empty());
    let get = move || std::thread::spawn(move || eventually(PATIENCE, || fetch(port, "/much")).unwrap());
    for got in (0..MANY).map(|_| get()).collect::<Vec<_>>() {
        let got = got.join().unwrap();
        assert_eq!(format!("{}\n=0", hex::encode(Sha256::digest(&got))), sum, "{} bytes", got.len());
    }
    drop(forwarding);
    // Nobody listens there: it is said, and nothing else.
    let port = free_port();
    let mut command = cluster.kubectl_command(client, &["port-forward", "pod/box", &format!("{port}:9")]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let asked = eventually(PATIENCE, || TcpStream::connect(("127.0.0.1", port)));
    let answer = asked.and_then(|mut stream| stream.read(&mut [0; 1]));
    assert!(!matches!(answer, Ok(1..)), "{answer:?}");
    let (tell, told) = std::sync::mpsc::channel();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let reader = std::thread::spawn(move || lines.for_each(|line| drop(tell.send(line))));
    let error = format!("an error occurred forwarding {port} -> 9");
    while !told.recv_timeout(PATIENCE).expect("the client tells of the error").contains(&error) {}
    // It may have ended by itself: kubectl does since 1.23.
    drop(child.kill());
    child.wait().unwrap();
    reader.join().unwrap();
}

/// Requests through the API server to a port of a pod or of a Service, one that nobody listens at among them.
fn passed_on(cluster: &Cluster, client: &Kubectl) {
    let get = |path: &str| {
        said(&cluster.shell(client, &format!("kubectl get --raw /api/v1/namespaces/default/{path} | head -1")))
    };
    let asked = |path: &str| get(&format!("pods/{path}"));
    let hosts = said(&cluster.shell(client, "kubectl exec box -c main -- head -1 /etc/hosts"));
    assert_eq!(asked("box:7780/proxy/hosts"), hosts, "{}", client.version);
    assert_eq!(asked("http:box:7780/proxy/hosts?a=b"), hosts, "{}", client.version);
    assert_eq!(get("services/files:80/proxy/hosts"), hosts, "{}", client.version);
    assert_eq!(get("services/http:files:http/proxy/hosts"), hosts, "{}", client.version);
    let nobody = asked("box:9/proxy/");
    assert!(nobody.contains("error trying to reach service: "), "{}: {nobody}", client.version);
    let none = get("services/files:81/proxy/");
    assert!(none.contains("no service port 81 found for service \"files\""), "{}: {none}", client.version);
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One connection: what is sent comes back.
fn echo(port: u16, text: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(text.as_bytes())?;
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back)?;
    Ok(String::from_utf8_lossy(&back).into_owned())
}

/// A file by HTTP, to the end of the connection.
fn fetch(port: u16, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok(answer.split_off(head + 4))
}

/// A pod that waits to be typed to, and ends with who types.
fn attached(cluster: &Cluster, client: &Kubectl) {
    let name = format!("typed-{}", client.version.replace('.', "-"));
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  containers:\n  \
         - {{name: c, image: busybox, imagePullPolicy: Never, stdin: true, stdinOnce: true, \
         command: [sh, -c, 'while read line; do echo got $line; done; echo end']}}\n"
    );
    fs::write(cluster.folder().join("typed.yaml"), manifest).unwrap();
    let line = format!(
        "kubectl apply -f typed.yaml >/dev/null && kubectl wait --for=condition=Ready pod/{name} --timeout=60s >/dev/null && \
         printf '1\\n2\\n' | kubectl attach -i {name} && \
         kubectl wait --for=jsonpath='{{.status.phase}}'=Succeeded pod/{name} --timeout=30s >/dev/null"
    );
    let line = if client.version == "1.20" {
        line.split(" && kubectl wait --for=jsonpath").next().unwrap().to_owned()
    } else {
        line
    };
    let text = said(&cluster.shell(client, &line));
    let shown: Vec<&str> = text.lines().filter(|line| !line.starts_with('!')).collect();
    assert_eq!(shown, ["got 1", "got 2", "end", "=0"], "{text}");
    let log = said(&cluster.shell(client, &format!("kubectl logs {name}; kubectl delete pod {name} --now >/dev/null")));
    assert!(log.starts_with("got 1\ngot 2\nend\n"), "{log}");
    let made = format!("made-{name}");
    let run = format!("kubectl run {made} --rm -i --image=busybox --image-pull-policy=Never --restart=Never");
    let text = said(&cluster.shell(client, &format!("echo a | {run} -- sh -c 'read line; echo got $line; exit 4'")));
    assert!(text.contains("got a\n") && text.contains(" terminated (Error)\n") && text.ends_with("=4"), "{text}");
    assert!(text.contains(&format!("pod \"{made}\" deleted")), "{text}");
}

/// What has no processes, and who may not, is told so.
#[test]
fn what_cannot_be_is_refused() {
    let Some(kubectl) = Kubectl::current() else { return };
    let cluster = Setup::simulated(1).start();
    fs::write(cluster.folder().join("pods.yaml"), PODS).unwrap();
    let up = "kubectl apply -f pods.yaml && kubectl wait --for=condition=Ready pod/bare --timeout=60s";
    assert!(cluster.shell(&kubectl, up).status.success());
    let rights = "kubectl create clusterrole looker --verb=get --resource=pods,pods/exec && \
                  kubectl create clusterrolebinding looker --clusterrole=looker --user=looker";
    assert!(cluster.shell(&kubectl, rights).status.success());
    for client in clients() {
        let refused = said(&cluster.shell(&client, "kubectl exec bare -- true"));
        let why = "node \"simulated-0\" is simulated: pod \"bare\" has no processes to open a stream to";
        assert_eq!(refused, format!("!Error from server (BadRequest): {why}\n=1"), "{}", client.version);
        let refused = said(&cluster.shell(&client, "kubectl get --raw /api/v1/namespaces/default/pods/bare/proxy/"));
        assert_eq!(refused, format!("!Error from server (BadRequest): {why}\n=1"), "{}", client.version);
        let refused = said(&cluster.shell(&client, "kubectl exec bare --as looker -- true"));
        assert!(refused.contains("cannot create resource \"pods/exec\""), "{}: {refused}", client.version);
    }
}
