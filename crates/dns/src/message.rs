//! Messages of the DNS: what is asked in one, and the bytes of the one that answers. Pure.

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::DNSClass,
};

use crate::answer::Reply;

/// Bytes that an answer over UDP has at most: what passes every network in one piece (DNS flag day 2020). Without EDNS 512.
const MAX_DATAGRAM: u16 = 1232;
/// The first part of every message, which is enough to refuse it.
const HEADER_BYTES: usize = 12;
/// Of a header: that the message is an answer, and the bits of what is to be done.
const IS_ANSWER: u8 = 0x80;

/// A message that asks for one name.
#[derive(Debug)]
pub(crate) struct Request {
    message: Message,
    /// The name, and records of what type.
    pub(crate) question: Query,
}

/// Reads a message.
///
/// What cannot be answered comes back as the bytes of a refusal; `None`: it is an answer itself, or no message at all.
pub(crate) fn read(bytes: &[u8]) -> Result<Request, Option<Vec<u8>>> {
    if bytes.len() < HEADER_BYTES || bytes[2] & IS_ANSWER != 0 {
        return Err(None);
    }
    let Ok(message) = Message::from_vec(bytes) else {
        let id = u16::from_be_bytes([bytes[0], bytes[1]]);
        return Err(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok());
    };
    let refused = match message.queries.as_slice() {
        _ if message.metadata.message_type != MessageType::Query => return Err(None),
        _ if message.metadata.op_code != OpCode::Query => ResponseCode::NotImp,
        _ if message.version() != 0 => ResponseCode::BADVERS,
        [question] if question.query_class() == DNSClass::IN => {
            let question = question.clone();
            return Ok(Request { message, question });
        }
        [_] => ResponseCode::Refused,
        _ => ResponseCode::FormErr,
    };
    Err(encode(response(&message, refused, false), MAX_DATAGRAM.into()))
}

impl Request {
    /// Bytes that an answer may have over UDP.
    pub(crate) fn max_datagram(&self) -> usize {
        self.message.max_payload().min(MAX_DATAGRAM).into()
    }

    /// The bytes of an answer, of at most `limit` bytes: records that have no room are left out, and it says so.
    pub(crate) fn answer(&self, reply: Reply, limit: usize) -> Option<Vec<u8>> {
        let mut message = response(&self.message, reply.code, true);
        message.answers = reply.answers;
        message.authorities = reply.authorities;
        encode(message, limit)
    }

    /// The bytes of an answer that says only why there is none.
    pub(crate) fn fail(&self, why: ResponseCode) -> Option<Vec<u8>> {
        encode(response(&self.message, why, false), MAX_DATAGRAM.into())
    }

    /// The bytes of a message that asks for `question` instead.
    pub(crate) fn instead(&self, question: Query) -> Option<Vec<u8>> {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.queries.push(question);
        message.edns = Some(edns());
        message.to_vec().ok()
    }
}

fn response(to: &Message, code: ResponseCode, authoritative: bool) -> Message {
    let mut message = Message::response(to.metadata.id, to.metadata.op_code);
    message.metadata.recursion_desired = to.metadata.recursion_desired;
    message.metadata.checking_disabled = to.metadata.checking_disabled;
    message.metadata.recursion_available = true;
    message.metadata.authoritative = authoritative;
    message.metadata.response_code = code;
    message.queries.clone_from(&to.queries);
    message.edns = to.edns.as_ref().map(|_| edns());
    message
}

fn edns() -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_DATAGRAM);
    edns
}

/// As many records as fit.
fn encode(mut message: Message, limit: usize) -> Option<Vec<u8>> {
    let whole = message.to_vec().ok()?;
    if whole.len() <= limit || message.answers.is_empty() {
        return Some(whole);
    }
    let answers = std::mem::take(&mut message.answers);
    message.metadata.truncation = true;
    let mut best = message.to_vec().ok()?;
    let (mut fit, mut too_many) = (0, answers.len());
    while 1 < too_many - fit {
        let half = fit.midpoint(too_many);
        message.answers = answers[..half].to_vec();
        let bytes = message.to_vec().ok()?;
        if bytes.len() <= limit {
            (fit, best) = (half, bytes);
        } else {
            too_many = half;
        }
    }
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::{Name, RData, Record, RecordType, rdata::A};

    fn question(payload: Option<u16>) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.queries.push(Query::query(Name::from_ascii("Web.example.").unwrap(), RecordType::A));
        message.edns = payload.map(|bytes| {
            let mut edns = Edns::new();
            edns.set_max_payload(bytes);
            edns
        });
        message.to_vec().unwrap()
    }

    fn answered(payload: Option<u16>, count: u8) -> (usize, Message) {
        let request = read(&question(payload)).unwrap();
        let record = |n| Record::from_rdata(request.question.name().clone(), 5, RData::A(A::new(10, 0, 0, n)));
        let reply =
            Reply { code: ResponseCode::NoError, answers: (0..count).map(record).collect(), authorities: Vec::new() };
        let bytes = request.answer(reply, request.max_datagram()).unwrap();
        (bytes.len(), Message::from_vec(&bytes).unwrap())
    }

    #[test]
    fn an_answer_fits_what_the_asker_takes() {
        for (payload, most) in [(None, 512), (Some(100), 512), (Some(800), 800), (Some(4096), 1232)] {
            let (size, message) = answered(payload, 200);
            assert!(message.metadata.truncation && most - 40 < size && size <= most, "{payload:?}: {size}");
            assert_eq!(message.edns.is_some(), payload.is_some());
            let (_, message) = answered(payload, 3);
            assert!(!message.metadata.truncation && message.answers.len() == 3);
        }
    }

    #[test]
    fn names_come_back_as_they_were_asked_for() {
        let (_, message) = answered(None, 1);
        assert_eq!((message.metadata.id, message.answers[0].name.to_string().as_str()), (7, "Web.example."));
        assert_eq!(message.queries[0].name().to_string(), "Web.example.");
    }

    #[test]
    fn what_is_no_question_is_refused() {
        let code = |bytes: &[u8]| {
            let refusal = read(bytes).err().unwrap();
            refusal.map(|bytes| u16::from(Message::from_vec(&bytes).unwrap().metadata.response_code))
        };
        let changed = |at: usize, to: u8| {
            let mut bytes = question(Some(1232));
            bytes[at] = to;
            bytes
        };
        assert_eq!(code(&[]), None);
        assert_eq!(code(&changed(2, IS_ANSWER)), None);
        assert_eq!(code(&question(None)[..20]), Some(ResponseCode::FormErr.into()));
        assert_eq!(code(&changed(2, 0x10)), Some(ResponseCode::NotImp.into()), "status");
        assert_eq!(code(&changed(28, 3)), Some(ResponseCode::Refused.into()), "class CHAOS");
        let version = question(Some(1232)).len() - 5;
        assert_eq!(code(&changed(version, 1)), Some(ResponseCode::BADVERS.into()));
    }
}
