//! Connections that a pod's processes have not accepted yet.
//!
//! Once a pod is out of the rules no new connection reaches it, but one that the kernel has just established may still
//! wait in the queue of a listening socket. A server that closes that socket when it is asked to stop (nginx does)
//! resets it: a lost request. So the queues are looked at, in `/proc/<pid>/net/tcp{,6}`, before a container is asked to
//! stop. Nothing is changed here.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// Longest wait: a server that accepts nothing for so long is not going to.
const LONGEST: Duration = Duration::from_millis(500);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// Waits until nothing is left to accept in the network namespace of process `pid`.
pub async fn wait_accepted(pid: i32, deadline: Duration) {
    let end = Instant::now() + deadline.min(LONGEST);
    while waiting(pid) > 0 && Instant::now() < end {
        tokio::time::sleep(PAUSE).await;
    }
}

fn waiting(pid: i32) -> usize {
    let read = |name: &str| std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/net/{name}")));
    // A process that is gone has nothing to accept.
    ["tcp", "tcp6"].iter().map(|name| read(name).map_or(0, |table| count(&table))).sum()
}

/// Entries of listening sockets' queues (state `0A`, second half of the fifth column) and handshakes (state `03`).
fn count(table: &str) -> usize {
    let of_line = |line: &str| {
        let mut columns = line.split_whitespace().skip(3);
        match (columns.next()?, columns.next()?) {
            ("0A", queues) => usize::from_str_radix(queues.split_once(':')?.1, 16).ok(),
            ("03", _) => Some(1),
            _ => None,
        }
    };
    table.lines().skip(1).filter_map(of_line).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_wait_until_they_are_accepted() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = |table: String| {
            let needle = format!(":{port:04X}");
            let lines = table.lines().enumerate();
            let lines = lines.filter(|(number, line)| {
                *number == 0 || line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&needle))
            });
            lines.map(|(_, line)| format!("{line}\n")).collect::<String>()
        };
        let look = || count(&own(std::fs::read_to_string("/proc/self/net/tcp").unwrap()));
        assert_eq!(look(), 0);
        let _client = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        assert_eq!(look(), 1);
        let _accepted = listener.accept().await.unwrap();
        assert_eq!(look(), 0);
    }
}
