//! Pure: DNS messages in and out, for the name servers that guests believe in: the engine's, which containers have at
//! 127.0.0.11, and a public one that guests ask without asking anybody (old WasmEdge guests know no other).
//!
//! Knows no names and no sockets: [`super::stack`] looks the names up, as for every other way to ask for one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};

/// The name server of containers.
pub(super) const ENGINE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), 53));
/// The public name server that is answered for.
pub(super) const PUBLIC: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(8, 8, 8, 8), 53));
/// Most bytes of an answer by datagram, whatever the question allows: what passes everywhere in one piece (RFC 9715).
const DATAGRAM: usize = 1232;
/// Most bytes of an answer by stream.
pub(super) const STREAM: usize = u16::MAX as usize;
/// How long an answer may be kept, in seconds: instances come and go.
const LIFETIME: u32 = 5;
/// Length of a message's header.
const HEADER: usize = 12;

/// A name server that guests believe in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    /// Of the container network.
    Engine,
    /// Of the world outside.
    Public,
}

/// The name server at an address, if there is one.
pub(super) fn server(at: SocketAddr) -> Option<Server> {
    match at {
        ENGINE => Some(Server::Engine),
        PUBLIC => Some(Server::Public),
        _ => None,
    }
}

/// What a message turned out to be.
#[derive(Debug)]
pub(super) enum Read {
    /// No question: nobody waits for an answer.
    Nothing,
    /// A question that cannot be answered, with what is said to it.
    Faulty(Vec<u8>),
    /// A question about a name.
    Question(Box<Question>),
}

/// A question about a name.
#[derive(Debug)]
pub(super) struct Question {
    message: Message,
    /// The name, without the dot at its end.
    pub(super) name: String,
    /// What is asked of it.
    pub(super) kind: Kind,
}

/// What is asked of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its IPv4 addresses.
    V4,
    /// Its IPv6 addresses.
    V6,
    /// Anything else.
    Other,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The addresses of the kind that was asked for; none is an answer as well.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    Unknown,
    /// The guest may not ask for it.
    Refused,
    /// Nothing is known of that kind.
    Unsupported,
    /// It cannot be told now.
    Failed,
}

/// Reads a message.
pub(super) fn read(bytes: &[u8]) -> Read {
    let Some((&[first, second, flags, ..], _)) = bytes.split_first_chunk::<HEADER>() else { return Read::Nothing };
    if flags & 0x80 != 0 {
        // An answer: answering it could go on for ever.
        return Read::Nothing;
    }
    let Ok(mut message) = Message::from_vec(bytes) else {
        let id = u16::from_be_bytes([first, second]);
        return Read::Faulty(error(id, OpCode::Query, ResponseCode::FormErr));
    };
    let (id, operation) = (message.metadata.id, message.metadata.op_code);
    if operation != OpCode::Query {
        return Read::Faulty(error(id, operation, ResponseCode::NotImp));
    }
    let [query] = message.queries.as_slice() else {
        return Read::Faulty(error(id, operation, ResponseCode::FormErr));
    };
    if !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) {
        return Read::Faulty(error(id, operation, ResponseCode::NotImp));
    }
    let name = query.name().to_ascii();
    let name = name.strip_suffix('.').unwrap_or(&name).to_owned();
    let kind = match query.query_type() {
        RecordType::A => Kind::V4,
        RecordType::AAAA => Kind::V6,
        _ => Kind::Other,
    };
    // A question has no use for records of its own, and they may be many.
    (message.answers, message.authorities, message.additionals) = Default::default();
    Read::Question(Box::new(Question { message, name, kind }))
}

impl Question {
    /// Most bytes of its answer by datagram.
    pub(super) fn datagram(&self) -> usize {
        usize::from(self.message.max_payload()).min(DATAGRAM)
    }

    /// The answer, in at most so many bytes: where not all fits, it says that there is more.
    pub(super) fn answered(&self, answer: &Answer, most: usize) -> Vec<u8> {
        let query = &self.message.queries[0];
        let mut message = Message::response(self.message.metadata.id, OpCode::Query);
        message.metadata = Metadata::response_from_request(&self.message.metadata);
        message.metadata.recursion_available = true;
        message.add_query(query.clone());
        if self.message.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(DATAGRAM as u16);
            message.set_edns(edns);
        }
        match answer {
            Answer::Addresses(addresses) => {
                for address in addresses {
                    let data = match address {
                        IpAddr::V4(address) => RData::A((*address).into()),
                        IpAddr::V6(address) => RData::AAAA((*address).into()),
                    };
                    message.add_answer(Record::from_rdata(query.name().clone(), LIFETIME, data));
                }
            }
            Answer::Unknown => message.metadata.response_code = ResponseCode::NXDomain,
            Answer::Refused => message.metadata.response_code = ResponseCode::Refused,
            Answer::Unsupported => message.metadata.response_code = ResponseCode::NotImp,
            Answer::Failed => message.metadata.response_code = ResponseCode::ServFail,
        }
        loop {
            let Ok(bytes) = message.to_vec() else { return self.failed() };
            match bytes.len().checked_sub(most) {
                None | Some(0) => return bytes,
                Some(_) if message.answers.is_empty() => return self.failed(),
                // No record is shorter than sixteen bytes or longer than twenty-eight, its name being a reference.
                Some(over) => {
                    message.answers.truncate(message.answers.len().saturating_sub(over.div_ceil(28)));
                    message.metadata.truncation = true;
                }
            }
        }
    }

    /// A foreign answer as it fits into so many bytes.
    pub(super) fn relayed(&self, answer: Vec<u8>, most: usize) -> Vec<u8> {
        match Message::from_vec(&answer) {
            Ok(_) if answer.len() <= most => answer,
            Ok(message) => message.truncate().to_vec().unwrap_or_else(|_| self.failed()),
            Err(_) => self.failed(),
        }
    }

    /// The addresses that a foreign answer tells.
    pub(super) fn addresses(answer: &[u8]) -> Vec<IpAddr> {
        let answers = Message::from_vec(answer).map(|message| message.answers).unwrap_or_default();
        answers.iter().filter_map(|record| record.data.ip_addr()).map(|address| address.to_canonical()).collect()
    }

    fn failed(&self) -> Vec<u8> {
        error(self.message.metadata.id, OpCode::Query, ResponseCode::ServFail)
    }
}

/// An answer that is a header alone.
fn error(id: u16, operation: OpCode, code: ResponseCode) -> Vec<u8> {
    let message = Message::error_msg(id, operation, code);
    debug_assert_eq!(message.metadata.message_type, MessageType::Response);
    message.to_vec().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;
    use hickory_proto::rr::Name;
    use proptest::prelude::*;

    use super::*;

    fn asks(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
        message.to_vec().expect("a message")
    }

    fn question(bytes: &[u8]) -> Question {
        match read(bytes) {
            Read::Question(question) => *question,
            other => panic!("no question: {other:?}"),
        }
    }

    fn code(bytes: &[u8]) -> ResponseCode {
        Message::from_vec(bytes).expect("a message").metadata.response_code
    }

    #[test]
    fn reads_what_is_asked() {
        let asked = question(&asks("DB.example.", RecordType::AAAA));
        assert_eq!((asked.name.as_str(), asked.kind), ("DB.example", Kind::V6));
        assert_eq!(question(&asks("db", RecordType::MX)).kind, Kind::Other);
    }

    #[test]
    fn answers_carry_the_number_the_question_and_the_addresses() {
        let addresses: Vec<IpAddr> = vec!["198.18.0.1".parse().expect("one"), "2001:2::1".parse().expect("one")];
        let bytes = question(&asks("db", RecordType::A)).answered(&Answer::Addresses(addresses.clone()), 512);
        let answer = Message::from_vec(&bytes).expect("a message");
        assert_eq!((answer.metadata.id, answer.metadata.message_type), (7, MessageType::Response));
        assert!(answer.metadata.recursion_desired && answer.metadata.recursion_available);
        assert_eq!(answer.queries[0].name().to_ascii(), "db.");
        let told: Vec<IpAddr> = answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
        assert_eq!(told, addresses);
        assert_eq!(Question::addresses(&bytes), addresses);
        assert_eq!(Question::addresses(&bytes[..20]), Vec::<IpAddr>::new());
    }

    #[test]
    fn other_outcomes_have_their_codes() {
        let asked = question(&asks("db", RecordType::A));
        for (answer, expected) in [
            (Answer::Addresses(Vec::new()), ResponseCode::NoError),
            (Answer::Unknown, ResponseCode::NXDomain),
            (Answer::Refused, ResponseCode::Refused),
            (Answer::Unsupported, ResponseCode::NotImp),
            (Answer::Failed, ResponseCode::ServFail),
        ] {
            assert_eq!(code(&asked.answered(&answer, 512)), expected);
        }
    }

    #[test]
    fn what_does_not_fit_is_cut_and_said_to_be() {
        let many: Vec<IpAddr> = (0..5000_u32).map(|number| IpAddr::from(number.to_be_bytes())).collect();
        let asked = question(&asks("db", RecordType::A));
        for most in [512, STREAM] {
            let bytes = asked.answered(&Answer::Addresses(many.clone()), most);
            let answer = Message::from_vec(&bytes).expect("a message");
            assert!(bytes.len() <= most && answer.metadata.truncation);
            assert!(!answer.answers.is_empty() && answer.answers.len() < many.len());
        }
        let whole = asked.answered(&Answer::Addresses(many), STREAM);
        let relayed = asked.relayed(whole, 512);
        assert!(relayed.len() <= 512 && Message::from_vec(&relayed).expect("a message").metadata.truncation);
    }

    #[test]
    fn faults_are_told_and_answers_are_not_answered() {
        let whole = asks("db", RecordType::A);
        assert!(matches!(read(&whole[..11]), Read::Nothing));
        let Read::Faulty(answer) = read(&whole[..14]) else { panic!("it is cut") };
        assert_eq!(code(&answer), ResponseCode::FormErr);
        let mut answer = whole.clone();
        answer[2] |= 0x80;
        assert!(matches!(read(&answer), Read::Nothing));
        let mut update = whole;
        update[2] |= 5 << 3;
        assert!(matches!(read(&update), Read::Faulty(_)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_that_comes_in_makes_it_fall(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        ) {
            let mut nearly = asks("some.name.of.a.service", RecordType::A);
            for (place, byte) in changes {
                let place = place.index(nearly.len());
                nearly[place] = byte;
            }
            for bytes in [bytes, nearly] {
                if let Read::Question(question) = read(&bytes) {
                    let answer = question.answered(&Answer::Addresses(vec![Ipv4Addr::LOCALHOST.into()]), question.datagram());
                    prop_assert!(answer.len() <= DATAGRAM.max(512));
                }
            }
        }
    }
}
