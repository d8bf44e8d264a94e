//! What is still on its way to or from a pod, as its sockets show it.
//!
//! Two moments in the life of a pod would lose a request although no proxy sends to it any more:
//! - it is asked to stop while a connection that the kernel has just established waits to be accepted: a server that
//!   closes its listening socket (nginx does) resets it;
//! - its network goes while the last answer is still in the kernel's queues: nobody is left to send it again, and the
//!   client waits in vain.
//!
//! And one moment in which a proxy would send too early: a container runs, but does not listen yet.
//!
//! So `/proc/<pid>/net/tcp{,6}` is looked at before a container is taken for ready, before it is asked to stop, and before
//! a network is taken down. Nothing is changed here.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// Longest wait for a server to accept: one that does not for so long is not going to. On a busy machine a pod without
/// requests for cpu comes last, and may well not run for a second.
const ACCEPTS_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait for a client to acknowledge what it was sent.
const ACKNOWLEDGES_WITHIN: Duration = Duration::from_millis(500);
/// Between the first two looks; twice as long after each further one, up to `PAUSE_LONGEST`.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
const PAUSE_LONGEST: Duration = Duration::from_millis(16);

/// Waits until nothing is left to accept in the network namespace of process `pid`.
pub async fn wait_accepted(pid: i32, deadline: Duration) {
    wait(pid, deadline.min(ACCEPTS_WITHIN), unaccepted).await;
}

/// Waits until everything that ended processes have sent was acknowledged, in the network namespace of process `pid`.
pub async fn wait_delivered(pid: i32) {
    wait(pid, ACKNOWLEDGES_WITHIN, undelivered).await;
}

/// Whether somebody in the network namespace of process `pid` listens on every one of `ports`, not for itself alone.
pub fn listens(pid: i32, ports: &[u16]) -> bool {
    let open: Vec<u16> =
        tables(pid).iter().flat_map(|table| table.lines().skip(1).filter_map(listening_port)).collect();
    ports.iter().all(|port| open.contains(port))
}

/// The port of a socket that listens, unless on the loopback address only.
fn listening_port(line: &str) -> Option<u16> {
    let mut columns = line.split_whitespace().skip(1);
    let (address, port) = columns.next()?.split_once(':')?;
    let loopback = matches!(address, "0100007F" | "00000000000000000000000001000000");
    let listens = columns.nth(1)? == "0A";
    (listens && !loopback).then(|| u16::from_str_radix(port, 16).ok()).flatten()
}

async fn wait(pid: i32, deadline: Duration, open: fn(&Socket) -> usize) {
    let end = Instant::now() + deadline;
    let mut pause = PAUSE_FIRST;
    // The table is not read at one moment: what moved while it was read is seen by a second look.
    while look(pid, open) + look(pid, open) > 0 && Instant::now() < end {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_LONGEST);
    }
}

fn look(pid: i32, open: fn(&Socket) -> usize) -> usize {
    tables(pid).iter().map(|table| count(table, open)).sum()
}

/// The sockets of a network namespace; empty for a process that is gone, which has nothing to wait for.
fn tables(pid: i32) -> [String; 2] {
    let read = |name: &str| std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/net/{name}")));
    ["tcp", "tcp6"].map(|name| read(name).unwrap_or_default())
}

fn count(table: &str, open: fn(&Socket) -> usize) -> usize {
    table.lines().skip(1).filter_map(Socket::of).map(|socket| open(&socket)).sum()
}

/// One line of the table.
struct Socket<'a> {
    /// As the kernel numbers states (`include/net/tcp_states.h`).
    state: &'a str,
    /// Bytes sent and not acknowledged.
    unacknowledged: usize,
    /// Of a listening socket: connections to accept. Of others: bytes to read.
    waiting: usize,
    /// No file belongs to it: nobody has accepted it yet, or its process is gone.
    nobodys: bool,
}

impl Socket<'_> {
    fn of(line: &str) -> Option<Socket<'_>> {
        let mut columns = line.split_whitespace().skip(3);
        let state = columns.next()?;
        let (sent, received) = columns.next()?.split_once(':')?;
        let number = |text: &str| usize::from_str_radix(text, 16).ok();
        let nobodys = columns.nth(4) == Some("0");
        Some(Socket { state, unacknowledged: number(sent)?, waiting: number(received)?, nobodys })
    }
}

/// Connections in the queue of a listening socket, established ones that nobody has accepted, and handshakes under way.
fn unaccepted(socket: &Socket) -> usize {
    match socket.state {
        "0A" => socket.waiting,
        "01" | "08" => usize::from(socket.nobodys),
        "03" => 1,
        _ => 0,
    }
}

/// Connections whose last bytes or end the other side has not acknowledged (FIN_WAIT1, LAST_ACK, CLOSING), or whose other
/// side is about to close (FIN_WAIT2): unanswered, it would leave a trace in connection tracking that swallows the next
/// connection from the same port.
fn undelivered(socket: &Socket) -> usize {
    match socket.state {
        "04" | "05" | "09" | "0B" => 1,
        "0A" => 0,
        _ => usize::from(socket.unacknowledged > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table's lines about one local port.
    fn about(port: u16) -> String {
        let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        let needle = format!(":{port:04X}");
        let of_port = |line: &&str| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&needle));
        let lines = table.lines().take(1).chain(table.lines().skip(1).filter(of_port));
        lines.map(|line| format!("{line}\n")).collect()
    }

    #[tokio::test]
    async fn connections_wait_until_they_are_accepted() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(count(&about(port), unaccepted), 0);
        let _client = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        // In the queue, and established without an owner.
        assert_eq!(count(&about(port), unaccepted), 2);
        let _accepted = listener.accept().await.unwrap();
        assert_eq!(count(&about(port), unaccepted), 0);
    }

    #[test]
    fn who_listens() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1\n   \
                     1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2\n   \
                     2: 0200000A:0051 0300000A:C000 01 00000000:00000000 00:00000000 00000000     0        0 3\n";
        let ports: Vec<u16> = table.lines().skip(1).filter_map(listening_port).collect();
        assert_eq!(ports, [80]);
    }

    #[test]
    fn what_was_sent_counts_until_it_is_acknowledged() {
        let line =
            |state: &str, queues: &str| format!("head\n 0: 0100007F:1F90 0100007F:C350 {state} {queues} 00:0 0\n");
        let cases = [
            ("01", "00000000:00000005", 0),
            ("01", "0000000A:00000000", 1),
            ("04", "00000001:00000000", 1),
            ("06", "00000000:00000000", 0),
            ("0A", "00000000:00000002", 0),
        ];
        for (state, queues, expected) in cases {
            assert_eq!(count(&line(state, queues), undelivered), expected, "{state} {queues}");
        }
    }
}
