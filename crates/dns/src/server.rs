//! [`Server`]: answers over UDP and TCP, of the cluster's names by the records, of others by the node's name servers.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, Record, RecordType},
};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{
    answer::{Answer, Reply, Zone, answer},
    elsewhere::{Over, ask, read_message, write_message},
    message::{Request, read},
    records::Records,
};

/// Questions that wait for other name servers; what is asked while so many do is not answered, and asked again.
const MAX_ASKED: usize = 1024;
/// Connections at once.
const MAX_CONNECTIONS: usize = 256;
/// A connection ends when nothing is asked over it for so long, as RFC 7766 advises.
const IDLE: Duration = Duration::from_secs(10);
/// How many names one name may stand for in a row.
const MAX_ALIASES: usize = 8;
/// Before more is taken when the system has no means for it, such as file descriptors.
const REST: Duration = Duration::from_millis(100);

/// The sockets of a name server.
pub struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
}

/// What answers are made from.
pub struct Knowledge {
    /// The cluster's domain.
    pub zone: Zone,
    /// What is known of the cluster, kept up to date by [`follow`](crate::follow::follow).
    pub records: Arc<RwLock<Records>>,
    /// The node's own name servers at this moment.
    pub name_servers: Box<dyn Fn() -> Vec<SocketAddr> + Send + Sync>,
}

impl Server {
    /// Takes two free ports of this address: whoever sits at port 53 is left in peace, and pods are led here by the rules
    /// of services.
    pub async fn bind(address: IpAddr) -> io::Result<Server> {
        let udp = UdpSocket::bind((address, 0)).await?;
        let tcp = TcpListener::bind((address, 0)).await?;
        Ok(Server { udp, tcp })
    }

    /// Where it answers over UDP.
    pub fn udp_address(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Where it answers over TCP.
    pub fn tcp_address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Answers for ever.
    pub async fn run(self, knowledge: Knowledge) {
        let knowledge = Arc::new(knowledge);
        tokio::join!(datagrams(Arc::new(self.udp), knowledge.clone()), streams(self.tcp, knowledge));
    }
}

// ---- transports ----

async fn datagrams(socket: Arc<UdpSocket>, knowledge: Arc<Knowledge>) {
    let asked = Arc::new(Semaphore::new(MAX_ASKED));
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "a datagram could not be taken");
                sleep(REST).await;
                continue;
            }
        };
        match knowledge.take(&buffer[..length], Over::Udp) {
            Taken::Answered(bytes) => drop(socket.send_to(&bytes, from).await),
            Taken::Nothing => {}
            Taken::Open(open) => {
                let Ok(permit) = asked.clone().try_acquire_owned() else { continue };
                let (socket, knowledge) = (socket.clone(), knowledge.clone());
                tokio::spawn(async move {
                    if let Some(bytes) = knowledge.close(open).await {
                        drop(socket.send_to(&bytes, from).await);
                    }
                    drop(permit);
                });
            }
        }
    }
}

async fn streams(listener: TcpListener, knowledge: Arc<Knowledge>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let knowledge = knowledge.clone();
                tokio::spawn(async move {
                    // Who asked and does not take the answer harms only themselves.
                    drop(serve(stream, &knowledge).await);
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection could not be taken");
                sleep(REST).await;
            }
        }
    }
}

async fn serve(mut stream: TcpStream, knowledge: &Knowledge) -> io::Result<()> {
    while let Some(message) = timeout(IDLE, read_message(&mut stream)).await?? {
        let answer = match knowledge.take(&message, Over::Tcp) {
            Taken::Answered(bytes) => Some(bytes),
            Taken::Open(open) => knowledge.close(open).await,
            Taken::Nothing => None,
        };
        let Some(answer) = answer else { return Ok(()) };
        timeout(IDLE, write_message(&mut stream, &answer)).await??;
    }
    Ok(())
}

// ---- answers ----

/// What became of a message at first sight.
enum Taken {
    /// It is answered by these bytes.
    Answered(Vec<u8>),
    /// Nothing is to be answered.
    Nothing,
    /// Others have to be asked.
    Open(Open),
}

/// A question that needs others.
struct Open {
    request: Request,
    bytes: Vec<u8>,
    over: Over,
    /// What is known: that the name is another one, whose records are not known here.
    aliases: Vec<Record>,
    target: Option<Name>,
}

impl Open {
    fn limit(&self) -> usize {
        limit(&self.request, self.over)
    }
}

fn limit(request: &Request, over: Over) -> usize {
    if over == Over::Udp { request.max_datagram() } else { u16::MAX.into() }
}

impl Knowledge {
    /// Answers what can be answered at once.
    fn take(&self, bytes: &[u8], over: Over) -> Taken {
        let request = match read(bytes) {
            Ok(request) => request,
            Err(refusal) => return refusal.map_or(Taken::Nothing, Taken::Answered),
        };
        let answered = |bytes: Option<Vec<u8>>| bytes.map_or(Taken::Nothing, Taken::Answered);
        let (mut aliases, mut name) = (Vec::new(), request.question.name().clone());
        let kind = request.question.query_type();
        while aliases.len() <= MAX_ALIASES {
            match self.answer(&name, kind) {
                Answer::Reply(mut reply) => {
                    spread(&mut reply.answers);
                    reply.answers.splice(..0, aliases);
                    return answered(request.answer(reply, limit(&request, over)));
                }
                Answer::Alias { alias, target } => {
                    aliases.push(alias);
                    name = target;
                }
                Answer::Elsewhere => {
                    let target = (!aliases.is_empty()).then_some(name);
                    return Taken::Open(Open { request, bytes: bytes.to_vec(), over, aliases, target });
                }
                Answer::NotYet => break,
            }
        }
        answered(request.fail(ResponseCode::ServFail))
    }

    fn answer(&self, name: &Name, kind: RecordType) -> Answer {
        answer(&self.zone, &self.records.read().unwrap_or_else(PoisonError::into_inner), name, kind)
    }

    /// Asks others; that they do not answer is an answer too.
    async fn close(&self, open: Open) -> Option<Vec<u8>> {
        let servers = (self.name_servers)();
        let answer = match &open.target {
            None => ask(&servers, &open.bytes, open.over).await,
            Some(target) => self.complete(&open, target, &servers).await,
        };
        answer.or_else(|| open.request.fail(ResponseCode::ServFail))
    }

    /// The answer for a name that stands for one of elsewhere: that it does, and what is said of that one.
    async fn complete(&self, open: &Open, target: &Name, servers: &[SocketAddr]) -> Option<Vec<u8>> {
        let question = Query::query(target.clone(), open.request.question.query_type());
        let said = ask(servers, &open.request.instead(question)?, Over::Either).await?;
        let said = Message::from_vec(&said).ok()?;
        let mut answers = open.aliases.clone();
        answers.extend(said.answers);
        let reply = Reply { code: said.metadata.response_code, answers, authorities: said.authorities };
        open.request.answer(reply, open.limit())
    }
}

/// Many clients take the first address only: each time another one is.
fn spread(answers: &mut [Record]) {
    if 1 < answers.len() {
        let by = rand::random_range(0..answers.len());
        answers.rotate_left(by);
    }
}

#[cfg(test)]
mod tests;
